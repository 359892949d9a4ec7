/* split.c: see split.h. */
#include "exporters/loadbalancing/split.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/wire/writer.h"

enum { RESOURCES = 1, DICTIONARY = 2 };                          /* of the request */
enum { RESOURCE = 1 };                                           /* of ResourceProfiles, -Spans */
enum { LINK_INDEX = 3 };                                         /* of Sample */
enum { LINK_TABLE = 4 };                                         /* of the dictionary */
enum { TRACE_ID = 1 };                                           /* of Link and of Span */
enum { ATTRIBUTES = 1, KEY = 1, VALUE = 2, STRING_VALUE = 1 };   /* of Resource, KeyValue, AnyValue */

/* The field that goes one level deeper has the same number everywhere: scopes of ResourceProfiles
 * and ResourceSpans, profiles or spans of their scopes, samples of a Profile. At the last level are
 * the samples or spans themselves, which are not cut. */
enum { DEEPER = 2 };
static unsigned last_level(enum flue_signal signal)
{
    return signal == FLUE_TRACES ? 1 : 2;
}

struct splitting {
    const struct flue_balance_rule *rule;
    unsigned node_count;
    unsigned (*pick)(void *arg, uint64_t key);
    void *arg;
    struct flue_arena *arena;
    struct flue_balance_part **by_node; /* NULL: nothing for it yet */
    struct flue_balance_part *parts;
    size_t part_count;
    /* TRACE */
    unsigned last;
    struct flue_bytes *traces; /* of the link table */
    size_t trace_count, trace_room;
};

uint64_t flue_balance_hash(struct flue_bytes key)
{
    return XXH3_64bits(key.size ? key.data : (const uint8_t *)"", key.size);
}

static struct flue_bytes whole_field(const struct flue_reader *reader,
                                     const struct flue_field_value *field)
{
    return flue_bytes(field->tag_at, (size_t)(reader->at - field->tag_at));
}

static struct flue_balance_part *part_of(struct splitting *s, unsigned node)
{
    struct flue_balance_part *part = s->by_node[node];
    if (!part) {
        part = s->by_node[node] = &s->parts[s->part_count++];
        part->node = node;
    }
    return part;
}

/* ---- keys ----------------------------------------------------------------------------------- */

/* The encoded AnyValue, or the string itself. */
static struct flue_bytes value_of(struct flue_bytes encoded)
{
    struct flue_reader reader = flue_reader(encoded);
    struct flue_field_value field;
    if (flue_read_field(&reader, &field) && field.number == STRING_VALUE && field.type == FLUE_LEN)
        return field.bytes;
    return encoded;
}

static bool next_attribute(struct flue_reader *reader, struct flue_bytes *key,
                           struct flue_bytes *value)
{
    struct flue_field_value field;
    while (flue_read_field(reader, &field)) {
        if (field.number != ATTRIBUTES || field.type != FLUE_LEN)
            continue;
        struct flue_reader inside = flue_reader(field.bytes);
        *key = *value = flue_bytes(NULL, 0);
        while (flue_read_field(&inside, &field)) {
            if (field.number == KEY)
                *key = field.bytes;
            else if (field.number == VALUE)
                *value = value_of(field.bytes);
        }
        return true;
    }
    return false;
}

static struct flue_bytes attribute(struct flue_bytes resource, struct flue_bytes name)
{
    struct flue_reader reader = flue_reader(resource);
    struct flue_bytes key, value;
    while (next_attribute(&reader, &key, &value))
        if (flue_bytes_equal(key, name))
            return value;
    return flue_bytes(NULL, 0);
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t both[2] = {a, b};
    return XXH3_64bits(both, sizeof both);
}

static uint64_t resource_key(const struct flue_balance_rule *rule, struct flue_bytes resource)
{
    struct flue_bytes key, value;
    uint64_t sum = 0;
    switch (rule->by) {
    case FLUE_BALANCE_RESOURCE: {
        struct flue_reader reader = flue_reader(resource);
        while (next_attribute(&reader, &key, &value))
            sum += mix(flue_balance_hash(key), flue_balance_hash(value));
        return sum;
    }
    case FLUE_BALANCE_ATTRIBUTES:
        for (size_t i = 0; i < rule->attribute_count; i++)
            sum = mix(sum, mix(flue_balance_hash(rule->attributes[i]),
                               flue_balance_hash(attribute(resource, rule->attributes[i]))));
        return sum;
    case FLUE_BALANCE_TENANT:
        return flue_balance_hash(rule->tenant);
    case FLUE_BALANCE_SERVICE:
    case FLUE_BALANCE_TRACE:
        break;
    }
    return flue_balance_hash(attribute(resource, FLUE_BYTES("service.name")));
}

static uint64_t key_of(const struct splitting *s, struct flue_bytes resource_profiles)
{
    struct flue_reader reader = flue_reader(resource_profiles);
    struct flue_field_value field;
    struct flue_bytes resource = flue_bytes(NULL, 0);
    while (flue_read_field(&reader, &field))
        if (field.number == RESOURCE && field.type == FLUE_LEN)
            resource = field.bytes;
    return resource_key(s->rule, resource);
}

/* ---- by trace ------------------------------------------------------------------------------- */

static bool read_table(struct splitting *s, struct flue_bytes dictionary)
{
    struct flue_reader reader = flue_reader(dictionary);
    struct flue_field_value field;
    while (flue_read_field(&reader, &field)) {
        if (field.number != LINK_TABLE || field.type != FLUE_LEN)
            continue;
        struct flue_reader inside = flue_reader(field.bytes);
        struct flue_field_value part;
        struct flue_bytes trace = flue_bytes(NULL, 0);
        while (flue_read_field(&inside, &part))
            if (part.number == TRACE_ID)
                trace = part.bytes;
        if (!FLUE_ARENA_PUSH(s->arena, s->traces, s->trace_count, s->trace_room, trace))
            return false;
    }
    return true;
}

static bool read_links(struct splitting *s, struct flue_bytes request)
{
    struct flue_reader reader = flue_reader(request);
    struct flue_field_value field;
    while (flue_read_field(&reader, &field))
        if (field.number == DICTIONARY && field.type == FLUE_LEN && !read_table(s, field.bytes))
            return false;
    return true;
}

/* The trace of a sample or span; empty: none. */
static struct flue_bytes trace_of(const struct splitting *s, struct flue_bytes message)
{
    bool span = s->rule->signal == FLUE_TRACES;
    struct flue_reader reader = flue_reader(message);
    struct flue_field_value field;
    struct flue_bytes trace = flue_bytes(NULL, 0);
    uint64_t link = 0;
    while (flue_read_field(&reader, &field)) {
        if (span && field.number == TRACE_ID && field.type == FLUE_LEN)
            trace = field.bytes;
        else if (!span && field.number == LINK_INDEX)
            link = field.varint;
    }
    return link && link < s->trace_count ? s->traces[link] : trace;
}

/* The node of a sample or span; `home` without a trace. */
static unsigned node_of_sample(const struct splitting *s, struct flue_bytes sample, unsigned home)
{
    static const uint8_t none[16];
    struct flue_bytes trace = trace_of(s, sample);
    if (trace.size != sizeof none || memcmp(trace.data, none, sizeof none) == 0)
        return home;
    return s->pick(s->arg, flue_balance_hash(trace));
}

/* A Profile without samples, or what holds nothing else. */
static bool is_empty(const struct splitting *s, struct flue_bytes message, unsigned level)
{
    struct flue_reader reader = flue_reader(message);
    struct flue_field_value field;
    while (flue_read_field(&reader, &field))
        if (field.number == DEEPER && field.type == FLUE_LEN &&
            (level == s->last || !is_empty(s, field.bytes, level + 1)))
            return false;
    return true;
}

/* What of a message belongs to `node`, level by level: fields other than the one that goes deeper
 * stay as they are; a deeper one that has nothing for the node is left out. What has no samples at
 * all stays with its resource's node. `out` NULL: only the size. *samples: how many of them. */
static size_t filter(const struct splitting *s, struct flue_bytes message, unsigned level,
                     unsigned node, unsigned home, uint8_t *out, uint64_t *samples)
{
    struct flue_reader reader = flue_reader(message);
    struct flue_field_value field;
    size_t total = 0;
    while (flue_read_field(&reader, &field)) {
        struct flue_bytes whole = whole_field(&reader, &field);
        if (field.number == DEEPER && field.type == FLUE_LEN && level < s->last) {
            uint64_t within = 0;
            size_t size = filter(s, field.bytes, level + 1, node, home, NULL, &within);
            size_t head = flue_len_field_size(DEEPER, size) - size;
            if (within == 0 && !(node == home && is_empty(s, field.bytes, level + 1)))
                continue;
            if (out) {
                (void)flue_write_len_head(out + total, DEEPER, size);
                (void)filter(s, field.bytes, level + 1, node, home, out + total + head, &within);
            } else {
                *samples += within;
            }
            total += head + size;
            continue;
        }
        if (field.number == DEEPER && field.type == FLUE_LEN) {
            if (node_of_sample(s, field.bytes, home) != node)
                continue;
            *samples += 1;
        }
        if (out)
            memcpy(out + total, whole.data, whole.size);
        total += whole.size;
    }
    return total;
}

/* Marks the nodes that have something here. */
static void nodes_of(const struct splitting *s, struct flue_bytes message, unsigned level,
                     unsigned home, bool *used)
{
    struct flue_reader reader = flue_reader(message);
    struct flue_field_value field;
    bool any = false;
    while (flue_read_field(&reader, &field)) {
        if (field.number != DEEPER || field.type != FLUE_LEN)
            continue;
        any = true;
        if (level < s->last)
            nodes_of(s, field.bytes, level + 1, home, used);
        else
            used[node_of_sample(s, field.bytes, home)] = true;
    }
    if (!any)
        used[home] = true;
}

static enum flue_code cut(struct splitting *s, struct flue_bytes whole,
                          struct flue_bytes resource_profiles, unsigned home, bool *used,
                          struct flue_error *error)
{
    unsigned count = 0, only = home;
    memset(used, 0, s->node_count * sizeof *used);
    nodes_of(s, resource_profiles, 0, home, used);
    for (unsigned node = 0; node < s->node_count; node++)
        if (used[node]) {
            only = node;
            count++;
        }
    if (count < 2)
        return flue_slices_add(&part_of(s, only)->body, s->arena, whole)
                   ? FLUE_OK
                   : flue_fail(error, FLUE_NO_MEMORY, "no memory to split a request");
    for (unsigned node = 0; node < s->node_count; node++) {
        uint64_t samples = 0, again = 0;
        if (!used[node])
            continue;
        struct flue_balance_part *part = part_of(s, node);
        size_t size = filter(s, resource_profiles, 0, node, home, NULL, &samples);
        size_t head = flue_len_field_size(RESOURCES, size) - size;
        uint8_t *room = flue_arena_alloc(s->arena, head + size);
        if (!room)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory to split a request");
        (void)flue_write_len_head(room, RESOURCES, size);
        (void)filter(s, resource_profiles, 0, node, home, room + head, &again);
        if (!flue_slices_add(&part->body, s->arena, flue_bytes(room, head + size)))
            return flue_fail(error, FLUE_NO_MEMORY, "no memory to split a request");
    }
    return FLUE_OK;
}

static uint64_t count(struct flue_bytes message, unsigned level, unsigned last)
{
    struct flue_reader reader = flue_reader(message);
    struct flue_field_value field;
    uint64_t samples = 0;
    while (flue_read_field(&reader, &field))
        if (field.number == DEEPER && field.type == FLUE_LEN)
            samples += level == last ? 1 : count(field.bytes, level + 1, last);
    return samples;
}

/* A slice is one or more whole fields. */
uint64_t flue_balance_samples(const struct flue_slices *request, enum flue_signal signal)
{
    uint64_t samples = 0;
    for (size_t i = 0; i < request->count; i++) {
        struct flue_reader reader = flue_reader(request->items[i]);
        struct flue_field_value field;
        while (flue_read_field(&reader, &field))
            if (field.number == RESOURCES && field.type == FLUE_LEN)
                samples += count(field.bytes, 0, last_level(signal));
    }
    return samples;
}

/* ---- the request ---------------------------------------------------------------------------- */

/* Every part has every dictionary of the request: there is one, but protobuf allows to send it in
 * pieces. */
static enum flue_code add_dictionaries(struct splitting *s, struct flue_bytes request,
                                       struct flue_error *error)
{
    struct flue_reader reader = flue_reader(request);
    struct flue_field_value field;
    while (flue_read_field(&reader, &field)) {
        struct flue_bytes whole = whole_field(&reader, &field);
        for (size_t i = 0; field.number == DICTIONARY && i < s->part_count; i++)
            if (!flue_slices_add(&s->parts[i].body, s->arena, whole))
                return flue_fail(error, FLUE_NO_MEMORY, "no memory to split a request");
    }
    if (!flue_reader_done(&reader))
        return flue_fail(error, FLUE_INTERNAL, "a request that cannot be split: byte %zu",
                         (size_t)(reader.at - request.data));
    return FLUE_OK;
}

enum flue_code flue_balance_split(struct flue_bytes request, const struct flue_balance_rule *rule,
                                  unsigned node_count, unsigned (*pick)(void *arg, uint64_t key),
                                  void *arg, struct flue_arena *arena,
                                  struct flue_balance_part **parts, size_t *part_count,
                                  struct flue_error *error)
{
    struct splitting s = {.rule = rule,
                          .node_count = node_count,
                          .pick = pick,
                          .arg = arg,
                          .arena = arena,
                          .last = last_level(rule->signal)};
    struct flue_reader reader = flue_reader(request);
    struct flue_field_value field;
    enum flue_code code = FLUE_OK;
    s.by_node = flue_arena_zalloc(arena, node_count, sizeof(struct flue_balance_part *));
    s.parts = flue_arena_zalloc(arena, node_count, sizeof *s.parts);
    bool *used = flue_arena_zalloc(arena, node_count, sizeof *used);
    if (!s.by_node || !s.parts || !used ||
        (rule->by == FLUE_BALANCE_TRACE && rule->signal != FLUE_TRACES &&
         !read_links(&s, request)))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to split a request");
    while (!code && flue_read_field(&reader, &field)) {
        if (field.number != RESOURCES || field.type != FLUE_LEN)
            continue;
        unsigned node = pick(arg, key_of(&s, field.bytes));
        struct flue_bytes whole = whole_field(&reader, &field);
        if (rule->by == FLUE_BALANCE_TRACE)
            code = cut(&s, whole, field.bytes, node, used, error);
        else if (!flue_slices_add(&part_of(&s, node)->body, arena, whole))
            code = flue_fail(error, FLUE_NO_MEMORY, "no memory to split a request");
    }
    if (!code)
        code = add_dictionaries(&s, request, error);
    if (!code) {
        *parts = s.parts;
        *part_count = s.part_count;
    }
    return code;
}
