/* builder.c: series after series, to a payload. See pprof.h.
 *
 * Labels and tables grow in the arena of the core that is being built, so that finishing only sets
 * pointers. */
#include <stdlib.h>

#include "proto/pprof/names.h"
#include "proto/pprof/series.h"

#define BUDGET (64u << 20)

struct part { /* a series while its arrays may still move */
    size_t first_label, first_profile;
};

struct flue_pprof_builder {
    struct flue_pprof_core *core;
    struct flue_account *account;
    struct part *parts;
    size_t part_count, part_room;
    struct flue_pprof_label *labels;
    size_t label_count, label_room;
    struct flue_pprof_profile *profiles;
    size_t profile_count, profile_room;
    struct flue_error error; /* the first failure */
};

struct flue_pprof_builder *flue_pprof_builder_new_within(struct flue_account *account,
                                                         size_t budget)
{
    struct flue_pprof_builder *builder = calloc(1, sizeof *builder);
    if (!builder)
        return NULL;
    builder->core = calloc(1, sizeof *builder->core);
    if (!builder->core) {
        free(builder);
        return NULL;
    }
    atomic_init(&builder->core->refs, 1);
    flue_arena_init(&builder->core->arena, budget, 0);
    builder->account = account;
    return builder;
}

struct flue_pprof_builder *flue_pprof_builder_new(struct flue_account *account)
{
    return flue_pprof_builder_new_within(account, BUDGET);
}

struct flue_account *flue_pprof_builder_account(const struct flue_pprof_builder *builder)
{
    return builder->account;
}

static bool no_memory(struct flue_pprof_builder *builder)
{
    if (builder->error.code == FLUE_OK)
        flue_fail(&builder->error, FLUE_NO_MEMORY,
                  "series and labels need more than the %zu bytes that they may use",
                  builder->core->arena.budget);
    return false;
}

bool flue_pprof_builder_keep(struct flue_pprof_builder *builder, struct flue_block *block)
{
    struct flue_pprof_core *core = builder->core;
    if (core->block_count > 0 && core->blocks[core->block_count - 1] == block)
        return true;
    if (!FLUE_ARENA_PUSH(&core->arena, core->blocks, core->block_count, core->block_room, block))
        return no_memory(builder);
    flue_block_ref(block);
    core->block_bytes += block->size;
    return true;
}

bool flue_pprof_builder_series(struct flue_pprof_builder *builder)
{
    struct part part = {builder->label_count, builder->profile_count};
    if (!FLUE_ARENA_PUSH(&builder->core->arena, builder->parts, builder->part_count,
                         builder->part_room, part))
        return no_memory(builder);
    return true;
}

bool flue_pprof_builder_label(struct flue_pprof_builder *builder, struct flue_bytes name,
                              struct flue_bytes value)
{
    struct flue_arena *arena = &builder->core->arena;
    if (builder->part_count == 0) {
        if (builder->error.code == FLUE_OK) /* else the series is what failed */
            flue_fail(&builder->error, FLUE_INTERNAL, "a label before its series");
        return false;
    }
    if (builder->label_count - builder->parts[builder->part_count - 1].first_label >=
        FLUE_PPROF_MAX_LABELS) {
        if (builder->error.code == FLUE_OK)
            flue_fail(&builder->error, FLUE_TOO_LARGE, "more than %d labels on one series",
                      FLUE_PPROF_MAX_LABELS);
        return false;
    }
    struct flue_pprof_label label = {flue_arena_copy(arena, name), flue_arena_copy(arena, value)};
    if (!label.name.data || !label.value.data ||
        !FLUE_ARENA_PUSH(arena, builder->labels, builder->label_count, builder->label_room, label))
        return no_memory(builder);
    return true;
}

bool flue_pprof_builder_profile(struct flue_pprof_builder *builder,
                                const struct flue_pprof_profile *profile)
{
    struct flue_pprof_profile copy = *profile;
    struct flue_arena *arena = &builder->core->arena;
    if (builder->part_count == 0) {
        if (builder->error.code == FLUE_OK)
            flue_fail(&builder->error, FLUE_INTERNAL, "a profile before its series");
        return false;
    }
    if (profile->id.size > 0) {
        copy.id = flue_arena_copy(arena, profile->id);
        if (!copy.id.data)
            return no_memory(builder);
    }
    if (!FLUE_ARENA_PUSH(arena, builder->profiles, builder->profile_count, builder->profile_room,
                         copy))
        return no_memory(builder);
    builder->core->profiles++;
    builder->core->samples += copy.facts.samples;
    return true;
}

/* One attribute, one label: where "service.name" and "service_name" both came, Pyroscope's own
 * spelling stays. Of two equal names the first stays. Returns how many labels are left. */
static size_t without_twins(struct flue_pprof_label *labels, struct flue_bytes *keys, size_t count)
{
    uint64_t seen = 0;
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        struct flue_bytes key = flue_label_attribute(labels[i].name);
        uint64_t bit = flue_attribute_bit(key);
        size_t twin = left;
        for (size_t j = 0; (seen & bit) && j < left && twin == left; j++)
            if (flue_bytes_equal(keys[j], key))
                twin = j;
        seen |= bit;
        if (twin == left)
            left++;
        else if (!flue_bytes_equal(labels[twin].name, key) || flue_bytes_equal(labels[i].name, key))
            continue;
        labels[twin] = labels[i];
        keys[twin] = key;
    }
    return left;
}

enum flue_code flue_pprof_builder_finish(struct flue_pprof_builder *builder,
                                         struct flue_payload **out, struct flue_counts *counts,
                                         struct flue_error *error)
{
    struct flue_pprof_core *core = builder->core;
    struct flue_bytes *keys =
        flue_arena_zalloc(&core->arena, builder->label_count + 1, sizeof *keys);
    core->series = flue_arena_zalloc(&core->arena, builder->part_count + 1, sizeof *core->series);
    if (!keys || !core->series)
        no_memory(builder);
    if (builder->error.code != FLUE_OK) {
        if (error)
            *error = builder->error;
        enum flue_code code = builder->error.code;
        flue_pprof_builder_discard(builder);
        return code;
    }
    core->count = builder->part_count;
    for (size_t i = 0; i < core->count; i++) {
        const struct part *part = &builder->parts[i];
        bool last = i + 1 == core->count;
        size_t labels_end = last ? builder->label_count : part[1].first_label;
        size_t profiles_end = last ? builder->profile_count : part[1].first_profile;
        struct flue_pprof_state *state = &core->series[i];
        state->keys = keys + part->first_label;
        state->series.labels = builder->labels + part->first_label;
        state->series.label_count =
            without_twins(builder->labels + part->first_label, keys + part->first_label,
                          labels_end - part->first_label);
        state->series.profiles = builder->profiles + part->first_profile;
        state->series.profile_count = profiles_end - part->first_profile;
    }
    free(builder);
    *out = flue_pprof_payload_new(core, error);
    if (!*out)
        return FLUE_NO_MEMORY;
    if (counts)
        *counts = (struct flue_counts){.profiles = core->profiles,
                                       .samples = core->samples,
                                       .bytes = flue_pprof_ops.encoded_size(*out)};
    return FLUE_OK;
}

void flue_pprof_builder_discard(struct flue_pprof_builder *builder)
{
    flue_pprof_core_unref(builder->core);
    free(builder);
}
