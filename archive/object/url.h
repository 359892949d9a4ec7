/* url.h: "scheme://name/rest?key=value" for `flue fetch`, bound to a vendor's field table. */
#ifndef FLUE_ARCHIVE_URL_H
#define FLUE_ARCHIVE_URL_H

#include "archive/object/object.h"

struct object_url {
    struct flue_bytes name, rest; /* unescaped; rest without its first "/" */
};
/* `config` gets the table's defaults, then the query's keys ("tls.ca_file=…", secrets refused):
 * strings, booleans and choices. path_style is short for s3_force_path_style. */
enum flue_code object_url_read(const char *url, const char *scheme, const struct flue_field *fields,
                               void *config, struct flue_arena *arena, struct object_url *out,
                               struct flue_error *error);
/* scheme://bucket/prefix */
enum flue_code object_url_bucket(const char *url, const char *scheme,
                                 const struct flue_field *fields, void *config,
                                 struct flue_arena *arena, const char **bucket,
                                 struct flue_bytes *prefix, struct flue_error *error);

#endif
