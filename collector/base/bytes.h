/* bytes.h: a borrowed run of bytes, the one string type of flue.
 *
 * A flue_bytes never owns: whoever hands it over says how long it lives. It may hold any byte,
 * NUL included, and is not terminated. Print it with "%.*s", FLUE_PRI(b).
 */
#ifndef FLUE_BASE_BYTES_H
#define FLUE_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct flue_bytes {
    const uint8_t *data;
    size_t size;
};

/* A literal as bytes, without its NUL. */
#define FLUE_BYTES(literal)                                                                        \
    ((struct flue_bytes){(const uint8_t *)("" literal), sizeof("" literal) - 1})
/* The same where C wants a constant initialiser. */
#define FLUE_BYTES_INIT(literal)                                                                   \
    {                                                                                              \
        (const uint8_t *)("" literal), sizeof("" literal) - 1                                      \
    }
#define FLUE_PRI(b) (int)(b).size, (const char *)(b).data

static inline struct flue_bytes flue_bytes(const void *data, size_t size)
{
    return (struct flue_bytes){(const uint8_t *)data, size};
}

static inline struct flue_bytes flue_bytes_of(const char *text)
{
    return text ? flue_bytes(text, strlen(text)) : flue_bytes(NULL, 0);
}

static inline bool flue_bytes_equal(struct flue_bytes a, struct flue_bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline bool flue_bytes_is(struct flue_bytes a, const char *text)
{
    return flue_bytes_equal(a, flue_bytes_of(text));
}

static inline struct flue_bytes flue_bytes_from(struct flue_bytes b, size_t offset)
{
    if (b.size == 0) /* data may be NULL */
        return b;
    return offset > b.size ? flue_bytes(b.data + b.size, 0)
                           : flue_bytes(b.data + offset, b.size - offset);
}

static inline struct flue_bytes flue_bytes_first(struct flue_bytes b, size_t size)
{
    return flue_bytes(b.data, size < b.size ? size : b.size);
}

/* Byte order and ASCII-only case folding; locale never matters. */
int flue_bytes_compare(struct flue_bytes a, struct flue_bytes b);
bool flue_bytes_equal_nocase(struct flue_bytes a, struct flue_bytes b);
bool flue_bytes_starts_with(struct flue_bytes b, struct flue_bytes prefix);
bool flue_bytes_ends_with(struct flue_bytes b, struct flue_bytes suffix);
/* Index of the first `byte`, or SIZE_MAX. */
size_t flue_bytes_find(struct flue_bytes b, uint8_t byte);
/* Without leading and trailing blanks and tabs. */
struct flue_bytes flue_bytes_trim(struct flue_bytes b);

/* Strict decimal: the whole of `b`, no sign for u64, no blanks; false on overflow or anything else.
 */
bool flue_parse_u64(struct flue_bytes b, uint64_t *out);
bool flue_parse_i64(struct flue_bytes b, int64_t *out);

/* Lower-case hex; `out` holds 2 * size characters, no NUL. Unhex takes both cases; false unless
 * exactly 2 * out_size hex digits. */
void flue_hex(struct flue_bytes b, char *out);
bool flue_unhex(struct flue_bytes text, uint8_t *out, size_t out_size);

/* UTF-8 by Unicode 15 table 3-7 (no surrogates, no overlong forms). */
bool flue_utf8_valid(struct flue_bytes b);
/* Size after every maximal ill-formed part is replaced by U+FFFD, and the repair itself: `out`
 * holds flue_utf8_repaired_size(b) bytes. */
size_t flue_utf8_repaired_size(struct flue_bytes b);
void flue_utf8_repair(struct flue_bytes b, uint8_t *out);

/* For messages to people: printable ASCII of at most out_size - 1 bytes, everything else as \xNN,
 * "..." where cut. Always terminated. Returns out. Network data reaches logs and answers this way
 * only. */
const char *flue_printable(struct flue_bytes b, char *out, size_t out_size);

#endif
