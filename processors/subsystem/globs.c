/* globs.c: see globs.h. */
#include "processors/subsystem/globs.h"

#define GRAM        4u  /* bytes that are hashed */
#define MOST_STRIDE 4u  /* bytes from one look into the filter to the next */
#define LOOKS       4u  /* into the filter between two branches */
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
    uint32_t next;             /* with the same node or in the list of short ones; 1 + row */
    uint16_t value;
    uint8_t shape;
};

/* While the tree grows. */
struct node {
    uint32_t child, sibling, globs;
    uint8_t byte;
    const uint8_t *label; /* what stands behind `byte` in the literal that made the node */
};

/* As it is walked: the children of a branch lie side by side, and so do their first bytes; a chain
 * of single children is one branch. */
struct branch {
    const uint8_t *label; /* must follow the first byte */
    uint32_t first, globs;
    uint16_t label_size, children;
};

/* Four bytes of a literal, `offset` bytes behind its start. */
struct gram {
    uint32_t next;       /* in the bucket; 1 + row */
    uint32_t word, tail; /* the four bytes, and the last four of the literal */
    uint32_t glob;
    uint16_t size; /* of the literal */
    uint8_t offset;
};

struct subsystem_globs {
    struct flue_arena *arena;
    struct glob *globs;
    size_t count, room;
    struct node *nodes;
    size_t node_count, node_room;
    struct branch *branches;
    uint8_t *bytes; /* first ones of the branches */
    uint32_t roots[256];
    uint32_t always;  /* "*" and its like */
    uint32_t shorter; /* literals of under GRAM bytes */
    uint16_t least_floating;
    uint64_t *filter; /* by hash; NULL: nothing floats */
    size_t stride;    /* so far apart are looks into the filter: each literal has so many grams */
    struct gram *grams;
    size_t gram_count, gram_room;
    uint32_t buckets[1u << BUCKET_BITS];
};

struct subsystem_globs *subsystem_globs_new(struct flue_arena *arena)
{
    struct subsystem_globs *globs = flue_arena_zalloc(arena, 1, sizeof *globs);
    if (globs) {
        globs->arena = arena;
        globs->least_floating = SUBSYSTEM_NONE;
        globs->stride = MOST_STRIDE;
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

static uint32_t word_at(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, GRAM);
    return word;
}

static uint32_t hash_of(uint32_t word)
{
    return word * UINT32_C(0x9e3779b1) >> (32 - FILTER_BITS);
}

/* ---- compiling ------------------------------------------------------------------------------ */

static uint32_t new_node(struct subsystem_globs *globs, uint8_t byte, const uint8_t *behind)
{
    struct node node = {.byte = byte, .label = behind};
    if (!FLUE_ARENA_PUSH(globs->arena, globs->nodes, globs->node_count, globs->node_room, node))
        return NO_NODE;
    return (uint32_t)globs->node_count - 1;
}

static uint32_t child_of(const struct subsystem_globs *globs, uint32_t node, uint8_t byte)
{
    uint32_t child = globs->nodes[node].child;
    while (child != NO_NODE && globs->nodes[child].byte != byte)
        child = globs->nodes[child].sibling;
    return child;
}

static bool hang(struct subsystem_globs *globs, uint32_t row)
{
    struct glob *glob = &globs->globs[row];
    const uint8_t *literal = glob->literal.data;
    uint32_t node = globs->roots[literal[0]];
    if (node == NO_NODE && (node = new_node(globs, literal[0], literal + 1)) == NO_NODE)
        return false;
    globs->roots[literal[0]] = node;
    for (size_t i = 1; i < glob->literal.size; i++) {
        uint8_t byte = literal[i];
        uint32_t child = child_of(globs, node, byte);
        if (child == NO_NODE) {
            if ((child = new_node(globs, byte, literal + i + 1)) == NO_NODE)
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

static bool add_gram(struct subsystem_globs *globs, uint32_t row, size_t offset)
{
    uint32_t word = word_at(globs->globs[row].literal.data + offset), hash = hash_of(word);
    uint32_t *list = bucket_of(globs, hash);
    struct flue_bytes literal = globs->globs[row].literal;
    struct gram gram = {.next = *list,
                        .word = word,
                        .tail = word_at(literal.data + literal.size - GRAM),
                        .glob = row,
                        .size = (uint16_t)literal.size,
                        .offset = (uint8_t)offset};
    if (!FLUE_ARENA_PUSH(globs->arena, globs->grams, globs->gram_count, globs->gram_room, gram))
        return false;
    *list = (uint32_t)globs->gram_count;
    globs->filter[hash >> 6] |= UINT64_C(1) << (hash & 63);
    return true;
}

/* The shortest literal says how far apart a text may be looked at so that none is stepped over. */
static void find_stride(struct subsystem_globs *globs)
{
    for (uint32_t row = 0; row < globs->count; row++) {
        const struct glob *glob = &globs->globs[row];
        size_t grams = glob->literal.size + 1 - GRAM;
        if (glob->text.size && is_wild(glob->text.data[0]) && glob->literal.size >= GRAM &&
            grams < globs->stride)
            globs->stride = grams;
    }
}

static bool float_free(struct subsystem_globs *globs, uint32_t row)
{
    struct glob *glob = &globs->globs[row];
    uint32_t *list = glob->literal.size == 0 ? &globs->always : &globs->shorter;
    if (glob->value < globs->least_floating)
        globs->least_floating = glob->value;
    if (glob->literal.size < GRAM) {
        glob->next = *list;
        *list = row + 1;
        return true;
    }
    if (!globs->filter)
        globs->filter = flue_arena_zalloc(globs->arena, (1u << FILTER_BITS) / 64, 8);
    if (!globs->filter)
        return false;
    for (size_t offset = 0; offset < globs->stride; offset++)
        if (!add_gram(globs, row, offset))
            return false;
    return true;
}

/* The children of `node`, put at the end of the branches; those of them follow when their turn
 * comes. `nodes` says which node a branch was. */
static uint32_t lay_down(struct subsystem_globs *globs, uint32_t child, uint32_t *nodes,
                         size_t *count, uint16_t *children)
{
    uint32_t first = (uint32_t)*count;
    for (; child != NO_NODE; child = globs->nodes[child].sibling, (*children)++) {
        nodes[*count] = child;
        globs->bytes[(*count)++] = globs->nodes[child].byte;
    }
    return first;
}

static bool flatten(struct subsystem_globs *globs)
{
    uint32_t *nodes = flue_arena_alloc(globs->arena, globs->node_count * sizeof *nodes);
    size_t count = 1;
    globs->branches = flue_arena_zalloc(globs->arena, globs->node_count, sizeof *globs->branches);
    globs->bytes = flue_arena_alloc(globs->arena, globs->node_count);
    if (!nodes || !globs->branches || !globs->bytes)
        return false;
    for (size_t byte = 0; byte < 256; byte++) {
        uint16_t one = 0;
        if (globs->roots[byte] != NO_NODE)
            globs->roots[byte] = lay_down(globs, globs->roots[byte], nodes, &count, &one);
    }
    for (size_t i = 1; i < count; i++) {
        const struct node *node = &globs->nodes[nodes[i]];
        struct branch *branch = &globs->branches[i];
        branch->label = node->label;
        while (!node->globs && node->child != NO_NODE &&
               globs->nodes[node->child].sibling == NO_NODE) {
            branch->label_size++;
            node = &globs->nodes[node->child];
        }
        branch->globs = node->globs;
        branch->first = lay_down(globs, node->child, nodes, &count, &branch->children);
    }
    return true;
}

bool subsystem_globs_compile(struct subsystem_globs *globs)
{
    (void)new_node(globs, 0, NULL); /* NO_NODE */
    if (globs->node_count == 0)
        return false;
    find_stride(globs);
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
    return flatten(globs);
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
    uint32_t row = globs->roots[text.data[0]];
    for (size_t i = 1; row != NO_NODE; i++) {
        const struct branch *branch = &globs->branches[row];
        const uint8_t *bytes = globs->bytes + branch->first;
        for (uint16_t k = 0; k < branch->label_size; k++, i++)
            if (i == text.size || text.data[i] != branch->label[k])
                return below;
        for (uint32_t g = branch->globs; g; g = globs->globs[g - 1].next) {
            const struct glob *glob = &globs->globs[g - 1];
            if (glob->value < below && verify(glob, text, 0))
                below = glob->value;
        }
        if (i == text.size)
            break;
        row = NO_NODE;
        for (uint16_t k = 0; k < branch->children && row == NO_NODE; k++)
            if (bytes[k] == text.data[i])
                row = branch->first + k;
    }
    return below;
}

/* What stands at `at` has the hash of a gram. */
static uint16_t try_grams(const struct subsystem_globs *globs, struct flue_bytes text, size_t at,
                          uint16_t below)
{
    uint32_t word = word_at(text.data + at);
    uint32_t row = globs->buckets[hash_of(word) >> (FILTER_BITS - BUCKET_BITS)];
    for (; row; row = globs->grams[row - 1].next) {
        const struct gram *gram = &globs->grams[row - 1];
        size_t start = at - gram->offset;
        if (gram->word != word || gram->offset > at || gram->size > text.size - start ||
            word_at(text.data + start + gram->size - GRAM) != gram->tail)
            continue;
        const struct glob *glob = &globs->globs[gram->glob];
        if (glob->value < below &&
            memcmp(glob->literal.data, text.data + start, glob->literal.size) == 0 &&
            verify(glob, text, start))
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

static uint64_t is_gram(const uint64_t *filter, const uint8_t *at)
{
    uint32_t hash = hash_of(word_at(at));
    return filter[hash >> 6] >> (hash & 63) & 1;
}

static uint16_t match_floating(const struct subsystem_globs *globs, struct flue_bytes text,
                               uint16_t below)
{
    const uint64_t *filter = globs->filter;
    size_t stride = globs->stride, i = 0;
    for (; i + (LOOKS - 1) * stride + GRAM <= text.size; i += LOOKS * stride) {
        const uint8_t *at = text.data + i;
        uint64_t hits = is_gram(filter, at) | is_gram(filter, at + stride) |
                        is_gram(filter, at + 2 * stride) | is_gram(filter, at + 3 * stride);
        if (__builtin_expect(hits != 0, 0))
            for (size_t k = i; k < i + LOOKS * stride; k += stride)
                if (is_gram(filter, text.data + k))
                    below = try_grams(globs, text, k, below);
    }
    for (; i + GRAM <= text.size; i += stride)
        if (is_gram(filter, text.data + i))
            below = try_grams(globs, text, i, below);
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
