/* attributes.c: see attributes.h. */
#include "receivers/pprof/attributes.h"

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "+" is a blank; a "%" that no two digits follow stands for itself. NULL data without memory. */
static struct flue_bytes decoded(struct flue_bytes text, struct flue_arena *arena)
{
    uint8_t *out = flue_arena_alloc(arena, text.size + 1);
    size_t size = 0;
    if (!out)
        return flue_bytes(NULL, 0);
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        int high = i + 2 < text.size && c == '%' ? hex_digit(text.data[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(text.data[i + 2]) : -1;
        if (low >= 0) {
            c = (uint8_t)(high << 4 | low);
            i += 2;
        } else if (c == '+') {
            c = ' ';
        }
        out[size++] = c;
    }
    return flue_bytes(out, size);
}

static struct flue_pprof_label *find(struct flue_pprof_attributes *all, struct flue_bytes key)
{
    for (size_t i = 0; i < all->count; i++)
        if (flue_bytes_equal(all->items[i].name, key))
            return &all->items[i];
    return NULL;
}

static enum flue_code add(struct flue_pprof_attributes *all, struct flue_bytes key,
                          struct flue_bytes value, const char *from, struct flue_error *error)
{
    char shown[80];
    flue_printable(key, shown, sizeof shown);
    if (key.size == 0)
        return flue_fail(error, FLUE_INVALID, "%s: a parameter without a name", from);
    if (!flue_utf8_valid(key) || !flue_utf8_valid(value))
        return flue_fail(error, FLUE_INVALID, "%s: %s is not UTF-8", from, shown);
    if (flue_bytes_is(key, "__name__")) {
        all->name = value;
        return FLUE_OK;
    }
    if (flue_bytes_starts_with(key, FLUE_BYTES("__")))
        return flue_fail(error, FLUE_INVALID, "%s: %s: names that begin with __ are reserved", from,
                         shown);
    if (find(all, key))
        return flue_fail(error, FLUE_INVALID, "%s: %s is there twice", from, shown);
    if (all->count == FLUE_PPROF_MAX_ATTRIBUTES)
        return flue_fail(error, FLUE_INVALID, "%s: more than %d attributes", from,
                         FLUE_PPROF_MAX_ATTRIBUTES);
    all->items[all->count++] = (struct flue_pprof_label){key, value};
    return FLUE_OK;
}

enum flue_code flue_pprof_attributes_read(struct flue_bytes query, const struct flue_map *headers,
                                          const struct flue_header *given, size_t given_count,
                                          struct flue_arena *arena,
                                          struct flue_pprof_attributes *out,
                                          struct flue_error *error)
{
    enum flue_code code = FLUE_OK;
    out->count = 0;
    out->name = FLUE_BYTES("");
    while (query.size > 0 && code == FLUE_OK) {
        size_t end = flue_bytes_find(query, '&');
        struct flue_bytes pair = flue_bytes_first(query, end);
        query =
            end == SIZE_MAX ? flue_bytes_from(query, query.size) : flue_bytes_from(query, end + 1);
        if (pair.size == 0)
            continue;
        size_t equals = flue_bytes_find(pair, '=');
        struct flue_bytes key = decoded(flue_bytes_first(pair, equals), arena);
        struct flue_bytes value = decoded(
            equals == SIZE_MAX ? flue_bytes("", 0) : flue_bytes_from(pair, equals + 1), arena);
        if (!key.data || !value.data)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for the query's attributes");
        code = add(out, key, value, "query", error);
    }
    for (size_t i = 0; i < headers->count && code == FLUE_OK; i++) {
        struct flue_bytes wanted = flue_bytes_of(headers->items[i].key);
        struct flue_bytes key = flue_bytes_of(headers->items[i].value);
        for (size_t j = 0; j < given_count && code == FLUE_OK; j++)
            if (flue_bytes_equal_nocase(given[j].name, wanted) && !find(out, key)) {
                code = add(out, key, given[j].value, "header", error);
                break;
            }
    }
    return code;
}
