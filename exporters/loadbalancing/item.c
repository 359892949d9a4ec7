/* item.c: one item of the queue, cut by key into parts that go to their nodes.
 *
 * The item is answered when every part is. A part that its node took is never sent again; one that
 * may be repeated is repeated alone, with the next attempt of the item; one whose node cannot be
 * reached is cut again over the nodes that are left, at once. */
#include <stdlib.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "exporters/loadbalancing/loadbalancing.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"

#define ARENA_MOST  ((size_t)256 << 20) /* lists of slices, and samples that were cut */
#define ANSWER_MOST ((size_t)32 << 20)
#define MOVES_MOST  8 /* of a part within one attempt */

enum state {
    TO_SEND,
    OPEN, /* encoded, or on its way */
    TAKEN,
    REFUSED, /* for good */
    CUT      /* other parts have its content */
};

struct part {
    struct flue_balance_item *item;
    struct part *next;
    enum state state;
    unsigned moves;
    bool move_now; /* its node cannot be reached: it goes to another one within this attempt */
    struct flue_balance_node *node; /* NULL: not yet decided */
    struct flue_slices raw;
    struct flue_arena arena; /* of the body, and of what it was cut into */
    struct flue_client_body body;
    bool encoded, encoding;
    struct flue_balance_client *client;
    struct flue_call call;
    struct flue_client_grpc_request request;
    struct flue_error error; /* why it is to be sent again, or refused */
};

struct flue_balance_item {
    struct flue_balance_place *place;
    struct flue_send *send;
    struct flue_payload *payload; /* OTLP */
    struct flue_arena arena;
    struct flue_block *flat; /* the request in one piece, where it is not already */
    struct flue_slices whole; /* the request */
    uint64_t samples;         /* or spans in it; 0: not counted yet */
    struct part *parts;
    unsigned open;
    bool running, waiting, cancelled;
    struct flue_counts rejected;     /* by partial successes and refusals, over all attempts */
    struct flue_balance_item *next_waiting;
};

static void run(struct flue_balance_item *item);

/* ---- making and freeing --------------------------------------------------------------------- */

static void free_item(void *state)
{
    struct flue_balance_item *item = state;
    while (item->parts) {
        struct part *part = item->parts;
        item->parts = part->next;
        flue_client_body_free(&part->body);
        flue_balance_node_unref(part->node);
        flue_arena_destroy(&part->arena);
        free(part);
    }
    flue_block_unref(item->flat);
    flue_payload_unref(item->payload);
    flue_arena_destroy(&item->arena);
    free(item);
}

static struct part *new_part(struct flue_balance_item *item)
{
    struct part *part = calloc(1, sizeof *part);
    if (!part)
        return NULL;
    part->item = item;
    flue_arena_init(&part->arena, ARENA_MOST, 0);
    part->next = item->parts;
    item->parts = part;
    return part;
}

/* The request in one piece, as the first part. */
static enum flue_code make_request(struct flue_balance_item *item, struct flue_error *error)
{
    const struct flue_batch *batch = item->send->batch;
    struct flue_slices slices = {0};
    enum flue_code code =
        flue_convert(batch->payload, FLUE_FORM_OTLP, batch->account, &item->payload, error);
    if (code) {
        item->payload = NULL;
        return code;
    }
    code = item->payload->ops->slices(item->payload, &item->arena, &slices, error);
    if (code)
        return code;
    struct flue_bytes request = slices.count ? slices.items[0] : flue_bytes(NULL, 0);
    if (slices.count > 1) {
        item->flat = flue_block_new(NULL, slices.total);
        if (!item->flat)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
        flue_slices_copy(&slices, item->flat->data);
        item->flat->size = slices.total;
        flue_block_finish(item->flat);
        request = flue_block_bytes(item->flat);
    }
    struct part *part = new_part(item);
    if (!part || !flue_slices_add(&item->whole, &item->arena, request) ||
        !flue_slices_add(&part->raw, &part->arena, request))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
    return FLUE_OK;
}

/* ---- the verdict ---------------------------------------------------------------------------- */

/* Of what the item counts. */
static struct flue_counts share(const struct flue_counts *of, double part, double whole)
{
    double ratio = whole > 0 && part < whole ? part / whole : 1;
    return (struct flue_counts){(uint64_t)((double)of->profiles * ratio),
                                (uint64_t)((double)of->samples * ratio),
                                (uint64_t)((double)of->bytes * ratio)};
}

/* A part's, by its samples. */
static struct flue_counts share_of(const struct part *part)
{
    struct flue_balance_item *item = part->item;
    enum flue_signal signal = item->payload->signal;
    if (!item->samples)
        item->samples = flue_balance_samples(&item->whole, signal);
    return share(&item->send->batch->counts, (double)flue_balance_samples(&part->raw, signal),
                 (double)item->samples);
}

static void reject(struct flue_balance_item *item, const struct flue_counts *more)
{
    const struct flue_counts *whole = &item->send->batch->counts;
    struct flue_counts *sum = &item->rejected;
    sum->profiles += more->profiles;
    sum->samples += more->samples;
    sum->bytes += more->bytes;
    if (sum->profiles > whole->profiles)
        sum->profiles = whole->profiles;
    if (sum->samples > whole->samples)
        sum->samples = whole->samples;
    if (sum->bytes > whole->bytes)
        sum->bytes = whole->bytes;
}

static void finish(struct flue_balance_item *item)
{
    struct flue_verdict verdict = {.kind = FLUE_SENT};
    bool taken = false, again = false, refused = false;
    for (const struct part *part = item->parts; part; part = part->next) {
        taken |= part->state == TAKEN;
        if (part->state == TO_SEND) {
            uint32_t after = verdict.error.retry_after_ms;
            verdict.error = part->error;
            if (verdict.error.retry_after_ms < after)
                verdict.error.retry_after_ms = after;
            again = true;
        } else if (part->state == REFUSED && !again) {
            verdict.error = part->error;
            refused = true;
        }
    }
    if (again && item->cancelled)
        flue_fail(&verdict.error, FLUE_CANCELLED, "cancelled");
    verdict.kind = again             ? FLUE_RETRY
                   : taken           ? FLUE_SENT
                   : refused         ? FLUE_DROP
                                     : FLUE_SENT;
    if (verdict.kind == FLUE_RETRY && !flue_code_facts(verdict.error.code)->retryable)
        verdict.kind = FLUE_DROP; /* cancelled, or no memory to go on */
    verdict.rejected = item->rejected;
    flue_send_done(item->send, &verdict);
}

/* ---- answers -------------------------------------------------------------------------------- */

static void partial(struct part *part, uint64_t profiles, const char *said)
{
    char printable[300];
    struct flue_balance_item *item = part->item;
    if (!profiles && !said[0])
        return;
    const struct flue_counts *whole = &item->send->batch->counts;
    struct flue_counts mine = share_of(part);
    struct flue_counts lost = share(whole, (double)profiles, (double)whole->profiles);
    if (lost.samples > mine.samples) {
        lost.samples = mine.samples; /* a part cannot lose more than it has */
        lost.bytes = mine.bytes;
    }
    if (profiles)
        reject(item, &lost);
    flue_log(FLUE_WARN, "exporter", "partial success", FLUE_S("exporter", item->place->balancer->id),
             FLUE_S("node", part->node->endpoint), FLUE_U("dropped_profiles", profiles),
             FLUE_S("message", flue_printable(flue_bytes_of(said), printable, sizeof printable)),
             FLUE_LOG_END);
}

static enum flue_code read_answer(struct part *part, struct flue_error *error)
{
    struct flue_bytes message;
    struct flue_arena arena;
    char said[256] = "";
    uint64_t rejected = 0;
    flue_arena_init(&arena, ANSWER_MOST, 0);
    enum flue_code code = flue_call_grpc_result(&part->call, &arena, &message, error);
    if (!code && flue_otlp_response_read(message, false, &rejected, said, sizeof said, error)) {
        flue_fail_prefix(error, "answer with status OK that is none");
        code = error->code = FLUE_INVALID;
    }
    if (!code)
        partial(part, rejected, said);
    else
        flue_fail_prefix(error, "\"%s\"", part->node->endpoint);
    flue_arena_destroy(&arena);
    return code;
}

/* For good: its share is lost, and the others go on. */
static void refuse(struct part *part)
{
    struct flue_balance_item *item = part->item;
    struct flue_counts lost = share_of(part);
    part->state = REFUSED;
    reject(item, &lost);
    flue_log(FLUE_WARN, "exporter", "a node refused its part",
             FLUE_S("exporter", item->place->balancer->id),
             FLUE_S("node", part->node ? part->node->endpoint : ""),
             FLUE_U("lost_samples", lost.samples), FLUE_S("error", part->error.text),
             FLUE_LOG_END);
}

/* Could not be sent, or must not be sent there again now. */
static void failed(struct part *part, const struct flue_error *error)
{
    part->error = *error;
    if (flue_code_facts(error->code)->retryable || error->code == FLUE_CANCELLED ||
        error->code == FLUE_NO_MEMORY)
        part->state = TO_SEND;
    else
        refuse(part);
}

static void closed(struct part *part)
{
    struct flue_balance_item *item = part->item;
    item->open--;
    if (item->open == 0 && !item->running)
        finish(item);
}

static void answered(struct flue_call *call)
{
    struct part *part = call->user;
    struct flue_balance_item *item = part->item;
    struct flue_error error = {0};
    uint64_t now = flue_monotonic_ns();
    flue_balance_client_done(item->place, part->client);
    part->client = NULL;
    if (!read_answer(part, &error)) {
        flue_balance_answers(part->node);
        part->state = TAKEN;
        flue_client_body_free(&part->body);
        closed(part);
        return;
    }
    failed(part, &error);
    bool unreached = !call->sent && call->error.code == FLUE_UNAVAILABLE;
    if (unreached)
        flue_balance_lost(part->node, now);
    else if (call->status)
        flue_balance_answers(part->node);
    if (unreached && !item->cancelled && part->moves < MOVES_MOST) {
        part->moves++;
        part->move_now = true;
        item->running = true;
        run(item);
        item->running = false;
    }
    closed(part);
}

/* ---- sending -------------------------------------------------------------------------------- */

static void call_out(struct part *part)
{
    struct flue_balance_item *item = part->item;
    struct flue_balancer *balancer = item->place->balancer;
    struct flue_error error;
    uint64_t deadline = item->send->deadline_ns;
    if (balancer->timeout > 0) {
        uint64_t own = flue_monotonic_ns() + (uint64_t)balancer->timeout;
        deadline = !deadline || own < deadline ? own : deadline;
    }
    part->client = flue_balance_client(item->place, part->node, &error);
    if (!part->client) {
        failed(part, &error);
        closed(part);
        return;
    }
    part->call = (struct flue_call){
        .client = part->client->client,
        .method = FLUE_BYTES("POST"),
        .path = flue_client_grpc_export(item->payload->signal),
        .headers = balancer->headers,
        .header_count = balancer->header_count,
        .body = &part->body.slices,
        .deadline_ns = deadline,
        .done = answered,
        .user = part,
    };
    flue_client_grpc_deadline(&part->call, &part->request);
    flue_call_send(&part->call);
}

static void body_ready(struct flue_client_body *body)
{
    struct part *part = body->user;
    struct flue_error error = body->error;
    part->encoding = false;
    part->encoded = !error.code;
    if (error.code)
        flue_fail_prefix(&error, "compression");
    else if (part->item->cancelled)
        flue_fail(&error, FLUE_CANCELLED, "cancelled");
    if (error.code) {
        failed(part, &error);
        closed(part);
    } else {
        call_out(part);
    }
}

static void begin(struct part *part)
{
    struct flue_balance_item *item = part->item;
    const struct flue_balancer *balancer = item->place->balancer;
    part->state = OPEN;
    part->move_now = false;
    item->open++;
    if (part->encoded) {
        call_out(part);
        return;
    }
    part->encoding = true;
    part->body.ready = body_ready;
    part->body.user = part;
    flue_client_body_make(&part->body, item->send->loop, &part->arena, &part->raw,
                          balancer->coding, balancer->level, true);
}

/* ---- placing -------------------------------------------------------------------------------- */

struct choice {
    const struct flue_balance_list *list;
    uint64_t now;
};

static unsigned pick(void *arg, uint64_t key)
{
    const struct choice *choice = arg;
    return flue_balance_choose(choice->list, key, choice->now);
}

static void set_node(struct part *part, struct flue_balance_node *node)
{
    atomic_fetch_add(&node->refs, 1);
    flue_balance_node_unref(part->node);
    part->node = node;
}

/* The bytes of a part in one piece, in its own arena. */
static bool flatten(struct part *part, struct flue_bytes *out)
{
    if (part->raw.count == 1) {
        *out = part->raw.items[0];
        return true;
    }
    uint8_t *room = flue_arena_alloc(&part->arena, part->raw.total + 1);
    if (!room)
        return false;
    flue_slices_copy(&part->raw, room);
    *out = flue_bytes(room, part->raw.total);
    return true;
}

/* Gives a part its node, or cuts it into new ones that have theirs. */
static enum flue_code place(struct part *part, struct choice *choice, struct flue_error *error)
{
    struct flue_balance_item *item = part->item;
    struct flue_balance_rule rule = item->place->balancer->rule;
    struct flue_balance_part *cut;
    size_t count;
    struct flue_bytes request;
    if (part->node && !atomic_load(&part->node->gone) &&
        (atomic_load(&part->node->lost_until_ns) <= choice->now ||
         !flue_balance_other(choice->list, part->node, choice->now)))
        return FLUE_OK;
    rule.signal = item->payload->signal;
    rule.tenant = item->send->batch->origin ? item->send->batch->origin->tenant
                                            : flue_bytes(NULL, 0);
    if (!flatten(part, &request))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to split a request");
    enum flue_code code = flue_balance_split(request, &rule, choice->list->count, pick, choice,
                                             &part->arena, &cut, &count, error);
    if (code)
        return code;
    if (count <= 1) { /* nothing to cut: also a request without resources */
        set_node(part, choice->list->items[count ? cut[0].node : 0]);
        return FLUE_OK;
    }
    for (size_t i = 0; i < count; i++) {
        struct part *made = new_part(item);
        if (!made)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory to split a request");
        made->raw = cut[i].body;
        made->moves = part->moves;
        made->move_now = part->move_now;
        set_node(made, choice->list->items[cut[i].node]);
    }
    part->state = CUT;
    return FLUE_OK;
}

/* A request to a node that is over the limit: the item is given back to be cut, which can be done
 * while nothing of it was sent. */
static bool too_large(struct flue_balance_item *item)
{
    uint64_t limit = item->place->balancer->max_request_size;
    const struct part *large = NULL;
    for (const struct part *part = item->parts; part; part = part->next) {
        if (part->state != TO_SEND && part->state != CUT)
            return false;
        if (part->state == TO_SEND && part->raw.total > limit)
            large = part;
    }
    if (!large)
        return false;
    struct flue_verdict verdict = {
        .kind = FLUE_SPLIT, .split_max = limit, .split_by_bytes = true};
    flue_fail(&verdict.error, FLUE_TOO_LARGE,
              "%zu bytes for \"%s\" are a request over max_request_size %llu", large->raw.total,
              large->node->endpoint, (unsigned long long)limit);
    if (item->send->batch->counts.samples <= 1)
        verdict.kind = FLUE_DROP;
    flue_send_done(item->send, &verdict);
    return true;
}

/* `all`: of those to be sent, else those that move. False: no memory; the reason is with the part.
 */
static bool place_parts(struct flue_balance_item *item, struct flue_balance_list *list, bool all)
{
    struct choice choice = {list, flue_monotonic_ns()};
    struct flue_error error;
    struct part *next;
    for (struct part *part = item->parts; part; part = next) {
        const struct flue_balance_node *before = part->node;
        next = part->next; /* new ones come before the first, and have their node */
        if (part->state != TO_SEND || !(all || part->move_now))
            continue;
        if (place(part, &choice, &error)) {
            part->error = error;
            return false;
        }
        part->move_now &= part->node != before; /* there is no other */
    }
    return true;
}

static void run(struct flue_balance_item *item)
{
    struct flue_error error = {0};
    struct flue_balance_list *list = flue_balance_now(&item->place->balancer->resolver, &error);
    if (!list)
        return; /* not reached: there was one */
    bool good = place_parts(item, list, false);
    flue_balance_list_unref(list);
    for (struct part *part = item->parts; good && part; part = part->next)
        if (part->state == TO_SEND && part->move_now)
            begin(part);
}

static void start(struct flue_balance_item *item, struct flue_balance_list *list)
{
    for (struct part *part = item->parts; part; part = part->next) {
        part->moves = 0;
        part->move_now = false;
    }
    bool good = place_parts(item, list, true);
    if (good && too_large(item))
        return; /* it may be gone */
    item->running = true;
    for (struct part *part = item->parts; good && part; part = part->next)
        if (part->state == TO_SEND)
            begin(part);
    item->running = false;
    if (item->open == 0)
        finish(item);
}

/* ---- the engine's side ---------------------------------------------------------------------- */

static void stop_waiting(struct flue_balance_item *item)
{
    struct flue_balance_item **at = &item->place->waiting;
    while (*at != item)
        at = &(*at)->next_waiting;
    *at = item->next_waiting;
    item->waiting = false;
}

static void cancel(struct flue_send *send)
{
    struct flue_balance_item *item = send->state;
    item->cancelled = true;
    if (item->waiting) {
        struct flue_error error;
        stop_waiting(item);
        flue_fail(&error, FLUE_CANCELLED, "cancelled");
        flue_send_fail(send, &error);
        return;
    }
    for (struct part *part = item->parts; part; part = part->next)
        if (part->state == OPEN && !part->encoding && part->client)
            flue_call_cancel(&part->call);
}

static void go(struct flue_balance_item *item)
{
    struct flue_error error = {0};
    struct flue_balance_list *list = flue_balance_now(&item->place->balancer->resolver, &error);
    if (list) {
        start(item, list);
        flue_balance_list_unref(list);
    } else if (error.code) {
        flue_send_fail(item->send, &error);
    } else {
        item->waiting = true;
        item->next_waiting = item->place->waiting;
        item->place->waiting = item;
    }
}

void flue_balance_wake(struct flue_balance_place *place)
{
    struct flue_balance_item *item = place->waiting;
    place->waiting = NULL;
    while (item) {
        struct flue_balance_item *next = item->next_waiting;
        item->waiting = false;
        go(item);
        item = next;
    }
}

void flue_balance_send(struct flue_balance_place *place, struct flue_send *send)
{
    struct flue_balance_item *item = send->state;
    struct flue_error error = {0};
    if (!item) {
        item = calloc(1, sizeof *item);
        if (!item) {
            flue_fail(&error, FLUE_NO_MEMORY, "no memory for a request");
            flue_send_fail(send, &error);
            return;
        }
        item->place = place;
        item->send = send;
        flue_arena_init(&item->arena, ARENA_MOST, 0);
        send->state = item;
        send->free_state = free_item;
    }
    item->cancelled = false;
    if (!item->parts && make_request(item, &error)) {
        flue_send_fail(send, &error);
        return;
    }
    send->cancel = cancel;
    go(item);
}
