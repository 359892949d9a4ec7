/* dictionary_run.h: walking packed runs of row numbers fast. Stacks are 60 % of an application's
 * profile, and the lengths of their varints are not predictable: so no branch on the length. */
#ifndef PROTO_OTLP_DICTIONARY_RUN_H
#define PROTO_OTLP_DICTIONARY_RUN_H

#include "proto/wire/writer.h"

/* The next number of the run [*at, end), at < end. Numbers over 32 bits and what is no varint come
 * as UINT32_MAX, which is no row; the latter ends the run. */
static inline uint32_t flue_run_next(const uint8_t **at, const uint8_t *end)
{
    struct flue_reader slow;
    uint64_t word, stop;

    if (__builtin_expect(end - *at >= 8, 1)) {
        memcpy(&word, *at, 8);
        if (__builtin_expect((word & 0x8080) != 0x8080, 1)) { /* one byte or two */
            uint64_t two = word >> 7 & 1;

            *at += 1 + two;
            return (uint32_t)((word & 0x7f) | (word >> 1 & (0x3f80 & -two)));
        }
        stop = ~word & 0x80808080u;
        if (__builtin_expect(stop != 0, 1)) { /* up to four bytes, 2^28 - 1 */
            unsigned last = (unsigned)__builtin_ctzll(stop);

            *at += (last >> 3) + 1;
            word &= ((uint64_t)1 << last) - 1;
            return (uint32_t)((word & 0x7f) | (word >> 1 & 0x3f80) | (word >> 2 & 0x1fc000) |
                              (word >> 3 & 0xfe00000));
        }
    }
    slow = (struct flue_reader){*at, end};
    if (!flue_read_varint(&slow, &word)) {
        *at = end;
        return UINT32_MAX;
    }
    *at = slow.at;
    return word < UINT32_MAX ? (uint32_t)word : UINT32_MAX;
}

/* A number as it will be written: its bytes, and in the highest byte how many they are. */
static inline uint64_t flue_run_code(uint32_t number)
{
    uint8_t bytes[8] = {0};
    uint64_t code, size = (uint64_t)(flue_write_varint(bytes, number) - bytes);

    memcpy(&code, bytes, sizeof code);
    return code | size << 56;
}

/* Up to 8 bytes from `at` on may be overwritten. */
static inline uint8_t *flue_run_write(uint8_t *at, uint64_t code)
{
    memcpy(at, &code, 8);
    return at + (code >> 56);
}

/* The content of a Stack as one packed run, which is how everybody writes it; false if it is not.
 */
static inline bool flue_stack_run(struct flue_bytes stack, struct flue_bytes *run)
{
    struct flue_reader r = flue_reader(stack);
    uint64_t size;

    if (stack.size < 2 || *r.at++ != (1 << 3 | FLUE_LEN) || !flue_read_varint(&r, &size) ||
        size != (uint64_t)(r.end - r.at))
        return false;
    *run = flue_bytes(r.at, (size_t)size);
    return true;
}

#endif
