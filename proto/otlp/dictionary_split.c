/* dictionary_split.c: a payload cut between samples. See dictionary.h.
 *
 * By bytes the size of a part is known only when a sample and its rows are in it; what makes the
 * part too large is taken back (rows are appended only, so going back is cutting) and begins the
 * next. */
#include "proto/otlp/dictionary.h"
#include "proto/otlp/dictionary_copy.h"

/* What the lengths of the open messages and of the dictionary may still grow by, with its tag. */
#define HEADS_GROW 18

struct part {
    struct flue_payload *payload;
    uint64_t profiles, samples, bytes; /* weights of its share */
};

struct split {
    const struct flue_payload *payload;
    uint64_t max;
    bool by_bytes;
    struct flue_account *account;
    struct flue_error *error;
    enum flue_code code;

    struct flue_work work;
    struct flue_otlp_dictionary dictionary;
    struct flue_otlp_tables tables;
    struct flue_otlp_map map;
    struct flue_out body;
    struct flue_otlp_copy copy;
    uint64_t profiles, samples; /* begun in, and in, the open part */
    uint64_t units;             /* samples, or profiles without any, in the open part */

    struct part *parts;
    size_t count, room;
};

static bool failed(struct split *split)
{
    if (split->code == FLUE_OK && (split->tables.failed || split->body.failed))
        split->code = flue_work_failed(&split->work, split->error);
    return split->code != FLUE_OK;
}

static size_t part_size(const struct split *split)
{
    return flue_out_size(&split->body) + flue_otlp_tables_size(&split->tables) + HEADS_GROW;
}

static bool part_begin(struct split *split)
{
    size_t whole = split->payload->ops->encoded_size(split->payload);
    size_t expected = split->by_bytes && split->max < whole ? (size_t)split->max : whole / 4;

    split->profiles = split->samples = split->units = 0;
    if (!flue_out_init(&split->body, expected + 256, split->work.budget)) {
        split->code = flue_work_failed(&split->work, split->error);
        return false;
    }
    flue_otlp_copy_begin(&split->copy, split->payload, &split->map, &split->body);
    return true;
}

/* Finishes the open part, if anything is in it. */
static bool part_end(struct split *split)
{
    struct part part = {NULL, split->profiles, split->samples, 0};

    flue_otlp_copy_close(&split->copy, NULL);
    if (failed(split))
        return false;
    if (split->units > 0) {
        split->code = flue_otlp_copy_finish(&split->body, &split->tables, &split->work,
                                            &part.payload, split->error);
        if (split->code != FLUE_OK)
            return false;
        part.bytes = part.payload->ops->encoded_size(part.payload);
        if (!FLUE_ARENA_PUSH(&split->work.arena, split->parts, split->count, split->room, part)) {
            flue_payload_unref(part.payload);
            split->code = flue_work_failed(&split->work, split->error);
            return false;
        }
    }
    flue_out_destroy(&split->body);
    flue_otlp_map_restart(&split->map);
    return true;
}

/* One sample (or, with NULL data, a profile without samples) into the open part or the next. */
static bool unit(struct split *split, const struct flue_otlp_profile *profile,
                 const struct flue_bytes *sample, bool first_of_profile)
{
    struct flue_otlp_mark mark = {0};
    struct flue_otlp_copy before;
    size_t size = 0;

    if (!split->by_bytes && split->units > 0 && sample && split->samples >= split->max &&
        (!part_end(split) || !part_begin(split)))
        return false;
    for (;;) {
        flue_otlp_copy_close(&split->copy, profile);
        if (split->by_bytes && split->units > 0) {
            flue_otlp_map_mark(&split->map, &mark);
            before = split->copy;
            size = flue_out_size(&split->body);
        }
        flue_otlp_copy_open(&split->copy, profile);
        if (sample)
            flue_otlp_copy_sample(&split->copy, *sample);
        if (failed(split))
            return false;
        if (!split->by_bytes || split->units == 0 || part_size(split) <= split->max)
            break;
        flue_otlp_map_back(&split->map, &mark);
        split->copy = before;
        flue_out_cut(&split->body, size);
        if (!part_end(split) || !part_begin(split))
            return false;
    }
    split->units++;
    split->samples += sample != NULL;
    split->profiles += first_of_profile;
    return true;
}

static bool profile_split(void *arg, const struct flue_otlp_profile *profile)
{
    struct split *split = arg;
    struct flue_otlp_samples samples = flue_otlp_samples(split->payload, profile->profile);
    struct flue_bytes sample;
    bool first = true;

    while (flue_otlp_samples_next(&samples, &sample)) {
        if (!unit(split, profile, &sample, first))
            return false;
        first = false;
    }
    if (first && !unit(split, profile, NULL, true))
        return false;
    flue_work_charge(&split->work, part_size(split));
    return true;
}

static void emit_all(struct split *split, const struct flue_counts *total,
                     void (*emit)(void *arg, struct flue_payload *part,
                                  const struct flue_counts *counts),
                     void *arg)
{
    struct part all = {0}, done = {0};

    for (size_t i = 0; i < split->count; i++) {
        all.profiles += split->parts[i].profiles;
        all.samples += split->parts[i].samples;
        all.bytes += split->parts[i].bytes;
    }
    for (size_t i = 0; i < split->count; i++) {
        const struct part *p = &split->parts[i];
        struct flue_counts counts = {
            .profiles = flue_share(total->profiles, done.profiles, p->profiles, all.profiles),
            /* counts as received may tell of samples where none are left: by bytes then */
            .samples = all.samples
                           ? flue_share(total->samples, done.samples, p->samples, all.samples)
                           : flue_share(total->samples, done.bytes, p->bytes, all.bytes),
            .bytes = flue_share(total->bytes, done.bytes, p->bytes, all.bytes),
        };

        done.profiles += p->profiles;
        done.samples += p->samples;
        done.bytes += p->bytes;
        emit(arg, p->payload, &counts);
    }
}

static bool count_samples(void *arg, const struct flue_otlp_profile *profile)
{
    *(uint64_t *)arg += profile->samples;
    return true;
}

enum flue_code flue_otlp_split(const struct flue_payload *payload, uint64_t max, bool by_bytes,
                               const struct flue_counts *total, struct flue_account *account,
                               void (*emit)(void *arg, struct flue_payload *part,
                                            const struct flue_counts *counts),
                               void *arg, struct flue_error *error)
{
    struct split split = {.payload = payload,
                          .max = max ? max : 1,
                          .by_bytes = by_bytes,
                          .account = account,
                          .error = error};
    uint64_t size = payload->ops->encoded_size(payload);

    if (!by_bytes) {
        size = 0;
        flue_otlp_each_profile(payload, count_samples, &size);
    }
    if (size <= split.max) {
        emit(arg, flue_payload_ref((struct flue_payload *)payload), total);
        return FLUE_OK;
    }
    flue_work_begin(&split.work, account, payload->ops->encoded_size(payload));
    flue_otlp_tables_init(&split.tables, &split.work, false, by_bytes ? (size_t)max : 0);
    split.code = flue_otlp_dictionary_open(payload, &split.work.arena, &split.dictionary, error);
    if (split.code == FLUE_NO_MEMORY ||
        (split.code == FLUE_OK &&
         (split.tables.failed ||
          !flue_otlp_map_init(&split.map, &split.dictionary, &split.tables, true))))
        split.code = flue_work_failed(&split.work, error);
    if (split.code == FLUE_OK && part_begin(&split) &&
        flue_otlp_each_profile(payload, profile_split, &split))
        part_end(&split);
    if (split.code == FLUE_OK && split.count == 0) /* edits removed every profile */
        emit(arg, flue_payload_ref((struct flue_payload *)payload), total);
    else if (split.code == FLUE_OK)
        emit_all(&split, total, emit, arg);
    else
        for (size_t i = 0; i < split.count; i++)
            flue_payload_unref(split.parts[i].payload);
    flue_out_destroy(&split.body);
    flue_otlp_tables_destroy(&split.tables);
    flue_work_end(&split.work);
    return split.code;
}
