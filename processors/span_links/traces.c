/* traces.c: spans get the id under which their profile is found (pyroscope.profile.id: the span's
 * own id in hex, which is what Pyroscope's span selector takes).
 *
 * A span that was seen in a profile is marked at once. Spans that were not yet wait in the queue
 * (pipeline/hold.h) as a batch of their own, while the others go on; those of a resource whose SDK
 * marks its spans itself never wait. A span that has the attribute is not touched.
 */
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/pipeline/hold.h"
#include "processors/span_links/span_links.h"
#include "proto/otlp/dictionary.h"
#include "proto/otlp/trace.h"

#define PROFILE_ID FLUE_BYTES("pyroscope.profile.id")
#define ASK_LEAST  UINT64_C(100000000) /* ns between two looks at what came */
#define ASK_MOST   UINT64_C(2000000000)
#define ASKS       16

enum fate { LEFT, MARK, WAIT };

struct waiting {
    uint64_t span;
    uint8_t trace[16];
    uint8_t trace_size;
};
struct wait {
    struct flue_hold hold; /* first */
    struct span_links *self;
    struct seen *seen; /* outlives the processor's own end */
    size_t bytes, count;
    struct waiting spans[];
};

static enum flue_code mark(struct span_links *self, struct flue_payload *payload, uint32_t span,
                           struct flue_bytes id, struct flue_error *error)
{
    char hex[16];
    flue_hex(id, hex);
    const struct flue_attribute attribute = {
        PROFILE_ID, {.type = FLUE_VALUE_STRING, .text = flue_bytes(hex, sizeof hex)}};
    enum flue_code code = flue_trace_span_add(payload, span, &attribute, error);
    if (code == FLUE_OK)
        flue_metric_add(self->marked, 1);
    return code;
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* What was seen by now gets its mark; the rest goes as it is. Without memory all does. */
static void settle(struct wait *wait, struct flue_batch **batch)
{
    struct span_links *self = wait->self;
    uint64_t now = seen_now(flue_monotonic_ns());
    struct flue_error error;
    struct flue_batch *own;
    uint64_t unmarked = 0;

    own = flue_batch_writable(flue_batch_ref(*batch), &error);
    if (!own)
        return;
    uint32_t count = flue_otlp_index_of(own->payload)->profile_count;
    for (uint32_t i = 0; i < count; i++) {
        struct flue_trace_span span;
        uint64_t number;
        if (flue_otlp_profile_removed(own->payload, i))
            continue;
        flue_trace_span_read(own->payload, i, PROFILE_ID, &span);
        number = span_number(span.span_id);
        if (span.has_attribute || !number)
            continue;
        if (!seen_has(wait->seen, number, span.trace_id, now) ||
            mark(self, own->payload, i, span.span_id, &error) != FLUE_OK)
            unmarked++;
    }
    flue_metric_add(self->unmarked, (int64_t)unmarked);
    flue_batch_unref(*batch);
    *batch = own;
}

static bool ripe(struct flue_hold *hold, struct flue_batch **batch, bool last)
{
    struct wait *wait = (struct wait *)hold;
    uint64_t now = seen_now(flue_monotonic_ns());

    for (size_t i = 0; i < wait->count && !last; i++)
        if (!seen_has(wait->seen, wait->spans[i].span,
                      flue_bytes(wait->spans[i].trace, wait->spans[i].trace_size), now))
            return false;
    settle(wait, batch);
    return true;
}

static void destroy(struct flue_hold *hold)
{
    struct wait *wait = (struct wait *)hold;
    atomic_fetch_sub(&wait->seen->held, (int64_t)wait->bytes);
    seen_leave(wait->seen);
    free(wait);
}

static struct wait *wait_new(struct span_links *self, const struct flue_payload *payload,
                             const uint8_t *fates, size_t count, size_t bytes)
{
    uint32_t all = flue_otlp_index_of(payload)->profile_count;
    struct wait *wait = malloc(sizeof *wait + count * sizeof wait->spans[0]);
    uint64_t window = (uint64_t)self->config->window, every = window / ASKS;

    if (!wait)
        return NULL;
    every = every < ASK_LEAST ? ASK_LEAST : every > ASK_MOST ? ASK_MOST : every;
    wait->hold = (struct flue_hold){.until_ns = flue_monotonic_ns() + window,
                                    .every_ns = every,
                                    .ripe = ripe,
                                    .destroy = destroy};
    atomic_init(&wait->hold.refs, 1);
    wait->self = self;
    wait->seen = self->seen;
    seen_use(wait->seen);
    wait->bytes = bytes;
    wait->count = 0;
    for (uint32_t i = 0; i < all && wait->count < count; i++) {
        struct waiting *w = &wait->spans[wait->count];
        struct flue_trace_span span;
        if (fates[i] != WAIT)
            continue;
        flue_trace_span_read(payload, i, PROFILE_ID, &span);
        w->span = span_number(span.span_id);
        w->trace_size = (uint8_t)span.trace_id.size;
        if (span.trace_id.size)
            memcpy(w->trace, span.trace_id.data, span.trace_id.size);
        wait->count++;
    }
    return wait;
}

/* ---- sorting -------------------------------------------------------------------------------- */

struct sorting {
    struct span_links *self;
    uint8_t *fates;              /* by span */
    uint32_t marks, waits, kept; /* kept: all that are there */
    size_t wait_bytes, bytes;
};

/* One resource's spans: [first, end). */
static void sort_resource(struct sorting *s, const struct flue_payload *payload, uint32_t first,
                          uint32_t end, uint64_t now)
{
    const struct flue_otlp_index *index = flue_otlp_index_of(payload);
    bool by_sdk = false;

    for (uint32_t i = first; i < end; i++) {
        struct flue_trace_span span;
        size_t size = index->profiles[i].at.end - index->profiles[i].at.tag;
        uint64_t number;
        s->fates[i] = LEFT;
        if (flue_otlp_profile_removed(payload, i))
            continue;
        s->kept++;
        s->bytes += size;
        flue_trace_span_read(payload, i, PROFILE_ID, &span);
        by_sdk |= span.has_attribute;
        number = span_number(span.span_id);
        if (!span.has_attribute && number)
            s->fates[i] = seen_has(s->self->seen, number, span.trace_id, now) ? MARK : WAIT;
    }
    for (uint32_t i = first; i < end; i++) {
        if (by_sdk && s->fates[i] == WAIT)
            s->fates[i] = LEFT;
        s->marks += s->fates[i] == MARK;
        if (s->fates[i] == WAIT) {
            s->waits++;
            s->wait_bytes += index->profiles[i].at.end - index->profiles[i].at.tag;
        }
    }
}

static bool sort(struct sorting *s, const struct flue_payload *payload)
{
    const struct flue_otlp_index *index = flue_otlp_index_of(payload);
    uint64_t now = seen_now(flue_monotonic_ns());

    s->fates = malloc(index->profile_count + 1);
    if (!s->fates)
        return false;
    for (uint32_t i = 0, end; i < index->profile_count; i = end) {
        uint32_t resource = index->scopes[index->profiles[i].scope].resource;
        for (end = i; end < index->profile_count &&
                      index->scopes[index->profiles[end].scope].resource == resource;)
            end++;
        sort_resource(s, payload, i, end, now);
    }
    return true;
}

/* Is there room for them to wait? */
static bool reserve(struct span_links *self, size_t bytes)
{
    if (atomic_fetch_add(&self->seen->held, (int64_t)bytes) + (int64_t)bytes <=
        self->config->max_bytes)
        return true;
    atomic_fetch_sub(&self->seen->held, (int64_t)bytes);
    return false;
}

static enum flue_code mark_all(struct sorting *s, struct flue_payload *payload,
                               struct flue_error *error)
{
    uint32_t count = flue_otlp_index_of(payload)->profile_count;
    enum flue_code code = FLUE_OK;

    for (uint32_t i = 0; i < count && code == FLUE_OK; i++) {
        struct flue_trace_span span;
        if (s->fates[i] != MARK)
            continue;
        flue_trace_span_read(payload, i, PROFILE_ID, &span);
        code = mark(s->self, payload, i, span.span_id, error);
    }
    return code;
}

/* Takes out the spans that wait, or all others. */
static enum flue_code leave(const struct sorting *s, struct flue_payload *payload, bool waiting,
                            struct flue_error *error)
{
    uint32_t count = flue_otlp_index_of(payload)->profile_count;
    enum flue_code code = FLUE_OK;

    for (uint32_t i = 0; i < count && code == FLUE_OK; i++)
        if ((s->fates[i] == WAIT) != waiting && !flue_otlp_profile_removed(payload, i))
            code = flue_otlp_profile_remove(payload, i, error);
    return code;
}

/* The waiting part of a batch, which keeps the rest; NULL: error. */
static struct flue_batch *cut_waiting(const struct sorting *s, struct flue_batch *batch,
                                      struct flue_error *error)
{
    struct flue_counts all = batch->counts, part = {
                                                flue_share(all.profiles, 0, s->waits, s->kept),
                                                flue_share(all.samples, 0, s->waits, s->kept),
                                                flue_share(all.bytes, 0, s->wait_bytes, s->bytes),
                                            };
    struct flue_payload *clone = batch->payload->ops->clone(batch->payload, error);
    struct flue_batch *made;

    if (!clone)
        return NULL;
    made = flue_batch_new(clone, batch->origin, part, batch->account);
    if (!made) {
        (void)flue_fail(error, FLUE_NO_MEMORY, "no memory for a part of a batch");
        return NULL;
    }
    if (leave(s, clone, true, error) != FLUE_OK ||
        leave(s, batch->payload, false, error) != FLUE_OK) {
        flue_batch_unref(made);
        return NULL;
    }
    batch->counts.profiles -= part.profiles;
    batch->counts.samples -= part.samples;
    batch->counts.bytes -= part.bytes;
    return made;
}

static void refuse(struct flue_batch *batch, struct flue_delivery *delivery,
                   const struct flue_error *error)
{
    flue_delivery_refuse(delivery, error);
    flue_batch_unref(batch);
}

void span_links_traces(struct flue_stage *stage, struct flue_batch *batch,
                       struct flue_delivery *delivery)
{
    struct span_links *self = flue_stage_instance(stage);
    struct sorting s = {.self = self};
    struct flue_batch *later = NULL;
    struct wait *wait = NULL;
    struct flue_error error;

    if (!sort(&s, batch->payload)) { /* as it is: a mark is not worth a refusal */
        flue_stage_next(stage, batch, delivery);
        return;
    }
    size_t bytes = s.wait_bytes + s.waits * sizeof(struct waiting);
    if (s.waits && !reserve(self, bytes)) {
        flue_metric_add(self->full, s.waits);
        flue_metric_add(self->unmarked, s.waits);
        s.waits = 0;
    }
    if (s.waits) {
        wait = wait_new(self, batch->payload, s.fates, s.waits, bytes);
        if (!wait) {
            atomic_fetch_sub(&self->seen->held, (int64_t)bytes);
            s.waits = 0;
        }
    }
    if (s.waits == s.kept && wait) { /* all of it waits */
        flue_metric_add(self->held, s.waits);
        batch = flue_batch_writable(batch, &error);
        if (!batch) {
            flue_hold_unref(&wait->hold);
            flue_delivery_refuse(delivery, &error);
        } else {
            flue_hold_unref(batch->hold);
            batch->hold = &wait->hold;
            flue_stage_next(stage, batch, delivery);
        }
        free(s.fates);
        return;
    }
    enum flue_code code = FLUE_OK;
    if (s.marks || wait) {
        batch = flue_batch_writable(batch, &error);
        code = batch ? mark_all(&s, batch->payload, &error) : error.code;
    }
    if (code == FLUE_OK && wait) {
        later = cut_waiting(&s, batch, &error);
        code = later ? FLUE_OK : error.code;
    }
    free(s.fates);
    if (code != FLUE_OK) {
        flue_hold_unref(wait ? &wait->hold : NULL);
        if (batch)
            refuse(batch, delivery, &error);
        else
            flue_delivery_refuse(delivery, &error);
        return;
    }
    flue_stage_next(stage, batch, delivery);
    if (later) {
        flue_metric_add(self->held, (int64_t)wait->count);
        later->hold = &wait->hold;
        flue_stage_next(stage, later, delivery);
    }
}
