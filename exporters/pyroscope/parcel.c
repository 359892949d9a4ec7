/* parcel.c: see parcel.h. */
#include "exporters/pyroscope/parcel.h"
#include <stdlib.h>
#include "collector/base/hash.h"
#include "proto/convert/convert.h"
#include "proto/pprof/merge.h"
#include "proto/pprof/names.h"
#include "proto/pprof/repair.h"
#include "proto/pprof/sample_types.h"

#define PARCEL_BUDGET (512u << 20)

/* What was accepted is within the receivers' limits; this is where memory would end. */
static const struct flue_pprof_limits own_limits = {.inflated = 256u << 20,
                                                    .ratio = FLUE_RATIO_LIMIT};

struct builder {
    struct flue_parcel *parcel;
    const struct flue_parcel_options *options;
    const struct flue_payload *payload;
    struct flue_error *error;
    bool failed;
};

static enum flue_code no_memory(struct flue_error *error)
{
    return flue_fail(error, FLUE_NO_MEMORY, "no memory to make Pyroscope series of a batch");
}

static struct flue_parcel_part *new_part(struct flue_parcel *parcel)
{
    struct flue_parcel_part *part = flue_arena_zalloc(&parcel->arena, 1, sizeof *part);

    if (!part || !FLUE_ARENA_PUSH(&parcel->arena, parcel->parts, parcel->count, parcel->room, part))
        return NULL;
    part->parcel = parcel;
    /* Most series have more labels than a list begins with. */
    part->labels.items =
        flue_arena_alloc(&parcel->arena, FLUE_SERIES_LABELS * sizeof part->labels.items[0]);
    part->labels.room = part->labels.items ? FLUE_SERIES_LABELS : 0;
    return part->labels.items ? part : NULL;
}

/* `on_samples`: labels that samples of the profile have; the server counts them with the series'.
 */
static bool finish_labels(struct builder *b, struct flue_parcel_part *part, uint64_t on_samples)
{
    struct flue_parcel *parcel = b->parcel;
    size_t limit = on_samples < FLUE_SERIES_LABELS ? FLUE_SERIES_LABELS - (size_t)on_samples : 0;

    if (!flue_labels_finish(&part->labels, b->options->labels, limit, &parcel->arena))
        return false;
    parcel->trimmed_labels += part->labels.trimmed;
    part->series = flue_labels_hash(&part->labels, parcel->tenant);
    return true;
}

/* ---- from OTLP ------------------------------------------------------------------------------ */

struct attribute_walk {
    struct builder *builder;
    struct flue_parcel_part *part;
    bool failed;
};

static bool add_attribute(void *arg, const struct flue_attribute *attribute)
{
    struct attribute_walk *walk = arg;

    walk->failed = !flue_labels_add_attribute(&walk->part->labels, walk->builder->options->labels,
                                              &walk->builder->parcel->arena, attribute);
    return !walk->failed;
}

static void add_converted(void *arg, const struct flue_to_pprof_result *result)
{
    struct builder *b = arg;
    struct flue_arena *arena = &b->parcel->arena;
    struct flue_parcel_part *part;
    struct attribute_walk walk = {.builder = b};
    bool ok;

    if (b->failed || result->facts.samples == 0)
        return; /* a profile without samples is nothing to a server, and was taken with that */
    part = new_part(b->parcel);
    if (!part) {
        b->failed = true;
        return;
    }
    part->profile = result->pprof;
    part->time_nanos = result->time_nanos;
    part->counts = result->counts;
    ok = flue_labels_add(&part->labels, arena, FLUE_BYTES("__name__"), result->name);
    for (size_t i = 0; ok && i < result->identity_count; i++)
        ok = flue_labels_add(&part->labels, arena, result->identity[i].name,
                             result->identity[i].value);
    /* Without it the store of Pyroscope 1 takes memory profiles for cumulative ones. */
    ok = ok && flue_labels_add(&part->labels, arena, FLUE_BYTES("__delta__"), FLUE_BYTES("false"));
    walk.part = part;
    if (ok)
        b->payload->ops->attribute_each(b->payload, result->resource, add_attribute, &walk);
    b->failed = !ok || walk.failed || !finish_labels(b, part, b->options->keep_count);
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
    };
    enum flue_code code =
        flue_otlp_to_pprof(b->payload, &options, &b->parcel->arena, add_converted, b, b->error);
    return code ? code : b->failed ? no_memory(b->error) : FLUE_OK;
}

/* ---- from pprof ----------------------------------------------------------------------------- */

static bool add_series_labels(struct builder *b, struct flue_parcel_part *part,
                              size_t series_number, const struct flue_pprof_series *series,
                              uint64_t on_samples)
{
    struct flue_arena *arena = &b->parcel->arena;
    struct attribute_walk walk = {.builder = b, .part = part};

    for (size_t i = 0; i < series->label_count; i++)
        if (flue_label_is_identity(series->labels[i].name) &&
            !flue_labels_add(&part->labels, arena, series->labels[i].name, series->labels[i].value))
            return false;
    b->payload->ops->attribute_each(b->payload, series_number, add_attribute, &walk);
    return !walk.failed && finish_labels(b, part, on_samples);
}

/* What cannot go out byte for byte: a time that is missing, a '-' that the server refuses. */
static enum flue_code prepare_profile(struct builder *b, struct flue_parcel_part *part,
                                      const struct flue_pprof_profile *profile,
                                      const struct flue_batch *batch)
{
    enum flue_code code = FLUE_OK;

    part->profile = profile->bytes;
    part->gzip = profile->facts.gzip;
    part->id = profile->id;
    part->time_nanos = profile->facts.time_nanos;
    part->unseen = profile->facts.sample_types == 0;
    if (profile->facts.dash_in_sample_type) {
        code = flue_pprof_underscore_types(part->profile, &own_limits, batch->account, &part->own,
                                           b->error);
        if (code)
            return code;
        part->profile = flue_block_bytes(part->own);
        part->gzip = false;
    }
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
            struct flue_parcel_part *part;
            enum flue_code code;
            if (series->profiles[k].facts.sample_types && series->profiles[k].facts.samples == 0)
                continue; /* checked, and without samples */
            part = new_part(b->parcel);
            if (!part ||
                !add_series_labels(b, part, i, series, series->profiles[k].facts.sample_labels))
                return no_memory(b->error);
            if ((code = prepare_profile(b, part, &series->profiles[k], batch)))
                return code;
            part->counts = share_of(&series->profiles[k], &left, profiles);
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

    return a->series == b->series && a->time_nanos == b->time_nanos &&
           flue_labels_equal(&a->labels, &b->labels);
}

static void set_own(struct flue_parcel_part *part, struct flue_block *block)
{
    flue_block_unref(part->own);
    part->own = block;
    part->profile = flue_block_bytes(block);
    part->gzip = false;
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

    for (const struct flue_parcel_part *p = first; p; p = p->merge_next)
        count++;
    if (count == 1)
        return FLUE_OK;
    inputs = flue_arena_zalloc(&parcel->arena, count, sizeof *inputs);
    if (!inputs)
        return no_memory(error);
    for (const struct flue_parcel_part *p = first; p; p = p->merge_next)
        inputs[at++] = p->profile;
    code = flue_pprof_merge(inputs, count, &own_limits, parcel->account, &joined, error);
    if (code == FLUE_UNPROCESSABLE) /* other sample types: no sum of these exists */
        return FLUE_OK;
    if (code)
        return code;
    for (struct flue_parcel_part *p = first->merge_next; p; p = p->merge_next) {
        first->counts.profiles += p->counts.profiles;
        first->counts.samples += p->counts.samples;
        first->counts.bytes += p->counts.bytes;
        p->parcel = NULL; /* taken out below */
    }
    set_own(first, joined);
    return FLUE_OK;
}

static enum flue_code merge_equal(struct flue_parcel *parcel, struct flue_error *error)
{
    struct flue_table table;
    size_t kept = 0;

    if (parcel->count < 2)
        return FLUE_OK;
    if (!flue_table_init(&table, &parcel->arena, parcel->count))
        return no_memory(error);
    for (size_t i = 0; i < parcel->count; i++) {
        struct flue_parcel_part *part = parcel->parts[i];
        uint64_t hash = flue_hash_join(part->series, (uint64_t)part->time_nanos);
        if (part->unseen)
            continue;
        uint32_t row = flue_table_find(&table, hash, same_moment, parcel->parts, part);
        if (row == FLUE_TABLE_NONE) {
            if (!flue_table_insert(&table, hash, (uint32_t)i))
                return no_memory(error);
        } else {
            part->merge_next = parcel->parts[row]->merge_next;
            parcel->parts[row]->merge_next = part;
        }
    }
    for (size_t i = 0; i < parcel->count; i++) {
        struct flue_parcel_part *part = parcel->parts[i];
        uint64_t hash = flue_hash_join(part->series, (uint64_t)part->time_nanos);
        enum flue_code code;
        if (part->unseen || !part->parcel ||
            flue_table_find(&table, hash, same_moment, parcel->parts, part) != i)
            continue;
        if ((code = merge_group(parcel, part, error)))
            return code;
    }
    for (size_t i = 0; i < parcel->count; i++) {
        if (parcel->parts[i]->parcel)
            parcel->parts[kept++] = parcel->parts[i];
        else
            flue_block_unref(parcel->parts[i]->own);
    }
    parcel->count = kept;
    return FLUE_OK;
}

/* Fixes every part's time: stamped where it is missing, moved where the series has used it. */
static enum flue_code date_parts(struct builder *b, const struct flue_batch *batch)
{
    for (size_t i = 0; i < b->parcel->count; i++) {
        struct flue_parcel_part *part = b->parcel->parts[i];
        if (part->unseen)
            continue; /* the trusted hop before us has dated it */
        int64_t wanted =
            part->time_nanos > 0 ? part->time_nanos : (int64_t)batch->origin->received_ns;
        int64_t time = flue_moment_take(b->options->moments, part->series, wanted);
        struct flue_block *dated = NULL;
        enum flue_code code;
        if (time == part->time_nanos)
            continue;
        code =
            flue_pprof_set_time(part->profile, time, &own_limits, batch->account, &dated, b->error);
        if (code)
            return code;
        set_own(part, dated);
        part->time_nanos = time;
    }
    return FLUE_OK;
}

/* ---- parcel --------------------------------------------------------------------------------- */

enum flue_code flue_parcel_new(struct flue_send *send, const struct flue_parcel_options *options,
                               struct flue_parcel **out, struct flue_error *error)
{
    const struct flue_batch *batch = send->batch;
    struct flue_parcel *parcel = calloc(1, sizeof *parcel);
    struct builder b = {
        .parcel = parcel, .options = options, .payload = batch->payload, .error = error};
    enum flue_code code;

    *out = NULL;
    if (!parcel)
        return no_memory(error);
    flue_arena_init(&parcel->arena, PARCEL_BUDGET, 0);
    parcel->send = send;
    parcel->account = batch->account;
    if (options->tenant_from_origin)
        parcel->tenant = batch->origin->tenant;
    code =
        batch->payload->ops->form == FLUE_FORM_OTLP ? from_otlp(&b, batch) : from_pprof(&b, batch);
    if (!code)
        code = merge_equal(parcel, error);
    if (!code)
        code = date_parts(&b, batch);
    if (code) {
        flue_parcel_free(parcel);
        return code;
    }
    parcel->charged = parcel->arena.used;
    if (parcel->account)
        flue_account_charge_always(parcel->account, parcel->charged);
    *out = parcel;
    return FLUE_OK;
}

void flue_parcel_free(void *state)
{
    struct flue_parcel *parcel = state;

    for (size_t i = 0; i < parcel->count; i++)
        flue_block_unref(parcel->parts[i]->own);
    if (parcel->account && parcel->charged)
        flue_account_release(parcel->account, parcel->charged);
    flue_arena_destroy(&parcel->arena);
    free(parcel);
}
