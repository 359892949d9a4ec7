/* aws.h: where AWS credentials come from; the inside of the S3 store.
 *
 * The chain: environment, profile with role_arn, web identity, credentials file, config file,
 * container (ECS, EKS pod identity), instance metadata v2. AWS_PROFILE skips the environment. The
 * first that is configured is used; role_arn of the store is assumed on top. Files are read on the
 * pool, again for every renewal. Not done, and said so when a profile asks for it: SSO,
 * credential_process, MFA.
 *
 * Sources: botocore credentials.py and utils.py; AWS SDKs and Tools reference.
 */
#ifndef FLUE_ARCHIVE_AWS_H
#define FLUE_ARCHIVE_AWS_H

#include "archive/object/store.h"

struct object_aws;
/* Sets identity->renew, stop, user. `region` is STS's; `role_arn` may be NULL. The strings outlive
 * it. */
enum flue_code object_aws_new(struct object_identity *identity, const char *region,
                              const char *role_arn, struct object_aws **out,
                              struct flue_error *error);
void object_aws_destroy(struct object_aws *aws); /* after the identity */

/* ---- shared config and credentials files ------------------------------------------------------
 */

#define OBJECT_INI_KEYS 64
struct object_ini { /* one section's keys */
    struct flue_bytes names[OBJECT_INI_KEYS], values[OBJECT_INI_KEYS];
    size_t count;
};
/* The keys of `section` ("profile x"), borrowed from `text`. Comments begin with # or ; at the
 * start of a line or behind a blank; indented lines are nested values and skipped. False: no such
 * section. */
bool object_ini_read(struct flue_bytes text, const char *section, struct object_ini *out);
struct flue_bytes object_ini_find(const struct object_ini *ini, const char *name);

/* ---- answers ------------------------------------------------------------------------------------
 */

/* JSON of containers and instance metadata; strings in `arena`. FLUE_UNAVAILABLE: an error object
 * or not the keys. */
enum flue_code object_aws_json(struct flue_bytes text, struct flue_arena *arena,
                               struct object_secret *out, struct flue_error *error);
/* XML of STS: Credentials of `action`'s result. */
enum flue_code object_aws_sts(struct flue_bytes text, unsigned status, struct flue_arena *arena,
                              struct object_secret *out, struct flue_error *error);
/* May credentials be fetched from here without TLS? */
bool object_aws_plain_allowed(struct flue_bytes host);

/* ---- files ----------------------------------------------------------------------------------- */

/* A small file of secrets, whole, NUL-terminated, in `arena`; on the pool. False: *why is set. */
bool object_read_file(const char *path, size_t limit, struct flue_arena *arena,
                      struct flue_bytes *out, struct flue_error *error);

#endif
