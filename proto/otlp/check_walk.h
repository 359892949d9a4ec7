/* check_walk.h: the fast walk itself, compiled once for each kind of machine (WALK names it).
 *
 * Walkers are written by hand for the messages that make up a body; any other tag is one field
 * through the exact reader. Each returns true when its message is whole. `p` may pass the end of a
 * message by less than the slack before that is seen. Maxima live in locals where records are many.
 */
#include "proto/wire/reader.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "encodings are compared as little-endian");

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define ALWAYS static inline __attribute__((always_inline))
#define HIGH UINT64_C(0x8080808080808080)

ALWAYS uint64_t WALK(load)(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

/* Nine bytes and more. */
static __attribute__((noinline)) const uint8_t *WALK(long_varint)(const uint8_t *p)
{
    struct flue_reader reader = {p, p + 10};
    uint64_t value;
    return flue_read_varint(&reader, &value) ? reader.at : NULL;
}

/* Behind the varint at p; NULL when it has over 64 bits. */
ALWAYS const uint8_t *WALK(skip)(const uint8_t *p)
{
    uint64_t stop = ~WALK(load)(p) & HIGH;
    if (UNLIKELY(!stop))
        return WALK(long_varint)(p);
    return p + (((unsigned)__builtin_ctzll(stop) + 1) >> 3);
}

/* The same for an index: raises the maximum of encodings. */
ALWAYS const uint8_t *WALK(number)(const uint8_t *p, uint64_t *max)
{
    uint64_t word, stop;
    if (LIKELY(*p < 0x80)) {
        *max = *p > *max ? *p : *max;
        return p + 1;
    }
    word = WALK(load)(p);
    stop = ~word & HIGH;
    if (UNLIKELY(!stop)) {
        *max = UINT64_MAX;
        return WALK(long_varint)(p);
    }
    word &= stop ^ (stop - 1);
    *max = word > *max ? word : *max;
    return p + (((unsigned)__builtin_ctzll(stop) + 1) >> 3);
}

/* Reads a length at p that must lie before e: returns the content, *n its size; NULL when broken. */
ALWAYS const uint8_t *WALK(length)(const uint8_t *p, const uint8_t *e, size_t *n)
{
    uint64_t size = p[0];
    if (LIKELY(size < 0x80)) {
        p++;
    } else if (LIKELY(p[1] < 0x80)) {
        size = (size & 0x7f) | (uint64_t)p[1] << 7;
        p += 2;
    } else {
        struct flue_reader reader = {p, p + 10};
        if (!flue_read_varint(&reader, &size) || size > INT32_MAX)
            return NULL;
        p = reader.at;
    }
    *n = (size_t)size;
    return (ptrdiff_t)size <= e - p ? p : NULL;
}

ALWAYS bool WALK(ascii)(const uint8_t *p, size_t n)
{
#ifdef WALK_AVX2
    for (;;) {
        uint64_t low = (uint32_t)_mm256_movemask_epi8(_mm256_loadu_si256((const __m256i *)p));
        uint64_t high =
            (uint32_t)_mm256_movemask_epi8(_mm256_loadu_si256((const __m256i *)(p + 32)));
        uint64_t mask = low | high << 32;
        if (LIKELY(n <= 64))
            return n == 64 ? mask == 0 : _bzhi_u64(mask, (unsigned)n) == 0;
        if (mask)
            return false;
        p += 64;
        n -= 64;
    }
#else
    uint64_t any = 0;
    for (; n >= 8; p += 8, n -= 8)
        any |= WALK(load)(p);
    any |= n ? WALK(load)(p) << (64 - 8 * n) : 0;
    return (any & HIGH) == 0;
#endif
}

ALWAYS void WALK(text)(struct flue_otlp_check *check, const uint8_t *p, size_t n)
{
    if (UNLIKELY(!WALK(ascii)(p, n)) && !flue_utf8_valid(flue_bytes(p, n)))
        check->alarms |= FLUE_OTLP_UTF8;
}

/* A packed run of indices, one by one. */
ALWAYS bool WALK(indices)(const uint8_t *p, const uint8_t *e, uint64_t *max)
{
    while (p < e) {
        p = WALK(number)(p, max);
        if (UNLIKELY(!p))
            return false;
    }
    return p == e;
}

#ifdef WALK_AVX2
/* Is every varint of the run at most the limit, given by its encoding of `bytes` bytes? False also
 * when that cannot be told here. Each byte that ends a varint is judged with those before it,
 * last against last, and so on; what is longer than the limit's encoding is over it. The bytes
 * before the run exist (its tag and its length, whose last byte has no continuation bit). */
ALWAYS bool WALK(within)(const uint8_t *p, size_t n, uint64_t limit, unsigned bytes)
{
    const __m256i last = _mm256_set1_epi8((char)(limit >> 8 * (bytes - 1)));
    if (n == 0)
        return true;
    if (bytes == 1) {
        for (;; p += 32, n -= 32) {
            __m256i v = _mm256_loadu_si256((const __m256i *)p);
            __m256i over = _mm256_subs_epu8(v, last);
            uint32_t bad = ~(uint32_t)_mm256_movemask_epi8(
                _mm256_cmpeq_epi8(over, _mm256_setzero_si256()));
            if (n <= 32)
                return n == 32 ? bad == 0 : _bzhi_u32(bad, (unsigned)n) == 0;
            if (bad)
                return false;
        }
    }
    if (bytes == 2) {
        const __m256i first = _mm256_set1_epi8((char)limit);
        uint32_t carry = 0;
        for (;; p += 32, n -= 32) {
            __m256i v = _mm256_loadu_si256((const __m256i *)p);
            __m256i v1 = _mm256_loadu_si256((const __m256i *)(p - 1));
            __m256i over =
                _mm256_or_si256(_mm256_cmpgt_epi8(v, last),
                                _mm256_and_si256(_mm256_cmpeq_epi8(v, last),
                                                 _mm256_cmpgt_epi8(v1, first)));
            uint32_t more = (uint32_t)_mm256_movemask_epi8(v);
            uint32_t after = more << 1 | carry;
            uint32_t bad = after & (more | (uint32_t)_mm256_movemask_epi8(over));
            if (n <= 32) {
                bad = n == 32 ? bad : _bzhi_u32(bad, (unsigned)n);
                return (bad | (more >> (n - 1) & 1)) == 0;
            }
            if (bad)
                return false;
            carry = more >> 31;
        }
    }
    if (bytes == 3) {
        const __m256i middle = _mm256_set1_epi8((char)(limit >> 8));
        const __m256i first = _mm256_set1_epi8((char)limit);
        uint32_t carry = 0;
        for (;; p += 32, n -= 32) {
            __m256i v = _mm256_loadu_si256((const __m256i *)p);
            __m256i v1 = _mm256_loadu_si256((const __m256i *)(p - 1));
            __m256i v2 = _mm256_loadu_si256((const __m256i *)(p - 2));
            __m256i over = _mm256_or_si256(
                _mm256_cmpgt_epi8(v1, middle),
                _mm256_and_si256(_mm256_cmpeq_epi8(v1, middle), _mm256_cmpgt_epi8(v2, first)));
            over = _mm256_or_si256(_mm256_cmpgt_epi8(v, last),
                                   _mm256_and_si256(_mm256_cmpeq_epi8(v, last), over));
            uint32_t more = (uint32_t)_mm256_movemask_epi8(v);
            uint64_t wide = (uint64_t)more << 2 | carry;
            uint32_t after = (uint32_t)(wide >> 1) & (uint32_t)wide; /* two before continue */
            uint32_t bad = after & (more | (uint32_t)_mm256_movemask_epi8(over));
            if (n <= 32) {
                bad = n == 32 ? bad : _bzhi_u32(bad, (unsigned)n);
                return (bad | (more >> (n - 1) & 1)) == 0;
            }
            if (bad)
                return false;
            carry = more >> 30;
        }
    }
    return false;
}
#endif

/* Counts the varints of a packed run of plain numbers; false when it is not whole varints. */
ALWAYS bool WALK(values)(const uint8_t *p, size_t n, uint64_t *count)
{
    const uint8_t *start = p, *e = p + n;
    uint64_t found = 0;
    unsigned open = 0; /* continuation bytes just before p */

    if (n == 0)
        return true;
    if (e[-1] >= 0x80)
        return false;
    for (; n; p += n < 8 ? n : 8, n -= n < 8 ? n : 8) {
        uint64_t stop = ~WALK(load)(p) & HIGH;
        if (n < 8)
            stop &= ~UINT64_C(0) >> (64 - 8 * n);
        if (UNLIKELY(!stop || open + ((unsigned)__builtin_ctzll(stop) >> 3) > 8)) {
            return flue_otlp_exact_run(start, e, count);
        }
        found += (stop >> 7) * UINT64_C(0x0101010101010101) >> 56;
        open = (unsigned)__builtin_clzll(stop) >> 3;
    }
    *count += found;
    return true;
}

#define FIELD_ODD(known)                                                                           \
    do {                                                                                           \
        p = flue_otlp_odd_field(check, p, e, known);                                               \
        if (!p)                                                                                    \
            return false;                                                                          \
    } while (0)
#define LENGTH(n)                                                                                  \
    do {                                                                                           \
        p = WALK(length)(p + 1, e, &(n));                                                          \
        if (UNLIKELY(!p))                                                                          \
            return false;                                                                          \
    } while (0)
#define NUMBER(max)                                                                                \
    do {                                                                                           \
        p = WALK(number)(p + 1, &(max));                                                           \
        if (UNLIKELY(!p))                                                                          \
            return false;                                                                          \
    } while (0)
#define SKIP()                                                                                     \
    do {                                                                                           \
        p = WALK(skip)(p + 1);                                                                     \
        if (UNLIKELY(!p))                                                                          \
            return false;                                                                          \
    } while (0)
#define TEXT()                                                                                     \
    do {                                                                                           \
        size_t n_;                                                                                 \
        LENGTH(n_);                                                                                \
        WALK(text)(check, p, n_);                                                                  \
        p += n_;                                                                                   \
    } while (0)
#define INDICES(max)                                                                               \
    do {                                                                                           \
        size_t n_;                                                                                 \
        LENGTH(n_);                                                                                \
        if (UNLIKELY(!WALK(indices)(p, p + n_, &(max))))                                           \
            return false;                                                                          \
        p += n_;                                                                                   \
    } while (0)

/* ------------------------------------------------------------- attributes */

static bool WALK(any_value)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                            unsigned depth);

ALWAYS bool WALK(key_value)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                            uint64_t *keys, unsigned depth)
{
    bool keyed = false;
    while (p < e) {
        size_t n;
        switch (*p) {
        case 0x0a:
            LENGTH(n);
            WALK(text)(check, p, n);
            *keys |= flue_attribute_bit(flue_bytes(p, n));
            keyed = true;
            p += n;
            break;
        case 0x12:
            LENGTH(n);
            if (LIKELY(n - 2 < 0x80 && p[0] == 0x0a && p[1] == n - 2))
                WALK(text)(check, p + 2, n - 2);
            else if (UNLIKELY(!WALK(any_value)(check, p, p + n, depth)))
                return false;
            p += n;
            break;
        case 0x18:
            check->alarms |= FLUE_OTLP_REFERENCE;
            NUMBER(check->max[FLUE_OTLP_STRING]);
            break;
        default:
            FIELD_ODD(0xe);
        }
    }
    if (!keyed)
        *keys |= 1;
    return p == e;
}

static bool WALK(any_value)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                            unsigned depth)
{
    uint64_t unused = 0;
    if (depth > FLUE_OTLP_MAX_DEPTH) {
        check->alarms |= FLUE_OTLP_DEPTH;
        return false;
    }
    while (p < e) {
        size_t n;
        switch (*p) {
        case 0x0a:
            TEXT();
            break;
        case 0x10:
        case 0x18:
            SKIP();
            break;
        case 0x21:
            p += 9;
            break;
        case 0x2a: /* ArrayValue */
        case 0x32: /* KeyValueList */ {
            bool list = *p == 0x32;
            LENGTH(n);
            const uint8_t *outer = e;
            e = p + n;
            while (p < e) {
                if (*p == 0x0a) {
                    LENGTH(n);
                    if (!(list ? WALK(key_value)(check, p, p + n, &unused, depth + 1)
                               : WALK(any_value)(check, p, p + n, depth + 1)))
                        return false;
                    p += n;
                } else {
                    FIELD_ODD(0x2);
                }
            }
            if (p != e)
                return false;
            e = outer;
            break;
        }
        case 0x3a:
            LENGTH(n);
            p += n;
            break;
        case 0x40:
            check->alarms |= FLUE_OTLP_REFERENCE;
            NUMBER(check->max[FLUE_OTLP_STRING]);
            break;
        default:
            FIELD_ODD(0x1fe);
        }
    }
    return p == e;
}

/* ------------------------------------------------------------- dictionary */

ALWAYS bool WALK(location)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                           uint64_t *mapping, uint64_t *function, uint64_t *attribute)
{
    while (p < e) {
        size_t n;
        switch (*p) {
        case 0x08:
            NUMBER(*mapping);
            break;
        case 0x10:
            SKIP();
            break;
        case 0x1a: {
            const uint8_t *outer = e;
            LENGTH(n);
            e = p + n;
            while (p < e) {
                if (LIKELY(*p == 0x08))
                    NUMBER(*function);
                else if (LIKELY(*p == 0x10 || *p == 0x18))
                    SKIP();
                else
                    FIELD_ODD(0xe);
            }
            if (UNLIKELY(p != e))
                return false;
            e = outer;
            break;
        }
        case 0x20:
            NUMBER(*attribute);
            break;
        case 0x22:
            INDICES(*attribute);
            break;
        default:
            FIELD_ODD(0x1e);
        }
    }
    return p == e;
}

ALWAYS bool WALK(function)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                           uint64_t *string)
{
    while (p < e) {
        if (LIKELY(*p == 0x08 || *p == 0x10 || *p == 0x18))
            NUMBER(*string);
        else if (*p == 0x20)
            SKIP();
        else
            FIELD_ODD(0x1e);
    }
    return p == e;
}

ALWAYS bool WALK(stack)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                        uint64_t limit, unsigned bytes, uint64_t *location)
{
    while (p < e) {
        size_t n;
        if (LIKELY(*p == 0x0a)) {
            LENGTH(n);
#ifdef WALK_AVX2
            if (LIKELY(WALK(within)(p, n, limit, bytes))) {
                p += n;
                continue;
            }
#endif
            if (!WALK(indices)(p, p + n, location))
                return false;
            p += n;
        } else if (*p == 0x08) {
            NUMBER(*location);
        } else {
            FIELD_ODD(0x2);
        }
    }
    return p == e;
}

static bool WALK(mapping)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    while (p < e) {
        switch (*p) {
        case 0x08:
        case 0x10:
        case 0x18:
            SKIP();
            break;
        case 0x20:
            NUMBER(check->max[FLUE_OTLP_STRING]);
            break;
        case 0x28:
            NUMBER(check->max[FLUE_OTLP_ATTRIBUTE]);
            break;
        case 0x2a:
            INDICES(check->max[FLUE_OTLP_ATTRIBUTE]);
            break;
        default:
            FIELD_ODD(0x3e);
        }
    }
    return p == e;
}

ALWAYS bool WALK(link)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    while (p < e) {
        size_t n;
        if (LIKELY(*p == 0x0a || *p == 0x12)) {
            size_t want = *p == 0x0a ? 16 : 8;
            LENGTH(n);
            if (n != 0 && n != want)
                check->alarms |= FLUE_OTLP_SHAPE;
            p += n;
        } else {
            FIELD_ODD(0x6);
        }
    }
    return p == e;
}

ALWAYS bool WALK(attribute)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    while (p < e) {
        size_t n;
        if (*p == 0x08 || *p == 0x18) {
            NUMBER(check->max[FLUE_OTLP_STRING]);
        } else if (*p == 0x12) {
            LENGTH(n);
            if (!WALK(any_value)(check, p, p + n, 1))
                return false;
            p += n;
        } else {
            FIELD_ODD(0xe);
        }
    }
    return p == e;
}

/* The encoding of the greatest index that a table of so many rows takes. */
ALWAYS uint64_t WALK(limit)(uint64_t rows, unsigned *bytes)
{
    uint64_t value = rows ? rows - 1 : 0, limit = 0;
    unsigned n = 0;
    do {
        limit |= ((value & 0x7f) | (value >> 7 ? 0x80 : 0)) << 8 * n++;
        value >>= 7;
    } while (value);
    *bytes = n;
    return limit;
}

static bool WALK(dictionary)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    uint64_t mappings = 0, functions = 0, attributes = 0, strings = 0, locations = 0;
    uint64_t location_rows = check->rows[FLUE_OTLP_LOCATION];
    uint64_t limit = 0, limit_rows = UINT64_MAX;
    unsigned limit_bytes = 1;
    /* Stacks before locations (pdata's order): their rows are only stepped over, and judged when
     * the number of locations is known. */
    const uint8_t *late = NULL, *late_end = NULL;
    size_t n;

    while (p < e) {
        uint8_t tag = *p;
        const uint8_t *row_end;
        if (UNLIKELY((tag & 7) != FLUE_LEN || tag < 0x0a || tag > 0x3a)) {
            FIELD_ODD(0xfe);
            continue;
        }
        if (tag == 0x3a && location_rows == 0 && !late) {
            late = p;
            do {
                LENGTH(n);
                p += n;
                check->rows[FLUE_OTLP_STACK]++;
            } while (p < e && *p == 0x3a);
            late_end = p;
            continue;
        }
        LENGTH(n);
        row_end = p + n;
        switch (tag >> 3) {
        case FLUE_OTLP_MAPPING:
            check->rows[FLUE_OTLP_MAPPING]++;
            if (!WALK(mapping)(check, p, row_end))
                return false;
            break;
        case FLUE_OTLP_LOCATION:
            location_rows++;
            if (UNLIKELY(!WALK(location)(check, p, row_end, &mappings, &functions, &attributes)))
                return false;
            break;
        case FLUE_OTLP_FUNCTION:
            check->rows[FLUE_OTLP_FUNCTION]++;
            if (UNLIKELY(!WALK(function)(check, p, row_end, &strings)))
                return false;
            break;
        case FLUE_OTLP_LINK:
            check->rows[FLUE_OTLP_LINK]++;
            if (UNLIKELY(!WALK(link)(check, p, row_end)))
                return false;
            break;
        case FLUE_OTLP_STRING:
            check->rows[FLUE_OTLP_STRING]++;
            WALK(text)(check, p, n);
            break;
        case FLUE_OTLP_ATTRIBUTE:
            check->rows[FLUE_OTLP_ATTRIBUTE]++;
            if (UNLIKELY(!WALK(attribute)(check, p, row_end)))
                return false;
            break;
        default: /* FLUE_OTLP_STACK */
            check->rows[FLUE_OTLP_STACK]++;
            if (UNLIKELY(limit_rows != location_rows)) {
                limit_rows = location_rows;
                limit = WALK(limit)(location_rows, &limit_bytes);
            }
            if (UNLIKELY(!WALK(stack)(check, p, row_end, limit, limit_bytes, &locations)))
                return false;
        }
        p = row_end;
    }
    if (p != e)
        return false;
    if (late) {
        limit = WALK(limit)(location_rows, &limit_bytes);
        for (p = late, e = late_end; p < e; p += n) {
            LENGTH(n);
            if (UNLIKELY(!WALK(stack)(check, p, p + n, limit, limit_bytes, &locations)))
                return false;
        }
    }
    check->rows[FLUE_OTLP_LOCATION] = location_rows;
#define RAISE(table, value)                                                                        \
    check->max[table] = (value) > check->max[table] ? (value) : check->max[table]
    RAISE(FLUE_OTLP_MAPPING, mappings);
    RAISE(FLUE_OTLP_FUNCTION, functions);
    RAISE(FLUE_OTLP_ATTRIBUTE, attributes);
    RAISE(FLUE_OTLP_STRING, strings);
    RAISE(FLUE_OTLP_LOCATION, locations);
    return true;
}

/* --------------------------------------------------------------- profiles */

static bool WALK(value_type)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    while (p < e) {
        if (*p == 0x08 || *p == 0x10)
            NUMBER(check->max[FLUE_OTLP_STRING]);
        else
            FIELD_ODD(0x6);
    }
    return p == e;
}

ALWAYS bool WALK(sample)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                         uint64_t *stack, uint64_t *attribute, uint64_t *link)
{
    uint64_t values = 0, times = 0;
    while (p < e) {
        size_t n;
        switch (*p) {
        case 0x08:
            NUMBER(*stack);
            break;
        case 0x10:
            NUMBER(*attribute);
            break;
        case 0x12:
            INDICES(*attribute);
            break;
        case 0x18:
            NUMBER(*link);
            break;
        case 0x20:
            SKIP();
            values++;
            break;
        case 0x22:
            LENGTH(n);
            if (UNLIKELY(!WALK(values)(p, n, &values)))
                return false;
            p += n;
            break;
        case 0x29:
            p += 9;
            times++;
            break;
        case 0x2a:
            LENGTH(n);
            if (UNLIKELY(n & 7))
                return false;
            times += n >> 3;
            p += n;
            break;
        default:
            FIELD_ODD(0x3e);
        }
    }
    if (UNLIKELY(values != times && values && times) || UNLIKELY(!(values | times)))
        check->alarms |= FLUE_OTLP_SHAPE;
    return p == e;
}

static bool WALK(profile)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                          uint32_t *sample_count)
{
    uint64_t stacks = 0, attributes = 0, links = 0;
    uint32_t samples = 0;
    size_t n;

    while (p < e) {
        switch (*p) {
        case 0x12:
            do {
                LENGTH(n);
                if (UNLIKELY(!WALK(sample)(check, p, p + n, &stacks, &attributes, &links)))
                    return false;
                p += n;
                samples++;
            } while (p < e && *p == 0x12);
            break;
        case 0x0a:
        case 0x2a:
            LENGTH(n);
            if (!WALK(value_type)(check, p, p + n))
                return false;
            p += n;
            break;
        case 0x19:
            p += 9;
            break;
        case 0x20:
        case 0x30:
        case 0x40:
            SKIP();
            break;
        case 0x3a:
            LENGTH(n);
            if (n != 0 && n != 16)
                check->alarms |= FLUE_OTLP_SHAPE;
            p += n;
            break;
        case 0x52:
            LENGTH(n);
            p += n;
            break;
        case 0x4a:
            TEXT();
            break;
        case 0x58:
            NUMBER(attributes);
            break;
        case 0x5a:
            INDICES(attributes);
            break;
        default:
            FIELD_ODD(0xffe);
        }
    }
    RAISE(FLUE_OTLP_STACK, stacks);
    RAISE(FLUE_OTLP_ATTRIBUTE, attributes);
    RAISE(FLUE_OTLP_LINK, links);
    *sample_count = samples;
    return p == e;
}

/* ------------------------------------------------- resources and scopes */

#define SPAN(tag_at, from, n)                                                                      \
    ((struct flue_otlp_span){(uint32_t)((tag_at) - check->base), (uint32_t)((from) - check->base), \
                             (uint32_t)((from) + (n) - check->base)})

static bool WALK(entity)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    while (p < e) {
        if (*p == 0x0a || *p == 0x12 || *p == 0x1a || *p == 0x22)
            TEXT();
        else
            FIELD_ODD(0x1e);
    }
    return p == e;
}

static bool WALK(resource)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                           uint64_t *keys)
{
    unsigned attributes = 0;
    size_t n;
    while (p < e) {
        switch (*p) {
        case 0x0a:
            LENGTH(n);
            if (UNLIKELY(++attributes > FLUE_OTLP_MAX_ATTRIBUTES)) {
                check->alarms |= FLUE_OTLP_CROWDED;
                return false;
            }
            if (UNLIKELY(!WALK(key_value)(check, p, p + n, keys, 1)))
                return false;
            p += n;
            break;
        case 0x10:
            SKIP();
            break;
        case 0x1a:
            LENGTH(n);
            if (!WALK(entity)(check, p, p + n))
                return false;
            p += n;
            break;
        default:
            FIELD_ODD(0xe);
        }
    }
    return p == e;
}

static bool WALK(scope)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    unsigned attributes = 0;
    uint64_t unused = 0;
    size_t n;
    while (p < e) {
        switch (*p) {
        case 0x0a:
        case 0x12:
            TEXT();
            break;
        case 0x1a:
            LENGTH(n);
            if (UNLIKELY(++attributes > FLUE_OTLP_MAX_ATTRIBUTES)) {
                check->alarms |= FLUE_OTLP_CROWDED;
                return false;
            }
            if (!WALK(key_value)(check, p, p + n, &unused, 1))
                return false;
            p += n;
            break;
        case 0x20:
            SKIP();
            break;
        default:
            FIELD_ODD(0x1e);
        }
    }
    return p == e;
}

static bool WALK(scope_profiles)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                                 struct flue_otlp_scope_index *scope)
{
    uint32_t number = (uint32_t)(scope - check->index->scopes);
    size_t n;

    scope->first_profile = check->index->profile_count;
    while (p < e) {
        const uint8_t *tag_at = p;
        struct flue_otlp_profile_index *profile;
        switch (*p) {
        case 0x0a:
            LENGTH(n);
            if (scope->scope.end)
                check->alarms |= FLUE_OTLP_TWICE;
            scope->scope = SPAN(tag_at, p, n);
            if (!WALK(scope)(check, p, p + n))
                return false;
            p += n;
            break;
        case 0x12:
            LENGTH(n);
            profile = flue_otlp_add_profile(check);
            if (UNLIKELY(!profile))
                return false;
            profile->at = SPAN(tag_at, p, n);
            profile->scope = number;
            if (UNLIKELY(!WALK(profile)(check, p, p + n, &profile->samples)))
                return false;
            check->index->samples += profile->samples;
            scope->profiles++;
            p += n;
            break;
        case 0x1a:
            TEXT();
            break;
        default:
            FIELD_ODD(0xe);
        }
    }
    return p == e;
}

static bool WALK(resource_profiles)(struct flue_otlp_check *check, const uint8_t *p,
                                    const uint8_t *e, struct flue_otlp_resource_index *resource)
{
    uint32_t number = (uint32_t)(resource - check->index->resources);
    size_t n;

    resource->first_scope = check->index->scope_count;
    while (p < e) {
        const uint8_t *tag_at = p;
        struct flue_otlp_scope_index *scope;
        switch (*p) {
        case 0x0a:
            LENGTH(n);
            if (resource->resource.end)
                check->alarms |= FLUE_OTLP_TWICE;
            resource->resource = SPAN(tag_at, p, n);
            if (!WALK(resource)(check, p, p + n, &resource->keys))
                return false;
            p += n;
            break;
        case 0x12:
            LENGTH(n);
            scope = flue_otlp_add_scope(check);
            if (UNLIKELY(!scope))
                return false;
            scope->at = SPAN(tag_at, p, n);
            scope->resource = number;
            if (UNLIKELY(!WALK(scope_profiles)(check, p, p + n, scope)))
                return false;
            resource->scopes++;
            p += n;
            break;
        case 0x1a:
            TEXT();
            break;
        default:
            FIELD_ODD(0xe);
        }
    }
    return p == e;
}

static bool WALK(request)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    size_t n;
    while (p < e) {
        const uint8_t *tag_at = p;
        struct flue_otlp_resource_index *resource;
        switch (*p) {
        case 0x0a:
            LENGTH(n);
            resource = flue_otlp_add_resource(check);
            if (UNLIKELY(!resource))
                return false;
            resource->at = SPAN(tag_at, p, n);
            if (UNLIKELY(!WALK(resource_profiles)(check, p, p + n, resource)))
                return false;
            p += n;
            break;
        case 0x12:
            LENGTH(n);
            if (check->index->dictionary.end)
                check->alarms |= FLUE_OTLP_TWICE;
            check->index->dictionary = SPAN(tag_at, p, n);
            if (UNLIKELY(!WALK(dictionary)(check, p, p + n)))
                return false;
            p += n;
            break;
        default:
            FIELD_ODD(0x6);
        }
    }
    return p == e;
}

void WALK(flue_otlp_walk)(struct flue_otlp_check *check, struct flue_bytes body)
{
    if (!WALK(request)(check, body.data, body.data + body.size) &&
        !(check->alarms & (FLUE_OTLP_DEPTH | FLUE_OTLP_MEMORY | FLUE_OTLP_INDEX_SIZE |
                          FLUE_OTLP_CROWDED)))
        check->alarms |= FLUE_OTLP_BROKEN;
}
