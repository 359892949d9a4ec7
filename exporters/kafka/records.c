/* records.c: see records.h. */
#include "exporters/kafka/records.h"

#include "collector/base/buffer.h"
#include "collector/base/hash.h"
#include "proto/convert/convert.h"
#include "proto/otlp/dictionary.h"
#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"
#include "proto/pprof/names.h"

#define FRAMING   256 /* of a record and its batch, generously */
#define VALUE_MIN 512
#define CUTS_MAX  24 /* of JSON, whose size is known only when it is made */
#define JSON_MAX  (256u << 20)

struct making {
    const struct kafka_record_rules *rules;
    const struct flue_origin *origin; /* NULL: a record is cut again */
    struct flue_account *account;
    struct flue_arena *arena;
    struct kafka_records *out;
    struct flue_error *error;
};

/* What the records of one group have in common. */
struct group {
    const char *topic;
    struct flue_bytes key;
    const struct flue_kafka_header *headers;
    size_t header_count, header_bytes;
    uint8_t lane;
};

void kafka_record_release(struct kafka_record *record)
{
    flue_block_unref(record->block);
    flue_payload_unref(record->part);
    record->block = NULL;
    record->part = NULL;
}

static enum flue_code no_memory(const struct making *m)
{
    return flue_fail(m->error, FLUE_NO_MEMORY, "no memory to make records of a batch");
}

static void reject(struct making *m, const struct flue_counts *counts, size_t size, size_t most)
{
    struct kafka_records *out = m->out;
    if (!out->reason.code)
        flue_fail(&out->reason, FLUE_TOO_LARGE,
                  "a record of %zu bytes that cannot be cut is over the %zu that "
                  "producer.max_message_bytes, or the topic, leaves it",
                  size, most);
    out->rejected.profiles += counts->profiles;
    out->rejected.samples += counts->samples;
    out->rejected.bytes += counts->bytes;
}

/* Room for the value beside key, headers and framing. */
static size_t room(size_t max_bytes, const struct group *group)
{
    size_t used = FRAMING + group->key.size + group->header_bytes;
    return max_bytes > used + VALUE_MIN ? max_bytes - used : VALUE_MIN;
}

static struct kafka_record *add_record(struct making *m, const struct group *group)
{
    struct kafka_record *record = flue_arena_zalloc(m->arena, 1, sizeof *record);

    if (!record)
        return NULL;
    record->topic = group->topic;
    record->key = group->key;
    record->headers = group->headers;
    record->header_count = group->header_count;
    record->header_bytes = group->header_bytes;
    record->lane = group->lane;
    if (!m->out->last)
        m->out->last = &m->out->first;
    *m->out->last = record;
    m->out->last = &record->next;
    m->out->count++;
    return record;
}

/* ---- values ---------------------------------------------------------------------------------- */

static enum flue_code encode_json(struct making *m, const struct flue_payload *part,
                                  struct flue_block **out)
{
    struct flue_buffer json;

    flue_buffer_init(&json, JSON_MAX);
    enum flue_code code = flue_otlp_json_write(part, &json, m->error);
    if (!code && !(*out = flue_block_copy(NULL, flue_buffer_bytes(&json))))
        code = no_memory(m);
    flue_buffer_destroy(&json);
    return code;
}

/* One slice is sent from where it lies; several are joined. */
static enum flue_code encode_proto(struct making *m, const struct flue_payload *part,
                                   struct flue_block **out, struct flue_bytes *value)
{
    struct flue_arena arena;
    struct flue_slices slices = {0};

    flue_arena_init(&arena, 64u << 20, 0);
    enum flue_code code = part->ops->slices(part, &arena, &slices, m->error);
    if (!code && slices.count == 1) {
        *value = slices.items[0];
    } else if (!code && !(*out = flue_block_new(NULL, slices.total))) {
        code = no_memory(m);
    } else if (!code) {
        flue_slices_copy(&slices, (*out)->data);
        (*out)->size = slices.total;
        flue_block_finish(*out);
        *value = flue_block_bytes(*out);
    }
    flue_arena_destroy(&arena);
    return code;
}

struct part {
    struct flue_payload *payload;
    struct flue_counts counts;
};
struct parts {
    struct flue_arena *arena;
    struct part *items;
    size_t count, room;
    bool failed;
};

static void take_part(void *arg, struct flue_payload *payload, const struct flue_counts *counts)
{
    struct parts *parts = arg;
    struct part part = {payload, *counts};
    if (!FLUE_ARENA_PUSH(parts->arena, parts->items, parts->count, parts->room, part)) {
        parts->failed = true;
        flue_payload_unref(payload);
    }
}

static void drop_parts(struct parts *parts, size_t from)
{
    for (size_t i = from; i < parts->count; i++)
        flue_payload_unref(parts->items[i].payload);
}

static enum flue_code add_otlp(struct making *m, const struct group *group,
                               struct flue_payload *part, const struct flue_counts *counts,
                               size_t max_bytes, unsigned depth);

/* `size` is that of its encoding, over `most`. */
static enum flue_code cut_otlp(struct making *m, const struct group *group,
                               struct flue_payload *part, const struct flue_counts *counts,
                               size_t size, size_t max_bytes, unsigned depth)
{
    size_t most = room(max_bytes, group), wire = part->ops->encoded_size(part);
    struct parts parts = {.arena = m->arena};
    /* JSON is several times its protobuf: in proportion, with something to spare. */
    uint64_t target = m->rules->encoding == FLUE_KAFKA_OTLP_JSON
                          ? (uint64_t)((double)wire * (double)most / (double)size * 0.8)
                          : most;

    if (depth >= CUTS_MAX || counts->samples <= 1) {
        reject(m, counts, size, most);
        return FLUE_OK;
    }
    if (target >= wire)
        target = wire / 2;
    enum flue_code code = part->ops->split(part, target ? target : 1, true, counts, m->account,
                                           take_part, &parts, m->error);
    if (!code && parts.failed)
        code = no_memory(m);
    if (!code && parts.count == 1 &&
        parts.items[0].payload->ops->encoded_size(parts.items[0].payload) >= wire) {
        reject(m, counts, size, most);
        drop_parts(&parts, 0);
        return FLUE_OK;
    }
    for (size_t i = 0; i < parts.count; i++) {
        if (!code)
            code = add_otlp(m, group, parts.items[i].payload, &parts.items[i].counts, max_bytes,
                            depth + 1);
        flue_payload_unref(parts.items[i].payload);
    }
    return code;
}

static enum flue_code add_otlp(struct making *m, const struct group *group,
                               struct flue_payload *part, const struct flue_counts *counts,
                               size_t max_bytes, unsigned depth)
{
    bool json = m->rules->encoding == FLUE_KAFKA_OTLP_JSON;
    struct flue_block *block = NULL;
    struct flue_bytes value;
    size_t wire = part->ops->encoded_size(part);
    enum flue_code code;

    if (wire > room(max_bytes, group)) /* JSON is larger still */
        return cut_otlp(m, group, part, counts, wire, max_bytes, depth);
    if (json) {
        code = encode_json(m, part, &block);
        value = block ? flue_block_bytes(block) : flue_bytes(NULL, 0);
    } else {
        code = encode_proto(m, part, &block, &value);
    }
    if (code)
        return code;
    if (value.size > room(max_bytes, group)) {
        flue_block_unref(block);
        return cut_otlp(m, group, part, counts, value.size, max_bytes, depth);
    }
    struct kafka_record *record = add_record(m, group);
    if (!record) {
        flue_block_unref(block);
        return no_memory(m);
    }
    record->part = flue_payload_ref(part);
    record->block = block;
    record->value = value;
    record->counts = *counts;
    m->out->bytes += block ? block->size : 0;
    return FLUE_OK;
}

/* ---- keys, topics, headers --------------------------------------------------------------------
 */

/* An attribute's text in the arena, at most `most` bytes of it; NULL data: not there. */
static struct flue_bytes text_of(struct making *m, const struct flue_payload *payload,
                                 size_t resource, struct flue_bytes attribute, size_t most)
{
    struct flue_value value;

    if (!attribute.size || !payload->ops->attribute_get(payload, resource, attribute, &value) ||
        value.type == FLUE_VALUE_EMPTY)
        return flue_bytes(NULL, 0);
    struct flue_bytes text =
        value.type == FLUE_VALUE_STRING ? value.text : flue_label_text(&value, m->arena);
    if (!text.size)
        return flue_bytes(NULL, 0);
    return flue_arena_copy(m->arena, flue_bytes_first(text, most));
}

static struct flue_bytes key_of(struct making *m, const struct flue_payload *payload,
                                size_t resource)
{
    const struct kafka_record_rules *rules = m->rules;

    if (!rules->key_metadata.size)
        return text_of(m, payload, resource, rules->key_attribute, FLUE_KAFKA_KEY_MAX);
    struct flue_bytes key =
        flue_bytes_first(flue_origin_header(m->origin, rules->key_metadata), FLUE_KAFKA_KEY_MAX);
    return key.size ? flue_arena_copy(m->arena, key) : flue_bytes(NULL, 0);
}

bool kafka_topics_init(struct kafka_topics *topics)
{
    memset(topics, 0, sizeof *topics);
    flue_arena_init(&topics->arena, KAFKA_TOPICS_MAX * 512, 0);
    return uv_mutex_init(&topics->lock) == 0;
}

void kafka_topics_destroy(struct kafka_topics *topics)
{
    uv_mutex_destroy(&topics->lock);
    flue_arena_destroy(&topics->arena);
}

/* NULL: one too many. */
static const char *admit_topic(struct kafka_topics *topics, struct flue_bytes topic)
{
    const char *found = NULL;

    uv_mutex_lock(&topics->lock);
    for (size_t i = 0; i < topics->count && !found; i++)
        if (flue_bytes_is(topic, topics->names[i]))
            found = topics->names[i];
    if (!found && topics->count < KAFKA_TOPICS_MAX &&
        (found = flue_arena_string(&topics->arena, topic)))
        topics->names[topics->count++] = found;
    uv_mutex_unlock(&topics->lock);
    return found;
}

/* What is no topic's name is counted, and the data goes where the rest goes. */
static const char *topic_of(struct making *m, const struct flue_payload *payload, size_t resource)
{
    const struct kafka_record_rules *rules = m->rules;
    struct flue_bytes topic = {0};

    if (rules->topic_metadata.size)
        topic = flue_origin_header(m->origin, rules->topic_metadata);
    if (!topic.size && rules->topic_attribute.size)
        topic = text_of(m, payload, resource, rules->topic_attribute, 250);
    if (!topic.size)
        return rules->topic;
    const char *admitted = flue_kafka_topic_valid(topic) ? admit_topic(rules->topics, topic) : NULL;
    if (!admitted)
        m->out->left_out++;
    return admitted ? admitted : rules->topic;
}

static void add_header(struct making *m, struct flue_kafka_header *headers, struct group *group,
                       struct flue_bytes name, struct flue_bytes value)
{
    struct flue_kafka_header *header = &headers[group->header_count];
    size_t bytes = name.size + value.size + 16;

    if (group->header_count >= FLUE_KAFKA_HEADERS_MAX || name.size > FLUE_KAFKA_HEADER_NAME_MAX ||
        value.size > 3 * FLUE_KAFKA_HEADER_VALUE_MAX ||
        group->header_bytes + bytes > FLUE_KAFKA_HEADERS_BYTES ||
        group->header_bytes + bytes > m->rules->max_bytes / 2) {
        m->out->left_out++;
        return;
    }
    header->name = name;
    header->value = value;
    group->header_count++;
    group->header_bytes += bytes;
}

/* Escaped into the arena; NULL data without memory. */
static struct flue_bytes escaped(struct making *m, const char *prefix, struct flue_bytes text)
{
    size_t before = strlen(prefix), size = before + flue_kafka_escaped_size(text);
    uint8_t *out = flue_arena_alloc(m->arena, size + 1);

    if (!out)
        return flue_bytes(NULL, 0);
    memcpy(out, prefix, before);
    flue_kafka_escape(text, out + before);
    out[size] = 0;
    return flue_bytes(out, size);
}

/* As they came, as the Collector hands them on; a line break is in none of HTTP's. */
static bool has_control(struct flue_bytes value)
{
    for (size_t i = 0; i < value.size; i++)
        if ((value.data[i] < 0x20 && value.data[i] != '\t') || value.data[i] == 0x7f)
            return true;
    return false;
}

/* Tenant, constants and metadata: the same for the whole batch. */
static enum flue_code common_headers(struct making *m, struct flue_kafka_header *headers,
                                     struct group *group)
{
    const struct kafka_record_rules *rules = m->rules;

    if (m->origin->tenant.size) {
        struct flue_bytes tenant = flue_arena_copy(m->arena, m->origin->tenant);
        if (!tenant.data)
            return no_memory(m);
        add_header(m, headers, group, FLUE_BYTES(FLUE_KAFKA_TENANT_HEADER), tenant);
    }
    for (size_t i = 0; i < rules->header_count; i++)
        add_header(m, headers, group, rules->headers[i].name, rules->headers[i].value);
    for (size_t i = 0; i < rules->metadata_count; i++) {
        struct flue_bytes value = flue_origin_header(m->origin, rules->metadata[i].value);
        if (!value.data)
            continue;
        if (value.size > FLUE_KAFKA_HEADER_VALUE_MAX || has_control(value)) {
            m->out->left_out++;
            continue;
        }
        value = flue_arena_copy(m->arena, value);
        if (!value.data)
            return no_memory(m);
        add_header(m, headers, group, rules->metadata[i].name, value);
    }
    return FLUE_OK;
}

/* The attributes that all resources of the group have in common. */
static enum flue_code attribute_headers(struct making *m, const struct flue_payload *payload,
                                        const uint32_t *group_of, uint32_t number,
                                        struct flue_kafka_header *headers, struct group *group)
{
    size_t resources = payload->ops->resource_count(payload);

    for (size_t a = 0; a < m->rules->attribute_count; a++) {
        struct flue_bytes name = m->rules->attributes[a], common = {0};
        bool first = true, same = true;
        for (size_t i = 0; i < resources && same; i++) {
            if (group_of[i] != number)
                continue;
            struct flue_bytes text = text_of(m, payload, i, name, FLUE_KAFKA_HEADER_VALUE_MAX);
            same = text.data && (first || flue_bytes_equal(text, common));
            common = text;
            first = false;
        }
        if (!same || first)
            continue;
        struct flue_bytes value = escaped(m, "", common);
        if (!value.data)
            return no_memory(m);
        add_header(m, headers, group, name, value);
    }
    return FLUE_OK;
}

static uint8_t lane_of(const struct group *group)
{
    return (uint8_t)flue_hash_join(flue_hash(group->key), flue_hash(flue_bytes_of(group->topic)));
}

static struct flue_kafka_header *new_headers(struct making *m, struct group *group)
{
    struct flue_kafka_header *headers =
        flue_arena_zalloc(m->arena, FLUE_KAFKA_HEADERS_MAX, sizeof *headers);
    group->headers = headers;
    return headers;
}

/* ---- OTLP -------------------------------------------------------------------------------------
 */

struct grouping {
    struct group *groups;
    size_t count, room;
    uint32_t *group_of; /* resource to group */
    struct flue_table table;
};

static bool same_group(const void *rows, uint32_t row, const void *key)
{
    const struct group *a = (const struct group *)rows + row, *b = key;
    return flue_bytes_equal(a->key, b->key) && !a->key.data == !b->key.data &&
           strcmp(a->topic, b->topic) == 0;
}

static enum flue_code find_groups(struct making *m, const struct flue_payload *payload,
                                  struct grouping *all)
{
    size_t resources = payload->ops->resource_count(payload);

    all->group_of = flue_arena_zalloc(m->arena, resources + 1, sizeof *all->group_of);
    if (!all->group_of || !flue_table_init(&all->table, m->arena, resources))
        return no_memory(m);
    for (size_t i = 0; i < resources; i++) {
        struct group group = {.key = key_of(m, payload, i), .topic = topic_of(m, payload, i)};
        uint64_t hash = flue_hash_join(flue_hash(group.key), flue_hash(flue_bytes_of(group.topic)));
        uint32_t row = flue_table_find(&all->table, hash, same_group, all->groups, &group);
        if (row == FLUE_TABLE_NONE) {
            row = (uint32_t)all->count;
            group.lane = lane_of(&group);
            if (!FLUE_ARENA_PUSH(m->arena, all->groups, all->count, all->room, group) ||
                !flue_table_insert(&all->table, hash, row))
                return no_memory(m);
        }
        all->group_of[i] = row;
    }
    return FLUE_OK;
}

/* The resources of one group alone, with a dictionary of what they use. */
static enum flue_code part_of(struct making *m, const struct flue_payload *payload,
                              const struct grouping *all, uint32_t number,
                              struct flue_payload **out)
{
    size_t resources = payload->ops->resource_count(payload);
    struct flue_payload *part = payload->ops->clone(payload, m->error);
    enum flue_code code = part ? FLUE_OK : FLUE_NO_MEMORY;

    *out = NULL;
    for (size_t i = 0; !code && i < resources; i++)
        if (all->group_of[i] != number)
            code = flue_otlp_resource_remove(part, (uint32_t)i, m->error);
    if (!code)
        code = flue_otlp_prune(part, m->account, out, m->error);
    flue_payload_unref(part);
    return code;
}

static enum flue_code make_otlp(struct making *m, struct flue_payload *payload,
                                const struct flue_counts *total)
{
    struct grouping all = {.count = 0};
    struct part *parts = NULL;
    uint64_t sum = 0, before = 0;
    enum flue_code code = find_groups(m, payload, &all);

    if (!code && !(parts = flue_arena_zalloc(m->arena, all.count + 1, sizeof *parts)))
        code = no_memory(m);
    for (uint32_t g = 0; !code && g < all.count; g++) {
        struct flue_kafka_header *headers = new_headers(m, &all.groups[g]);
        code = headers ? common_headers(m, headers, &all.groups[g]) : no_memory(m);
        if (!code)
            code = attribute_headers(m, payload, all.group_of, g, headers, &all.groups[g]);
        if (!code && all.count == 1)
            parts[g].payload = flue_payload_ref(payload);
        else if (!code)
            code = part_of(m, payload, &all, g, &parts[g].payload);
        if (!code && parts[g].payload)
            sum += parts[g].payload->ops->encoded_size(parts[g].payload);
    }
    for (size_t g = 0; parts && g < all.count; g++) {
        struct flue_payload *part = parts[g].payload;
        if (!code && part) {
            uint64_t own = part->ops->encoded_size(part);
            struct flue_counts counts = {flue_share(total->profiles, before, own, sum),
                                         flue_share(total->samples, before, own, sum),
                                         flue_share(total->bytes, before, own, sum)};
            if (all.count > 1 && counts.samples < 2)
                counts.samples = 2; /* a share by size: do not take it for one sample */
            before += own;
            code = add_otlp(m, &all.groups[g], part, &counts, m->rules->max_bytes, 0);
        }
        flue_payload_unref(part);
    }
    return code;
}

/* ---- pprof ------------------------------------------------------------------------------------
 */

static enum flue_code add_pprof(struct making *m, const struct group *group,
                                struct flue_payload *payload, size_t series, size_t profile,
                                size_t max_bytes, bool cut);

/* One profile alone as a payload, cut between its samples. */
static enum flue_code cut_pprof(struct making *m, const struct group *group,
                                const struct flue_pprof_series *series,
                                const struct flue_pprof_profile *profile, size_t max_bytes)
{
    struct flue_pprof_builder *builder = flue_pprof_builder_new(m->account);
    struct flue_block *block = flue_block_copy(NULL, profile->bytes);
    struct flue_pprof_profile copy = *profile;
    struct flue_payload *alone = NULL;
    struct flue_counts counts;
    struct parts parts = {.arena = m->arena};

    if (!builder || !block) {
        if (builder)
            flue_pprof_builder_discard(builder);
        flue_block_unref(block);
        return no_memory(m);
    }
    copy.bytes = flue_block_bytes(block);
    flue_pprof_builder_keep(builder, block);
    flue_block_unref(block);
    flue_pprof_builder_series(builder);
    for (size_t i = 0; i < series->label_count; i++)
        flue_pprof_builder_label(builder, series->labels[i].name, series->labels[i].value);
    flue_pprof_builder_profile(builder, &copy);
    enum flue_code code = flue_pprof_builder_finish(builder, &alone, &counts, m->error);
    if (code)
        return code;
    /* The payload's encoding has the labels beside the profile, so its parts come out smaller. */
    code = alone->ops->split(alone, room(max_bytes, group), true, &counts, m->account, take_part,
                             &parts, m->error);
    flue_payload_unref(alone);
    if (!code && parts.failed)
        code = no_memory(m);
    for (size_t i = 0; i < parts.count; i++) {
        struct flue_payload *part = parts.items[i].payload;
        for (size_t s = 0; !code && s < flue_pprof_series_count(part); s++)
            for (size_t p = 0; !code && p < flue_pprof_series_at(part, s)->profile_count; p++)
                code = add_pprof(m, group, part, s, p, max_bytes, true);
        flue_payload_unref(part);
    }
    return code;
}

static enum flue_code add_pprof(struct making *m, const struct group *group,
                                struct flue_payload *payload, size_t series, size_t profile,
                                size_t max_bytes, bool cut)
{
    const struct flue_pprof_series *s = flue_pprof_series_at(payload, series);
    const struct flue_pprof_profile *p = &s->profiles[profile];
    struct flue_counts counts = {1, p->facts.samples, p->bytes.size};

    if (p->bytes.size > room(max_bytes, group)) {
        if (!cut && p->facts.samples > 1)
            return cut_pprof(m, group, s, p, max_bytes);
        reject(m, &counts, p->bytes.size, room(max_bytes, group));
        return FLUE_OK;
    }
    struct kafka_record *record = add_record(m, group);
    if (!record)
        return no_memory(m);
    record->part = flue_payload_ref(payload);
    record->series = series;
    record->profile = profile;
    record->value = p->bytes;
    record->counts = counts;
    return FLUE_OK;
}

static enum flue_code make_pprof(struct making *m, struct flue_payload *payload)
{
    enum flue_code code = FLUE_OK;

    for (size_t i = 0; !code && i < flue_pprof_series_count(payload); i++) {
        const struct flue_pprof_series *series = flue_pprof_series_at(payload, i);
        struct group group = {.key = key_of(m, payload, i), .topic = topic_of(m, payload, i)};
        struct flue_kafka_header *headers = new_headers(m, &group);
        if (!headers)
            return no_memory(m);
        group.lane = lane_of(&group);
        code = common_headers(m, headers, &group);
        for (size_t l = 0; !code && l < series->label_count; l++) {
            struct flue_bytes name =
                escaped(m, FLUE_KAFKA_LABEL_PREFIX,
                        flue_bytes_first(series->labels[l].name, FLUE_KAFKA_HEADER_NAME_MAX));
            struct flue_bytes value = escaped(
                m, "", flue_bytes_first(series->labels[l].value, FLUE_KAFKA_HEADER_VALUE_MAX));
            if (!name.data || !value.data)
                return no_memory(m);
            add_header(m, headers, &group, name, value);
        }
        for (size_t a = 0; !code && a < m->rules->attribute_count; a++) {
            struct flue_bytes text =
                text_of(m, payload, i, m->rules->attributes[a], FLUE_KAFKA_HEADER_VALUE_MAX);
            if (!text.data)
                continue;
            text = escaped(m, "", text);
            if (!text.data)
                return no_memory(m);
            add_header(m, headers, &group, m->rules->attributes[a], text);
        }
        for (size_t p = 0; !code && p < series->profile_count; p++)
            code = add_pprof(m, &group, payload, i, p, m->rules->max_bytes, false);
    }
    return code;
}

/* ---- the two ways in --------------------------------------------------------------------------
 */

enum flue_code kafka_records_make(const struct kafka_record_rules *rules,
                                  const struct flue_batch *batch, struct flue_payload *payload,
                                  struct flue_arena *arena, struct kafka_records *out,
                                  struct flue_error *error)
{
    struct making m = {rules, batch->origin, batch->account, arena, out, error};

    return rules->encoding == FLUE_KAFKA_PPROF ? make_pprof(&m, payload)
                                               : make_otlp(&m, payload, &batch->counts);
}

enum flue_code kafka_records_cut(const struct kafka_record_rules *rules,
                                 const struct kafka_record *record, size_t max_bytes,
                                 struct flue_account *account, struct flue_arena *arena,
                                 struct kafka_records *out, struct flue_error *error)
{
    struct making m = {rules, NULL, account, arena, out, error};
    const struct group group = {record->topic,        record->key,          record->headers,
                                record->header_count, record->header_bytes, record->lane};

    if (rules->encoding == FLUE_KAFKA_PPROF)
        return add_pprof(&m, &group, record->part, record->series, record->profile, max_bytes,
                         false);
    return add_otlp(&m, &group, record->part, &record->counts, max_bytes, 0);
}
