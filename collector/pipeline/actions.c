/* actions.c: edits of resource attributes, compiled once, run for every batch. */
#include "collector/pipeline/actions.h"
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <openssl/evp.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>

#define MATCH_MAX   4096
#define ARENA_MAX   (1u << 20)
#define KEYS_MAX    1000
#define CONTEXT_MAX 8192

static const char *const action_names[] = {"insert", "update",  "upsert",  "delete",
                                           "hash",   "extract", "convert", NULL};

const struct flue_field flue_action_fields[] = {
    FLUE_STRING(struct flue_action_config, key, .help = "the attribute"),
    FLUE_ENUM(struct flue_action_config, action, .choices = action_names, .required = true,
              .help = "insert: only if it is not there; update: only if it is; upsert: always; "
                      "delete; hash: SHA-1 in hex; extract: named groups of pattern become "
                      "attributes; convert: to converted_type"),
    FLUE_VALUE(struct flue_action_config, value, .help = "a constant"),
    FLUE_STRING(struct flue_action_config, from_attribute,
                .help = "the value of another attribute; nothing is done where it is absent"),
    FLUE_STRING(struct flue_action_config, from_context,
                .help = "metadata.HEADER (several values are joined with ;) or client.address"),
    FLUE_STRING(struct flue_action_config, pattern,
                .help =
                    "POSIX extended regular expression with (?P<name>...) groups; for extract on "
                    "the value, for delete and hash on the keys"),
    FLUE_STRING(struct flue_action_config, converted_type, .help = "int, double or string"),
    FLUE_FIELDS_END};

/* ---- check ----------------------------------------------------------------------------------- */

static bool is_setter(const struct flue_action_config *action)
{
    return action->action <= FLUE_ACTION_UPSERT;
}

static void check_pattern(const struct flue_action_config *action, const char *path,
                          struct flue_check *check)
{
    struct flue_pattern pattern;
    struct flue_error error;
    bool named = false;
    regex_t regex;

    if (flue_pattern_translate(action->pattern, &pattern, &error) != FLUE_OK) {
        flue_check_fail(check, path, "pattern: %s", error.text);
        return;
    }
    int code = regcomp(&regex, pattern.text, REG_EXTENDED | (pattern.ignore_case ? REG_ICASE : 0));
    if (code) {
        char text[128];
        (void)regerror(code, &regex, text, sizeof text);
        flue_check_fail(check, path, "pattern: %s", text);
        return;
    }
    regfree(&regex);
    for (unsigned i = 1; i <= pattern.groups; i++)
        named |= pattern.names[i][0] != 0;
    if (action->action == FLUE_ACTION_EXTRACT && !named)
        flue_check_fail(check, path,
                        "pattern: extract needs at least one named group, for example (?P<pod>.*)");
}

static void check_action(const struct flue_action_config *action, const char *path,
                         struct flue_check *check)
{
    const char *name = action_names[action->action];
    unsigned sources = (action->value.type != FLUE_VALUE_EMPTY) + (action->from_attribute != NULL) +
                       (action->from_context != NULL);
    bool patterned = action->action == FLUE_ACTION_DELETE || action->action == FLUE_ACTION_HASH;

    if ((!action->key || !*action->key) && !(patterned && action->pattern))
        flue_check_fail(check, path,
                        patterned ? "%s needs a `key` or a `pattern`" : "%s needs a `key`", name);
    if (is_setter(action) && sources != 1)
        flue_check_fail(check, path,
                        "%s needs exactly one of `value`, `from_attribute`, `from_context`", name);
    if (!is_setter(action) && sources)
        flue_check_fail(check, path, "%s does not use `value`, `from_attribute` or `from_context`",
                        name);
    if (action->pattern && (is_setter(action) || action->action == FLUE_ACTION_CONVERT))
        flue_check_fail(check, path, "%s does not use `pattern`", name);
    else if (action->pattern)
        check_pattern(action, path, check);
    else if (action->action == FLUE_ACTION_EXTRACT)
        flue_check_fail(check, path, "extract needs a `pattern` with named groups");
    if (action->action == FLUE_ACTION_CONVERT) {
        const char *type = action->converted_type;
        if (!type || (strcmp(type, "int") && strcmp(type, "double") && strcmp(type, "string")))
            flue_check_fail(check, path, "convert needs `converted_type`: int, double or string");
    } else if (action->converted_type) {
        flue_check_fail(check, path, "%s does not use `converted_type`", name);
    }
    if (action->from_context && strncmp(action->from_context, "metadata.", 9) != 0 &&
        strcmp(action->from_context, "client.address") != 0)
        flue_check_fail(
            check, path,
            "from_context: `%s` is not supported; use metadata.HEADER or client.address",
            action->from_context);
}

void flue_actions_check(const struct flue_list *list, const char *path, struct flue_check *check)
{
    const struct flue_action_config *actions = list->items;

    if (!list->count)
        flue_check_fail(check, path, "needs at least one action");
    for (size_t i = 0; i < list->count; i++) {
        char at[128];
        (void)snprintf(at, sizeof at, "%s[%zu]", path, i);
        check_action(&actions[i], at, check);
    }
}

/* ---- compiled -------------------------------------------------------------------------------- */

struct step {
    const struct flue_action_config *config; /* of the first of a run */
    struct flue_block *block;                /* SET of constants: holds the set */
    struct flue_attribute_set set;
    struct flue_bytes key;
    char *header; /* from_context: metadata.X, lower-case */
    struct flue_pattern *pattern;
    size_t regex; /* index into a loop's compiled patterns */
};

struct actions_loop {
    struct flue_arena arena;
    regex_t *regexes; /* one per loop: regexec locks */
    size_t regex_count;
};

struct flue_actions {
    struct step *steps;
    size_t count, patterns;
    struct actions_loop *loops;
    unsigned loop_count;
    flue_encode_attributes encode;
};

static enum flue_set_mode mode_of(const struct flue_action_config *config)
{
    return (enum flue_set_mode)(FLUE_SET_INSERT + config->action);
}

static uint8_t *put_bytes(uint8_t **at, struct flue_bytes b)
{
    uint8_t *start = *at;
    if (b.size)
        memcpy(start, b.data, b.size);
    *at += b.size;
    return start;
}

enum flue_code flue_attribute_block(flue_encode_attributes encode, struct flue_arena *arena,
                                    const struct flue_attribute *items, size_t count,
                                    struct flue_attribute_set *set, struct flue_block **block,
                                    struct flue_error *error)
{
    struct flue_attribute_set made;
    enum flue_code code = encode(arena, items, count, &made, error);
    if (code != FLUE_OK)
        return code;
    size_t size = count * (sizeof *items + sizeof(uint32_t)) + made.encoded.size;
    for (size_t i = 0; i < count; i++)
        size += items[i].key.size + items[i].value.text.size;
    *block = flue_block_new(NULL, size);
    if (!*block)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an attribute");
    struct flue_attribute *own = (struct flue_attribute *)(void *)(*block)->data;
    uint32_t *ends = (uint32_t *)(void *)(own + count);
    uint8_t *at = (uint8_t *)(ends + count);
    for (size_t i = 0; i < count; i++) {
        own[i] = made.items[i];
        ends[i] = made.encoded_ends[i];
        own[i].key.data = put_bytes(&at, made.items[i].key);
        if (own[i].value.type == FLUE_VALUE_STRING || own[i].value.type == FLUE_VALUE_BYTES ||
            own[i].value.type == FLUE_VALUE_COMPLEX)
            own[i].value.text.data = put_bytes(&at, made.items[i].value.text);
    }
    *set = made;
    set->items = own;
    set->encoded_ends = ends;
    set->encoded.data = put_bytes(&at, made.encoded);
    (*block)->size = (size_t)(at - (*block)->data);
    flue_block_finish(*block);
    return FLUE_OK;
}

static bool constant(const struct flue_action_config *config)
{
    return is_setter(config) && config->value.type != FLUE_VALUE_EMPTY;
}

/* How many of the list from `i` on make one set: one mode, no key twice. */
static size_t run_length(const struct flue_action_config *list, size_t i, size_t count)
{
    size_t end = i + 1;

    for (; end < count && constant(&list[end]) && list[end].action == list[i].action; end++)
        for (size_t j = i; j < end; j++)
            if (strcmp(list[j].key, list[end].key) == 0)
                return end - i;
    return end - i;
}

static enum flue_code compile_constants(struct flue_actions *actions, struct step *step,
                                        const struct flue_action_config *list, size_t count,
                                        struct flue_error *error)
{
    struct flue_arena arena;
    flue_arena_init(&arena, 0, 0);
    struct flue_attribute *items = flue_arena_zalloc(&arena, count, sizeof *items);
    enum flue_code code;

    if (!items) {
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for actions");
    } else {
        for (size_t i = 0; i < count; i++)
            items[i] = (struct flue_attribute){flue_bytes_of(list[i].key), list[i].value};
        code = flue_attribute_block(actions->encode, &arena, items, count, &step->set, &step->block,
                                    error);
    }
    flue_arena_destroy(&arena);
    return code;
}

static enum flue_code compile(struct flue_actions *actions, struct step *step,
                              const struct flue_action_config *config, struct flue_error *error)
{
    const char *metadata = config->from_context;

    step->key = flue_bytes_of(config->key);
    if (metadata && strncmp(metadata, "metadata.", 9) == 0) {
        step->header = strdup(metadata + 9);
        if (!step->header)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for actions");
        for (char *c = step->header; *c; c++)
            *c = (char)tolower((unsigned char)*c);
    }
    if (!config->pattern)
        return FLUE_OK;
    step->pattern = malloc(sizeof *step->pattern);
    if (!step->pattern)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for actions");
    step->regex = actions->patterns++;
    return flue_pattern_translate(config->pattern, step->pattern, error);
}

static enum flue_code compile_patterns(struct flue_actions *actions, struct actions_loop *at,
                                       struct flue_error *error)
{
    at->regexes = calloc(actions->patterns + 1, sizeof *at->regexes);
    if (!at->regexes)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for actions");
    for (size_t i = 0; i < actions->count; i++) {
        const struct flue_pattern *pattern = actions->steps[i].pattern;
        if (!pattern)
            continue;
        int flags = REG_EXTENDED | (pattern->ignore_case ? REG_ICASE : 0);
        if (regcomp(&at->regexes[at->regex_count], pattern->text, flags))
            return flue_fail(error, FLUE_INVALID, "pattern %s cannot be compiled",
                             actions->steps[i].config->pattern);
        at->regex_count++;
    }
    return FLUE_OK;
}

enum flue_code flue_actions_new(const struct flue_list *list, unsigned loops,
                                flue_encode_attributes encode, struct flue_actions **out,
                                struct flue_error *error)
{
    const struct flue_action_config *configs = list->items;
    struct flue_actions *actions = calloc(1, sizeof *actions);
    enum flue_code code = FLUE_OK;

    *out = NULL;
    if (!actions)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for actions");
    actions->encode = encode;
    actions->steps = calloc(list->count + 1, sizeof *actions->steps);
    actions->loops = calloc(loops, sizeof *actions->loops);
    if (!actions->steps || !actions->loops)
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for actions");
    for (size_t i = 0, run; code == FLUE_OK && i < list->count; i += run) {
        struct step *step = &actions->steps[actions->count++];
        step->config = &configs[i];
        run = constant(&configs[i]) ? run_length(configs, i, list->count) : 1;
        code = constant(&configs[i]) ? compile_constants(actions, step, &configs[i], run, error)
                                     : compile(actions, step, &configs[i], error);
    }
    for (unsigned i = 0; code == FLUE_OK && i < loops; i++) {
        flue_arena_init(&actions->loops[i].arena, ARENA_MAX, 0);
        actions->loop_count++;
        code = compile_patterns(actions, &actions->loops[i], error);
    }
    if (code != FLUE_OK) {
        flue_actions_destroy(actions);
        return code;
    }
    *out = actions;
    return FLUE_OK;
}

void flue_actions_destroy(struct flue_actions *actions)
{
    if (!actions)
        return;
    for (unsigned i = 0; i < actions->loop_count; i++) {
        for (size_t j = 0; j < actions->loops[i].regex_count; j++)
            regfree(&actions->loops[i].regexes[j]);
        free(actions->loops[i].regexes);
        flue_arena_destroy(&actions->loops[i].arena);
    }
    for (size_t i = 0; i < actions->count; i++) {
        flue_block_unref(actions->steps[i].block);
        free(actions->steps[i].header);
        free(actions->steps[i].pattern);
    }
    free(actions->steps);
    free(actions->loops);
    free(actions);
}

/* ---- run ------------------------------------------------------------------------------------- */

struct run {
    struct flue_actions *actions;
    struct actions_loop *at;
    struct flue_batch *batch;
    struct flue_payload *payload;
    size_t resource;
    struct flue_error *error;
};

static enum flue_code set_one(struct run *run, enum flue_set_mode mode, struct flue_bytes key,
                              struct flue_value value)
{
    struct flue_attribute item = {key, value};
    struct flue_attribute_set set;
    struct flue_block *block = NULL;
    enum flue_code code = flue_attribute_block(run->actions->encode, &run->at->arena, &item, 1,
                                               &set, &block, run->error);

    if (code == FLUE_OK)
        code = run->payload->ops->attributes_set(run->payload, run->resource, &set, mode, block,
                                                 run->error);
    flue_block_unref(block);
    return code;
}

static enum flue_code set_text(struct run *run, enum flue_set_mode mode, struct flue_bytes key,
                               struct flue_bytes text)
{
    struct flue_value value = {.type = FLUE_VALUE_STRING, .text = text};
    return set_one(run, mode, key, value);
}

static enum flue_code set_from_context(struct run *run, const struct step *step)
{
    const struct flue_origin *origin = run->batch->origin;
    char joined[CONTEXT_MAX];
    size_t size = 0, found = 0;

    if (!origin)
        return FLUE_OK;
    if (!step->header)
        return origin->peer_address.size
                   ? set_text(run, mode_of(step->config), step->key, origin->peer_address)
                   : FLUE_OK;
    for (size_t i = 0; i < origin->header_count; i++) {
        struct flue_bytes value = origin->headers[i].value.text;
        if (!flue_bytes_is(origin->headers[i].key, step->header) ||
            value.size + 1 > sizeof joined - size)
            continue;
        if (found++)
            joined[size++] = ';';
        if (value.size)
            memcpy(joined + size, value.data, value.size);
        size += value.size;
    }
    return found ? set_text(run, mode_of(step->config), step->key, flue_bytes(joined, size))
                 : FLUE_OK;
}

/* The value as the Collector feeds it to SHA-1: text as it is, a bool one byte, numbers eight. */
static enum flue_code hash_one(struct run *run, struct flue_bytes key,
                               const struct flue_value *value)
{
    uint8_t raw[8], digest[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE];
    struct flue_bytes input = flue_bytes(raw, 0);
    unsigned size = 0;
    uint64_t bits = 0;

    if (value->type == FLUE_VALUE_STRING) {
        input = value->text;
    } else if (value->type == FLUE_VALUE_BOOL) {
        raw[0] = value->boolean;
        input.size = 1;
    } else if (value->type == FLUE_VALUE_INT || value->type == FLUE_VALUE_DOUBLE) {
        memcpy(&bits,
               value->type == FLUE_VALUE_INT ? (const void *)&value->integer
                                             : (const void *)&value->number,
               8);
        for (unsigned i = 0; i < 8; i++)
            raw[i] = (uint8_t)(bits >> 8 * i);
        input.size = 8;
    }
    if (input.size && !EVP_Digest(input.data, input.size, digest, &size, EVP_sha1(), NULL))
        return flue_fail(run->error, FLUE_INTERNAL, "SHA-1 is not there");
    flue_hex(flue_bytes(digest, size), hex);
    return set_text(run, FLUE_SET_UPDATE, key, flue_bytes(hex, 2 * size));
}

struct matching {
    struct run *run;
    regex_t *regex;
    struct flue_bytes *keys;
    size_t count, room;
    bool full;
};

static bool matches(regex_t *regex, struct flue_bytes text, regmatch_t *groups, size_t count)
{
    if (text.size > MATCH_MAX)
        return false;
    groups[0].rm_so = 0;
    groups[0].rm_eo = (regoff_t)text.size;
    return regexec(regex, text.size ? (const char *)text.data : "", count, groups, REG_STARTEND) ==
           0;
}

static bool match_key(void *arg, const struct flue_attribute *attribute)
{
    struct matching *m = arg;
    regmatch_t whole[1];

    if (!matches(m->regex, attribute->key, whole, 1))
        return true;
    struct flue_bytes copy = flue_arena_copy(&m->run->at->arena, attribute->key);
    m->full = m->count >= KEYS_MAX || !copy.data ||
              !FLUE_ARENA_PUSH(&m->run->at->arena, m->keys, m->count, m->room, copy);
    return !m->full;
}

static enum flue_code delete_or_hash(struct run *run, const struct step *step)
{
    const struct flue_payload_ops *ops = run->payload->ops;
    struct matching m = {.run = run};
    struct flue_bytes single = step->key;
    bool hash = step->config->action == FLUE_ACTION_HASH;

    if (step->key.size) {
        m.keys = &single;
        m.count = 1;
    }
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < m.count; i++) {
            struct flue_value value;
            enum flue_code code = FLUE_OK;
            if (!hash)
                code = ops->attribute_remove(run->payload, run->resource, m.keys[i], run->error);
            else if (ops->attribute_get(run->payload, run->resource, m.keys[i], &value))
                code = hash_one(run, m.keys[i], &value);
            if (code != FLUE_OK)
                return code;
        }
        if (pass || !step->pattern)
            break;
        m.keys = NULL;
        m.count = m.room = 0;
        m.regex = &run->at->regexes[step->regex];
        ops->attribute_each(run->payload, run->resource, match_key, &m);
        if (m.full)
            return flue_fail(run->error, FLUE_TOO_LARGE,
                             "more than %d attributes of a resource match the pattern %s", KEYS_MAX,
                             step->config->pattern);
    }
    return FLUE_OK;
}

static enum flue_code extract(struct run *run, const struct step *step)
{
    regmatch_t groups[FLUE_PATTERN_GROUPS];
    struct flue_value value;
    struct flue_attribute items[FLUE_PATTERN_GROUPS];
    size_t count = 0;

    if (!run->payload->ops->attribute_get(run->payload, run->resource, step->key, &value) ||
        value.type != FLUE_VALUE_STRING ||
        !matches(&run->at->regexes[step->regex], value.text, groups, step->pattern->groups + 1))
        return FLUE_OK;
    for (unsigned i = 1; i <= step->pattern->groups; i++) {
        struct flue_bytes part = {0};
        if (!step->pattern->names[i][0])
            continue;
        if (groups[i].rm_so >= 0)
            part = flue_bytes(value.text.data + groups[i].rm_so,
                              (size_t)(groups[i].rm_eo - groups[i].rm_so));
        items[count++] = (struct flue_attribute){flue_bytes_of(step->pattern->names[i]),
                                                 {.type = FLUE_VALUE_STRING, .text = part}};
    }
    struct flue_attribute_set set;
    struct flue_block *block = NULL;
    enum flue_code code = flue_attribute_block(run->actions->encode, &run->at->arena, items, count,
                                               &set, &block, run->error);
    if (code == FLUE_OK)
        code = run->payload->ops->attributes_set(run->payload, run->resource, &set, FLUE_SET_UPSERT,
                                                 block, run->error);
    flue_block_unref(block);
    return code;
}

/* A double as the Collector writes it: shortest digits, exponent below 1e-6 and from 1e21 on. */
static size_t format_double(double number, char *out, size_t room)
{
    int digits = 1;
    if (isnan(number) || isinf(number))
        return (size_t)snprintf(out, room, "%s",
                                isnan(number) ? "NaN"
                                : number > 0  ? "+Inf"
                                              : "-Inf");
    for (; digits < 17; digits++) {
        (void)snprintf(out, room, "%.*e", digits - 1, number);
        if (strtod(out, NULL) == number)
            break;
    }
    (void)snprintf(out, room, "%.*e", digits - 1, number);
    int exponent = (int)strtol(strchr(out, 'e') + 1, NULL, 10);
    double size = fabs(number);
    if (size != 0 && (size < 1e-6 || size >= 1e21)) {
        char *e = strchr(out, 'e');
        return (size_t)(e - out) + (size_t)snprintf(e, room - (size_t)(e - out), "e%c%d",
                                                    exponent < 0 ? '-' : '+', abs(exponent));
    }
    int decimals = digits - 1 - exponent;
    return (size_t)snprintf(out, room, "%.*f", decimals > 0 ? decimals : 0, number);
}

static bool parse_double(struct flue_bytes text, double *out)
{
    char copy[64], *end;
    if (!text.size || text.size >= sizeof copy || isspace(text.data[0]))
        return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = 0;
    *out = strtod(copy, &end);
    return end == copy + text.size;
}

static enum flue_code convert(struct run *run, const struct step *step)
{
    struct flue_value value, to = {0};
    const char *type = step->config->converted_type;
    char text[512];

    if (!run->payload->ops->attribute_get(run->payload, run->resource, step->key, &value))
        return FLUE_OK;
    if (type[0] == 'i') {
        to.type = FLUE_VALUE_INT;
        if (value.type == FLUE_VALUE_STRING) {
            struct flue_bytes digits = value.text;
            if (digits.size && digits.data[0] == '+')
                digits = flue_bytes_from(digits, 1);
            if (!flue_parse_i64(digits, &to.integer))
                return FLUE_OK;
        } else if (value.type == FLUE_VALUE_DOUBLE) {
            if (!(value.number >= -0x1p63 && value.number < 0x1p63))
                return FLUE_OK;
            to.integer = (int64_t)value.number;
        } else if (value.type == FLUE_VALUE_BOOL) {
            to.integer = value.boolean;
        } else {
            return FLUE_OK;
        }
    } else if (type[0] == 'd') {
        to.type = FLUE_VALUE_DOUBLE;
        if (value.type == FLUE_VALUE_STRING) {
            if (!parse_double(value.text, &to.number))
                return FLUE_OK;
        } else if (value.type == FLUE_VALUE_INT) {
            to.number = (double)value.integer;
        } else if (value.type == FLUE_VALUE_BOOL) {
            to.number = value.boolean;
        } else {
            return FLUE_OK;
        }
    } else {
        to.type = FLUE_VALUE_STRING;
        if (value.type == FLUE_VALUE_INT)
            to.text =
                flue_bytes(text, (size_t)snprintf(text, sizeof text, "%" PRId64, value.integer));
        else if (value.type == FLUE_VALUE_DOUBLE)
            to.text = flue_bytes(text, format_double(value.number, text, sizeof text));
        else if (value.type == FLUE_VALUE_BOOL)
            to.text = flue_bytes_of(value.boolean ? "true" : "false");
        else
            return FLUE_OK;
    }
    return set_one(run, FLUE_SET_UPDATE, step->key, to);
}

static enum flue_code run_step(struct run *run, const struct step *step)
{
    const struct flue_payload_ops *ops = run->payload->ops;
    struct flue_value value;

    if (step->block)
        return ops->attributes_set(run->payload, run->resource, &step->set, mode_of(step->config),
                                   step->block, run->error);
    switch (step->config->action) {
    case FLUE_ACTION_DELETE:
    case FLUE_ACTION_HASH:
        return delete_or_hash(run, step);
    case FLUE_ACTION_EXTRACT:
        return extract(run, step);
    case FLUE_ACTION_CONVERT:
        return convert(run, step);
    default:
        if (step->config->from_context)
            return set_from_context(run, step);
        if (!ops->attribute_get(run->payload, run->resource,
                                flue_bytes_of(step->config->from_attribute), &value))
            return FLUE_OK;
        return set_one(run, mode_of(step->config), step->key, value);
    }
}

enum flue_code flue_actions_run(struct flue_actions *actions, unsigned loop,
                                struct flue_batch *batch, struct flue_error *error)
{
    struct run run = {.actions = actions,
                      .at = &actions->loops[loop],
                      .batch = batch,
                      .payload = batch->payload,
                      .error = error};
    size_t count = batch->payload->ops->resource_count(batch->payload);
    enum flue_code code = FLUE_OK;

    for (run.resource = 0; run.resource < count && code == FLUE_OK; run.resource++) {
        for (size_t i = 0; i < actions->count && code == FLUE_OK; i++)
            code = run_step(&run, &actions->steps[i]);
        if (run.at->arena.used)
            flue_arena_reset(&run.at->arena);
    }
    return code;
}

void flue_actions_push(struct flue_stage *stage, struct flue_batch *batch,
                       struct flue_delivery *delivery)
{
    struct flue_error error;

    batch = flue_batch_writable(batch, &error);
    if (batch && flue_actions_run(flue_stage_instance(stage), flue_delivery_loop(delivery)->index,
                                  batch, &error) == FLUE_OK) {
        flue_stage_next(stage, batch, delivery);
        return;
    }
    flue_delivery_refuse(delivery, &error);
    flue_batch_unref(batch);
}

void flue_actions_destroy_instance(void *instance)
{
    flue_actions_destroy(instance);
}
