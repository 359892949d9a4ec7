/* metric_payload.c: see metric_payload.h. */
#include "proto/otlp/metric_payload.h"

#include <stdlib.h>
#include "proto/otlp/dictionary.h"
#include "proto/otlp/index.h"

struct metric_resource {
    struct flue_bytes field;    /* ResourceMetrics with tag and length */
    struct flue_bytes resource; /* content of its Resource */
    uint64_t points;
};

struct metric_payload {
    struct flue_payload base;
    struct flue_block *body;
    struct metric_resource *resources;
    size_t count;
    uint64_t metrics, points;
};

static const struct flue_payload_ops metric_ops;

static struct metric_payload *metrics_of(const struct flue_payload *payload)
{
    return (struct metric_payload *)payload;
}

static void destroy(struct flue_payload *base)
{
    struct metric_payload *payload = metrics_of(base);
    flue_block_unref(payload->body);
    free(payload->resources);
    free(payload);
}

/* ---- reading -------------------------------------------------------------------------------- */

typedef bool (*visit_field)(struct metric_payload *payload, struct flue_bytes content);

/* Fields `number` of a message; false: it is broken. */
static bool each(struct metric_payload *payload, struct flue_bytes message, uint32_t number,
                 visit_field visit)
{
    struct flue_reader r = flue_reader(message);
    struct flue_field_value f;
    while (flue_read_field(&r, &f))
        if (f.number == number && f.type == FLUE_LEN && !visit(payload, f.bytes))
            return false;
    return flue_reader_done(&r);
}

static bool one_point(struct metric_payload *payload, struct flue_bytes content)
{
    struct flue_reader r = flue_reader(content);
    struct flue_field_value f;
    while (flue_read_field(&r, &f))
        ;
    payload->points++;
    payload->resources[payload->count - 1].points++;
    return flue_reader_done(&r);
}

static bool one_sum(struct metric_payload *payload, struct flue_bytes content)
{
    return each(payload, content, 1, one_point);
}

static bool one_metric(struct metric_payload *payload, struct flue_bytes content)
{
    payload->metrics++;
    return each(payload, content, 7, one_sum);
}

static bool one_scope(struct metric_payload *payload, struct flue_bytes content)
{
    return each(payload, content, 2, one_metric);
}

static bool one_resource(struct metric_payload *payload, struct flue_bytes content)
{
    payload->resources[payload->count - 1].resource = content;
    return true;
}

static bool walk(struct metric_payload *payload)
{
    struct flue_reader r = flue_reader(flue_block_bytes(payload->body));
    struct flue_field_value f;
    size_t count = 0;
    while (flue_read_field(&r, &f))
        count += f.number == 1 && f.type == FLUE_LEN;
    if (!flue_reader_done(&r))
        return false;
    payload->resources = calloc(count + 1, sizeof *payload->resources);
    r = flue_reader(flue_block_bytes(payload->body));
    while (payload->resources && flue_read_field(&r, &f)) {
        if (f.number != 1 || f.type != FLUE_LEN)
            continue;
        payload->resources[payload->count++].field =
            flue_bytes(f.tag_at, (size_t)(r.at - f.tag_at));
        if (!each(payload, f.bytes, 1, one_resource) || !each(payload, f.bytes, 2, one_scope))
            return false;
    }
    return true;
}

enum flue_code flue_metric_payload_read(struct flue_block *body, struct flue_payload **out,
                                        struct flue_counts *counts, struct flue_error *error)
{
    struct metric_payload *payload = calloc(1, sizeof *payload);
    *out = NULL;
    if (!payload) {
        flue_block_unref(body);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for metrics");
    }
    payload->base.ops = &metric_ops;
    atomic_init(&payload->base.refs, 1);
    payload->base.signal = FLUE_METRICS;
    payload->body = body;
    bool whole = walk(payload), memory = payload->resources || !whole;
    if (counts)
        *counts = (struct flue_counts){payload->metrics, payload->points, body->size};
    if (!whole || !memory || !payload->points) {
        destroy(&payload->base);
        if (!memory)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for metrics");
        return whole ? FLUE_OK
                     : flue_fail(error, FLUE_INVALID, "%s",
                                 "not an ExportMetricsServiceRequest: its structure is broken");
    }
    *out = &payload->base;
    return FLUE_OK;
}

/* ---- the view ------------------------------------------------------------------------------- */

/* It is never edited, so a copy is the same again. */
static struct flue_payload *clone(const struct flue_payload *base, struct flue_error *error)
{
    struct flue_payload *made;
    return flue_metric_payload_read(flue_block_ref(metrics_of(base)->body), &made, NULL, error)
               ? NULL
               : made;
}

static size_t encoded_size(const struct flue_payload *base)
{
    return metrics_of(base)->body->size;
}

static size_t held_size(const struct flue_payload *base)
{
    const struct metric_payload *payload = metrics_of(base);
    return sizeof *payload + payload->body->size + payload->count * sizeof *payload->resources;
}

static enum flue_code slices(const struct flue_payload *base, struct flue_arena *arena,
                             struct flue_slices *out, struct flue_error *error)
{
    return flue_slices_add(out, arena, flue_block_bytes(metrics_of(base)->body))
               ? FLUE_OK
               : flue_fail(error, FLUE_NO_MEMORY, "out of memory for the list of slices");
}

static size_t resource_count(const struct flue_payload *base)
{
    return metrics_of(base)->count;
}

static void attribute_each(const struct flue_payload *base, size_t resource,
                           flue_attribute_visit visit, void *arg)
{
    struct flue_reader r = flue_reader(metrics_of(base)->resources[resource].resource);
    struct flue_field_value f;
    struct flue_attribute attribute;
    while (flue_read_field(&r, &f)) {
        if (f.number != 1 || f.type != FLUE_LEN)
            continue;
        flue_otlp_attribute_read(f.bytes, &attribute);
        if (!visit(arg, &attribute))
            return;
    }
}

struct search {
    struct flue_bytes key;
    struct flue_value *out;
    bool found;
};

static bool is_it(void *arg, const struct flue_attribute *attribute)
{
    struct search *search = arg;
    search->found = flue_bytes_equal(attribute->key, search->key);
    if (search->found)
        *search->out = attribute->value;
    return !search->found;
}

static bool attribute_get(const struct flue_payload *base, size_t resource, struct flue_bytes key,
                          struct flue_value *out)
{
    struct search search = {key, out, false};
    attribute_each(base, resource, is_it, &search);
    return search.found;
}

static enum flue_code attributes_set(struct flue_payload *base, size_t resource,
                                     const struct flue_attribute_set *set, enum flue_set_mode mode,
                                     struct flue_block *owner, struct flue_error *error)
{
    return flue_fail(error, FLUE_INTERNAL, "metrics are not edited");
}

static enum flue_code attribute_remove(struct flue_payload *base, size_t resource,
                                       struct flue_bytes key, struct flue_error *error)
{
    return flue_fail(error, FLUE_INTERNAL, "metrics are not edited");
}

/* ---- joining and cutting --------------------------------------------------------------------- */

/* Requests behind each other are a request. */
static enum flue_code merge(struct flue_payload *const *payloads, size_t count,
                            struct flue_account *account, struct flue_payload **out,
                            struct flue_error *error)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += encoded_size(payloads[i]);
    struct flue_block *block = flue_block_new(account, size);
    for (size_t i = 0; block && i < count; i++)
        (void)flue_block_append(block, flue_block_bytes(metrics_of(payloads[i])->body), size, NULL);
    if (!block || block->size != size) {
        flue_block_unref(block);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for %zu bytes of metrics", size);
    }
    flue_block_finish(block);
    return flue_metric_payload_read(block, out, NULL, error);
}

struct part {
    struct flue_payload *payload;
    struct flue_counts counts;
};

/* Resources [from, to) as a part; before: points of those in front of them. */
static enum flue_code make_part(const struct metric_payload *payload, size_t from, size_t to,
                                uint64_t before, const struct flue_counts *total,
                                struct flue_account *account, struct part *part,
                                struct flue_error *error)
{
    const uint8_t *start = payload->resources[from].field.data;
    const struct flue_bytes last = payload->resources[to - 1].field;
    struct flue_counts own;
    struct flue_block *block =
        flue_block_copy(account, flue_bytes(start, (size_t)(last.data + last.size - start)));
    if (!block)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to cut metrics");
    enum flue_code code = flue_metric_payload_read(block, &part->payload, &own, error);
    part->counts =
        (struct flue_counts){flue_share(total->profiles, before, own.samples, payload->points),
                             flue_share(total->samples, before, own.samples, payload->points),
                             flue_share(total->bytes, before, own.samples, payload->points)};
    return code;
}

static enum flue_code split(const struct flue_payload *base, uint64_t max, bool by_bytes,
                            const struct flue_counts *total, struct flue_account *account,
                            void (*emit)(void *arg, struct flue_payload *part,
                                         const struct flue_counts *counts),
                            void *arg, struct flue_error *error)
{
    const struct metric_payload *payload = metrics_of(base);
    struct part *parts = calloc(payload->count, sizeof *parts);
    enum flue_code code = FLUE_OK;
    size_t made = 0;
    uint64_t before = 0;
    if (!parts)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to cut metrics");
    for (size_t from = 0, to; code == FLUE_OK && from < payload->count; from = to) {
        uint64_t weight = 0, points = 0;
        for (to = from; to < payload->count; to++) {
            const struct metric_resource *r = &payload->resources[to];
            uint64_t own = by_bytes ? r->field.size : r->points;
            if (to > from && weight + own > max)
                break;
            weight += own;
            points += r->points;
        }
        code = make_part(payload, from, to, before, total, account, &parts[made], error);
        made += code == FLUE_OK && parts[made].payload;
        before += points;
    }
    for (size_t i = 0; i < made; i++) {
        if (code == FLUE_OK)
            emit(arg, parts[i].payload, &parts[i].counts);
        else
            flue_payload_unref(parts[i].payload);
    }
    free(parts);
    return code;
}

static const struct flue_payload_ops metric_ops = {
    .form = FLUE_FORM_OTLP,
    .name = "otlp",
    .destroy = destroy,
    .clone = clone,
    .encoded_size = encoded_size,
    .held_size = held_size,
    .slices = slices,
    .resource_count = resource_count,
    .attribute_get = attribute_get,
    .attribute_each = attribute_each,
    .attributes_set = attributes_set,
    .attribute_remove = attribute_remove,
    .merge = merge,
    .split = split,
};
