/* check_pieces.h: what the fast walk (check_walk.h) reads records with: varints, lengths, texts and
 * packed runs, eight bytes or a vector at a time. Compiled with it, once for each kind of machine.
 *
 * A function returns where it ended, NULL when what it read is broken; the macros use `check`, `p`
 * and `e` of the walker that they stand in, and leave it.
 */
#include "proto/wire/reader.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "encodings are compared as little-endian");

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define ALWAYS      static inline __attribute__((always_inline))
#define HIGH        UINT64_C(0x8080808080808080)

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

/* Reads a length at p that must lie before e: returns the content, *n its size; NULL when broken.
 */
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
            uint32_t bad =
                ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(over, _mm256_setzero_si256()));
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
            __m256i over = _mm256_or_si256(
                _mm256_cmpgt_epi8(v, last),
                _mm256_and_si256(_mm256_cmpeq_epi8(v, last), _mm256_cmpgt_epi8(v1, first)));
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
