/* payload.c: series of pprof as a payload: the attribute view, edits of labels, clones. */
#include <stdlib.h>

#include "proto/pprof/names.h"
#include "proto/pprof/series.h"
#include "proto/wire/writer.h"

/* Of edited labels, per payload. */
#define EDIT_BUDGET (64u << 20)

static struct flue_pprof_payload *mutable_of(struct flue_payload *payload)
{
    return (struct flue_pprof_payload *)payload;
}

void flue_pprof_core_unref(struct flue_pprof_core *core)
{
    if (atomic_fetch_sub_explicit(&core->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < core->block_count; i++)
        flue_block_unref(core->blocks[i]);
    flue_arena_destroy(&core->arena);
    free(core);
}

static struct flue_pprof_payload *payload_over(struct flue_pprof_core *core,
                                               const struct flue_pprof_state *series)
{
    struct flue_pprof_payload *payload = calloc(1, sizeof *payload);
    if (!payload)
        return NULL;
    payload->base.ops = &flue_pprof_ops;
    atomic_init(&payload->base.refs, 1);
    payload->base.signal = FLUE_PROFILES;
    payload->core = core;
    flue_arena_init(&payload->edits, EDIT_BUDGET, 0);
    payload->series = flue_arena_zalloc(&payload->edits, core->count + 1, sizeof *payload->series);
    if (!payload->series) {
        flue_arena_destroy(&payload->edits);
        free(payload);
        return NULL;
    }
    if (core->count)
        memcpy(payload->series, series, core->count * sizeof *series);
    return payload;
}

struct flue_payload *flue_pprof_payload_new(struct flue_pprof_core *core, struct flue_error *error)
{
    struct flue_pprof_payload *payload = payload_over(core, core->series);
    if (!payload) {
        flue_fail(error, FLUE_NO_MEMORY, "no memory for a payload of %zu series", core->count);
        flue_pprof_core_unref(core);
        return NULL;
    }
    return &payload->base;
}

static void destroy(struct flue_payload *base)
{
    struct flue_pprof_payload *payload = mutable_of(base);
    flue_payload_unref(base->other_form);
    for (size_t i = 0; i < payload->owner_count; i++)
        flue_block_unref(payload->owners[i]);
    flue_arena_destroy(&payload->edits);
    flue_pprof_core_unref(payload->core);
    free(payload);
}

/* ---- edits ---------------------------------------------------------------------------------- */

/* Gives a series labels of its own, with room for `more`. */
static bool own_labels(struct flue_pprof_payload *payload, struct flue_pprof_state *state,
                       size_t more, bool copy_text)
{
    struct flue_pprof_series *series = &state->series;
    if (state->room >= series->label_count + more && state->room > 0)
        return true;
    size_t room = series->label_count + more + 8;
    struct flue_pprof_label *labels = flue_arena_zalloc(&payload->edits, room, sizeof *labels);
    struct flue_bytes *keys = flue_arena_zalloc(&payload->edits, room, sizeof *keys);
    if (!labels || !keys)
        return false;
    for (size_t i = 0; i < series->label_count; i++) {
        labels[i] = series->labels[i];
        keys[i] = state->keys[i];
        if (!copy_text)
            continue;
        labels[i].name = flue_arena_copy(&payload->edits, labels[i].name);
        labels[i].value = flue_arena_copy(&payload->edits, labels[i].value);
        keys[i] = flue_arena_copy(&payload->edits, keys[i]);
        if (!labels[i].name.data || !labels[i].value.data || !keys[i].data)
            return false;
    }
    series->labels = labels;
    state->keys = keys;
    state->room = room;
    return true;
}

static struct flue_payload *clone(const struct flue_payload *base, struct flue_error *error)
{
    const struct flue_pprof_payload *from = flue_pprof_of(base);
    atomic_fetch_add_explicit(&from->core->refs, 1, memory_order_relaxed);
    struct flue_pprof_payload *payload = payload_over(from->core, from->series);
    if (!payload) {
        flue_pprof_core_unref(from->core);
        flue_fail(error, FLUE_NO_MEMORY, "no memory to copy a payload");
        return NULL;
    }
    for (size_t i = 0; i < from->core->count; i++) {
        struct flue_pprof_state *state = &payload->series[i];
        if (state->room == 0)
            continue;
        state->room = 0;
        if (!own_labels(payload, state, 0, true)) {
            destroy(&payload->base);
            flue_fail(error, FLUE_NO_MEMORY, "no memory to copy a payload's edited labels");
            return NULL;
        }
    }
    return &payload->base;
}

static void edited(struct flue_pprof_payload *payload)
{
    flue_payload_unref(payload->base.other_form);
    payload->base.other_form = NULL;
}

/* Does label i answer to attribute `key`, whose label name is `name` (may be empty: not computed)?
 */
static bool answers(const struct flue_pprof_state *state, size_t i, struct flue_bytes key,
                    struct flue_bytes name)
{
    return !flue_label_is_identity(state->series.labels[i].name) &&
           (flue_bytes_equal(state->keys[i], key) ||
            (name.size > 0 && flue_bytes_equal(state->series.labels[i].name, name)));
}

static size_t find(const struct flue_pprof_state *state, struct flue_bytes key)
{
    uint8_t buffer[256];
    struct flue_bytes name = flue_attribute_label(key, NULL);
    if (!name.data && key.size < sizeof buffer)
        name = flue_bytes(buffer, flue_attribute_label_write(key, buffer));
    for (size_t i = 0; i < state->series.label_count; i++)
        if (answers(state, i, key, name))
            return i;
    return SIZE_MAX;
}

static enum flue_code edit_failed(struct flue_error *error)
{
    return flue_fail(error, FLUE_NO_MEMORY,
                     "edited labels need more than the %u bytes that they may use", EDIT_BUDGET);
}

static bool keep_owner(struct flue_pprof_payload *payload, struct flue_block *owner)
{
    if (!owner || (payload->owner_count > 0 && payload->owners[payload->owner_count - 1] == owner))
        return true;
    if (!FLUE_ARENA_PUSH(&payload->edits, payload->owners, payload->owner_count,
                         payload->owner_room, owner))
        return false;
    flue_block_ref(owner);
    return true;
}

static enum flue_code attributes_set(struct flue_payload *base, size_t resource,
                                     const struct flue_attribute_set *set, enum flue_set_mode mode,
                                     struct flue_block *set_owner, struct flue_error *error)
{
    struct flue_pprof_payload *payload = mutable_of(base);
    struct flue_pprof_state *state = &payload->series[resource];
    edited(payload);
    if (!keep_owner(payload, set_owner))
        return edit_failed(error);
    for (size_t i = 0; i < set->count; i++) {
        const struct flue_attribute *attribute = &set->items[i];
        size_t at = find(state, attribute->key);
        if (flue_label_is_identity(attribute->key) || attribute->key.size == 0 ||
            (at == SIZE_MAX ? mode == FLUE_SET_UPDATE : mode == FLUE_SET_INSERT))
            continue;
        struct flue_bytes text = flue_label_text(&attribute->value, &payload->edits);
        struct flue_bytes name = at == SIZE_MAX
                                     ? flue_attribute_label(attribute->key, &payload->edits)
                                     : state->series.labels[at].name;
        if (!text.data || !name.data)
            return edit_failed(error);
        if (at == SIZE_MAX && state->series.label_count >= FLUE_PPROF_MAX_LABELS)
            return flue_fail(error, FLUE_TOO_LARGE, "more than %d labels on one series",
                             FLUE_PPROF_MAX_LABELS);
        if (!own_labels(payload, state, at == SIZE_MAX, false))
            return edit_failed(error);
        if (at == SIZE_MAX)
            at = state->series.label_count++;
        /* own_labels made them ours */
        ((struct flue_pprof_label *)state->series.labels)[at] =
            (struct flue_pprof_label){name, text};
        ((struct flue_bytes *)state->keys)[at] = attribute->key;
    }
    return FLUE_OK;
}

static enum flue_code attribute_remove(struct flue_payload *base, size_t resource,
                                       struct flue_bytes key, struct flue_error *error)
{
    struct flue_pprof_payload *payload = mutable_of(base);
    struct flue_pprof_state *state = &payload->series[resource];
    for (size_t at; (at = find(state, key)) != SIZE_MAX;) {
        edited(payload);
        if (!own_labels(payload, state, 0, false))
            return edit_failed(error);
        size_t behind = --state->series.label_count - at;
        struct flue_pprof_label *labels = (struct flue_pprof_label *)state->series.labels;
        struct flue_bytes *keys = (struct flue_bytes *)state->keys;
        memmove(labels + at, labels + at + 1, behind * sizeof *labels);
        memmove(keys + at, keys + at + 1, behind * sizeof *keys);
    }
    return FLUE_OK;
}

/* ---- the view ------------------------------------------------------------------------------- */

static size_t resource_count(const struct flue_payload *payload)
{
    return flue_pprof_of(payload)->core->count;
}

static struct flue_value text_value(struct flue_bytes text)
{
    return (struct flue_value){.type = FLUE_VALUE_STRING, .text = text};
}

static bool attribute_get(const struct flue_payload *payload, size_t resource,
                          struct flue_bytes key, struct flue_value *out)
{
    const struct flue_pprof_state *state = &flue_pprof_of(payload)->series[resource];
    size_t at = find(state, key);
    if (at == SIZE_MAX)
        return false;
    *out = text_value(state->series.labels[at].value);
    return true;
}

static void attribute_each(const struct flue_payload *payload, size_t resource,
                           flue_attribute_visit visit, void *arg)
{
    const struct flue_pprof_state *state = &flue_pprof_of(payload)->series[resource];
    for (size_t i = 0; i < state->series.label_count; i++) {
        if (flue_label_is_identity(state->series.labels[i].name))
            continue;
        struct flue_attribute attribute = {state->keys[i],
                                           text_value(state->series.labels[i].value)};
        if (!visit(arg, &attribute))
            return;
    }
}

size_t flue_pprof_series_count(const struct flue_payload *payload)
{
    return resource_count(payload);
}

const struct flue_pprof_series *flue_pprof_series_at(const struct flue_payload *payload, size_t i)
{
    return &flue_pprof_of(payload)->series[i].series;
}

/* ---- sizes ---------------------------------------------------------------------------------- */

size_t flue_pprof_labels_size(const struct flue_pprof_label *labels, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += flue_len_field_size(1, flue_len_field_size(1, labels[i].name.size) +
                                           flue_len_field_size(2, labels[i].value.size));
    return size;
}

size_t flue_pprof_profile_size(const struct flue_pprof_profile *profile)
{
    return flue_len_field_size(
        2, flue_len_field_size(1, profile->bytes.size) +
               (profile->id.size ? flue_len_field_size(2, profile->id.size) : 0));
}

static size_t encoded_size(const struct flue_payload *base)
{
    const struct flue_pprof_payload *payload = flue_pprof_of(base);
    size_t size = 0;
    for (size_t i = 0; i < payload->core->count; i++) {
        const struct flue_pprof_series *series = &payload->series[i].series;
        size_t one = flue_pprof_labels_size(series->labels, series->label_count);
        for (size_t j = 0; j < series->profile_count; j++)
            one += flue_pprof_profile_size(&series->profiles[j]);
        size += flue_len_field_size(1, one);
    }
    return size;
}

static size_t held_size(const struct flue_payload *base)
{
    const struct flue_pprof_payload *payload = flue_pprof_of(base);
    return sizeof *payload + payload->edits.used + payload->core->arena.used +
           payload->core->block_bytes;
}

const struct flue_payload_ops flue_pprof_ops = {
    .form = FLUE_FORM_PPROF,
    .name = "pprof",
    .destroy = destroy,
    .clone = clone,
    .encoded_size = encoded_size,
    .held_size = held_size,
    .slices = flue_pprof_payload_slices,
    .resource_count = resource_count,
    .attribute_get = attribute_get,
    .attribute_each = attribute_each,
    .attributes_set = attributes_set,
    .attribute_remove = attribute_remove,
    .merge = flue_pprof_payload_merge,
    .split = flue_pprof_payload_split,
};
