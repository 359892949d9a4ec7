/* url.c: see url.h. */
#include "archive/object/url.h"
#include "archive/object/escape.h"
#include "config/bind.h"

static bool assign(const struct flue_field *fields, void *config, struct flue_bytes name,
                   const char *value, struct flue_error *error)
{
    for (const struct flue_field *f = fields; f->type != FLUE_FIELD_END; f++) {
        uint8_t *at = (uint8_t *)config + f->offset;
        if (f->type == FLUE_FIELD_BLOCK) {
            struct flue_bytes prefix = flue_bytes_of(f->name), inner = name;
            if (prefix.size) {
                if (!flue_bytes_starts_with(name, prefix) || name.size <= prefix.size ||
                    name.data[prefix.size] != '.')
                    continue;
                inner = flue_bytes_from(name, prefix.size + 1);
            }
            if (assign(f->fields, at, inner, value, error))
                return true;
            continue;
        }
        if (!f->name || !flue_bytes_is(name, f->name))
            continue;
        if (f->type == FLUE_FIELD_STRING || f->type == FLUE_FIELD_ENDPOINT) {
            memcpy(at, &value, sizeof value);
            return true;
        }
        if (f->type == FLUE_FIELD_BOOL &&
            (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)) {
            *(bool *)at = value[0] == 't';
            return true;
        }
        for (int i = 0; f->type == FLUE_FIELD_ENUM && f->choices[i]; i++)
            if (strcmp(f->choices[i], value) == 0) {
                memcpy(at, &i, sizeof i);
                return true;
            }
        flue_fail(error, FLUE_INVALID,
                  f->type == FLUE_FIELD_SECRET
                      ? "\"%s\" is a secret, which does not belong into a URL"
                      : "\"%s\" cannot have this value in a URL",
                  f->name);
        return false;
    }
    return false;
}

enum flue_code object_url_read(const char *url, const char *scheme, const struct flue_field *fields,
                               void *config, struct flue_arena *arena, struct object_url *out,
                               struct flue_error *error)
{
    struct flue_bytes rest = flue_bytes_of(url), query = {0}, want = flue_bytes_of(scheme);
    struct flue_check check;
    char text[80];
    if (!flue_bytes_starts_with(rest, want) ||
        !flue_bytes_starts_with(flue_bytes_from(rest, want.size), FLUE_BYTES("://")))
        return flue_fail(error, FLUE_INVALID, "the URL does not begin with %s://", scheme);
    rest = flue_bytes_from(rest, want.size + 3);
    size_t mark = flue_bytes_find(rest, '?');
    if (mark != SIZE_MAX) {
        query = flue_bytes_from(rest, mark + 1);
        rest = flue_bytes_first(rest, mark);
    }
    flue_check_init(&check, arena);
    flue_bind(&check, NULL, "", (struct flue_position){0},
              &(struct flue_binding){.fields = fields, .out = config}, 1);
    size_t slash = flue_bytes_find(rest, '/');
    struct flue_bytes name = flue_bytes_first(rest, slash == SIZE_MAX ? rest.size : slash);
    rest = slash == SIZE_MAX ? (struct flue_bytes){0} : flue_bytes_from(rest, slash + 1);
    if (!flue_url_unescape(name, arena, &out->name) || !flue_url_unescape(rest, arena, &out->rest))
        return flue_fail(error, FLUE_INVALID,
                         "a \"%%\" in the URL is not followed by two hex "
                         "digits");
    while (query.size) {
        size_t end = flue_bytes_find(query, '&');
        struct flue_bytes pair = flue_bytes_first(query, end == SIZE_MAX ? query.size : end);
        query = flue_bytes_from(query, end == SIZE_MAX ? query.size : end + 1);
        size_t equals = flue_bytes_find(pair, '=');
        struct flue_bytes key = {0}, value = {0};
        struct flue_error inner = {0};
        if (equals == SIZE_MAX || !flue_url_unescape(flue_bytes_first(pair, equals), arena, &key) ||
            !flue_url_unescape(flue_bytes_from(pair, equals + 1), arena, &value))
            return flue_fail(error, FLUE_INVALID, "the URL's query is not name=value&…");
        if (flue_bytes_is(key, "path_style"))
            key = FLUE_BYTES("s3_force_path_style");
        if (flue_bytes_find(value, 0) != SIZE_MAX ||
            !assign(fields, config, key, (const char *)value.data, &inner))
            return flue_fail(
                error, FLUE_INVALID, "%s",
                inner.code ? inner.text
                           : flue_arena_printf(arena,
                                               "the URL's query has \"%s\", which %s:// does "
                                               "not know",
                                               flue_printable(key, text, sizeof text), scheme));
    }
    return FLUE_OK;
}

enum flue_code object_url_bucket(const char *url, const char *scheme,
                                 const struct flue_field *fields, void *config,
                                 struct flue_arena *arena, const char **bucket,
                                 struct flue_bytes *prefix, struct flue_error *error)
{
    struct object_url parts;
    enum flue_code code = object_url_read(url, scheme, fields, config, arena, &parts, error);
    if (code)
        return code;
    if (parts.name.size == 0 || flue_bytes_find(parts.name, 0) != SIZE_MAX)
        return flue_fail(error, FLUE_INVALID, "the URL names no bucket (%s://bucket/prefix)",
                         scheme);
    *bucket = (const char *)parts.name.data;
    *prefix = parts.rest;
    return FLUE_OK;
}
