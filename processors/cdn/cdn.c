/* cdn.c: which place of the CDN did this profile come from? Provider, region, point of presence,
 * site, tier, network and geography of the machine that was profiled, never of a viewer.
 *
 * The sources and their order are locate.h's; here are the batch, the metrics, and the files: they
 * are looked at on the pool every reload_interval, and a changed one is swapped in whole. Every loop
 * holds a reference of the tables that it uses, and gets the new ones by a message.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/component.h"
#include "collector/pipeline/actions.h"
#include "processors/cdn/locate.h"
#include "proto/otlp/otlp.h"
#include "proto/wire/reader.h"

#define CACHED_SETS 256
#define ARENA_MAX   (64u << 10)

struct cached {
    struct flue_block *block; /* NULL: empty */
    struct flue_attribute_set set;
};
struct cdn_loop {
    _Alignas(64) struct cdn *cdn;
    struct flue_cdn_tables *tables;
    _Atomic(struct flue_cdn_tables *) coming; /* not taken yet */
    struct flue_task swap;
    struct cached cache[CACHED_SETS]; /* by hash of what is set: few places, many batches */
    struct flue_arena arena;
};
struct cdn {
    const struct flue_cdn_config *config;
    struct flue_cdn_locator *locator;
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    const char *id, *pipeline;
    struct cdn_loop *at;
    /* made at their first use: most never are */
    _Atomic(struct flue_metric *) resolved[FLUE_PLACE_WRITTEN][FLUE_CDN_SOURCES];
    _Atomic(struct flue_metric *) unknown[FLUE_PLACE_WRITTEN];
    _Atomic(struct flue_metric *) conflicts[FLUE_PLACE_WRITTEN][FLUE_CDN_SOURCES][FLUE_CDN_SOURCES];
    struct flue_cdn_tables *tables; /* the newest; of loop 0 and its job */
    struct flue_metric **failures, **prefixes, **loaded, **bytes; /* by file */
    struct stat *seen; /* by file: as it was when it was read; zeros: it was not there */
    size_t file_count;
    struct flue_timer timer;
    struct flue_job job;
    struct flue_cdn_tables *made; /* by the job; NULL: nothing changed */
    bool working, stopping;
    _Atomic bool idle;
};

/* ---- files ----------------------------------------------------------------------------------- */

static void warn_line(void *arg, unsigned line, const char *text)
{
    flue_log(FLUE_WARN, "cdn", text, FLUE_S("file", (const char *)arg), FLUE_U("line", line),
             FLUE_LOG_END);
}

/* A table that has shrunk to less than half is likelier half a file than half a network. */
static bool plausible(const struct flue_cdn_table *now, const struct flue_cdn_table *before,
                      struct flue_error *error)
{
    size_t old = before ? flue_prefixes_count(before->prefixes) : 0;
    size_t count = flue_prefixes_count(now->prefixes);
    if (old < 100 || count >= old / 2)
        return true;
    (void)flue_fail(error, FLUE_INVALID,
                    "%zu networks where there were %zu: taken for a damaged file; restart to use it",
                    count, old);
    return false;
}

static void read_one(struct cdn *cdn, struct flue_cdn_tables *to, size_t i,
                     const struct flue_cdn_table *before)
{
    const struct flue_cdn_file *file = flue_cdn_tables_file(cdn->config, i);
    struct flue_cdn_table *table;
    struct flue_error error;

    enum flue_code code = flue_cdn_table_read(file, cdn->config, false, warn_line,
                                              (void *)(uintptr_t)file->path, &table, &error);
    if (code == FLUE_OK && !plausible(table, before, &error)) {
        flue_cdn_table_unref(table);
        code = FLUE_INVALID;
    }
    if (code != FLUE_OK) {
        char since[32] = "";
        if (cdn->seen[i].st_ino && (code == FLUE_IO || code == FLUE_NO_MEMORY))
            cdn->seen[i].st_size = -1; /* not the file's own fault: try again */
        flue_metric_add(cdn->failures[i], 1);
        if (before)
            flue_format_time(before->loaded_ns, since);
        flue_log(FLUE_ERROR, "cdn",
                 before ? "a table cannot be read; the old one stays in use"
                        : "a table cannot be read; it knows nothing",
                 FLUE_S("file", file->path), FLUE_S("error", error.text),
                 FLUE_S("in_use_since", since));
        return;
    }
    cdn->seen[i] = table->stat;
    flue_cdn_table_unref(to->items[i]);
    to->items[i] = table;
    flue_metric_set(cdn->prefixes[i], (int64_t)flue_prefixes_count(table->prefixes));
    flue_metric_set(cdn->loaded[i], (int64_t)(table->loaded_ns / 1000000000u));
    flue_metric_set(cdn->bytes[i], (int64_t)flue_cdn_table_bytes(table));
    flue_log(FLUE_INFO, "cdn", "a table of networks is in use", FLUE_S("file", file->path),
             FLUE_S("form", table->form),
             FLUE_U("prefixes", flue_prefixes_count(table->prefixes)),
             FLUE_U("warnings", table->warnings), FLUE_U("disputes", table->disputes));
}

/* On the pool, or at start: what changed is read, the rest is shared with the set before. */
static struct flue_cdn_tables *read_changed(struct cdn *cdn, const struct flue_cdn_tables *before,
                                            bool all)
{
    struct flue_cdn_tables *tables = NULL;
    for (size_t i = 0; i < cdn->file_count; i++) {
        const struct flue_cdn_table *old = before ? before->items[i] : NULL;
        struct stat now = {0}; /* of a file that is not there */
        (void)stat(flue_cdn_tables_file(cdn->config, i)->path, &now);
        if (!all && flue_cdn_same_file(&now, &cdn->seen[i]))
            continue; /* also if it was wrong: it still is */
        cdn->seen[i] = now;
        if (!tables) {
            if (!(tables = flue_cdn_tables_new(cdn->config)))
                return NULL;
            for (size_t k = 0; before && k < cdn->file_count; k++) {
                tables->items[k] = before->items[k];
                if (tables->items[k])
                    atomic_fetch_add(&tables->items[k]->refs, 1);
            }
        }
        read_one(cdn, tables, i, old);
    }
    return tables;
}

static void swap(struct flue_task *task)
{
    struct cdn_loop *at = (struct cdn_loop *)((char *)task - offsetof(struct cdn_loop, swap));
    flue_cdn_tables_unref(at->tables);
    at->tables = atomic_exchange(&at->coming, NULL);
}

static void job_work(struct flue_job *job)
{
    struct cdn *cdn = (struct cdn *)((char *)job - offsetof(struct cdn, job));
    cdn->made = read_changed(cdn, cdn->tables, false);
}

static void arm(struct cdn *cdn)
{
    flue_timer_arm(cdn->loops->items[0], &cdn->timer,
                   flue_monotonic_ns() + (uint64_t)cdn->config->reload_interval);
}

static void job_done(struct flue_job *job)
{
    struct cdn *cdn = (struct cdn *)((char *)job - offsetof(struct cdn, job));
    cdn->working = false;
    if (cdn->made) {
        flue_cdn_tables_unref(cdn->tables);
        cdn->tables = cdn->made;
        cdn->made = NULL;
        for (unsigned i = 0; i < cdn->loops->count; i++) {
            struct flue_cdn_tables *missed =
                atomic_exchange(&cdn->at[i].coming, flue_cdn_tables_ref(cdn->tables));
            if (missed) /* the message is still on its way and will find the new one */
                flue_cdn_tables_unref(missed);
            else
                flue_loop_post(cdn->loops->items[i], &cdn->at[i].swap);
        }
    }
    if (cdn->stopping)
        atomic_store(&cdn->idle, true);
    else
        arm(cdn);
}

static void look_again(struct flue_timer *timer)
{
    struct cdn *cdn = (struct cdn *)((char *)timer - offsetof(struct cdn, timer));
    cdn->working = true;
    cdn->job.work = job_work;
    cdn->job.done = job_done;
    flue_pool_submit(cdn->loops->items[0], &cdn->job);
}

/* ---- a batch --------------------------------------------------------------------------------- */

struct reading {
    const struct flue_payload *payload;
    const struct flue_origin *origin;
    size_t resource;
    char text[1024]; /* of what is no string */
};

/* AnyValue { 5 array { 1 value { 1 string } } }: its strings, a line each. */
static struct flue_bytes read_array(struct reading *r, struct flue_bytes value)
{
    struct flue_reader any = flue_reader(value);
    struct flue_field_value array, item, text;
    size_t used = 0;

    r->text[used++] = '\n';
    while (flue_read_field(&any, &array)) {
        struct flue_reader items = flue_reader(array.bytes);
        while (array.number == 5 && flue_read_field(&items, &item)) {
            struct flue_reader inside = flue_reader(item.bytes);
            if (item.number != 1 || !flue_read_field(&inside, &text) || text.number != 1 ||
                text.bytes.size >= sizeof r->text - used)
                continue;
            memcpy(r->text + used, text.bytes.data, text.bytes.size);
            used += text.bytes.size;
            r->text[used++] = '\n';
        }
    }
    return flue_bytes(r->text, used);
}

static struct flue_bytes read_attribute(void *arg, struct flue_bytes key)
{
    struct reading *r = arg;
    struct flue_value value;
    int size;

    if (!r->payload->ops->attribute_get(r->payload, r->resource, key, &value))
        return flue_bytes(NULL, 0);
    switch (value.type) {
    case FLUE_VALUE_STRING:
        return value.text;
    case FLUE_VALUE_INT:
        size = snprintf(r->text, sizeof r->text, "%lld", (long long)value.integer);
        return flue_bytes(r->text, (size_t)size);
    case FLUE_VALUE_DOUBLE:
        size = snprintf(r->text, sizeof r->text, "%.10g", value.number);
        return flue_bytes(r->text, (size_t)size);
    case FLUE_VALUE_COMPLEX:
        return read_array(r, value.text);
    default:
        return FLUE_BYTES("\n");
    }
}

static struct flue_bytes read_header(void *arg, struct flue_bytes name)
{
    const struct reading *r = arg;
    return r->origin ? flue_origin_header(r->origin, name) : flue_bytes(NULL, 0);
}

/* Whether resources of one batch name different machines, or some name one and others none: then
 * the sender stands elsewhere than most of them. */
static bool differ(const struct flue_payload *payload, struct flue_bytes key)
{
    size_t count = payload->ops->resource_count(payload);
    struct flue_value first, other;
    bool there = payload->ops->attribute_get(payload, 0, key, &first);

    for (size_t i = 1; i < count; i++)
        if (payload->ops->attribute_get(payload, i, key, &other) != there ||
            (there && (first.type != other.type || !flue_bytes_equal(first.text, other.text))))
            return true;
    return false;
}

static bool of_several_machines(const struct flue_cdn_config *config,
                                const struct flue_payload *payload)
{
    const struct flue_list *lists[] = {&config->host_attributes, &config->address_attributes};

    if (payload->ops->resource_count(payload) < 2)
        return false;
    for (unsigned k = 0; k < 2; k++)
        for (size_t i = 0; i < lists[k]->count; i++)
            if (differ(payload, flue_bytes_of(((const char *const *)lists[k]->items)[i])))
                return true;
    return differ(payload, FLUE_BYTES("host.id"));
}

static void add_one(struct cdn *cdn, _Atomic(struct flue_metric *) *slot, const char *name,
                    const char *help, int attribute, struct flue_label one, struct flue_label other)
{
    struct flue_metric *metric = atomic_load_explicit(slot, memory_order_acquire);
    if (!metric) {
        const struct flue_bytes of = flue_place_attribute_name((enum flue_place_attribute)attribute);
        const struct flue_label labels[] = {{"processor", cdn->id},
                                            {"pipeline", cdn->pipeline},
                                            {"attribute", (const char *)of.data},
                                            one,
                                            other,
                                            {NULL, NULL}};
        metric = flue_metric(cdn->metrics, FLUE_COUNTER, name, help, labels);
        atomic_store_explicit(slot, metric, memory_order_release);
    }
    flue_metric_add(metric, 1);
}

static void count(struct cdn *cdn, const struct flue_cdn_answer *answer)
{
    static const struct flue_label none;
    for (int i = 0; i < FLUE_PLACE_WRITTEN; i++) {
        uint8_t winner = answer->winner[i], loser = answer->loser[i];
        if (winner == FLUE_CDN_NOBODY) {
            add_one(cdn, &cdn->unknown[i], "processor_cdn_unknown",
                    "resources for which no source knew the attribute", i, none, none);
            continue;
        }
        add_one(cdn, &cdn->resolved[i][winner], "processor_cdn_resolved",
                "resources whose attribute came from the source", i,
                (struct flue_label){"source", flue_cdn_source_names[winner]}, none);
        if (loser != FLUE_CDN_NOBODY)
            add_one(cdn, &cdn->conflicts[i][winner][loser], "processor_cdn_conflicts",
                    "resources for which two sources disagreed", i,
                    (struct flue_label){"winner", flue_cdn_source_names[winner]},
                    (struct flue_label){"loser", flue_cdn_source_names[loser]});
    }
}

static struct flue_value typed(int attribute, struct flue_bytes text)
{
    struct flue_value value = {.type = FLUE_VALUE_STRING, .text = text};
    if (attribute == FLUE_PLACE_ASN && flue_parse_i64(text, &value.integer)) {
        value.type = FLUE_VALUE_INT;
    } else if (attribute == FLUE_PLACE_LATITUDE || attribute == FLUE_PLACE_LONGITUDE) {
        char copy[FLUE_PLACE_VALUE_MAX];
        (void)snprintf(copy, sizeof copy, "%.*s", FLUE_PRI(text));
        value.type = FLUE_VALUE_DOUBLE;
        value.number = strtod(copy, NULL);
    }
    return value;
}

static bool same_items(const struct flue_attribute_set *set, const struct flue_attribute *items,
                       size_t count)
{
    if (set->count != count)
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct flue_value *a = &set->items[i].value, *b = &items[i].value;
        if (!flue_bytes_equal(set->items[i].key, items[i].key) || a->type != b->type)
            return false;
        if (a->type == FLUE_VALUE_STRING ? !flue_bytes_equal(a->text, b->text)
                                         : a->integer != b->integer) /* or the same double */
            return false;
    }
    return true;
}

static enum flue_code set_all(struct cdn_loop *at, struct flue_payload *payload, size_t resource,
                              const struct flue_attribute *items, size_t count,
                              struct flue_error *error)
{
    uint64_t hash = count;
    for (size_t i = 0; i < count; i++)
        hash = flue_hash_join(hash, items[i].value.type == FLUE_VALUE_STRING
                                        ? flue_hash(items[i].value.text)
                                        : flue_hash_u64((uint64_t)items[i].value.integer));
    struct cached *cached = &at->cache[hash % CACHED_SETS];
    if (!cached->block || !same_items(&cached->set, items, count)) {
        struct flue_attribute_set set;
        struct flue_block *block = NULL;
        enum flue_code code = flue_attribute_block(flue_otlp_attribute_set, &at->arena, items, count,
                                                   &set, &block, error);
        flue_arena_reset(&at->arena);
        if (code != FLUE_OK)
            return code;
        flue_block_unref(cached->block);
        *cached = (struct cached){block, set};
    }
    return payload->ops->attributes_set(payload, resource, &cached->set, FLUE_SET_UPSERT,
                                        cached->block, error);
}

static enum flue_code place_one(struct cdn *cdn, struct cdn_loop *at, struct flue_batch *batch,
                                size_t resource, bool relayed, struct flue_error *error)
{
    const struct flue_origin *origin = batch->origin;
    struct reading reading = {.payload = batch->payload, .origin = origin, .resource = resource};
    struct flue_attribute items[FLUE_PLACE_WRITTEN];
    struct flue_cdn_answer answer;
    size_t count_set = 0;
    const struct flue_cdn_question question = {.tables = at->tables,
                                               .attribute = read_attribute,
                                               .header = read_header,
                                               .arg = &reading,
                                               .peer = origin ? origin->peer_address : flue_bytes(NULL, 0),
                                               .relayed = relayed};

    flue_cdn_locate(cdn->locator, &question, &answer);
    count(cdn, &answer);
    for (int i = 0; i < FLUE_PLACE_WRITTEN; i++) {
        struct flue_bytes key = flue_place_attribute_name((enum flue_place_attribute)i);
        if (answer.remove[i]) {
            enum flue_code code =
                batch->payload->ops->attribute_remove(batch->payload, resource, key, error);
            if (code != FLUE_OK)
                return code;
        }
        if (answer.values[i].size && answer.winner[i] != FLUE_CDN_ATTRIBUTES)
            items[count_set++] = (struct flue_attribute){key, typed(i, answer.values[i])};
    }
    return count_set ? set_all(at, batch->payload, resource, items, count_set, error) : FLUE_OK;
}

static void cdn_push(struct flue_stage *stage, struct flue_batch *batch,
                     struct flue_delivery *delivery)
{
    struct cdn *cdn = flue_stage_instance(stage);
    struct cdn_loop *at = &cdn->at[flue_delivery_loop(delivery)->index];
    enum flue_code code = FLUE_OK;
    struct flue_error error;

    batch = flue_batch_writable(batch, &error);
    if (!batch) {
        flue_delivery_refuse(delivery, &error);
        return;
    }
    bool relayed = of_several_machines(cdn->config, batch->payload);
    size_t resources = batch->payload->ops->resource_count(batch->payload);
    for (size_t i = 0; i < resources && code == FLUE_OK; i++)
        code = place_one(cdn, at, batch, i, relayed, &error);
    if (code == FLUE_OK) {
        flue_stage_next(stage, batch, delivery);
        return;
    }
    flue_delivery_refuse(delivery, &error);
    flue_batch_unref(batch);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void cdn_destroy(void *instance)
{
    struct cdn *cdn = instance;
    for (unsigned i = 0; cdn->at && i < cdn->loops->count; i++) {
        for (unsigned k = 0; k < CACHED_SETS; k++)
            flue_block_unref(cdn->at[i].cache[k].block);
        flue_cdn_tables_unref(cdn->at[i].tables);
        flue_cdn_tables_unref(atomic_load(&cdn->at[i].coming));
        flue_arena_destroy(&cdn->at[i].arena);
    }
    flue_cdn_tables_unref(cdn->tables);
    flue_cdn_tables_unref(cdn->made);
    free(cdn->at);
    free(cdn->failures);
    free(cdn->seen);
    free(cdn);
}

static enum flue_code cdn_create(const struct flue_create *create, void **instance,
                                 struct flue_error *error)
{
    struct cdn *cdn = calloc(1, sizeof *cdn);
    if (!cdn)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for cdn");
    cdn->config = create->config;
    cdn->loops = create->loops;
    cdn->metrics = create->metrics;
    cdn->id = create->id;
    cdn->pipeline = create->pipeline;
    cdn->file_count = cdn->config->networks.count + cdn->config->databases.count;
    cdn->at = aligned_alloc(64, create->loops->count * sizeof *cdn->at);
    cdn->failures = calloc(4 * cdn->file_count + 1, sizeof *cdn->failures);
    cdn->seen = calloc(cdn->file_count + 1, sizeof *cdn->seen);
    if (cdn->at)
        memset(cdn->at, 0, create->loops->count * sizeof *cdn->at);
    enum flue_code code =
        cdn->at && cdn->failures && cdn->seen
            ? flue_cdn_locator_new(cdn->config, create->arena, &cdn->locator, error)
            : flue_fail(error, FLUE_NO_MEMORY, "no memory for cdn");
    if (code != FLUE_OK) {
        cdn_destroy(cdn);
        return code;
    }
    cdn->prefixes = cdn->failures + cdn->file_count;
    cdn->loaded = cdn->prefixes + cdn->file_count;
    cdn->bytes = cdn->loaded + cdn->file_count;
    for (unsigned i = 0; i < create->loops->count; i++) {
        cdn->at[i].cdn = cdn;
        cdn->at[i].swap.run = swap;
        flue_arena_init(&cdn->at[i].arena, ARENA_MAX, 0);
    }
    *instance = cdn;
    return FLUE_OK;
}

static void make_metrics(struct cdn *cdn)
{
    for (size_t i = 0; i < cdn->file_count; i++) {
        const struct flue_label labels[] = {{"processor", cdn->id},
                                            {"pipeline", cdn->pipeline},
                                            {"file", flue_cdn_tables_file(cdn->config, i)->path},
                                            {NULL, NULL}};
        cdn->failures[i] =
            flue_metric(cdn->metrics, FLUE_COUNTER, "processor_cdn_table_failures",
                        "times that a table could not be read and the old one stayed", labels);
        cdn->prefixes[i] = flue_metric(cdn->metrics, FLUE_GAUGE, "processor_cdn_table_prefixes",
                                       "networks of the table in use", labels);
        cdn->loaded[i] =
            flue_metric(cdn->metrics, FLUE_GAUGE, "processor_cdn_table_loaded_timestamp_seconds",
                        "when the table in use was read", labels);
        cdn->bytes[i] = flue_metric(cdn->metrics, FLUE_GAUGE, "processor_cdn_table_bytes",
                                    "memory of the table in use", labels);
    }
}

static void start_timer(struct flue_loop *loop, void *arg)
{
    arm(arg);
}

static enum flue_code cdn_start(void *instance, struct flue_error *error)
{
    struct cdn *cdn = instance;

    make_metrics(cdn);
    cdn->tables = read_changed(cdn, NULL, true);
    if (!cdn->tables && !(cdn->tables = flue_cdn_tables_new(cdn->config)))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the tables of cdn");
    for (unsigned i = 0; i < cdn->loops->count; i++)
        cdn->at[i].tables = flue_cdn_tables_ref(cdn->tables);
    cdn->timer.fire = look_again;
    if (cdn->file_count)
        flue_loop_call(cdn->loops->items[0], start_timer, cdn);
    return FLUE_OK;
}

static void stop_timer(struct flue_loop *loop, void *arg)
{
    struct cdn *cdn = arg;
    cdn->stopping = true;
    flue_timer_disarm(loop, &cdn->timer);
    if (!cdn->working)
        atomic_store(&cdn->idle, true);
}

static void cdn_stop(void *instance, uint64_t deadline_ns)
{
    struct cdn *cdn = instance;
    flue_loop_call(cdn->loops->items[0], stop_timer, cdn);
}

static bool cdn_stopped(void *instance)
{
    return atomic_load(&((struct cdn *)instance)->idle);
}

const struct flue_component flue_processor_cdn = {
    .kind = FLUE_PROCESSOR,
    .name = "cdn",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "adds CDN provider, region, point of presence, site, tier and network, and the "
               "geography of the machine that was profiled",
    .config_size = sizeof(struct flue_cdn_config),
    .fields = flue_cdn_fields,
    .check = flue_cdn_check,
    .create = cdn_create,
    .start = cdn_start,
    .push = cdn_push,
    .stop = cdn_stop,
    .stopped = cdn_stopped,
    .destroy = cdn_destroy,
};
