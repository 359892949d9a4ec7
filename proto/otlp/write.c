/* write.c: the overlay as steps of a splice, in order of the body. */
#include "proto/otlp/payload.h"
#include "proto/wire/writer.h"

struct writing {
    const struct flue_otlp_payload *payload;
    struct flue_arena *arena;
    struct flue_splice_step *steps;
    size_t count, room;
    bool failed;
};

static void put(struct writing *w, struct flue_splice_step step)
{
    if (!FLUE_ARENA_PUSH(w->arena, w->steps, w->count, w->room, step))
        w->failed = true;
}

static size_t open_message(struct writing *w, struct flue_otlp_span span, unsigned depth)
{
    put(w, (struct flue_splice_step){.message = true,
                                     .inside = (uint8_t)depth,
                                     .from = span.tag + 1,
                                     .start = span.start,
                                     .to = span.end});
    return w->count;
}

/* A message without edits inside needs no step. */
static void close_message(struct writing *w, size_t opened)
{
    if (w->count == opened && !w->failed)
        w->count--;
}

/* Edits of a container that stand before what begins at `position`; *covered is moved behind what
 * they replace. */
static void edits_before(struct writing *w, const struct flue_otlp_edit **edit, uint32_t position,
                         unsigned depth, uint32_t *covered)
{
    while (*edit && (*edit)->from <= position) {
        put(w, (struct flue_splice_step){.inside = (uint8_t)depth,
                                         .from = (*edit)->from,
                                         .to = (*edit)->to,
                                         .with = (*edit)->with});
        *covered = (*edit)->to > *covered ? (*edit)->to : *covered;
        *edit = (*edit)->next;
    }
}

static void leaf(struct writing *w, struct flue_otlp_place place, unsigned depth)
{
    const struct flue_otlp_edit *edit = flue_otlp_edits(w->payload, place);
    uint32_t covered = 0;
    size_t opened;

    if (!edit)
        return;
    opened = open_message(w, flue_otlp_span(w->payload, place), depth);
    edits_before(w, &edit, UINT32_MAX, depth + 1, &covered);
    close_message(w, opened);
}

/* A message that was not received, at the beginning or end of its container. */
static void missing(struct writing *w, struct flue_otlp_place place, uint32_t position,
                    uint32_t field, unsigned depth)
{
    const struct flue_otlp_edit *edit = flue_otlp_edits(w->payload, place);
    size_t size = 0;
    uint8_t *head;

    for (const struct flue_otlp_edit *e = edit; e; e = e->next)
        size += e->with.size;
    if (size == 0)
        return;
    head = flue_arena_alloc(w->arena, 16);
    if (!head) {
        w->failed = true;
        return;
    }
    put(w, (struct flue_splice_step){
               .inside = (uint8_t)depth,
               .from = position,
               .to = position,
               .with = flue_bytes(head, (size_t)(flue_write_len_head(head, field, size) - head))});
    for (; edit; edit = edit->next)
        put(w, (struct flue_splice_step){
                   .inside = (uint8_t)depth, .from = position, .to = position, .with = edit->with});
}

static void scope_profiles(struct writing *w, uint32_t number, unsigned depth)
{
    const struct flue_otlp_index *index = w->payload->index;
    const struct flue_otlp_scope_index *s = &index->scopes[number];
    const struct flue_otlp_edit *edit =
        flue_otlp_edits(w->payload, (struct flue_otlp_place){FLUE_OTLP_IN_SCOPE_PROFILES, number});
    struct flue_otlp_place scope = {FLUE_OTLP_IN_SCOPE, number};
    bool placed = s->scope.end == 0;
    uint32_t covered = 0;
    size_t opened = open_message(w, s->at, depth);

    if (placed)
        missing(w, scope, s->at.start, 1, depth + 1);
    for (uint32_t i = 0; w->payload->edits[FLUE_OTLP_IN_PROFILE] && i < s->profiles; i++) {
        struct flue_otlp_place profile = {FLUE_OTLP_IN_PROFILE, s->first_profile + i};
        uint32_t tag = index->profiles[profile.number].at.tag;
        if (!placed && s->scope.tag < tag) {
            edits_before(w, &edit, s->scope.tag, depth + 1, &covered);
            if (s->scope.tag >= covered)
                leaf(w, scope, depth + 1);
            placed = true;
        }
        if (!flue_otlp_edits(w->payload, profile))
            continue;
        edits_before(w, &edit, tag, depth + 1, &covered);
        if (tag >= covered)
            leaf(w, profile, depth + 1);
    }
    if (!placed) {
        edits_before(w, &edit, s->scope.tag, depth + 1, &covered);
        if (s->scope.tag >= covered)
            leaf(w, scope, depth + 1);
    }
    edits_before(w, &edit, UINT32_MAX, depth + 1, &covered);
    close_message(w, opened);
}

static void resource_profiles(struct writing *w, uint32_t number, unsigned depth)
{
    const struct flue_otlp_payload *payload = w->payload;
    const struct flue_otlp_resource_index *r = &payload->index->resources[number];
    const struct flue_otlp_edit *edit =
        flue_otlp_edits(payload, (struct flue_otlp_place){FLUE_OTLP_IN_RESOURCE_PROFILES, number});
    struct flue_otlp_place resource = {FLUE_OTLP_IN_RESOURCE, number};
    bool deep = payload->edits[FLUE_OTLP_IN_SCOPE_PROFILES] || payload->edits[FLUE_OTLP_IN_SCOPE] ||
                payload->edits[FLUE_OTLP_IN_PROFILE];
    bool placed = r->resource.end == 0;
    uint32_t covered = 0;
    size_t opened = open_message(w, r->at, depth);

    if (placed)
        missing(w, resource, r->at.start, 1, depth + 1);
    for (uint32_t i = 0; deep && i < r->scopes; i++) {
        uint32_t tag = payload->index->scopes[r->first_scope + i].at.tag;
        if (!placed && r->resource.tag < tag) {
            edits_before(w, &edit, r->resource.tag, depth + 1, &covered);
            if (r->resource.tag >= covered)
                leaf(w, resource, depth + 1);
            placed = true;
        }
        edits_before(w, &edit, tag, depth + 1, &covered);
        if (tag >= covered)
            scope_profiles(w, r->first_scope + i, depth + 1);
    }
    if (!placed) {
        edits_before(w, &edit, r->resource.tag, depth + 1, &covered);
        if (r->resource.tag >= covered)
            leaf(w, resource, depth + 1);
    }
    edits_before(w, &edit, UINT32_MAX, depth + 1, &covered);
    close_message(w, opened);
}

static void request(struct writing *w)
{
    const struct flue_otlp_payload *payload = w->payload;
    const struct flue_otlp_index *index = payload->index;
    struct flue_otlp_place dictionary = {FLUE_OTLP_IN_DICTIONARY, 0};
    const struct flue_otlp_edit *edit =
        flue_otlp_edits(payload, (struct flue_otlp_place){FLUE_OTLP_IN_REQUEST, 0});
    bool inside = payload->edits[FLUE_OTLP_IN_RESOURCE_PROFILES] ||
                  payload->edits[FLUE_OTLP_IN_RESOURCE] ||
                  payload->edits[FLUE_OTLP_IN_SCOPE_PROFILES] ||
                  payload->edits[FLUE_OTLP_IN_SCOPE] || payload->edits[FLUE_OTLP_IN_PROFILE];
    bool placed = index->dictionary.end == 0 || !payload->edits[FLUE_OTLP_IN_DICTIONARY];
    uint32_t covered = 0;

    for (uint32_t i = 0; inside && i < index->resource_count; i++) {
        uint32_t tag = index->resources[i].at.tag;
        if (!placed && index->dictionary.tag < tag) {
            edits_before(w, &edit, index->dictionary.tag, 0, &covered);
            leaf(w, dictionary, 0);
            placed = true;
        }
        edits_before(w, &edit, tag, 0, &covered);
        if (tag >= covered)
            resource_profiles(w, i, 0);
    }
    if (!placed) {
        edits_before(w, &edit, index->dictionary.tag, 0, &covered);
        leaf(w, dictionary, 0);
    }
    edits_before(w, &edit, UINT32_MAX, 0, &covered);
    if (index->dictionary.end == 0)
        missing(w, dictionary, (uint32_t)index->body->size, 2, 0);
}

enum flue_code flue_otlp_steps(const struct flue_otlp_payload *payload, struct flue_arena *arena,
                               struct flue_splice_step **steps, size_t *count, size_t *size,
                               struct flue_error *error)
{
    struct writing w = {.payload = payload, .arena = arena};
    bool ok;

    w.room = (size_t)payload->edit_count * 3 + 8;
    w.steps = flue_arena_alloc(arena, w.room * sizeof *w.steps);
    if (!w.steps)
        w.room = 0;
    else
        request(&w);
    if (w.failed || !w.steps)
        return flue_fail(error, FLUE_NO_MEMORY,
                         "writing a request with %u edits takes more memory than is set aside",
                         payload->edit_count);
    *size = flue_splice_measure(payload->index->body->size, w.steps, w.count, &ok);
    if (!ok)
        return flue_fail(error, FLUE_TOO_LARGE, "a request of over 4 GiB with its edits");
    *steps = w.steps;
    *count = w.count;
    return FLUE_OK;
}
