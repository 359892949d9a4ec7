/* wire.h: a mutator that knows protobuf's wire format: it changes one field somewhere in the tree
 * of messages and writes all lengths around it anew, so that what it makes is still a message.
 */
#ifndef TESTS_FUZZ_WIRE_H
#define TESTS_FUZZ_WIRE_H

#include "proto/wire/writer.h"
#include "proto/wire/reader.h"
#include "tests/fuzz/fuzz.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

#define WIRE_FIELDS 4096
#define WIRE_DEPTH  12

struct wire_out {
    uint8_t *data;
    size_t size, room;
    bool full;
};

static void wire_put(struct wire_out *out, const void *bytes, size_t size)
{
    if (size > out->room - out->size) {
        out->full = true;
        return;
    }
    if (size)
        memcpy(out->data + out->size, bytes, size);
    out->size += size;
}

static void wire_varint(struct wire_out *out, uint64_t value)
{
    uint8_t bytes[10];
    wire_put(out, bytes, (size_t)(flue_write_varint(bytes, value) - bytes));
}

static uint64_t wire_number(uint64_t old)
{
    static const uint64_t limits[] = {0,          1,          2,         127,        128,
                                      255,        256,        65535,     INT32_MAX,  1u << 31,
                                      UINT32_MAX, 1ull << 32, INT64_MAX, 1ull << 63, UINT64_MAX};
    switch (dice(5)) {
    case 0:
        return old + 1;
    case 1:
        return old - 1;
    case 2:
        return dice(16);
    case 3:
        return old ^ 1ull << dice(64);
    default:
        return limits[dice(sizeof limits / sizeof *limits)];
    }
}

static bool wire_is_message(struct flue_bytes b)
{
    struct flue_reader r = flue_reader(b);
    struct flue_field_value f;
    if (b.size == 0)
        return false;
    while (flue_read_field(&r, &f))
        ;
    return flue_reader_done(&r);
}

static void wire_field(struct wire_out *out, const struct flue_field_value *f, const uint8_t *end)
{
    wire_put(out, f->tag_at, (size_t)(end - f->tag_at));
}

/* Changes the content of one field that is no message, or one that is taken as such. */
static void wire_change(struct wire_out *out, const struct flue_field_value *f, const uint8_t *end)
{
    uint8_t content[4096];
    size_t size;

    if (dice(12) == 0) { /* another field of the same type */
        uint32_t number = dice(4) ? 1 + dice(16) : f->number + dice(3) - 1;
        if (number > 0 && number < 1u << 29) {
            const uint8_t *at = f->tag_at;
            struct flue_reader r = {at, end};
            uint64_t tag;
            (void)flue_read_varint(&r, &tag);
            wire_varint(out, (uint64_t)number << 3 | (uint64_t)f->type);
            wire_put(out, r.at, (size_t)(end - r.at));
            return;
        }
    }
    wire_varint(out, flue_tag(f->number, f->type));
    switch (f->type) {
    case FLUE_VARINT:
        wire_varint(out, wire_number(f->varint));
        break;
    case FLUE_FIXED64: {
        uint64_t value = wire_number(f->varint);
        wire_put(out, &value, 8);
        break;
    }
    case FLUE_FIXED32: {
        uint32_t value = (uint32_t)wire_number(f->varint);
        wire_put(out, &value, 4);
        break;
    }
    case FLUE_LEN:
        size = f->bytes.size < sizeof content ? f->bytes.size : sizeof content;
        if (size)
            memcpy(content, f->bytes.data, size);
        if (dice(6) == 0) { /* a packed run of numbers */
            struct wire_out run = {content, size, sizeof content, false};
            wire_varint(&run, wire_number(dice(8)));
            size = run.size;
        } else {
            size = LLVMFuzzerMutate(content, size,
                                    size + 16 < sizeof content ? size + 16 : sizeof content);
        }
        wire_varint(out, size);
        wire_put(out, content, size);
        break;
    }
}

static void wire_mutate(struct flue_bytes in, unsigned depth, struct wire_out *out)
{
    static struct flue_field_value all[WIRE_DEPTH][WIRE_FIELDS];
    struct flue_field_value *fields = all[depth];
    struct flue_reader r = flue_reader(in);
    size_t count = 0;

    while (count < WIRE_FIELDS && flue_read_field(&r, &fields[count]))
        count++;
    const uint8_t *end = r.at;
    size_t at = count ? dice((uint32_t)count) : 0, other = count ? dice((uint32_t)count) : 0;
    for (unsigned tries = 0; tries < 3 && count && fields[at].type != FLUE_LEN; tries++)
        at = dice((uint32_t)count); /* most of the tree lies below messages */
    unsigned what = dice(20);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *stop = i + 1 < count ? fields[i + 1].tag_at : end;
        const uint8_t *other_stop = other + 1 < count ? fields[other + 1].tag_at : end;
        if (i != at) {
            wire_field(out, &fields[i], stop);
            continue;
        }
        if (fields[i].type == FLUE_LEN && depth + 1 < WIRE_DEPTH && what < 15 &&
            wire_is_message(fields[i].bytes)) {
            uint8_t *room = malloc(out->room ? out->room : 1);
            struct wire_out inner = {room, 0, room ? out->room : 0, false};
            wire_mutate(fields[i].bytes, depth + 1, &inner);
            wire_varint(out, flue_tag(fields[i].number, FLUE_LEN));
            wire_varint(out, inner.size);
            wire_put(out, inner.data, inner.size);
            out->full |= inner.full;
            free(room);
            continue;
        }
        switch (what) {
        case 15: /* gone */
            break;
        case 16: /* twice */
            wire_field(out, &fields[i], stop);
            wire_field(out, &fields[i], stop);
            break;
        case 17: /* another beside it */
            wire_field(out, &fields[other], other_stop);
            wire_field(out, &fields[i], stop);
            break;
        case 18: /* a new one */
            wire_field(out, &fields[i], stop);
            wire_varint(out, flue_tag(1 + dice(12), FLUE_VARINT));
            wire_varint(out, wire_number(0));
            break;
        default:
            wire_change(out, &fields[i], stop);
        }
    }
    wire_put(out, end, (size_t)(in.data + in.size - end)); /* what could not be read */
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    uint64_t outer = fuzz_state;
    size_t result = 0;

    fuzz_state = seed;
    if (dice(4) != 0 && wire_is_message(flue_bytes(data, size))) {
        uint8_t *room = malloc(max_size);
        struct wire_out out = {room, 0, room ? max_size : 0, false};
        wire_mutate(flue_bytes(data, size), 0, &out);
        if (!out.full && out.size) {
            memcpy(data, out.data, out.size);
            result = out.size;
        }
        free(room);
    }
    fuzz_state = outer;
    return result ? result : LLVMFuzzerMutate(data, size, max_size);
}

#endif
