/* parcel.c: see parcel.h. */
#include "exporters/pyroscope/parcel.h"
#include <stdlib.h>
#include "collector/base/hash.h"
#include "collector/base/log.h"
#include "proto/convert/convert.h"
#include "proto/pprof/merge.h"
#include "proto/pprof/names.h"
#include "proto/pprof/repair.h"
#include "proto/pprof/sample_types.h"

#define PARCEL_BUDGET  (512u << 20)
#define OWN_BLOCK_FROM (64u << 10) /* a smaller profile is copied into the arena */

/* What was accepted is within the receivers' limits; this is where memory would end. */
const struct flue_pprof_limits flue_parcel_inflating = {.inflated = 256u << 20,
                                                        .ratio = FLUE_RATIO_LIMIT};

struct builder {
    struct flue_parcel *parcel;
    const struct flue_parcel_options *options;
    const struct flue_payload *payload;
    const struct flue_origin *origin;
    uint64_t generation;      /* of the guard, for what came when this did */
    struct flue_bytes tenant; /* of what has none of its own */
    struct flue_arena work;   /* of one part's labels */
    struct flue_error *error;
    bool failed;
};

static enum flue_code no_memory(struct flue_error *error)
{
    return flue_fail(error, FLUE_NO_MEMORY, "no memory to make Pyroscope series of a batch");
}

struct flue_parcel_part *flue_parcel_part_new(struct flue_parcel *parcel)
{
    struct flue_parcel_part *part = flue_arena_zalloc(&parcel->arena, 1, sizeof *part);

    if (!part || !FLUE_ARENA_PUSH(&parcel->arena, parcel->parts, parcel->count, parcel->room, part))
        return NULL;
    part->parcel = parcel;
    return part;
}

void flue_part_set(struct flue_parcel_part *part, struct flue_block *block, bool gzip)
{
    flue_block_unref(part->own);
    part->own = block;
    part->profile = flue_block_bytes(block);
    part->gzip = gzip;
    part->time_at = 0;
}

void flue_part_done(struct flue_parcel_part *part)
{
    flue_block_unref(part->own);
    part->own = NULL;
    part->profile = flue_bytes(NULL, 0);
}

void flue_parcel_refuse(struct flue_parcel_part *part, const struct flue_error *error)
{
    struct flue_parcel *parcel = part->parcel;

    part->status = FLUE_PART_REFUSED;
    parcel->rejected.profiles += part->counts.profiles;
    parcel->rejected.samples += part->counts.samples;
    parcel->rejected.bytes += part->counts.bytes;
    if (!parcel->failure.code)
        parcel->failure = *error;
}

/* ---- tenant --------------------------------------------------------------------------------- */

/* What dskit takes: it stands in a header and in paths of the store. */
static bool valid_tenant(struct flue_bytes id)
{
    static const char others[] = "!-_.*'()";

    for (size_t i = 0; i < id.size; i++) {
        uint8_t c = id.data[i];
        if (!((c | 32) >= 'a' && (c | 32) <= 'z') && !(c >= '0' && c <= '9') &&
            !memchr(others, c, sizeof others - 1))
            return false;
    }
    return id.size <= FLUE_TENANT_MAX && !flue_bytes_is(id, ".") && !flue_bytes_is(id, "..");
}

static void origin_tenant(struct builder *b)
{
    const struct flue_tenant_config *source = b->options->config->tenant_source;
    char name[200];
    size_t size;

    if (source && source->header && *source->header) {
        size = strlen(source->header);
        for (size_t i = 0; i < size && i < sizeof name; i++)
            name[i] = source->header[i] >= 'A' && source->header[i] <= 'Z'
                          ? (char)(source->header[i] | 32)
                          : source->header[i];
        b->tenant = flue_origin_header(b->origin,
                                       flue_bytes(name, size < sizeof name ? size : sizeof name));
    }
    if (!b->tenant.size && ((source && source->origin) || b->options->config->tenant_from_origin))
        b->tenant = b->origin->tenant;
}

/* ---- labels --------------------------------------------------------------------------------- */

struct attribute_walk {
    struct builder *builder;
    struct flue_series_labels *labels;
    bool failed;
};

static bool add_to_key(void *arg, const struct flue_attribute *attribute)
{
    flue_label_key_attribute(arg, attribute);
    return true;
}

static bool add_attribute(void *arg, const struct flue_attribute *attribute)
{
    struct attribute_walk *walk = arg;

    walk->failed = !flue_labels_add_attribute(walk->labels, &walk->builder->options->config->labels,
                                              &walk->builder->work, attribute);
    return !walk->failed;
}

/* Leaves out labels that have too many values, and counts the values of the others. */
static void guard_labels(struct builder *b, struct flue_series_labels *labels)
{
    const struct flue_guard_config *config = &b->options->config->labels.cardinality;
    struct flue_guard *guard = b->options->guard;
    size_t kept = 0;

    if (!guard || config->limit == 0)
        return;
    for (size_t i = 0; i < labels->count; i++) {
        struct flue_pprof_label label = labels->items[i];
        if (!flue_label_stays(label.name)) {
            if (flue_guard_count(guard, label.name, label.value, b->origin->received_ns) &&
                b->options->tripped)
                b->options->tripped(b->options->arg, label.name);
            if (flue_guard_holds(guard, label.name, b->origin->received_ns)) {
                if (config->action == FLUE_GUARD_DROP)
                    continue;
                label.value = FLUE_BYTES("other");
            }
        }
        labels->items[kept++] = label;
    }
    labels->count = kept;
}

static struct flue_bytes tenant_of(struct builder *b, size_t resource)
{
    const struct flue_tenant_config *source = b->options->config->tenant_source;
    struct flue_value value;

    if (source && source->attribute && *source->attribute &&
        b->payload->ops->attribute_get(b->payload, resource, flue_bytes_of(source->attribute),
                                       &value)) {
        struct flue_bytes text = flue_label_text(&value, &b->work);
        if (text.size)
            return text;
    }
    return b->tenant;
}

/* `name` empty: it is among the identity labels. `on_samples`: labels that samples of the profile
 * have; the server counts them with the series'. */
static struct flue_label_set *labels_of(struct builder *b, size_t resource, struct flue_bytes name,
                                        bool delta, const struct flue_pprof_label *identity,
                                        size_t identity_count, uint64_t on_samples)
{
    const struct flue_pyroscope_config *config = b->options->config;
    const struct flue_push_limits *sizes = &config->limits;
    size_t most = (size_t)sizes->label_names;
    struct flue_label_limits limits = {.names = on_samples < most ? most - (size_t)on_samples : 0,
                                       .name_bytes = (size_t)sizes->label_name_bytes,
                                       .value_bytes = (size_t)sizes->label_value_bytes};
    struct flue_label_cache *cache = b->options->cache;
    struct flue_series_labels labels = {0};
    struct attribute_walk walk = {.builder = b, .labels = &labels};
    struct flue_label_set *set;
    size_t fixed = 0;
    bool ok = true;

    flue_label_key_begin(cache);
    flue_label_key_number(cache, limits.names << 1 | delta);
    flue_label_key_add(cache, name);
    flue_label_key_add(cache, b->tenant);
    flue_label_key_number(cache, identity_count);
    for (size_t i = 0; i < identity_count; i++) {
        if (!flue_label_is_identity(identity[i].name))
            continue;
        flue_label_key_add(cache, identity[i].name);
        flue_label_key_add(cache, identity[i].value);
    }
    b->payload->ops->attribute_each(b->payload, resource, add_to_key, cache);
    set = flue_label_cache_find(cache, b->generation);
    if (set)
        return set;
    flue_arena_reset(&b->work);
    if (name.size)
        ok = flue_labels_add(&labels, &b->work, FLUE_BYTES("__name__"), name);
    for (size_t i = 0; ok && i < identity_count; i++)
        if (flue_label_is_identity(identity[i].name))
            ok = flue_labels_add(&labels, &b->work, identity[i].name, identity[i].value);
    /* Without it the store of Pyroscope 1 takes memory profiles for cumulative ones. */
    if (ok && delta)
        ok = flue_labels_add(&labels, &b->work, FLUE_BYTES("__delta__"), FLUE_BYTES("false"));
    if (ok)
        b->payload->ops->attribute_each(b->payload, resource, add_attribute, &walk);
    if (!ok || walk.failed || !flue_labels_finish(&labels, &config->labels, &limits, &b->work))
        return NULL;
    guard_labels(b, &labels);
    for (size_t i = 0; i < labels.count; i++)
        fixed += flue_label_stays(labels.items[i].name);
    return flue_label_cache_put(cache, b->generation, labels.items, labels.count, fixed,
                                labels.trimmed, tenant_of(b, resource));
}

static bool take_labels(struct builder *b, struct flue_parcel_part *part,
                        struct flue_label_set *labels)
{
    if (!labels)
        return false;
    part->labels = labels;
    b->parcel->trimmed += labels->trimmed;
    if (b->options->pace)
        part->bucket = flue_pace_of(b->options->pace, flue_hash(labels->tenant));
    return true;
}

static void check_tenant(struct flue_parcel_part *part)
{
    struct flue_error error;
    char shown[64];

    if (valid_tenant(part->labels->tenant))
        return;
    flue_fail(&error, FLUE_INVALID,
              "tenant \"%s\" is no valid id: at most %d of letters, digits and !-_.*'()",
              flue_printable(part->labels->tenant, shown, sizeof shown), FLUE_TENANT_MAX);
    flue_parcel_refuse(part, &error);
}

/* ---- from OTLP ------------------------------------------------------------------------------ */

static void add_converted(void *arg, const struct flue_to_pprof_result *result)
{
    struct builder *b = arg;
    struct flue_parcel_part *part;

    if (b->failed || result->facts.samples == 0) {
        flue_block_unref(result->block);
        return; /* a profile without samples is nothing to a server, and was taken with that */
    }
    part = flue_parcel_part_new(b->parcel);
    if (!part) {
        flue_block_unref(result->block);
        b->failed = true;
        return;
    }
    part->profile = result->pprof;
    part->own = result->block;
    part->time_at = result->time_at;
    part->time_nanos = result->time_nanos;
    part->facts = result->facts;
    part->facts.sample_labels = b->options->keep_count;
    part->facts.all_labels = b->options->keep_count + 2; /* span_id and trace_id */
    part->shift = result->part;
    b->parcel->split += result->part ? result->part == 1 ? 2 : 1 : 0;
    part->counts = result->counts;
    b->failed = !take_labels(b, part,
                             labels_of(b, result->resource, result->name, true, result->identity,
                                       result->identity_count, b->options->keep_count));
}

static enum flue_code from_otlp(struct builder *b, const struct flue_batch *batch)
{
    struct flue_to_pprof_options options = {
        .keep_attributes = b->options->keep_attributes,
        .keep_count = b->options->keep_count,
        .drop_other_attributes = true,
        .underscore_sample_types = true,
        .numbers_as_text = true,
        .received_ns = batch->origin->received_ns,
        .own_block_from = OWN_BLOCK_FROM,
        .most_samples = (uint64_t)b->options->config->limits.profile_samples,
        .most_bytes = (size_t)b->options->config->limits.profile_bytes / 16 * 15,
    };
    enum flue_code code =
        flue_otlp_to_pprof(b->payload, &options, &b->parcel->arena, add_converted, b, b->error);
    return code ? code : b->failed ? no_memory(b->error) : FLUE_OK;
}

/* ---- from pprof ----------------------------------------------------------------------------- */

/* What cannot go out byte for byte: a '-' that the server refuses. */
static enum flue_code prepare_profile(struct builder *b, struct flue_parcel_part *part,
                                      const struct flue_pprof_profile *profile)
{
    struct flue_block *block = NULL;
    enum flue_code code;

    part->profile = profile->bytes;
    part->gzip = profile->facts.gzip;
    part->id = profile->id;
    part->facts = profile->facts;
    part->time_nanos = profile->facts.time_nanos;
    part->unseen = profile->facts.sample_types == 0;
    if (!profile->facts.dash_in_sample_type)
        return FLUE_OK;
    code = flue_pprof_underscore_types(part->profile, &flue_parcel_inflating, b->parcel->account,
                                       &block, b->error);
    if (code == FLUE_OK)
        flue_part_set(part, block, false);
    return code;
}

/* What one of `profiles` profiles has of what is left: its own samples where they were counted. */
static struct flue_counts share_of(const struct flue_pprof_profile *profile,
                                   const struct flue_counts *left, size_t profiles)
{
    uint64_t samples =
        profile->facts.sample_types ? profile->facts.samples : left->samples / profiles;

    return (struct flue_counts){left->profiles / profiles,
                                samples < left->samples ? samples : left->samples,
                                left->bytes / profiles};
}

static enum flue_code from_pprof(struct builder *b, const struct flue_batch *batch)
{
    size_t profiles = 0;
    struct flue_counts left = batch->counts;

    for (size_t i = 0; i < flue_pprof_series_count(b->payload); i++)
        profiles += flue_pprof_series_at(b->payload, i)->profile_count;
    for (size_t i = 0; i < flue_pprof_series_count(b->payload); i++) {
        const struct flue_pprof_series *series = flue_pprof_series_at(b->payload, i);
        for (size_t k = 0; k < series->profile_count; k++) {
            const struct flue_pprof_profile *profile = &series->profiles[k];
            struct flue_parcel_part *part;
            enum flue_code code;
            if (profile->facts.sample_types && profile->facts.samples == 0)
                continue; /* checked, and without samples */
            part = flue_parcel_part_new(b->parcel);
            if (!part || !take_labels(b, part,
                                      labels_of(b, i, flue_bytes(NULL, 0), false, series->labels,
                                                series->label_count, profile->facts.sample_labels)))
                return no_memory(b->error);
            if ((code = prepare_profile(b, part, profile)))
                return code;
            part->counts = share_of(profile, &left, profiles);
            left.profiles -= part->counts.profiles;
            left.samples -= part->counts.samples;
            left.bytes -= part->counts.bytes;
            profiles--;
        }
    }
    return FLUE_OK;
}

/* ---- equal labels and equal time ------------------------------------------------------------ */

static bool same_moment(const void *rows, uint32_t row, const void *key)
{
    const struct flue_parcel_part *a = ((struct flue_parcel_part *const *)rows)[row];
    const struct flue_parcel_part *b = key;

    return a->time_nanos == b->time_nanos && a->shift == b->shift &&
           flue_label_set_equal(a->labels, b->labels);
}

static uint64_t moment_hash(const struct flue_parcel_part *part)
{
    return flue_hash_join(part->labels->hash, (uint64_t)part->time_nanos + part->shift);
}

/* Joins the parts that hang behind `first` into it; those of other sample types stay apart and will
 * be dated a nanosecond later. */
static enum flue_code merge_group(struct flue_parcel *parcel, struct flue_parcel_part *first,
                                  struct flue_error *error)
{
    struct flue_block *joined = NULL;
    struct flue_bytes *inputs;
    size_t count = 0, at = 0;
    enum flue_code code;

    for (const struct flue_parcel_part *p = first; p; p = p->next)
        count++;
    inputs = flue_arena_zalloc(&parcel->arena, count, sizeof *inputs);
    if (!inputs)
        return no_memory(error);
    for (const struct flue_parcel_part *p = first; p; p = p->next)
        inputs[at++] = p->profile;
    code = flue_pprof_merge(inputs, count, &flue_parcel_inflating, parcel->account, &joined, error);
    if (code == FLUE_UNPROCESSABLE) /* other sample types: no sum of these exists */
        return FLUE_OK;
    if (code)
        return code;
    flue_part_set(first, joined, false);
    for (struct flue_parcel_part *p = first->next; p; p = p->next) {
        first->counts.profiles += p->counts.profiles;
        first->counts.samples += p->counts.samples;
        first->counts.bytes += p->counts.bytes;
        p->parcel = NULL; /* taken out below */
    }
    return flue_pprof_check(first->profile, &flue_parcel_inflating, &first->facts, error);
}

static void drop_joined(struct flue_parcel *parcel)
{
    size_t kept = 0;

    for (size_t i = 0; i < parcel->count; i++) {
        struct flue_parcel_part *part = parcel->parts[i];
        part->next = NULL;
        if (part->parcel) {
            parcel->parts[kept++] = part;
        } else {
            flue_block_unref(part->own);
            flue_label_set_unref(part->labels);
        }
    }
    parcel->count = kept;
}

static enum flue_code merge_equal(struct flue_parcel *parcel, struct flue_error *error)
{
    enum flue_code code = FLUE_OK;
    struct flue_table table;
    bool twins = false;

    if (parcel->count < 2)
        return FLUE_OK;
    if (!flue_table_init(&table, &parcel->arena, parcel->count))
        return no_memory(error);
    for (size_t i = 0; i < parcel->count; i++) {
        struct flue_parcel_part *part = parcel->parts[i];
        uint64_t hash = moment_hash(part);
        uint32_t row;
        if (part->unseen)
            continue;
        row = flue_table_find(&table, hash, same_moment, parcel->parts, part);
        if (row == FLUE_TABLE_NONE) {
            if (!flue_table_insert(&table, hash, (uint32_t)i))
                return no_memory(error);
        } else {
            struct flue_parcel_part *last = parcel->parts[row];
            part->next = last->next;
            last->next = part;
            last->held = true; /* the head of a list, until it is joined */
            twins = true;
        }
    }
    for (size_t i = 0; twins && !code && i < parcel->count; i++) {
        struct flue_parcel_part *part = parcel->parts[i];
        if (!part->held)
            continue;
        part->held = false;
        code = merge_group(parcel, part, error);
    }
    if (twins)
        drop_joined(parcel);
    return code;
}

/* ---- the server's limits -------------------------------------------------------------------- */

struct cutting {
    struct flue_parcel *parcel;
    struct flue_parcel_part *whole, *last;
    uint64_t samples_left;
    size_t made;
};

/* The first part takes the whole's place; the others are new ones behind all. Their shares of the
 * counts go by samples; what is left over stays with the first. */
static bool take_cut(void *arg, struct flue_block *block, uint64_t samples)
{
    struct cutting *c = arg;
    struct flue_parcel_part *part = c->whole, *whole = c->whole;

    if (c->made++) {
        part = flue_parcel_part_new(c->parcel);
        if (!part) {
            flue_block_unref(block);
            return false;
        }
        part->labels = flue_label_set_ref(whole->labels);
        part->bucket = whole->bucket;
        part->id = whole->id;
        part->time_nanos = whole->time_nanos;
        part->shift = whole->shift + (uint32_t)c->made - 1;
        part->counts.samples = samples < whole->counts.samples ? samples : whole->counts.samples;
        whole->counts.samples -= part->counts.samples;
        part->counts.bytes = c->samples_left ? (uint64_t)((double)whole->counts.bytes *
                                                          (double)samples / (double)c->samples_left)
                                             : 0;
        if (part->counts.bytes > whole->counts.bytes)
            part->counts.bytes = whole->counts.bytes;
        whole->counts.bytes -= part->counts.bytes;
        part->own = block;
        part->profile = flue_block_bytes(block);
    } else {
        /* whole->profile is read no more: flue_fit works on a copy of its rows, but strings lie in
         * the profile itself until the last part is written. */
        c->last = NULL;
        whole->next = NULL;
        part = flue_arena_zalloc(&c->parcel->arena, 1, sizeof *part);
        if (!part) {
            flue_block_unref(block);
            return false;
        }
        part->own = block;
        c->last = part; /* set in place when all is done */
    }
    part->facts = (struct flue_pprof_facts){.inflated_size = block->size, .samples = samples};
    return true;
}

static enum flue_code cut_part(struct flue_parcel *parcel, struct flue_parcel_part *part,
                               const struct flue_fit_limits *limits, struct flue_error *error)
{
    struct cutting c = {.parcel = parcel, .whole = part, .samples_left = part->facts.samples};
    struct flue_error why = {0};
    size_t count = parcel->count;
    enum flue_code code = flue_fit(part->profile, &flue_parcel_inflating, limits, parcel->account,
                                   take_cut, &c, &parcel->trimmed, &why);

    if (code == FLUE_OK && c.last) {
        struct flue_pprof_facts facts = c.last->facts;
        flue_part_set(part, c.last->own, false);
        part->facts = facts;
        parcel->split += c.made > 1 ? c.made : 0;
        return FLUE_OK;
    }
    /* All of it or nothing: the parts that were made go, and the profile is refused whole. */
    if (c.last)
        flue_block_unref(c.last->own);
    while (parcel->count > count) {
        struct flue_parcel_part *made = parcel->parts[--parcel->count];
        part->counts.samples += made->counts.samples;
        part->counts.bytes += made->counts.bytes;
        flue_block_unref(made->own);
        flue_label_set_unref(made->labels);
    }
    if (code != FLUE_TOO_LARGE) {
        if (error)
            *error = why;
        return code ? code : no_memory(error);
    }
    flue_parcel_refuse(part, &why);
    return FLUE_OK;
}

static enum flue_code fit_parts(struct flue_parcel *parcel,
                                const struct flue_parcel_options *options, struct flue_error *error)
{
    const struct flue_push_limits *sizes = &options->config->limits;
    size_t count = parcel->count;
    enum flue_code code = FLUE_OK;

    for (size_t i = 0; !code && i < count; i++) {
        struct flue_parcel_part *part = parcel->parts[i];
        size_t labels = part->labels->encoded.size;
        uint64_t names = (uint64_t)sizes->label_names;
        struct flue_fit_limits limits = {
            /* The server counts labels with the bytes that it paces. */
            .bytes = (size_t)sizes->profile_bytes -
                     (labels < (size_t)sizes->profile_bytes / 2 ? labels : 0),
            .samples = (uint64_t)sizes->profile_samples,
            .sample_labels = (uint64_t)sizes->sample_labels,
            .text_labels = part->labels->fixed < names ? names - part->labels->fixed : 0,
            .depth = (uint64_t)sizes->stack_depth,
            .order = &options->config->labels};
        check_tenant(part);
        if (part->unseen || part->status == FLUE_PART_REFUSED || flue_fits(&part->facts, &limits))
            continue;
        code = cut_part(parcel, part, &limits, error);
    }
    return code;
}

/* ---- parcel --------------------------------------------------------------------------------- */

struct flue_parcel *flue_parcel_new(struct flue_send *send)
{
    struct flue_parcel *parcel = calloc(1, sizeof *parcel);

    if (!parcel)
        return NULL;
    flue_arena_init(&parcel->arena, PARCEL_BUDGET, 0);
    parcel->send = send;
    parcel->account = send->batch->account;
    parcel->received_ns = send->batch->origin->received_ns;
    parcel->record = send->record;
    parcel->replica = -1;
    return parcel;
}

enum flue_code flue_parcel_make(struct flue_parcel *parcel,
                                const struct flue_parcel_options *options, struct flue_error *error)
{
    const struct flue_batch *batch = parcel->send->batch;
    struct builder b = {.parcel = parcel,
                        .options = options,
                        .payload = batch->payload,
                        .origin = batch->origin,
                        .error = error};
    enum flue_code code;

    flue_arena_init(&b.work, PARCEL_BUDGET, 0);
    if (options->guard)
        b.generation = flue_guard_generation(options->guard, parcel->received_ns);
    origin_tenant(&b);
    code =
        batch->payload->ops->form == FLUE_FORM_OTLP ? from_otlp(&b, batch) : from_pprof(&b, batch);
    flue_arena_destroy(&b.work);
    if (!code)
        code = merge_equal(parcel, error);
    if (!code)
        code = fit_parts(parcel, options, error);
    if (!code)
        code = flue_parcel_date(parcel, options, error);
    if (code)
        return code;
    parcel->made = true;
    parcel->charged = parcel->arena.used;
    if (parcel->account)
        flue_account_charge_always(parcel->account, parcel->charged);
    return FLUE_OK;
}

void flue_parcel_free(void *state)
{
    struct flue_parcel *parcel = state;

    for (size_t i = 0; i < parcel->count; i++) {
        flue_block_unref(parcel->parts[i]->own);
        flue_label_set_unref(parcel->parts[i]->labels);
    }
    if (parcel->account && parcel->charged)
        flue_account_release(parcel->account, parcel->charged);
    flue_arena_destroy(&parcel->arena);
    free(parcel);
}
