/* bytes.c: see bytes.h. */
#include "collector/base/bytes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

int flue_bytes_compare(struct flue_bytes a, struct flue_bytes b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common ? memcmp(a.data, b.data, common) : 0;

    if (order != 0)
        return order < 0 ? -1 : 1;
    return a.size < b.size ? -1 : a.size > b.size;
}

bool flue_bytes_equal_nocase(struct flue_bytes a, struct flue_bytes b)
{
    if (a.size != b.size)
        return false;
    for (size_t i = 0; i < a.size; i++)
        if (lower(a.data[i]) != lower(b.data[i]))
            return false;
    return true;
}

bool flue_bytes_starts_with(struct flue_bytes b, struct flue_bytes prefix)
{
    return b.size >= prefix.size && flue_bytes_equal(flue_bytes_first(b, prefix.size), prefix);
}

bool flue_bytes_ends_with(struct flue_bytes b, struct flue_bytes suffix)
{
    return b.size >= suffix.size &&
           flue_bytes_equal(flue_bytes_from(b, b.size - suffix.size), suffix);
}

size_t flue_bytes_find(struct flue_bytes b, uint8_t byte)
{
    const uint8_t *at = b.size ? memchr(b.data, byte, b.size) : NULL;

    return at ? (size_t)(at - b.data) : SIZE_MAX;
}

struct flue_bytes flue_bytes_trim(struct flue_bytes b)
{
    while (b.size && (b.data[0] == ' ' || b.data[0] == '\t'))
        b = flue_bytes_from(b, 1);
    while (b.size && (b.data[b.size - 1] == ' ' || b.data[b.size - 1] == '\t'))
        b.size--;
    return b;
}

bool flue_parse_u64(struct flue_bytes b, uint64_t *out)
{
    uint64_t value = 0;

    if (b.size == 0)
        return false;
    for (size_t i = 0; i < b.size; i++) {
        unsigned digit = (unsigned)b.data[i] - '0';

        if (digit > 9 || __builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, digit, &value))
            return false;
    }
    *out = value;
    return true;
}

bool flue_parse_i64(struct flue_bytes b, int64_t *out)
{
    bool negative = b.size && b.data[0] == '-';
    uint64_t value;

    if (!flue_parse_u64(negative ? flue_bytes_from(b, 1) : b, &value) ||
        value > (uint64_t)INT64_MAX + negative)
        return false;
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

void flue_hex(struct flue_bytes b, char *out)
{
    for (size_t i = 0; i < b.size; i++) {
        out[2 * i] = "0123456789abcdef"[b.data[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[b.data[i] & 15];
    }
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool flue_unhex(struct flue_bytes text, uint8_t *out, size_t out_size)
{
    if (text.size % 2 != 0 || text.size / 2 != out_size)
        return false;
    for (size_t i = 0; i < out_size; i++) {
        int high = hex_digit(text.data[2 * i]), low = hex_digit(text.data[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* Length of the ASCII run at `p`, in whole steps: what is left over is for the caller to look at.
 * Nearly all strings of profiles are ASCII throughout, so this is where the time goes. */
#if defined(__x86_64__)
__attribute__((target("avx2"))) static size_t ascii_run_avx2(const uint8_t *p, size_t size)
{
    size_t i = 0;

    for (; size - i >= 128; i += 128) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(p + i));
        __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 32));
        __m256i c = _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 64));
        __m256i d = _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 96));
        if (_mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d))))
            break;
    }
    for (; size - i >= 32; i += 32)
        if (_mm256_movemask_epi8(_mm256_loadu_si256((const __m256i *)(const void *)(p + i))))
            break;
    return i;
}
#endif

static size_t ascii_run(const uint8_t *p, size_t size)
{
    size_t i = 0;

#if defined(__x86_64__)
    if (size >= 128 && __builtin_cpu_supports("avx2"))
        i = ascii_run_avx2(p, size);
    for (; size - i >= 16; i += 16)
        if (_mm_movemask_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + i))))
            return i;
#endif
    for (; size - i >= 8; i += 8) {
        uint64_t word;

        memcpy(&word, p + i, 8);
        if (word & 0x8080808080808080u)
            return i;
    }
    return i;
}

/* Length of the sequence at `p`, or of the maximal ill-formed part there. */
static size_t utf8_sequence(const uint8_t *p, const uint8_t *end, bool *valid)
{
    uint8_t low = 0x80, high = 0xBF;
    size_t need, i;

    *valid = false;
    if (*p < 0x80) {
        *valid = true;
        return 1;
    }
    if (*p < 0xC2 || *p > 0xF4)
        return 1;
    need = *p < 0xE0 ? 1 : *p < 0xF0 ? 2 : 3;
    if (*p == 0xE0)
        low = 0xA0;
    else if (*p == 0xED)
        high = 0x9F;
    else if (*p == 0xF0)
        low = 0x90;
    else if (*p == 0xF4)
        high = 0x8F;
    for (i = 1; i <= need; i++) {
        if (p + i == end || p[i] < low || p[i] > high)
            return i;
        low = 0x80;
        high = 0xBF;
    }
    *valid = true;
    return i;
}

/* Is a short run ASCII throughout? Loads overlap at its end instead of going byte by byte. */
static bool short_ascii(const uint8_t *p, size_t size)
{
    uint64_t first = 0, last = 0;

#if defined(__x86_64__)
    if (size >= 16) {
        __m128i all = _mm_loadu_si128((const __m128i *)(const void *)(p + size - 16));

        for (size_t i = 0; i + 16 < size; i += 16)
            all = _mm_or_si128(all, _mm_loadu_si128((const __m128i *)(const void *)(p + i)));
        return _mm_movemask_epi8(all) == 0;
    }
#endif
    if (size >= 8) {
        for (size_t i = 0; i + 8 < size; i += 8) {
            memcpy(&last, p + i, 8);
            first |= last;
        }
        memcpy(&last, p + size - 8, 8);
    } else if (size >= 4) {
        memcpy(&first, p, 4);
        memcpy(&last, p + size - 4, 4);
    } else {
        for (size_t i = 0; i < size; i++)
            first |= p[i];
    }
    return ((first | last) & 0x8080808080808080u) == 0;
}

bool flue_utf8_valid(struct flue_bytes b)
{
    const uint8_t *p = b.data, *end = b.size ? b.data + b.size : b.data;

    if (b.size < 128 && short_ascii(p, b.size))
        return true;
    while (p != end) {
        bool valid;

        p += ascii_run(p, (size_t)(end - p));
        /* Past the step that stopped the run; text that is not ASCII stays here for long. */
        for (unsigned i = 0; i < 16 && p != end; i++) {
            p += utf8_sequence(p, end, &valid);
            if (!valid)
                return false;
        }
    }
    return true;
}

size_t flue_utf8_repaired_size(struct flue_bytes b)
{
    const uint8_t *p = b.data, *end = b.data + b.size;
    size_t size = 0;

    while (p != end) {
        bool valid;
        size_t step = utf8_sequence(p, end, &valid);

        size += valid ? step : 3;
        p += step;
    }
    return size;
}

void flue_utf8_repair(struct flue_bytes b, uint8_t *out)
{
    const uint8_t *p = b.data, *end = b.data + b.size;

    while (p != end) {
        bool valid;
        size_t step = utf8_sequence(p, end, &valid);

        memcpy(out, valid ? p : (const uint8_t *)"\xEF\xBF\xBD", valid ? step : 3);
        out += valid ? step : 3;
        p += step;
    }
}

const char *flue_printable(struct flue_bytes b, char *out, size_t out_size)
{
    size_t at = 0, safe = 0; /* `safe`: where "..." still fits behind */

    if (out_size == 0)
        return out;
    for (size_t i = 0; i < b.size; i++) {
        uint8_t c = b.data[i];
        bool plain = c >= 0x20 && c < 0x7F && c != '\\';
        size_t need = plain ? 1 : 4;

        if (at + need >= out_size) {
            size_t dots = out_size - 1 - safe < 3 ? out_size - 1 - safe : 3;

            memcpy(out + safe, "...", dots);
            out[safe + dots] = 0;
            return out;
        }
        if (plain) {
            out[at] = (char)c;
        } else {
            out[at] = '\\';
            out[at + 1] = 'x';
            flue_hex(flue_bytes(&c, 1), out + at + 2);
        }
        at += need;
        if (at + 3 < out_size)
            safe = at;
    }
    out[at] = 0;
    return out;
}
