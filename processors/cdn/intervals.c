/* intervals.c: slots say where to go on with a key, blocks have the starts of a slice. */
#include "processors/cdn/intervals.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum kind {
    VALUE,  /* ref: the value; no start in the slice */
    NEAR,   /* ref: a block of up to 63 starts, as differences of 32 bits */
    FAR,    /* ref: a block of up to 31 starts, whole */
    SLICES, /* ref: the slot below the first slice, `size` slices of 1 << shift keys each */
    RANKS   /* ref: eight keys; base: the first of nine slots */
};
struct slot {
    uint64_t base; /* the first start in the slice */
    uint32_t ref;  /* of lines or slots, or a value */
    uint16_t size; /* entries, or slices */
    uint8_t shift; /* bits below that nobody needs */
    uint8_t kind;
};
/* A block is a whole number of cache lines: its keys, ascending, then their values. The first key is
 * 0, with the value before the first start; behind the last stand the greatest key and the last
 * value, until `size` is a multiple of STEP. */
union line {
    uint32_t words[16];
    uint64_t wides[8];
};
_Static_assert(sizeof(struct slot) == 16 && sizeof(union line) == 64, "a line is a cache line");
#define STEP         8 /* entries that are compared at once */
#define NEAR_STARTS  63
#define FAR_STARTS   31
#define RANKS_KEYS   8
#define ROOT_STARTS  40 /* of a slice, on average: with more of them too many overflow */
#define SLICE_STARTS 32
#define SLICES_MAX   UINT16_MAX

struct flue_intervals {
    struct slot *slots; /* the root's slices first */
    union line *lines;
    size_t slot_count, line_count;
    uint64_t base, scale; /* slice of the root: (key - base) * scale >> 64 */
    size_t roots;
    uint32_t before; /* value below `base` */
};

/* ---- building -------------------------------------------------------------------------------- */

/* It runs twice: without arrays it only counts. */
struct builder {
    const uint64_t *starts;
    const uint32_t *values;
    struct flue_intervals *to;
    size_t slots, lines;
};

static void set_slot(struct builder *b, size_t at, struct slot slot)
{
    if (b->to->slots)
        b->to->slots[at] = slot;
}

/* What the starts have in common below is left out: false where that is not enough for 32 bits. */
static bool near_shift(const struct builder *b, size_t begin, size_t end, uint8_t *shift)
{
    uint64_t differ = 0;
    for (size_t i = begin + 1; i < end; i++)
        differ |= b->starts[i] - b->starts[begin];
    *shift = (uint8_t)(differ ? __builtin_ctzll(differ) : 0);
    return (b->starts[end - 1] - b->starts[begin]) >> *shift < UINT32_MAX - 1;
}

static void fill_block(struct builder *b, size_t at, size_t begin, size_t end, bool near,
                       uint8_t shift)
{
    size_t line = b->lines, size = (end - begin + 1 + STEP - 1) / STEP * STEP;
    size_t words = size * (near ? 2 : 3);

    b->lines += (words + 15) / 16;
    set_slot(b, at, (struct slot){b->starts[begin], (uint32_t)line, (uint16_t)size, shift,
                                  near ? NEAR : FAR});
    if (!b->to->lines)
        return;
    uint32_t *keys = b->to->lines[line].words, *values = keys + (near ? size : 2 * size);
    uint64_t *wides = b->to->lines[line].wides;
    for (size_t i = 0; i < size; i++) {
        size_t start = begin + i - 1; /* nothing for i == 0 */
        bool there = i > 0 && start < end;
        if (near)
            keys[i] = i == 0  ? 0
                      : there ? (uint32_t)((b->starts[start] - b->starts[begin]) >> shift) + 1
                              : UINT32_MAX;
        else
            wides[i] = i == 0 ? 0 : there ? b->starts[start] : UINT64_MAX;
        values[i] = b->values[start < end ? start : end - 1];
    }
}

static void fill(struct builder *b, size_t at, size_t begin, size_t end);

/* Equal slices, if that divides the starts. */
static bool fill_slices(struct builder *b, size_t at, size_t begin, size_t end)
{
    const uint64_t *starts = b->starts, base = starts[begin], range = starts[end - 1] - base;
    size_t count = end - begin, slices = count / SLICE_STARTS, most = count / 2;
    uint8_t shift = 0;

    if (slices < 2)
        slices = 2;
    if (slices > SLICES_MAX)
        slices = SLICES_MAX;
    if (most < NEAR_STARTS)
        most = NEAR_STARTS;
    while (range >> shift >= slices)
        shift++;
    for (size_t i = begin; i + most < end; i++) /* too many in one slice? */
        if ((starts[i] - base) >> shift == (starts[i + most] - base) >> shift)
            return false;
    size_t first = b->slots;
    slices = (range >> shift) + 1;
    b->slots += slices + 1;
    set_slot(b, at, (struct slot){base, (uint32_t)first, (uint16_t)slices, shift, SLICES});
    fill(b, first, begin, begin);
    for (size_t slice = 0, from = begin; slice < slices; slice++) {
        size_t to = from;
        while (to < end && (starts[to] - base) >> shift == slice)
            to++;
        fill(b, first + 1 + slice, from, to);
        from = to;
    }
    return true;
}

static void fill_ranks(struct builder *b, size_t at, size_t begin, size_t end)
{
    size_t count = end - begin, first = b->slots, line = b->lines++, from = begin;

    b->slots += RANKS_KEYS + 1;
    set_slot(b, at, (struct slot){.base = first, .ref = (uint32_t)line, .kind = RANKS});
    fill(b, first, begin, begin);
    for (size_t i = 0; i < RANKS_KEYS; i++) {
        size_t to = begin + count * (i + 1) / RANKS_KEYS;
        if (b->to->lines)
            b->to->lines[line].wides[i] = b->starts[from];
        fill(b, first + 1 + i, from, to);
        from = to;
    }
}

/* The slot of starts[begin..end), of which there is one before. More than what one block holds comes
 * back as at most half as many, or what is too far apart for a block in at least two parts. */
static void fill(struct builder *b, size_t at, size_t begin, size_t end)
{
    size_t count = end - begin;
    uint8_t shift;

    if (count == 0)
        set_slot(b, at, (struct slot){.ref = b->values[begin - 1], .kind = VALUE});
    else if (count <= NEAR_STARTS && near_shift(b, begin, end, &shift))
        fill_block(b, at, begin, end, true, shift);
    else if (count <= FAR_STARTS)
        fill_block(b, at, begin, end, false, 0);
    else if (!fill_slices(b, at, begin, end))
        fill_ranks(b, at, begin, end);
}

static size_t root_slice(const struct flue_intervals *v, uint64_t key)
{
    size_t slice = (size_t)((unsigned __int128)(key - v->base) * v->scale >> 64);
    return slice < v->roots ? slice : v->roots - 1;
}

static void fill_root(struct builder *b, size_t count)
{
    b->slots = b->to->roots;
    b->lines = 0;
    for (size_t slice = 0, from = 1; slice < b->to->roots; slice++) {
        size_t to = from;
        while (to < count && root_slice(b->to, b->starts[to]) == slice)
            to++;
        fill(b, slice, from, to);
        from = to;
    }
}

/* Cache lines; what is large on large pages, since half of a look-up's misses are the TLB's. */
#define LARGE_PAGE (2u << 20)
static void *array_of(size_t size)
{
    size_t align = size >= 2 * LARGE_PAGE ? LARGE_PAGE : 64;
    void *at = aligned_alloc(align, (size + align - 1) / align * align);
    if (at && align == LARGE_PAGE)
        (void)madvise(at, size, MADV_HUGEPAGE);
    return at;
}

struct flue_intervals *flue_intervals_new(const uint64_t *starts, const uint32_t *values,
                                          size_t count)
{
    struct flue_intervals *v = calloc(1, sizeof *v);
    struct builder b = {.starts = starts, .values = values, .to = v};

    if (!v)
        return NULL;
    v->before = values[0];
    if (count < 2)
        return v;
    v->base = starts[1];
    uint64_t range = starts[count - 1] - v->base;
    v->roots = count / ROOT_STARTS + 1;
    if (v->roots > range)
        v->roots = range ? (size_t)range : 1;
    v->scale = v->roots == 1 ? 0 : (uint64_t)(((unsigned __int128)v->roots << 64) / (range + 1));
    fill_root(&b, count);
    v->slot_count = b.slots;
    v->line_count = b.lines;
    v->slots = array_of(b.slots * sizeof *v->slots);
    v->lines = array_of((b.lines + 1) * sizeof *v->lines);
    if (!v->slots || !v->lines) {
        flue_intervals_destroy(v);
        return NULL;
    }
    fill_root(&b, count);
    return v;
}

void flue_intervals_destroy(struct flue_intervals *intervals)
{
    if (!intervals)
        return;
    free(intervals->slots);
    free(intervals->lines);
    free(intervals);
}

/* ---- look-up --------------------------------------------------------------------------------- */

/* How many keys are at or below: all are compared, since a branch would be guessed wrong. */
static size_t near_rank(const uint32_t *keys, size_t size, uint32_t key)
{
    uint32_t ranks[STEP] = {0}, rank = 0;
    for (size_t i = 0; i < size; i += STEP)
        for (unsigned k = 0; k < STEP; k++)
            ranks[k] += keys[i + k] <= key;
    for (unsigned k = 0; k < STEP; k++)
        rank += ranks[k];
    return rank;
}

static size_t far_rank(const uint64_t *keys, size_t size, uint64_t key)
{
    size_t rank = 0;
    for (size_t i = 0; i < size; i += STEP)
        for (unsigned k = 0; k < STEP; k++)
            rank += keys[i + k] <= key;
    return rank;
}

static uint32_t find_in_block(const struct slot *slot, const union line *block, uint64_t key)
{
    const uint32_t *words = block->words;
    size_t size = slot->size;

    for (size_t at = 0; at < size * 2; at += 16)
        __builtin_prefetch(words + at);
    if (slot->kind == FAR)
        return words[2 * size + far_rank(block->wides, size, key) - 1];
    uint64_t past = (key - slot->base) >> slot->shift;
    uint32_t near = past < UINT32_MAX - 1 ? (uint32_t)past + 1 : UINT32_MAX;
    return words[size + near_rank(words, size, key < slot->base ? 0 : near) - 1];
}

uint32_t flue_intervals_find(const struct flue_intervals *intervals, uint64_t key)
{
    if (intervals->roots == 0 || key < intervals->base)
        return intervals->before;
    const struct slot *slots = intervals->slots, *slot = &slots[root_slice(intervals, key)];
    for (;;) {
        if (slot->kind == SLICES) {
            uint64_t slice = (key - slot->base) >> slot->shift;
            slice = slice < slot->size ? slice + 1 : slot->size;
            slot = &slots[slot->ref + (key < slot->base ? 0 : slice)];
        } else if (slot->kind == RANKS) {
            const uint64_t *keys = intervals->lines[slot->ref].wides;
            slot = &slots[slot->base + far_rank(keys, RANKS_KEYS, key)];
        } else if (slot->kind == VALUE) {
            return slot->ref;
        } else {
            return find_in_block(slot, &intervals->lines[slot->ref], key);
        }
    }
}

size_t flue_intervals_bytes(const struct flue_intervals *intervals)
{
    return sizeof *intervals + intervals->slot_count * sizeof *intervals->slots +
           intervals->line_count * sizeof *intervals->lines;
}
