/* globs.c: see globs.h. */
#include "processors/subsystem/globs.h"

#define GRAM        4u  /* bytes that are hashed */
#define FILTER_BITS 16u /* few enough false hits, and at home in the first cache */
#define BUCKET_BITS 10u
#define NO_NODE     0u

enum shape {
    EXACT,  /* literal */
    PREFIX, /* literal* */
    WITHIN, /* *literal* */
    ENDING, /* *literal */
    GENERAL
};

struct glob {
    struct flue_bytes text;
    struct flue_bytes literal; /* by which it is found */
    uint32_t next;             /* with the same node, hash or in the list of short ones; 1 + row */
    uint16_t value;
    uint8_t shape;
};

/* Children of a node are a list, as most have one; where there are many they have a table. */
#define LISTED_CHILDREN 2u
struct node {
    uint32_t child, sibling, globs;
    uint8_t byte;
    uint32_t *table; /* by byte */
};

struct subsystem_globs {
    struct flue_arena *arena;
    struct glob *globs;
    size_t count, room;
    struct node *nodes;
    size_t node_count, node_room;
    uint32_t roots[256];
    uint32_t always;  /* "*" and its like */
    uint32_t shorter; /* literals of under GRAM bytes */
    uint16_t least_floating;
    uint64_t *filter; /* by hash; NULL: nothing floats */
    uint32_t buckets[1u << BUCKET_BITS];
};

struct subsystem_globs *subsystem_globs_new(struct flue_arena *arena)
{
    struct subsystem_globs *globs = flue_arena_zalloc(arena, 1, sizeof *globs);
    if (globs) {
        globs->arena = arena;
        globs->least_floating = SUBSYSTEM_NONE;
    }
    return globs;
}

static bool is_wild(uint8_t byte)
{
    return byte == '*' || byte == '?';
}

/* The longest run without wildcards. */
static struct flue_bytes longest_literal(struct flue_bytes text)
{
    struct flue_bytes best = flue_bytes(text.data, 0);
    for (size_t i = 0; i < text.size;) {
        size_t end = i;
        while (end < text.size && !is_wild(text.data[end]))
            end++;
        if (end - i > best.size)
            best = flue_bytes(text.data + i, end - i);
        i = end + 1;
    }
    return best;
}

static enum shape shape_of(struct flue_bytes text, struct flue_bytes literal)
{
    bool before = text.size && text.data[0] == '*';
    bool behind = text.size > literal.size && text.data[text.size - 1] == '*';
    if (literal.size == text.size)
        return EXACT;
    if (literal.size + before + behind != text.size || literal.size == 0)
        return GENERAL;
    if (before && behind)
        return WITHIN;
    return before ? ENDING : behind ? PREFIX : GENERAL;
}

bool subsystem_globs_add(struct subsystem_globs *globs, struct flue_bytes text, uint16_t value)
{
    struct glob glob = {.text = flue_arena_copy(globs->arena, text), .value = value};
    size_t first = 0;
    if (!glob.text.data || globs->count >= SUBSYSTEM_GLOBS_MAX)
        return false;
    while (first < text.size && !is_wild(text.data[first]))
        first++;
    glob.literal = first ? flue_bytes(glob.text.data, first) : longest_literal(glob.text);
    glob.shape = (uint8_t)shape_of(glob.text, glob.literal);
    return FLUE_ARENA_PUSH(globs->arena, globs->globs, globs->count, globs->room, glob);
}

static uint32_t hash_of(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, GRAM);
    return word * UINT32_C(0x9e3779b1) >> (32 - FILTER_BITS);
}

/* ---- compiling ------------------------------------------------------------------------------ */

static uint32_t new_node(struct subsystem_globs *globs, uint8_t byte)
{
    struct node node = {.byte = byte};
    if (!FLUE_ARENA_PUSH(globs->arena, globs->nodes, globs->node_count, globs->node_room, node))
        return NO_NODE;
    return (uint32_t)globs->node_count - 1;
}

static uint32_t child_of(const struct subsystem_globs *globs, uint32_t node, uint8_t byte)
{
    if (globs->nodes[node].table)
        return globs->nodes[node].table[byte];
    uint32_t child = globs->nodes[node].child;
    while (child != NO_NODE && globs->nodes[child].byte != byte)
        child = globs->nodes[child].sibling;
    return child;
}

static bool hang(struct subsystem_globs *globs, uint32_t row)
{
    struct glob *glob = &globs->globs[row];
    uint32_t node = globs->roots[glob->literal.data[0]];
    if (node == NO_NODE && (node = new_node(globs, glob->literal.data[0])) == NO_NODE)
        return false;
    globs->roots[glob->literal.data[0]] = node;
    for (size_t i = 1; i < glob->literal.size; i++) {
        uint8_t byte = glob->literal.data[i];
        uint32_t child = child_of(globs, node, byte);
        if (child == NO_NODE) {
            if ((child = new_node(globs, byte)) == NO_NODE)
                return false;
            globs->nodes[child].sibling = globs->nodes[node].child;
            globs->nodes[node].child = child;
        }
        node = child;
    }
    glob->next = globs->nodes[node].globs;
    globs->nodes[node].globs = row + 1;
    return true;
}

static uint32_t *bucket_of(struct subsystem_globs *globs, uint32_t hash)
{
    return &globs->buckets[hash >> (FILTER_BITS - BUCKET_BITS)];
}

static bool float_free(struct subsystem_globs *globs, uint32_t row)
{
    struct glob *glob = &globs->globs[row];
    uint32_t *list = glob->literal.size == 0 ? &globs->always : &globs->shorter;
    if (glob->literal.size >= GRAM) {
        uint32_t hash = hash_of(glob->literal.data);
        if (!globs->filter)
            globs->filter = flue_arena_zalloc(globs->arena, (1u << FILTER_BITS) / 64, 8);
        if (!globs->filter)
            return false;
        globs->filter[hash >> 6] |= UINT64_C(1) << (hash & 63);
        list = bucket_of(globs, hash);
    }
    glob->next = *list;
    *list = row + 1;
    if (glob->value < globs->least_floating)
        globs->least_floating = glob->value;
    return true;
}

static bool make_tables(struct subsystem_globs *globs)
{
    for (size_t i = 1; i < globs->node_count; i++) {
        unsigned children = 0;
        for (uint32_t c = globs->nodes[i].child; c != NO_NODE; c = globs->nodes[c].sibling)
            children++;
        if (children <= LISTED_CHILDREN)
            continue;
        uint32_t *table = flue_arena_zalloc(globs->arena, 256, sizeof *table);
        if (!table)
            return false;
        for (uint32_t c = globs->nodes[i].child; c != NO_NODE; c = globs->nodes[c].sibling)
            table[globs->nodes[c].byte] = c;
        globs->nodes[i].table = table;
    }
    return true;
}

bool subsystem_globs_compile(struct subsystem_globs *globs)
{
    (void)new_node(globs, 0); /* NO_NODE */
    if (globs->node_count == 0)
        return false;
    for (uint32_t row = 0; row < globs->count; row++) {
        const struct glob *glob = &globs->globs[row];
        if (!glob->text.size)
            continue; /* matches nothing: a name that is not there is no name */
        if (!is_wild(glob->text.data[0])) {
            if (!hang(globs, row))
                return false;
        } else if (!float_free(globs, row)) {
            return false;
        }
    }
    return make_tables(globs);
}

/* ---- matching ------------------------------------------------------------------------------- */

bool subsystem_glob_matches(struct flue_bytes glob, struct flue_bytes text)
{
    size_t g = 0, t = 0, star = SIZE_MAX, resume = 0;
    while (t < text.size) {
        if (g < glob.size && glob.data[g] == '*') {
            star = g++;
            resume = t;
        } else if (g < glob.size && (glob.data[g] == '?' || glob.data[g] == text.data[t])) {
            g++;
            t++;
        } else if (star != SIZE_MAX) {
            g = star + 1;
            t = ++resume;
        } else {
            return false;
        }
    }
    while (g < glob.size && glob.data[g] == '*')
        g++;
    return g == glob.size;
}

/* `at`: the literal was found there. */
static bool verify(const struct glob *glob, struct flue_bytes text, size_t at)
{
    switch (glob->shape) {
    case EXACT:
        return text.size == glob->literal.size;
    case PREFIX:
    case WITHIN:
        return true;
    case ENDING:
        return at + glob->literal.size == text.size;
    default:
        return subsystem_glob_matches(glob->text, text);
    }
}

static uint16_t match_anchored(const struct subsystem_globs *globs, struct flue_bytes text,
                               uint16_t below)
{
    uint32_t node = globs->roots[text.data[0]];
    for (size_t i = 1; node != NO_NODE; i++) {
        for (uint32_t row = globs->nodes[node].globs; row; row = globs->globs[row - 1].next) {
            const struct glob *glob = &globs->globs[row - 1];
            if (glob->value < below && verify(glob, text, 0))
                below = glob->value;
        }
        if (i == text.size)
            break;
        node = child_of(globs, node, text.data[i]);
    }
    return below;
}

static uint16_t try_list(const struct subsystem_globs *globs, uint32_t row, struct flue_bytes text,
                         size_t at, uint16_t below)
{
    for (; row; row = globs->globs[row - 1].next) {
        const struct glob *glob = &globs->globs[row - 1];
        if (glob->value < below && glob->literal.size <= text.size - at &&
            memcmp(glob->literal.data, text.data + at, glob->literal.size) == 0 &&
            verify(glob, text, at))
            below = glob->value;
    }
    return below;
}

static uint16_t match_short(const struct subsystem_globs *globs, struct flue_bytes text,
                            uint16_t below)
{
    for (uint32_t row = globs->shorter; row; row = globs->globs[row - 1].next) {
        const struct glob *glob = &globs->globs[row - 1];
        const uint8_t *at = text.data;
        if (glob->value >= below)
            continue;
        for (; (at = memmem(at, text.size - (size_t)(at - text.data), glob->literal.data,
                            glob->literal.size));
             at++) {
            if (verify(glob, text, (size_t)(at - text.data))) {
                below = glob->value;
                break;
            }
            if (glob->shape == GENERAL) /* looked at the whole text */
                break;
        }
    }
    return below;
}

static uint16_t match_floating(const struct subsystem_globs *globs, struct flue_bytes text,
                               uint16_t below)
{
    const uint64_t *filter = globs->filter;
    for (size_t i = 0; i + GRAM <= text.size; i++) {
        uint32_t hash = hash_of(text.data + i);
        if (__builtin_expect((filter[hash >> 6] >> (hash & 63) & 1) != 0, 0))
            below = try_list(globs, globs->buckets[hash >> (FILTER_BITS - BUCKET_BITS)], text, i,
                             below);
    }
    return below;
}

uint16_t subsystem_globs_match(const struct subsystem_globs *globs, struct flue_bytes text,
                               uint16_t below)
{
    uint16_t found = below;
    if (text.size == 0)
        return SUBSYSTEM_NONE;
    text = flue_bytes_first(text, SUBSYSTEM_TEXT_MAX);
    found = match_anchored(globs, text, found);
    if (globs->least_floating < found) {
        for (uint32_t row = globs->always; row; row = globs->globs[row - 1].next) {
            const struct glob *glob = &globs->globs[row - 1];
            if (glob->value < found && subsystem_glob_matches(glob->text, text))
                found = glob->value;
        }
        found = match_short(globs, text, found);
        if (globs->filter)
            found = match_floating(globs, text, found);
    }
    return found < below ? found : SUBSYSTEM_NONE;
}
