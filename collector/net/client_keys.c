/* client_keys.c: see client_keys.h. */
#include "collector/net/client_keys.h"

#include <stdio.h>

#include "collector/net/auth.h"

const struct flue_field flue_client_compression_fields[] = {
    FLUE_VALUE(struct flue_client_compression, level,
               .help = "the codec's level, or \"dense\" for gzip and zstd: smaller, dearer"),
    FLUE_FIELDS_END,
};
const struct flue_field flue_client_auth_fields[] = {
    FLUE_STRING(struct flue_client_auth, authenticator, .help = "id of an authenticator extension"),
    FLUE_FIELDS_END,
};

bool flue_client_level(const struct flue_client_compression *params, enum flue_coding coding,
                       int *out)
{
    const struct flue_value *level = &params->level;
    bool zip = coding == FLUE_GZIP || coding == FLUE_ZLIB || coding == FLUE_DEFLATE;
    *out = FLUE_LEVEL_DEFAULT;
    if (level->type == FLUE_VALUE_EMPTY)
        return true;
    if (level->type == FLUE_VALUE_STRING && flue_bytes_is(level->text, "dense")) {
        *out = FLUE_LEVEL_DENSE;
        return zip || coding == FLUE_ZSTD;
    }
    if (level->type != FLUE_VALUE_INT)
        return false;
    /* 0 means "not set" to the Collector, -1 the codec's default, -2 Huffman only. */
    int64_t most = zip ? 9 : coding == FLUE_ZSTD ? 22 : 0;
    if (level->integer > 0 && level->integer <= most)
        *out = (int)level->integer;
    return level->integer <= most && level->integer >= (zip ? -2 : 0);
}

void flue_client_compression_check_at(const struct flue_client_compression *params,
                                      enum flue_coding coding, const char *name, const char *path,
                                      struct flue_check *check)
{
    char at[256];
    int level;
    snprintf(at, sizeof at, "%scompression_params.level", path);
    if (!flue_client_level(params, coding, &level))
        flue_check_fail(check, at,
                        "not a level of \"%s\": gzip, zlib and deflate take -2 to 9 or dense, zstd "
                        "0 to 22 or dense, others 0",
                        name);
}

void flue_client_compression_check(const struct flue_client_compression *params,
                                   enum flue_coding coding, const char *name,
                                   struct flue_check *check)
{
    flue_client_compression_check_at(params, coding, name, "", check);
}

enum flue_code flue_client_auth_find(const struct flue_create *create,
                                     const struct flue_client_auth *auth, struct flue_auth **out,
                                     struct flue_error *error)
{
    *out = NULL;
    if (!auth || !auth->authenticator || !*auth->authenticator)
        return FLUE_OK;
    enum flue_code code = flue_auth_find(create, auth->authenticator, out, error);
    if (!code && !(*out)->credentials)
        code = flue_fail(error, FLUE_INVALID,
                         "auth.authenticator: %s has credentials to compare with, but none of its "
                         "own to send",
                         auth->authenticator);
    return code;
}

void flue_client_secret_warn(const struct flue_client_config *client, const char *key,
                             struct flue_check *check)
{
    if (!client->endpoint || !*client->endpoint || flue_client_uses_tls(client) ||
        flue_client_endpoint_is_local(client->endpoint))
        return;
    flue_check_warn(check, key,
                    "the credentials go to \"%.200s\" without TLS, where everybody between can "
                    "read them: %s",
                    client->endpoint,
                    client->tls_by_scheme ? "write https://" : "leave tls.insecure out");
}

void flue_client_secrecy_check(const struct flue_client_config *client,
                               const struct flue_client_auth *auth, const struct flue_map *headers,
                               const char *path, struct flue_check *check)
{
    char at[256];
    const char *key = auth && auth->authenticator && *auth->authenticator ? "auth" : NULL;
    for (size_t i = 0; !key && headers && i < headers->count; i++)
        if (flue_bytes_equal_nocase(flue_bytes_of(headers->items[i].key),
                                    FLUE_BYTES("authorization")))
            key = "headers";
    if (!key)
        return;
    snprintf(at, sizeof at, "%s%s", path, key);
    flue_client_secret_warn(client, at, check);
}

static bool header_name(const char *name)
{
    for (const char *at = name; *at; at++)
        if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 127 || *at == ':')
            return false;
    return *name != 0;
}

static bool reserved(const char *name)
{
    static const char *const names[] = {
        "content-type",  "content-encoding",     "content-length",          "connection",
        "grpc-encoding", "grpc-accept-encoding", "transfer-encoding",       "te",
        "grpc-timeout",  "connect-timeout-ms",   "connect-protocol-version"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (flue_bytes_equal_nocase(flue_bytes_of(name), flue_bytes_of(names[i])))
            return true;
    return false;
}

void flue_client_headers_check_at(const struct flue_map *map, const char *path,
                                  struct flue_check *check)
{
    char shown[80], at[256];
    snprintf(at, sizeof at, "%sheaders", path);
    if (map->count > FLUE_CLIENT_CONFIG_HEADERS)
        flue_check_fail(check, at, "%zu headers, limit %d", map->count, FLUE_CLIENT_CONFIG_HEADERS);
    for (size_t i = 0; i < map->count; i++) {
        const struct flue_map_entry *entry = &map->items[i];
        flue_printable(flue_bytes_of(entry->key), shown, sizeof shown);
        if (!header_name(entry->key))
            flue_check_fail(check, at, "\"%s\" is not the name of a header", shown);
        else if (reserved(entry->key))
            flue_check_fail(check, at, "\"%s\" is set by the protocol itself", shown);
        else if (strpbrk(entry->value, "\r\n"))
            flue_check_fail(check, at, "the value of %s holds a line break", shown);
    }
}

void flue_client_headers_check(const struct flue_map *map, struct flue_check *check)
{
    flue_client_headers_check_at(map, "", check);
}

enum flue_code flue_client_headers(const struct flue_map *map, const struct flue_header *own,
                                   size_t own_count, struct flue_arena *arena,
                                   const struct flue_header **out, size_t *count,
                                   struct flue_error *error)
{
    struct flue_header *headers = flue_arena_zalloc(arena, own_count + map->count, sizeof *headers);
    if (!headers)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for headers");
    memcpy(headers, own, own_count * sizeof *own);
    for (size_t i = 0; i < map->count; i++) {
        char *name = flue_arena_string(arena, flue_bytes_of(map->items[i].key));
        if (!name)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for headers");
        for (char *c = name; *c; c++)
            if (*c >= 'A' && *c <= 'Z')
                *c |= 0x20;
        headers[own_count + i] =
            (struct flue_header){flue_bytes_of(name), flue_bytes_of(map->items[i].value)};
    }
    *out = headers;
    *count = own_count + map->count;
    return FLUE_OK;
}
