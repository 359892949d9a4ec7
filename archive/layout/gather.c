/* gather.c: see gather.h. */
#include "archive/layout/gather.h"
#include <stdlib.h>
#include "proto/otlp/dictionary_copy.h"
#include "proto/otlp/index.h"

#define GROUPS_MAX   ((size_t)1 << 20)
#define GROUP_BUDGET ((size_t)1 << 30) /* arithmetic only: the caller takes groups long before */

struct group {
    struct flue_work work; /* its row indices, and one map per payload that reached it */
    struct flue_otlp_tables tables;
    struct flue_out body;
    struct flue_otlp_copy copy;
    struct flue_otlp_map map;
    const struct flue_payload *from; /* whose map it is */
    struct flue_gathered facts;
};
struct flue_gather {
    struct flue_account *account;
    struct group **groups; /* NULL: nothing in it */
    size_t count, room;
    size_t held, charged;
};

struct flue_gather *flue_gather_new(struct flue_account *account)
{
    struct flue_gather *gather = calloc(1, sizeof *gather);

    if (gather)
        gather->account = account;
    return gather;
}

static void charge(struct flue_gather *gather)
{
    if (gather->account && gather->held > gather->charged)
        flue_account_charge_always(gather->account, gather->held - gather->charged);
    else if (gather->account)
        flue_account_release(gather->account, gather->charged - gather->held);
    gather->charged = gather->held;
}

static void group_free(struct flue_gather *gather, struct group *group)
{
    if (!group)
        return;
    gather->held -= group->facts.held;
    flue_out_destroy(&group->body);
    flue_otlp_tables_destroy(&group->tables);
    flue_work_end(&group->work);
    free(group);
}

void flue_gather_destroy(struct flue_gather *gather)
{
    if (!gather)
        return;
    for (size_t i = 0; i < gather->count; i++)
        group_free(gather, gather->groups[i]);
    charge(gather);
    free(gather->groups);
    free(gather);
}

static struct group *group_new(void)
{
    struct group *group = calloc(1, sizeof *group);

    if (!group)
        return NULL;
    group->work.budget = GROUP_BUDGET;
    flue_arena_init(&group->work.arena, GROUP_BUDGET, 0);
    flue_otlp_tables_init(&group->tables, &group->work, true, 4096);
    flue_out_init(&group->body, 4096, GROUP_BUDGET);
    if (group->tables.failed || group->body.failed) {
        flue_out_destroy(&group->body);
        flue_otlp_tables_destroy(&group->tables);
        flue_work_end(&group->work);
        free(group);
        return NULL;
    }
    return group;
}

static struct group *group_at(struct flue_gather *gather, size_t number)
{
    if (number >= GROUPS_MAX)
        return NULL;
    if (number >= gather->room) {
        size_t room = gather->room ? gather->room : 16;
        while (room <= number)
            room *= 2;
        struct group **groups = realloc(gather->groups, room * sizeof *groups);
        if (!groups)
            return NULL;
        memset(groups + gather->room, 0, (room - gather->room) * sizeof *groups);
        gather->groups = groups;
        gather->room = room;
    }
    if (number >= gather->count)
        gather->count = number + 1;
    if (!gather->groups[number])
        gather->groups[number] = group_new();
    return gather->groups[number];
}

struct adding {
    struct flue_gather *gather;
    const struct flue_payload *payload;
    struct flue_otlp_dictionary dictionary;
    flue_gather_choose choose;
    void *arg;
    size_t *touched; /* groups whose messages are open */
    size_t count, room;
    struct flue_arena arena;
    struct flue_error *error;
    enum flue_code code;
};

static bool open_group(struct adding *adding, struct group *group, size_t number)
{
    if (group->from == adding->payload)
        return true;
    if (!flue_otlp_map_init(&group->map, &adding->dictionary, &group->tables, false) ||
        !FLUE_ARENA_PUSH(&adding->arena, adding->touched, adding->count, adding->room, number))
        return false;
    group->from = adding->payload;
    flue_otlp_copy_begin(&group->copy, adding->payload, &group->map, &group->body);
    return true;
}

static bool add_profile(void *arg, const struct flue_otlp_profile *profile)
{
    struct adding *adding = arg;
    size_t number = adding->choose(adding->arg, adding->payload, &adding->dictionary, profile);
    struct flue_otlp_samples samples;
    struct flue_bytes sample;
    struct group *group;

    if (number == FLUE_GATHER_NONE)
        return true;
    group = group_at(adding->gather, number);
    if (!group || !open_group(adding, group, number)) {
        adding->code = flue_fail(adding->error, FLUE_NO_MEMORY, "no memory to gather profiles");
        return false;
    }
    flue_otlp_copy_close(&group->copy, profile);
    flue_otlp_copy_open(&group->copy, profile);
    samples = flue_otlp_samples(adding->payload, profile->profile);
    while (!group->tables.failed && flue_otlp_samples_next(&samples, &sample))
        flue_otlp_copy_sample(&group->copy, sample);
    if (group->tables.failed || group->body.failed || group->tables.scratch.failed) {
        adding->code = flue_work_failed(&group->work, adding->error);
        return false;
    }
    group->facts.profiles++;
    group->facts.samples += profile->samples;
    return true;
}

static void close_groups(struct adding *adding)
{
    for (size_t i = 0; i < adding->count; i++) {
        struct group *group = adding->gather->groups[adding->touched[i]];
        size_t before = group->facts.held;
        flue_otlp_copy_close(&group->copy, NULL);
        group->from = NULL;
        group->facts.size = flue_out_size(&group->body) + flue_otlp_tables_size(&group->tables);
        group->facts.held = group->facts.size + group->work.arena.used;
        adding->gather->held += group->facts.held - before;
    }
    charge(adding->gather);
}

enum flue_code flue_gather_add(struct flue_gather *gather, const struct flue_payload *payload,
                               flue_gather_choose choose, void *arg, struct flue_error *error)
{
    struct adding adding = {.gather = gather,
                            .payload = payload,
                            .choose = choose,
                            .arg = arg,
                            .error = error,
                            .code = FLUE_OK};
    size_t encoded = payload->ops->encoded_size(payload);

    flue_arena_init(&adding.arena, encoded * FLUE_OTLP_WORK_FACTOR + FLUE_OTLP_WORK_FLOOR, 0);
    adding.code = flue_otlp_dictionary_open(payload, &adding.arena, &adding.dictionary, error);
    if (adding.code == FLUE_OK)
        flue_otlp_each_profile(payload, add_profile, &adding);
    close_groups(&adding);
    flue_arena_destroy(&adding.arena);
    return adding.code;
}

size_t flue_gather_groups(const struct flue_gather *gather)
{
    return gather->count;
}

size_t flue_gather_held(const struct flue_gather *gather)
{
    return gather->held;
}

struct flue_gathered flue_gather_look(const struct flue_gather *gather, size_t group)
{
    if (group >= gather->count || !gather->groups[group])
        return (struct flue_gathered){0};
    return gather->groups[group]->facts;
}

enum flue_code flue_gather_take(struct flue_gather *gather, size_t number, struct flue_block **out,
                                struct flue_error *error)
{
    struct group *group = number < gather->count ? gather->groups[number] : NULL;
    enum flue_code code = FLUE_OK;

    *out = NULL;
    if (!group)
        return FLUE_OK;
    gather->groups[number] = NULL;
    if (group->facts.profiles) {
        flue_otlp_tables_write(&group->tables, &group->body);
        if (group->body.failed) {
            code = flue_work_failed(&group->work, error);
        } else {
            flue_block_finish(group->body.block);
            *out = group->body.block;
            group->body.block = NULL;
        }
    }
    group_free(gather, group);
    charge(gather);
    return code;
}
