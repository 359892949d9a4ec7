/* client_keys.h: keys that several exporters have besides those of the transport: headers,
 * compression level, auth. Names and values as in confighttp and configgrpc. */
#ifndef FLUE_NET_CLIENT_KEYS_H
#define FLUE_NET_CLIENT_KEYS_H

#include "collector/base/codec.h"
#include "collector/net/client.h"

/* ---- compression_params --------------------------------------------------------------------- */

struct flue_client_compression {
    struct flue_value level;
};
extern const struct flue_field flue_client_compression_fields[];
/* What the codec gets: FLUE_LEVEL_DEFAULT, FLUE_LEVEL_DENSE, or its own number. False: not a level
 * of this codec. */
bool flue_client_level(const struct flue_client_compression *params, enum flue_coding coding,
                       int *out);
/* At "compression_params.level", `path` (with its last dot) before it. `name`: the codec's, as
 * configured. */
void flue_client_compression_check(const struct flue_client_compression *params,
                                   enum flue_coding coding, const char *name,
                                   struct flue_check *check);
void flue_client_compression_check_at(const struct flue_client_compression *params,
                                      enum flue_coding coding, const char *name, const char *path,
                                      struct flue_check *check);

/* ---- auth ----------------------------------------------------------------------------------- */

struct flue_client_auth {
    const char *authenticator;
};
extern const struct flue_field flue_client_auth_fields[];
/* In the component's create: the extension it names, for flue_client_config.auth. *out is NULL
 * where none is named. */
struct flue_auth;
enum flue_code flue_client_auth_find(const struct flue_create *create,
                                     const struct flue_client_auth *auth, struct flue_auth **out,
                                     struct flue_error *error);

/* In check(): a warning where credentials (of `auth`, or a header "authorization" of `headers`; each
 * may be NULL) go to client->endpoint in plain text, unless that is on this machine. `path`: of the
 * block that has the key auth, with its last dot, or "". */
void flue_client_secrecy_check(const struct flue_client_config *client,
                               const struct flue_client_auth *auth, const struct flue_map *headers,
                               const char *path, struct flue_check *check);
/* The same for credentials that the component has by its own `key`, which is set. */
void flue_client_secret_warn(const struct flue_client_config *client, const char *key,
                             struct flue_check *check);

/* ---- headers -------------------------------------------------------------------------------- */

#define FLUE_CLIENT_OWN_HEADERS    8 /* of the exporter itself, in one request */
#define FLUE_CLIENT_CONFIG_HEADERS 48

/* At "headers": how many, names that no header has or that the protocols set themselves, values
 * with line breaks. */
void flue_client_headers_check(const struct flue_map *map, struct flue_check *check);
void flue_client_headers_check_at(const struct flue_map *map, const char *path,
                                  struct flue_check *check);
/* The exporter's own headers, then those of `map` with names in lower case; in `arena`. */
enum flue_code flue_client_headers(const struct flue_map *map, const struct flue_header *own,
                                   size_t own_count, struct flue_arena *arena,
                                   const struct flue_header **out, size_t *count,
                                   struct flue_error *error);

#endif
