/* prefixes.c: from prefixes to intervals, from intervals to trees. */
#include "processors/cdn/prefixes.h"

#include <arpa/inet.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* ---- texts ----------------------------------------------------------------------------------- */

bool flue_address_parse(struct flue_bytes text, struct flue_address *out)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char copy[INET6_ADDRSTRLEN + 1];

    if (text.size > 2 && text.data[0] == '[' && text.data[text.size - 1] == ']')
        text = flue_bytes(text.data + 1, text.size - 2);
    if (text.size == 0 || text.size >= sizeof copy || memchr(text.data, 0, text.size))
        return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = 0;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, copy, out->bytes) == 1)
        return true;
    if (inet_pton(AF_INET6, copy, out->bytes) != 1)
        return false;
    out->v6 = memcmp(out->bytes, mapped, sizeof mapped) != 0;
    if (!out->v6) {
        memmove(out->bytes, out->bytes + 12, 4);
        memset(out->bytes + 4, 0, 12);
    }
    return true;
}

bool flue_address_text(const struct flue_address *address, char *out, size_t size)
{
    return inet_ntop(address->v6 ? AF_INET6 : AF_INET, address->bytes, out, (socklen_t)size) != NULL;
}

/* Clears the bits behind `length`; true if any was set. */
static bool mask(uint8_t *bytes, unsigned length)
{
    bool any = false;
    for (unsigned i = 0; i < 16; i++) {
        unsigned keep = length > 8 * i ? length - 8 * i : 0;
        uint8_t kept = keep >= 8 ? bytes[i] : (uint8_t)(bytes[i] & ~(0xffu >> keep));
        any |= kept != bytes[i];
        bytes[i] = kept;
    }
    return any;
}

bool flue_prefix_parse(struct flue_bytes text, struct flue_prefix *out, bool *masked)
{
    text = flue_bytes_trim(text);
    size_t slash = flue_bytes_find(text, '/');
    struct flue_bytes address = slash == SIZE_MAX ? text : flue_bytes_first(text, slash);
    uint64_t length;

    memset(out, 0, sizeof *out);
    if (!flue_address_parse(address, &out->address))
        return false;
    unsigned longest = out->address.v6 ? 128 : 32;
    bool written_as_v6 = flue_bytes_find(address, ':') != SIZE_MAX;
    length = longest;
    if (slash != SIZE_MAX) {
        if (!flue_parse_u64(flue_bytes_from(text, slash + 1), &length))
            return false;
        if (written_as_v6 && !out->address.v6) { /* ::ffff:10.0.0.0/104 */
            if (length < 96)
                return false;
            length -= 96;
        }
    }
    if (length > longest)
        return false;
    out->length = (uint8_t)length;
    *masked = mask(out->address.bytes, out->length);
    return true;
}

bool flue_prefix_holds(const struct flue_prefix *prefix, const struct flue_address *address)
{
    uint8_t bytes[16];
    if (prefix->address.v6 != address->v6)
        return false;
    memcpy(bytes, address->bytes, sizeof bytes);
    (void)mask(bytes, prefix->length);
    return memcmp(bytes, prefix->address.bytes, sizeof bytes) == 0;
}

/* ---- a static B+-tree ------------------------------------------------------------------------ */

/* Levels from the leaves to the root, each an array of blocks of one cache line. Key j of an inner
 * block is the smallest key under its child j + 1. Behind the last key stands the greatest value. */
#define LEVELS_MAX 12
#define HUGE_PAGE  (2u << 20)
/* Whole cache lines; what is large on large pages, since half of a look-up's misses are the TLB's. */
static void *keys_of(size_t size)
{
    size_t align = size >= 2 * HUGE_PAGE ? HUGE_PAGE : 64;
    void *at = aligned_alloc(align, (size + align - 1) / align * align);
    if (at && align == HUGE_PAGE)
        (void)madvise(at, size, MADV_HUGEPAGE);
    return at;
}

#define TREE(KEY, NAME, WIDTH)                                                                     \
    struct NAME {                                                                                  \
        KEY *keys[LEVELS_MAX]; /* [0] the leaves */                                                \
        unsigned levels;                                                                           \
        size_t count;                                                                              \
        uint32_t *values; /* of leaf key i */                                                      \
    };                                                                                             \
    static void NAME##_free(struct NAME *tree)                                                     \
    {                                                                                              \
        for (unsigned i = 0; i < tree->levels; i++)                                                \
            free(tree->keys[i]);                                                                   \
        free(tree->values);                                                                        \
    }                                                                                              \
    static size_t NAME##_blocks(const struct NAME *tree, unsigned level)                           \
    {                                                                                              \
        size_t blocks = (tree->count + WIDTH - 1) / WIDTH;                                         \
        while (level--)                                                                            \
            blocks = (blocks + WIDTH) / (WIDTH + 1);                                               \
        return blocks;                                                                             \
    }                                                                                              \
    /* `starts` ascending, the first 0 */                                                          \
    static bool NAME##_build(struct NAME *tree, const KEY *starts, const uint32_t *values,         \
                             size_t count)                                                         \
    {                                                                                              \
        memset(tree, 0, sizeof *tree);                                                             \
        tree->count = count;                                                                       \
        tree->values = keys_of((count ? count : 1) * sizeof *values);                              \
        if (!tree->values)                                                                         \
            return false;                                                                          \
        if (count)                                                                                 \
            memcpy(tree->values, values, count * sizeof *values);                                  \
        size_t span = 1; /* leaf blocks under a child */                                           \
        for (unsigned level = 0; count && level < LEVELS_MAX; level++) {                           \
            size_t blocks = NAME##_blocks(tree, level), keys = blocks * WIDTH;                     \
            KEY *at = keys_of(keys * sizeof(KEY));                                                 \
            if (!at)                                                                               \
                return false;                                                                      \
            tree->keys[tree->levels++] = at;                                                       \
            for (size_t i = 0; i < keys; i++) {                                                    \
                size_t leaf = level == 0 ? i                                                       \
                                         : ((i / WIDTH) * (WIDTH + 1) + i % WIDTH + 1) * span *    \
                                               WIDTH;                                              \
                at[i] = leaf < count ? starts[leaf] : (KEY)-1;                                     \
            }                                                                                      \
            if (level > 0)                                                                         \
                span *= WIDTH + 1;                                                                 \
            if (blocks == 1)                                                                       \
                break;                                                                             \
        }                                                                                          \
        return true;                                                                               \
    }                                                                                              \
    /* The index of the last start that is <= key. */                                              \
    static size_t NAME##_find(const struct NAME *tree, KEY key)                                    \
    {                                                                                              \
        size_t block = 0, at = 0;                                                                  \
        if (key == (KEY)-1) /* would count what stands behind the last key */                      \
            return tree->count - 1;                                                                \
        for (unsigned level = tree->levels; level-- > 0;) {                                        \
            const KEY *keys = tree->keys[level] + block * WIDTH;                                   \
            unsigned below = 0;                                                                    \
            for (unsigned i = 0; i < WIDTH; i++)                                                   \
                below += keys[i] <= key;                                                           \
            if (level == 0)                                                                        \
                at = block * WIDTH + below;                                                        \
            else                                                                                   \
                block = block * (WIDTH + 1) + below;                                               \
        }                                                                                          \
        return at - 1;                                                                             \
    }                                                                                              \
    static size_t NAME##_bytes(const struct NAME *tree)                                            \
    {                                                                                              \
        size_t bytes = tree->count * sizeof(uint32_t);                                             \
        for (unsigned i = 0; i < tree->levels; i++)                                                \
            bytes += NAME##_blocks(tree, i) * WIDTH * sizeof(KEY);                                 \
        return bytes;                                                                              \
    }
TREE(uint32_t, tree32, 16)
TREE(uint64_t, tree64, 8)

/* Prefixes longer than /64: few, so a sorted array and a binary search do. */
struct wide {
    uint64_t high, low;
    uint32_t place;
};
/* A value of the IPv6 tree with this bit: in this /64 the wide intervals decide. */
#define WIDE UINT32_C(0x80000000)

struct flue_prefixes {
    struct tree32 v4;
    struct tree64 v6;
    struct wide *wides;
    size_t wide_count, count;
};

/* ---- intervals ------------------------------------------------------------------------------- */

static uint64_t high_of(const struct flue_prefix *p)
{
    uint64_t value;
    memcpy(&value, p->address.bytes, sizeof value);
    return be64toh(value);
}

static uint64_t low_of(const struct flue_prefix *p)
{
    uint64_t value;
    memcpy(&value, p->address.bytes + 8, sizeof value);
    return be64toh(value);
}

static int by_start(const void *a, const void *b)
{
    const struct flue_prefix *x = a, *y = b;
    if (x->address.v6 != y->address.v6)
        return x->address.v6 ? 1 : -1;
    int order = memcmp(x->address.bytes, y->address.bytes, 16);
    if (order)
        return order;
    if (x->length != y->length)
        return x->length < y->length ? -1 : 1;
    return x->line < y->line ? -1 : x->line > y->line;
}

/* One of equal prefixes stays; their place is `disputed` where they differ. */
static size_t unite(struct flue_prefix *items, size_t count, uint32_t disputed,
                    void (*dispute)(void *, const struct flue_prefix *,
                                    const struct flue_prefix *),
                    void *arg)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        struct flue_prefix *last = kept ? &items[kept - 1] : NULL;
        if (!last || last->address.v6 != items[i].address.v6 || last->length != items[i].length ||
            memcmp(last->address.bytes, items[i].address.bytes, 16) != 0) {
            items[kept++] = items[i];
            continue;
        }
        if (last->place == items[i].place)
            continue;
        if (dispute)
            dispute(arg, last, &items[i]);
        last->place = disputed;
    }
    return kept;
}

struct intervals {
    uint64_t *starts;
    uint32_t *values;
    size_t count, room;
};

static bool push(struct intervals *out, uint64_t start, uint32_t value)
{
    if (out->count && out->starts[out->count - 1] == start) {
        out->values[out->count - 1] = value; /* the longer one begins at the same place */
    } else if (out->count && out->values[out->count - 1] == value) {
        return true;
    } else {
        if (out->count == out->room) {
            size_t room = out->room ? out->room * 2 : 1024;
            uint64_t *starts = realloc(out->starts, room * sizeof *starts);
            if (starts)
                out->starts = starts;
            uint32_t *values = realloc(out->values, room * sizeof *values);
            if (values)
                out->values = values;
            if (!starts || !values)
                return false;
            out->room = room;
        }
        out->starts[out->count] = start;
        out->values[out->count++] = value;
    }
    /* Two neighbours may have become equal. */
    if (out->count > 1 && out->values[out->count - 1] == out->values[out->count - 2])
        out->count--;
    return true;
}

struct open {
    uint64_t last; /* the greatest key in it */
    uint32_t place;
};
#define STACK_MAX 68 /* the ground, lengths 0 to 64, and the mark of a /64 with longer ones */

/* `bits` of a key: 32 or 64. Prefixes are sorted by start, shorter first: a stack holds those that
 * contain the point where we are. */
static bool sweep(const struct flue_prefix *items, size_t count, unsigned bits,
                  struct intervals *out)
{
    struct open stack[STACK_MAX];
    unsigned depth = 0;
    uint64_t greatest = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;

    stack[depth++] = (struct open){greatest, 0};
    if (!push(out, 0, 0))
        return false;
    for (size_t i = 0; i <= count; i++) {
        uint64_t start = i == count ? greatest : high_of(&items[i]) >> (64 - bits);
        /* Close what ends before the start; at the end, everything but the ground. */
        while (depth > 1 && (i == count || stack[depth - 1].last < start)) {
            uint64_t last = stack[--depth].last;
            if (last < greatest && !push(out, last + 1, stack[depth - 1].place))
                return false;
        }
        if (i == count)
            break;
        unsigned length = items[i].length < bits ? items[i].length : bits;
        uint64_t last = start | (length == bits ? 0 : greatest >> length);
        stack[depth++] = (struct open){last, items[i].place};
        if (!push(out, start, items[i].place))
            return false;
    }
    return true;
}

static bool wide_push(struct flue_prefixes *p, size_t *room, uint64_t high, uint64_t low,
                      uint32_t place)
{
    struct wide *last = p->wide_count ? &p->wides[p->wide_count - 1] : NULL;
    if (last && last->high == high && last->low == low) {
        last->place = place;
        return true;
    }
    if (p->wide_count == *room) {
        size_t more = *room ? *room * 2 : 64;
        struct wide *wides = realloc(p->wides, more * sizeof *wides);
        if (!wides)
            return false;
        p->wides = wides;
        *room = more;
    }
    p->wides[p->wide_count++] = (struct wide){high, low, place};
    return true;
}

/* The prefixes of one /64, all longer than 64: sorted by low start, shorter first. */
static bool sweep_wide(struct flue_prefixes *p, size_t *room, const struct flue_prefix *items,
                       size_t count, uint32_t outer)
{
    struct open stack[STACK_MAX];
    unsigned depth = 0;
    uint64_t high = high_of(items);

    stack[depth++] = (struct open){UINT64_MAX, outer};
    if (!wide_push(p, room, high, 0, outer))
        return false;
    for (size_t i = 0; i <= count; i++) {
        uint64_t start = i == count ? 0 : low_of(&items[i]);
        while (depth > 1 && (i == count || stack[depth - 1].last < start)) {
            uint64_t last = stack[--depth].last;
            if (last != UINT64_MAX && !wide_push(p, room, high, last + 1, stack[depth - 1].place))
                return false;
        }
        if (i == count)
            break;
        uint64_t last = start | (items[i].length == 128 ? 0 : UINT64_MAX >> (items[i].length - 64));
        stack[depth++] = (struct open){last, items[i].place};
        if (!wide_push(p, room, high, start, items[i].place))
            return false;
    }
    return true;
}

/* Every /64 that holds longer prefixes becomes one entry marked WIDE, and what is in it goes into
 * `wides`. The stack holds the prefixes of at most /64 around the point where we are. */
static bool build_v6(struct flue_prefixes *p, const struct flue_prefix *items, size_t count,
                     struct intervals *out)
{
    struct flue_prefix *flat = malloc((count ? count : 1) * sizeof *flat);
    struct open stack[STACK_MAX];
    size_t flats = 0, room = 0;
    unsigned depth = 0;
    bool ok = flat != NULL;

    stack[depth++] = (struct open){UINT64_MAX, 0};
    for (size_t i = 0; ok && i < count;) {
        uint64_t high = high_of(&items[i]);
        while (depth > 1 && stack[depth - 1].last < high)
            depth--;
        if (items[i].length <= 64) {
            unsigned length = items[i].length;
            uint64_t span = length == 64 ? 0 : UINT64_MAX >> length;
            stack[depth++] = (struct open){high | span, items[i].place};
            flat[flats++] = items[i++];
            continue;
        }
        size_t end = i;
        while (end < count && items[end].length > 64 && high_of(&items[end]) == high)
            end++;
        ok = sweep_wide(p, &room, items + i, end - i, stack[depth - 1].place);
        flat[flats] = items[i];
        flat[flats].length = 64;
        flat[flats++].place = WIDE | (uint32_t)i; /* no two alike: never merged */
        i = end;
    }
    ok = ok && sweep(flat, flats, 64, out);
    free(flat);
    return ok;
}

static bool build_trees(struct flue_prefixes *p, const struct flue_prefix *items, size_t count,
                        size_t fours)
{
    struct intervals four = {0}, six = {0};
    uint32_t *starts = NULL;
    bool ok = sweep(items, fours, 32, &four) && build_v6(p, items + fours, count - fours, &six);

    ok = ok && (starts = malloc(four.count * sizeof *starts)) != NULL;
    for (size_t i = 0; ok && i < four.count; i++)
        starts[i] = (uint32_t)four.starts[i];
    ok = ok && tree32_build(&p->v4, starts, four.values, four.count) &&
         tree64_build(&p->v6, six.starts, six.values, six.count);
    free(starts);
    free(four.starts);
    free(four.values);
    free(six.starts);
    free(six.values);
    return ok;
}

enum flue_code flue_prefixes_build(struct flue_prefix *items, size_t count, uint32_t disputed,
                                   void (*dispute)(void *arg, const struct flue_prefix *one,
                                                   const struct flue_prefix *other),
                                   void *arg, struct flue_prefixes **out, struct flue_error *error)
{
    struct flue_prefixes *p = calloc(1, sizeof *p);
    size_t fours = 0;

    if (!p)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a table of prefixes");
    if (count)
        qsort(items, count, sizeof *items, by_start);
    p->count = count = unite(items, count, disputed, dispute, arg);
    while (fours < count && !items[fours].address.v6)
        fours++;
    if (!build_trees(p, items, count, fours)) {
        flue_prefixes_destroy(p);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a table of %zu prefixes", count);
    }
    *out = p;
    return FLUE_OK;
}

void flue_prefixes_destroy(struct flue_prefixes *prefixes)
{
    if (!prefixes)
        return;
    tree32_free(&prefixes->v4);
    tree64_free(&prefixes->v6);
    free(prefixes->wides);
    free(prefixes);
}

/* ---- look-up --------------------------------------------------------------------------------- */

static uint32_t find_wide(const struct flue_prefixes *p, uint64_t high, uint64_t low)
{
    size_t below = 0, above = p->wide_count; /* the last that is <= (high, low) */
    while (below < above) {
        size_t middle = below + (above - below) / 2;
        const struct wide *w = &p->wides[middle];
        if (w->high < high || (w->high == high && w->low <= low))
            below = middle + 1;
        else
            above = middle;
    }
    return below ? p->wides[below - 1].place : 0;
}

uint32_t flue_prefixes_find(const struct flue_prefixes *prefixes,
                            const struct flue_address *address)
{
    if (!address->v6) {
        uint32_t key;
        memcpy(&key, address->bytes, sizeof key);
        return prefixes->v4.values[tree32_find(&prefixes->v4, be32toh(key))];
    }
    uint64_t high, low;
    memcpy(&high, address->bytes, sizeof high);
    memcpy(&low, address->bytes + 8, sizeof low);
    uint32_t value = prefixes->v6.values[tree64_find(&prefixes->v6, be64toh(high))];
    return value & WIDE ? find_wide(prefixes, be64toh(high), be64toh(low)) : value;
}

size_t flue_prefixes_count(const struct flue_prefixes *prefixes)
{
    return prefixes->count;
}

size_t flue_prefixes_bytes(const struct flue_prefixes *prefixes)
{
    return sizeof *prefixes + tree32_bytes(&prefixes->v4) + tree64_bytes(&prefixes->v6) +
           prefixes->wide_count * sizeof(struct wide);
}
