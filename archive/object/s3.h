/* s3.h: configuration of the S3 store; the keys are those of the Collector's awss3 `s3uploader`
 * that concern the connection, so that an exporter squashes this table into that block.
 *
 * Sources: otel-collector contrib awss3exporter config.go; Amazon S3 API reference.
 */
#ifndef FLUE_ARCHIVE_S3_H
#define FLUE_ARCHIVE_S3_H

#include "archive/object/object.h"

enum flue_s3_checksum { FLUE_S3_NONE, FLUE_S3_MD5, FLUE_S3_CRC32C, FLUE_S3_CRC64NVME };

struct flue_s3_config {
    const char *region;    /* "us-east-1" */
    const char *s3_bucket; /* required */
    const char *endpoint;  /* NULL: Amazon's of the region; "http://host:port" or "host:port" */
    bool s3_force_path_style, disable_ssl;
    const char *role_arn; /* assumed with whatever credentials the chain gives */
    const char *acl, *storage_class;
    const char *server_side_encryption, *sse_kms_key_id;
    int checksum; /* enum flue_s3_checksum, beside the signed SHA-256 */
    struct flue_tls_client_config tls;
};
/* region, s3_bucket, endpoint, s3_force_path_style, disable_ssl, role_arn, acl, storage_class,
 * server_side_encryption, sse_kms_key_id, checksum, tls */
extern const struct flue_field flue_s3_fields[];

#endif
