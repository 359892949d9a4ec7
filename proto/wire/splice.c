/* splice.c: two walks over the steps: sizes upward, then bytes forward. */
#include "proto/wire/splice.h"

#include "proto/wire/writer.h"

/* Closes the innermost open message: its size is known now, and what its prefix grew by counts in
 * the message around it. */
static void close_message(struct flue_splice_step *steps, const uint32_t *open, int64_t *growth,
                          unsigned depth, bool *ok)
{
    struct flue_splice_step *step = &steps[open[depth - 1]];
    int64_t size = (int64_t)(step->to - step->start) + growth[depth];

    if (size < 0 || size > UINT32_MAX) {
        *ok = false;
        size = 0;
    }
    step->size = (uint32_t)size;
    growth[depth - 1] += growth[depth];
    if (growth[depth] != 0)
        growth[depth - 1] +=
            (int64_t)flue_varint_size((uint64_t)size) - (int64_t)(step->start - step->from);
}

size_t flue_splice_measure(size_t original, struct flue_splice_step *steps, size_t count, bool *ok)
{
    uint32_t open[FLUE_SPLICE_DEPTH];
    int64_t growth[FLUE_SPLICE_DEPTH + 1];
    unsigned depth = 0;
    uint32_t at = 0;

    *ok = original <= UINT32_MAX;
    growth[0] = 0;
    for (size_t i = 0; i < count && *ok; i++) {
        struct flue_splice_step *step = &steps[i];
        uint32_t end;
        if (step->inside > depth) {
            *ok = false;
            break;
        }
        while (depth > step->inside) {
            at = steps[open[depth - 1]].to > at ? steps[open[depth - 1]].to : at;
            close_message(steps, open, growth, depth--, ok);
        }
        end = depth ? steps[open[depth - 1]].to : (uint32_t)original;
        if (step->from < at || step->to < step->from || step->to > end) {
            *ok = false;
            break;
        }
        if (!step->message) {
            growth[depth] += (int64_t)step->with.size - (int64_t)(step->to - step->from);
            at = step->to;
            continue;
        }
        if (depth == FLUE_SPLICE_DEPTH || step->start <= step->from || step->start > step->to) {
            *ok = false;
            break;
        }
        open[depth++] = (uint32_t)i;
        growth[depth] = 0;
        at = step->start;
    }
    while (depth > 0)
        close_message(steps, open, growth, depth--, ok);
    if (!*ok)
        return 0;
    return (size_t)((int64_t)original + growth[0]);
}

/* A prefix is written anew only when the content's size changes: so says measure. */
enum flue_code flue_splice_write(struct flue_bytes original, const struct flue_splice_step *steps,
                                 size_t count, struct flue_arena *arena, struct flue_slices *out,
                                 struct flue_error *error)
{
    uint32_t at = 0;
    uint8_t *heads = count ? flue_arena_alloc(arena, count * 5) : NULL;

    if (count && !heads)
        goto memory;
    if (!out->items) {
        out->items = flue_arena_alloc(arena, (2 * count + 1) * sizeof *out->items);
        out->room = out->items ? 2 * count + 1 : 0;
    }
    for (size_t i = 0; i < count; i++) {
        const struct flue_splice_step *step = &steps[i];
        struct flue_bytes with = step->with;
        uint32_t to = step->to;
        if (step->message) {
            if (step->size == step->to - step->start)
                continue;
            with = flue_bytes(heads, 0);
            heads = flue_write_varint(heads, step->size);
            with.size = (size_t)(heads - with.data);
            to = step->start;
        }
        if (!flue_slices_add(out, arena, flue_bytes(original.data + at, step->from - at)) ||
            !flue_slices_add(out, arena, with))
            goto memory;
        at = to;
    }
    if (!flue_slices_add(out, arena, flue_bytes(original.data + at, original.size - at)))
        goto memory;
    return FLUE_OK;

memory:
    return flue_fail(error, FLUE_NO_MEMORY,
                     "the slices of an edited message do not fit the memory set aside for them");
}
