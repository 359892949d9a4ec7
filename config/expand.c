/* expand.c: ${...} in values. load.h says the rules. */
#include <ctype.h>
#include <stdlib.h>

#include "config/load.h"

struct expansion {
    struct flue_tree *tree;
    struct flue_check *check; /* NULL: nobody is told */
    struct flue_position at;  /* of the value, for messages */
    unsigned rounds;          /* on the way to this value */
    unsigned *total;          /* of the whole configuration */
};

#define complain(x, ...)                                                                           \
    do {                                                                                           \
        if ((x)->check)                                                                            \
            flue_mistake_at((x)->check, (x)->at, __VA_ARGS__);                                     \
    } while (0)

/* The first reference of `text` that may be expanded: innermost first, escaped ones passed over. */
static bool find_reference(const char *text, size_t *start, size_t *size)
{
    size_t from = 0;
    const char *close;
    while ((close = strchr(text + from, '}')) != NULL) {
        size_t end = (size_t)(close - text) + 1, open = SIZE_MAX;
        for (size_t i = from; i + 1 < end; i++)
            if (text[i] == '$' && text[i + 1] == '{')
                open = i;
        if (open != SIZE_MAX) {
            size_t dollars = 0;
            while (dollars < open && text[open - dollars - 1] == '$')
                dollars++;
            if (dollars % 2 == 0) {
                *start = open;
                *size = end - open;
                return true;
            }
        }
        from = end;
    }
    return false;
}

static bool variable_name(struct flue_bytes name)
{
    if (name.size == 0 || isdigit(name.data[0]))
        return false;
    for (size_t i = 0; i < name.size; i++)
        if (!isalnum(name.data[i]) && name.data[i] != '_')
            return false;
    return true;
}

static bool from_environment(struct expansion *x, struct flue_bytes rest, struct flue_bytes *out)
{
    struct flue_bytes name = rest, fallback = {NULL, 0};
    for (size_t i = 0; i + 1 < rest.size; i++) {
        if (rest.data[i] == ':' && rest.data[i + 1] == '-') {
            name = flue_bytes_first(rest, i);
            fallback = flue_bytes_from(rest, i + 2);
            break;
        }
    }
    if (!variable_name(name)) {
        char shown[80];
        complain(x,
                 "\"%s\" is no name of an environment variable: letters, digits and _, not "
                 "beginning with a digit",
                 flue_printable(name, shown, sizeof shown));
        return false;
    }
    char key[256];
    if (name.size >= sizeof key) {
        complain(x, "the name of an environment variable has %zu characters, the limit is %zu",
                 name.size, sizeof key - 1);
        return false;
    }
    memcpy(key, name.data, name.size);
    key[name.size] = 0;
    const char *value = getenv(key);
    if (value) {
        *out = flue_bytes_of(value);
        return true;
    }
    if (!fallback.data && x->check)
        flue_warning_at(x->check, x->at,
                        "the environment variable %s is not set and has no default "
                        "(${env:%s:-default}): taken as empty",
                        key, key);
    *out = fallback.data ? fallback : FLUE_BYTES("");
    return true;
}

static bool from_file(struct expansion *x, struct flue_bytes rest, struct flue_bytes *out)
{
    const char *path = flue_arena_string(x->tree->arena, rest), *reason = "out of memory";
    if (!path || !flue_config_read_file(x->tree->arena, path, out, &reason)) {
        complain(x, "${file:%s}: %s", path ? path : "", reason);
        return false;
    }
    if (memchr(out->data, 0, out->size)) {
        complain(x, "${file:%s}: holds a NUL character", path);
        return false;
    }
    while (out->size && (out->data[out->size - 1] == '\n' || out->data[out->size - 1] == '\r'))
        out->size--;
    return true;
}

/* What stands between "${" and "}": scheme and rest; `file` is set when it came from one. */
static bool retrieve(struct expansion *x, struct flue_bytes inner, struct flue_bytes *out,
                     bool *is_file)
{
    char shown[80];
    *is_file = false;
    if (flue_bytes_find(inner, '$') != SIZE_MAX) {
        complain(x, "\"$\" cannot stand within ${%s}", flue_printable(inner, shown, sizeof shown));
        return false;
    }
    size_t colon = flue_bytes_find(inner, ':');
    if (colon == SIZE_MAX || (colon + 1 < inner.size && inner.data[colon + 1] == '-' &&
                              !flue_bytes_is(flue_bytes_first(inner, colon), "file") &&
                              !flue_bytes_is(flue_bytes_first(inner, colon), "yaml") &&
                              !flue_bytes_is(flue_bytes_first(inner, colon), "env")))
        return from_environment(x, inner, out);
    struct flue_bytes scheme = flue_bytes_first(inner, colon);
    struct flue_bytes rest = flue_bytes_from(inner, colon + 1);
    if (flue_bytes_is(scheme, "env"))
        return from_environment(x, rest, out);
    if (flue_bytes_is(scheme, "yaml")) {
        *out = rest;
        return true;
    }
    if (flue_bytes_is(scheme, "file")) {
        *is_file = true;
        return from_file(x, rest, out);
    }
    struct flue_nearest nearest = {.word = flue_printable(scheme, shown, sizeof shown)};
    flue_nearest_offer(&nearest, "env");
    flue_nearest_offer(&nearest, "file");
    flue_nearest_offer(&nearest, "yaml");
    complain(x, "unknown scheme \"%s\" in ${%s:...}%s; env, file and yaml are known", shown, shown,
             flue_nearest_hint(&nearest, x->tree->arena));
    return false;
}

static bool another_round(struct expansion *x)
{
    if (*x->total > FLUE_EXPAND_TOTAL)
        return false; /* said before */
    if (++*x->total > FLUE_EXPAND_TOTAL) {
        complain(x, "the configuration has more than %d references to expand", FLUE_EXPAND_TOTAL);
        return false;
    }
    if (++x->rounds <= FLUE_EXPAND_ROUNDS)
        return true;
    complain(x, "the expansion does not end after %d rounds: does a reference lead to itself?",
             FLUE_EXPAND_ROUNDS);
    return false;
}

/* `text` with the reference at `start` replaced by its value. */
static const char *substitute(struct expansion *x, const char *text, size_t start, size_t size,
                              struct flue_bytes value)
{
    const char *rest = text + start + size;
    if (start + value.size + strlen(rest) > FLUE_EXPAND_MAX_BYTES) {
        complain(x, "a value expands to more than %u bytes", FLUE_EXPAND_MAX_BYTES);
        return NULL;
    }
    const char *result =
        flue_arena_printf(x->tree->arena, "%.*s%.*s%s", (int)start, text, FLUE_PRI(value), rest);
    if (!result)
        complain(x, "out of memory");
    return result;
}

/* "$$" to "$", in place. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        *to++ = *from;
        if (from[0] == '$' && from[1] == '$')
            from++;
    }
    *to = 0;
}

/* As text, whatever it would be as YAML. NULL on a mistake. */
static const char *expand_text(struct expansion *x, const char *text)
{
    size_t start, size;
    bool is_file;
    while (text && find_reference(text, &start, &size)) {
        struct flue_bytes value;
        if (!another_round(x) ||
            !retrieve(x, flue_bytes(text + start + 2, size - 3), &value, &is_file))
            return NULL;
        text = substitute(x, text, start, size, value);
    }
    return text;
}

static void expand(struct expansion *x, struct flue_node *node, unsigned depth);

/* The node is one whole reference with this value: it becomes what the value is in YAML. */
static bool become(struct expansion *x, struct flue_node *node, struct flue_bytes value,
                   bool is_file, struct flue_bytes inner)
{
    const char *text = flue_arena_string(x->tree->arena, value);
    const char *file = is_file ? flue_arena_string(x->tree->arena, flue_bytes_from(inner, 5)) : "";
    if (!text || !file) {
        complain(x, "out of memory");
        return false;
    }
    struct flue_node *parsed = flue_yaml_parse(x->tree, file, value, is_file ? NULL : &x->at, NULL);
    struct flue_position at = node->position;
    if (!parsed && x->tree->nodes >= FLUE_YAML_MAX_NODES) {
        complain(x, "the configuration expands to more than %u values", FLUE_YAML_MAX_NODES);
        *x->total = FLUE_EXPAND_TOTAL + 1;
        return false;
    }
    if (parsed)
        *node = *parsed;
    else
        node->type = FLUE_NODE_STRING; /* what is no YAML is taken as it stands */
    if (node->type != FLUE_NODE_MAP && node->type != FLUE_NODE_LIST)
        node->position = at;
    node->text = text;
    node->expanded = true;
    return true;
}

static void expand_string(struct expansion *x, struct flue_node *node, unsigned depth)
{
    size_t start, size;
    while (find_reference(node->text, &start, &size)) {
        struct flue_bytes inner = flue_bytes(node->text + start + 2, size - 3), value;
        bool whole = size == strlen(node->text), is_file;
        if (!another_round(x) || !retrieve(x, inner, &value, &is_file))
            return;
        if (!whole) {
            const char *text = substitute(x, node->text, start, size, value);
            if (!text)
                return;
            node->text = text;
        } else if (!become(x, node, value, is_file, inner)) {
            return;
        } else if (node->type != FLUE_NODE_STRING) {
            break;
        }
    }
    if (node->type == FLUE_NODE_MAP || node->type == FLUE_NODE_LIST) {
        expand(x, node, depth + 1);
        struct expansion quiet = {.tree = x->tree, .total = x->total};
        const char *text = expand_text(&quiet, node->text);
        node->text = text ? text : node->text;
    }
    char *own = flue_arena_string(x->tree->arena, flue_bytes_of(node->text));
    if (!own) {
        complain(x, "out of memory");
        return;
    }
    unescape(own);
    node->text = own;
}

static void expand(struct expansion *x, struct flue_node *node, unsigned depth)
{
    if (*x->total > FLUE_EXPAND_TOTAL)
        return; /* said before */
    if (depth > FLUE_EXPAND_MAX_DEPTH) {
        complain(x, "expanded maps are nested deeper than %d levels: does a file include itself?",
                 FLUE_EXPAND_MAX_DEPTH);
        *x->total = FLUE_EXPAND_TOTAL + 1;
        return;
    }
    struct expansion inner = *x;
    switch (node->type) {
    case FLUE_NODE_MAP:
        for (size_t i = 0; i < node->count; i++) {
            inner = *x;
            inner.at = flue_entry_position(&node->entries[i]);
            expand(&inner, node->entries[i].node, depth + 1);
        }
        break;
    case FLUE_NODE_LIST:
        for (size_t i = 0; i < node->count; i++) {
            inner = *x;
            inner.at = node->items[i]->position;
            expand(&inner, node->items[i], depth + 1);
        }
        break;
    case FLUE_NODE_STRING:
        expand_string(x, node, depth);
        break;
    default:
        break;
    }
}

void flue_node_expand(struct flue_tree *tree, struct flue_node *node, struct flue_check *check)
{
    unsigned total = 0;
    struct expansion x = {.tree = tree, .check = check, .at = node->position, .total = &total};
    expand(&x, node, 0);
}
