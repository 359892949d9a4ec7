/* json_budget.c: see json_budget.h. */
#include "proto/wire/json_budget.h"

#include <pthread.h>
#include <stdlib.h>

/* Before every allocation, so that freeing knows what to give back. */
struct header {
    size_t size;
    struct flue_json_budget *budget;
};

static _Thread_local struct flue_json_budget *current;
static pthread_once_t installed = PTHREAD_ONCE_INIT;

/* jansson may allocate what it has freed again: twice the most that lives at a time. */
#define RESERVE_FACTOR 2

static bool in_reserve(const struct flue_json_budget *budget, const void *memory)
{
    return budget && budget->reserve && (const uint8_t *)memory >= budget->reserve &&
           (const uint8_t *)memory < budget->reserve + budget->reserve_size;
}

static void *from_reserve(struct flue_json_budget *budget, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    if (!budget || !budget->reserve || size > budget->reserve_left)
        return NULL;
    budget->reserve_left -= size;
    return budget->reserve + budget->reserve_left;
}

static void *budget_malloc(size_t size)
{
    struct flue_json_budget *budget = current;
    if (size > SIZE_MAX - sizeof(struct header))
        return NULL;
    size_t whole = size + sizeof(struct header);
    struct header *header = malloc(whole);
    if (!header) {
        if (budget)
            budget->starved = true;
        header = from_reserve(budget, whole);
    }
    if (!header)
        return NULL;
    header->size = whole;
    header->budget = budget;
    if (budget) {
        budget->used += whole;
        if (budget->used > budget->peak)
            budget->peak = budget->used;
    }
    return header + 1;
}

static void budget_free(void *memory)
{
    if (!memory)
        return;
    struct header *header = (struct header *)memory - 1;
    if (header->budget)
        header->budget->used -= header->size;
    if (!in_reserve(header->budget, header))
        free(header);
}

static void install(void)
{
    json_set_alloc_funcs(budget_malloc, budget_free);
    json_object_seed(0);
}

void flue_json_begin(struct flue_json_budget *budget, size_t limit)
{
    pthread_once(&installed, install);
    *budget = (struct flue_json_budget){.limit = limit, .outer = current};
    current = budget;
}

void flue_json_end(struct flue_json_budget *budget)
{
    current = budget->outer;
}

/* What the scan of a text finds outside of its strings. */
struct shape {
    size_t objects, arrays, colons, commas, strings, depth;
};

static struct shape shape_of(struct flue_bytes text)
{
    struct shape shape = {0};
    size_t depth = 0;
    for (size_t i = 0; i < text.size; i++) {
        switch (text.data[i]) {
        case '"':
            shape.strings++;
            for (i++; i < text.size && text.data[i] != '"'; i++)
                i += text.data[i] == '\\';
            break;
        case '{':
        case '[':
            *(text.data[i] == '{' ? &shape.objects : &shape.arrays) += 1;
            if (++depth > shape.depth)
                shape.depth = depth;
            break;
        case '}':
        case ']':
            depth -= depth > 0;
            break;
        case ':':
            shape.colons++;
            break;
        case ',':
            shape.commas++;
            break;
        default:
            break;
        }
    }
    return shape;
}

static size_t bound_of(const struct shape *shape, size_t size)
{
    /* Sizes of jansson 2.14 on 64 bits with our headers: object 232, array 136, member 96 and its
     * share of a growing table 48, element's share 24, string 64, number 40. Text: the scanner's
     * buffer doubles (old and new at once), and every string is copied once. */
    return 1024 + 240 * shape->objects + 140 * shape->arrays + 144 * shape->colons +
           64 * shape->strings + 64 * (shape->commas + 1) + 4 * size;
}

size_t flue_json_bound(struct flue_bytes text)
{
    struct shape shape = shape_of(text);
    return bound_of(&shape, text.size);
}

enum flue_code flue_json_parse(struct flue_json_budget *budget, struct flue_bytes text,
                               json_t **out, struct flue_error *error)
{
    json_error_t mistake;
    *out = NULL;
    if (text.size == 0)
        return flue_fail(error, FLUE_INVALID, "JSON: empty body");
    struct shape shape = shape_of(text);
    /* jansson recurses per level; its own limit of 2,048 is too deep for a loop's stack. */
    if (shape.depth > FLUE_JSON_DEPTH)
        return flue_fail(error, FLUE_INVALID, "JSON: nested deeper than %d levels",
                         FLUE_JSON_DEPTH);
    size_t bound = bound_of(&shape, text.size);
    if (bound > budget->limit - budget->used)
        return flue_fail(error, FLUE_TOO_LARGE,
                         "JSON of %zu bytes may need %zu bytes of memory, a request may use %zu",
                         text.size, bound, budget->limit);
    budget->reserve_left = budget->reserve_size = (bound * RESERVE_FACTOR + 15) & ~(size_t)15;
    budget->reserve = malloc(budget->reserve_size);
    if (!budget->reserve)
        return flue_fail(error, FLUE_NO_MEMORY, "JSON: out of memory");
    budget->starved = false;
    *out =
        json_loadb((const char *)text.data, text.size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &mistake);
    if (budget->starved) { /* parts of it may lie in the reserve */
        json_decref(*out);
        *out = NULL;
    }
    free(budget->reserve);
    budget->reserve = NULL;
    if (*out)
        return FLUE_OK;
    if (budget->starved)
        return flue_fail(error, FLUE_NO_MEMORY, "JSON: out of memory");
    char shown[160];
    return flue_fail(error, FLUE_INVALID, "JSON: line %d column %d: %s", mistake.line,
                     mistake.column,
                     flue_printable(flue_bytes_of(mistake.text), shown, sizeof shown));
}
