/* s3_inside.h: what the two files of the S3 store share. */
#ifndef FLUE_ARCHIVE_S3_INSIDE_H
#define FLUE_ARCHIVE_S3_INSIDE_H

#include "archive/object/aws.h"
#include "archive/object/s3.h"
#include "archive/object/sign.h"
#include "archive/object/store.h"

#define S3_HOSTS 4

struct object_s3 {
    struct flue_object_store store;
    const struct flue_s3_config *config;
    struct flue_arena arena;
    struct object_aws *aws;
    char region[64]; /* of the bucket, as far as known */
    bool path_style, https;
    bool no_condition; /* If-None-Match is not known there: look first */
    struct s3_host {
        char region[64];
        char *endpoint, *host;
        struct flue_client *client;
    } hosts[S3_HOSTS];
    unsigned host_count;
    struct flue_sign_v4_kept kept;
};

/* What a call has to do first (object_call.probe). */
enum { S3_PLAIN, S3_PROBE_REGION, S3_PROBE_EXISTS };

/* s3_requests.c */
void object_s3_begin(struct object_op *op);

#endif
