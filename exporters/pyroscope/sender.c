/* sender.c: see sender.h. */
#include "exporters/pyroscope/sender.h"
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/net/client_keys.h"
#include "collector/storage/storage.h"
#include "exporters/pyroscope/answer.h"

#define PUSH_PATH       "/push.v1.PusherService/Push"
#define POOL_FROM_BYTES (64u << 10)

struct flue_push {
    struct flue_push_sender *sender;
    struct flue_parcel *parcel;
    struct flue_parcel_part *part;
    struct flue_push *next, *previous; /* of the parcel's; next: of the spare ones */
    struct flue_flow_ticket ticket;
    int replica;
    bool begun; /* has its place */
    struct flue_job job;
    struct flue_error error; /* of the job */
    struct flue_block *made; /* what stands before and behind the profile */
    struct flue_block *auth; /* value of the header */
    struct flue_bytes pieces[3];
    struct flue_slices body;
    struct flue_header headers[FLUE_CLIENT_CONFIG_HEADERS + FLUE_CLIENT_OWN_HEADERS];
    struct flue_call call;
};

static void pump(struct flue_push_sender *sender);
static void begin(struct flue_push *push);

/* ---- life of a push ------------------------------------------------------------------------- */

static struct flue_push *push_new(struct flue_push_sender *sender, struct flue_parcel_part *part)
{
    struct flue_parcel *parcel = part->parcel;
    struct flue_push *push = sender->spare, *first = parcel->pushes;

    if (push)
        sender->spare = push->next;
    else
        push = malloc(sizeof *push);
    if (!push)
        return NULL;
    push->sender = sender;
    push->parcel = parcel;
    push->part = part;
    push->ticket = (struct flue_flow_ticket){0};
    push->begun = false;
    push->error.code = FLUE_OK;
    push->error.retry_after_ms = 0;
    push->made = push->auth = NULL;
    push->body = (struct flue_slices){.items = push->pieces};
    push->call.client = NULL;
    push->next = first;
    push->previous = NULL;
    if (first)
        first->previous = push;
    parcel->pushes = push;
    return push;
}

static void push_free(struct flue_push *push)
{
    if (push->previous)
        push->previous->next = push->next;
    else
        push->parcel->pushes = push->next;
    if (push->next)
        push->next->previous = push->previous;
    flue_block_unref(push->made);
    flue_block_unref(push->auth);
    push->next = push->sender->spare;
    push->sender->spare = push;
}

/* ---- the list of items with open parts ------------------------------------------------------ */

static void list(struct flue_push_sender *sender, struct flue_parcel *parcel)
{
    if (parcel->listed)
        return;
    parcel->listed = true;
    parcel->next = NULL;
    if (sender->last)
        sender->last->next = parcel;
    else
        sender->first = parcel;
    sender->last = parcel;
}

static void unlist(struct flue_push_sender *sender, struct flue_parcel *parcel)
{
    struct flue_parcel *before = NULL;

    if (!parcel->listed)
        return;
    for (struct flue_parcel *at = sender->first; at != parcel; at = at->next)
        before = at;
    if (before)
        before->next = parcel->next;
    else
        sender->first = parcel->next;
    if (sender->last == parcel)
        sender->last = before;
    parcel->next = NULL;
    parcel->listed = false;
}

/* ---- ends ----------------------------------------------------------------------------------- */

/* All parts of the attempt have an answer. */
static void finish_attempt(struct flue_parcel *parcel)
{
    struct flue_push_sender *sender = parcel->sender;
    struct flue_verdict verdict = {.kind = FLUE_SENT, .rejected = parcel->rejected};
    size_t again = !parcel->made, sent = 0;

    for (size_t i = 0; i < parcel->count; i++) {
        again += parcel->parts[i]->status == FLUE_PART_AGAIN ||
                 parcel->parts[i]->status == FLUE_PART_OPEN;
        sent += parcel->parts[i]->status == FLUE_PART_SENT;
    }
    verdict.error = parcel->failure;
    if (again && !parcel->failure.code)
        flue_fail(&verdict.error, FLUE_CANCELLED, "given up before it was sent");
    if (again)
        verdict.kind = FLUE_RETRY;
    else if (!sent && parcel->count)
        verdict.kind = FLUE_DROP;
    if (!again && parcel->noted && sender->target->storage)
        flue_storage_note_drop(sender->target->storage, parcel->record);
    flue_send_done(parcel->send, &verdict);
}

static void part_refused(struct flue_parcel_part *part, const struct flue_error *error)
{
    const struct flue_push_sender *sender = part->parcel->sender;

    flue_parcel_refuse(part, error);
    flue_log(FLUE_WARN, sender->target->id, "a profile was refused and is dropped",
             FLUE_S("reason", error->text), FLUE_U("samples", part->counts.samples), FLUE_LOG_END);
}

static void fail_attempt(struct flue_parcel *parcel, const struct flue_error *error)
{
    uint32_t later = parcel->failure.retry_after_ms; /* the longest that any part was told */

    if (!parcel->failure.code || !flue_code_facts(parcel->failure.code)->retryable)
        parcel->failure = *error;
    parcel->failure.retry_after_ms = later > error->retry_after_ms ? later : error->retry_after_ms;
}

/* A replica that cannot take it: another one may, in the same attempt, once each. */
static bool fail_over(struct flue_push *push, const struct flue_error *error)
{
    const struct flue_push_target *target = push->sender->target;
    struct flue_parcel *parcel = push->parcel;

    if (target->endpoint_count < 2 || push->replica < 0 || parcel->cancelled ||
        (error->code != FLUE_UNAVAILABLE && error->code != FLUE_TIMEOUT))
        return false;
    parcel->tried |= 1u << push->replica;
    if (parcel->replica == push->replica)
        parcel->replica = -1;
    for (size_t i = 0; i < target->endpoint_count; i++)
        if (!(parcel->tried & 1u << i) &&
            flue_flow_circuit(target->flows[i]) != FLUE_CIRCUIT_OPEN) {
            flue_metric_add(target->failovers, 1);
            return true;
        }
    return false;
}

static void end_push(struct flue_push *push, const struct flue_error *error)
{
    struct flue_push_sender *sender = push->sender;
    struct flue_parcel *parcel = push->parcel;
    struct flue_parcel_part *part = push->part;
    bool again = error->code && flue_code_facts(error->code)->retryable;
    bool open = again && fail_over(push, error);

    if (push->begun)
        flue_flow_give(sender->target->flows[push->replica], &push->ticket,
                       error->code ? flue_flow_answer_of(error) : FLUE_FLOW_WORKS,
                       error->retry_after_ms);
    else if (sender->waiting == push)
        sender->waiting = NULL;
    if (error->code == FLUE_OK)
        sender->healthy = true;
    else if (again)
        sender->healthy = false;
    if (again && !open)
        fail_attempt(parcel, error);
    if (error->code == FLUE_OK)
        part->status = FLUE_PART_SENT;
    else if (again)
        part->status = open ? FLUE_PART_OPEN : FLUE_PART_AGAIN;
    else
        part_refused(part, error);
    parcel->running--;
    push_free(push);
    if (!again)
        flue_part_done(part);
    if (open) {
        parcel->next_part = 0;
        list(sender, parcel);
    }
    if (parcel->running == 0 && !parcel->listed)
        finish_attempt(parcel);
    pump(sender);
}

static void on_answer(struct flue_call *call)
{
    struct flue_push *push = call->user;
    struct flue_push_sender *sender = push->sender;
    struct flue_error error = call->error;

    if (error.code == FLUE_OK && call->status != 200)
        flue_push_answer(call, &error);
    else if (error.code == FLUE_INVALID)
        error.code =
            FLUE_UNAVAILABLE; /* no answer that could be understood: the same may come again */
    if (error.code == FLUE_RATE_LIMITED && push->part->bucket)
        flue_pace_refused(sender->target->pace, push->part->bucket, flue_bytes_of(error.text),
                          flue_monotonic_ns());
    if (error.code == FLUE_UNAUTHENTICATED && flue_push_auth_refused(&sender->auth))
        error.code = FLUE_UNAVAILABLE; /* with what the file holds by then */
    end_push(push, &error);
}

/* ---- requests ------------------------------------------------------------------------------- */

static void add_piece(struct flue_push *push, const uint8_t *from, const uint8_t *to)
{
    if (from == to)
        return;
    push->pieces[push->body.count++] = flue_bytes(from, (size_t)(to - from));
    push->body.total += (size_t)(to - from);
}

/* Head, profile where it lies, tail. */
static bool write_body(struct flue_push *push)
{
    const struct flue_parcel_part *part = push->part;
    struct flue_push_series series = {part->labels->encoded, part->profile, part->id};
    uint8_t *at, *middle;

    push->made = flue_block_new(NULL, series.labels.size + series.id.size + FLUE_PUSH_HEAD_ROOM);
    if (!push->made)
        return false;
    at = flue_push_head_write(push->made->data, &series);
    middle = at;
    add_piece(push, push->made->data, middle);
    add_piece(push, series.profile.data, series.profile.data + series.profile.size);
    at = flue_push_tail_write(at, &series);
    add_piece(push, middle, at);
    return true;
}

static void add_header(struct flue_push *push, struct flue_bytes name, struct flue_bytes value)
{
    push->headers[push->call.header_count++] = (struct flue_header){name, value};
}

static void add_headers(struct flue_push *push)
{
    const struct flue_push_target *target = push->sender->target;
    struct flue_bytes tenant = push->part->labels->tenant;

    memcpy(push->headers, target->headers, target->header_count * sizeof *push->headers);
    push->call.header_count = target->header_count;
    if (tenant.size && target->tenant_header < target->header_count)
        push->headers[target->tenant_header].value = tenant;
    else if (tenant.size)
        add_header(push, FLUE_BYTES("x-scope-orgid"), tenant);
    push->auth = flue_push_auth_take(&push->sender->auth);
    if (push->auth)
        add_header(push, FLUE_BYTES("authorization"), flue_block_bytes(push->auth));
}

static void fail_push(struct flue_push *push, enum flue_code code, const char *text)
{
    struct flue_error error = {0};

    flue_fail(&error, code, "%s", text);
    end_push(push, &error);
}

static void transmit(struct flue_push *push)
{
    struct flue_push_sender *sender = push->sender;
    uint64_t timeout = push->parcel->timeout_ns;

    if (push->parcel->cancelled) {
        fail_push(push, FLUE_CANCELLED, "given up");
        return;
    }
    if (!write_body(push)) {
        fail_push(push, FLUE_NO_MEMORY, "no memory for a push request");
        return;
    }
    push->call = (struct flue_call){
        .client = sender->clients[push->replica],
        .method = FLUE_BYTES("POST"),
        .path = FLUE_BYTES(PUSH_PATH),
        .headers = push->headers,
        .body = &push->body,
        .deadline_ns = timeout ? flue_monotonic_ns() + timeout : 0,
        .done = on_answer,
        .user = push,
    };
    add_headers(push);
    flue_metric_add(sender->target->pushes, 1);
    flue_call_send(&push->call);
}

/* ---- compression ---------------------------------------------------------------------------- */

static void compress(struct flue_push *push)
{
    struct flue_bytes *whole = &push->part->profile;
    struct flue_slices one = {.items = whole, .count = 1, .room = 1, .total = whole->size};
    struct flue_block *packed = NULL;

    if (!flue_deflate(FLUE_GZIP, push->sender->target->level, &one, &packed, &push->error))
        flue_part_set(push->part, packed, true);
}

static struct flue_push *of_job(struct flue_job *job)
{
    return (struct flue_push *)(void *)((char *)job - offsetof(struct flue_push, job));
}

static void compress_work(struct flue_job *job)
{
    compress(of_job(job));
}

static void compressed(struct flue_push *push)
{
    if (push->error.code) {
        struct flue_error error = push->error;
        end_push(push, &error);
    } else {
        transmit(push);
    }
}

static void compress_done(struct flue_job *job)
{
    compressed(of_job(job));
}

/* It has its place. */
static void begin(struct flue_push *push)
{
    push->begun = true;
    if (push->part->gzip || push->sender->target->config->compression == FLUE_PUSH_PLAIN) {
        transmit(push);
    } else if (push->part->profile.size > POOL_FROM_BYTES) {
        push->job = (struct flue_job){
            .loop = push->sender->loop, .work = compress_work, .done = compress_done};
        flue_pool_submit(push->sender->loop, &push->job);
    } else {
        compress(push);
        compressed(push);
    }
}

static void on_place(struct flue_flow_ticket *ticket)
{
    struct flue_push *push =
        (struct flue_push *)(void *)((char *)ticket - offsetof(struct flue_push, ticket));
    struct flue_push_sender *sender = push->sender;

    sender->waiting = NULL;
    begin(push);
    pump(sender);
}

/* ---- which parts, where --------------------------------------------------------------------- */

static uint64_t cost_of(const struct flue_parcel_part *part)
{
    uint64_t size = part->facts.inflated_size ? part->facts.inflated_size : part->profile.size;

    if (part->unseen && part->gzip && part->profile.size >= 18) { /* as gzip says it */
        const uint8_t *end = part->profile.data + part->profile.size;
        size = (uint64_t)end[-4] | (uint64_t)end[-3] << 8 | (uint64_t)end[-2] << 16 |
               (uint64_t)end[-1] << 24;
    }
    return size + part->labels->encoded.size;
}

/* The first open part from next_part on, where next_part then is; NULL: none is left. */
static struct flue_parcel_part *next_open(struct flue_parcel *parcel)
{
    for (; parcel->next_part < parcel->count; parcel->next_part++)
        if (parcel->parts[parcel->next_part]->status == FLUE_PART_OPEN)
            return parcel->parts[parcel->next_part];
    return NULL;
}

/* The replica of the item, or the next that works; where none does, the one that is asked first. */
static int choose(struct flue_push_sender *sender, struct flue_parcel *parcel)
{
    const struct flue_push_target *target = sender->target;
    size_t count = target->endpoint_count, soonest = 0;

    if (count == 1)
        return 0;
    if (parcel->replica >= 0 &&
        flue_flow_circuit(target->flows[parcel->replica]) != FLUE_CIRCUIT_OPEN)
        return parcel->replica;
    for (int half_open = 0; half_open < 2; half_open++)
        for (size_t i = 0; i < count; i++) {
            size_t at = (sender->turn + i) % count;
            enum flue_circuit_state state = flue_flow_circuit(target->flows[at]);
            if (parcel->tried & 1u << at || state == FLUE_CIRCUIT_OPEN ||
                (state == FLUE_CIRCUIT_HALF_OPEN && !half_open))
                continue;
            sender->turn = (unsigned)(at + 1);
            return parcel->replica = (int)at;
        }
    for (size_t i = 1; i < count; i++)
        if (flue_flow_open_until(target->flows[i]) < flue_flow_open_until(target->flows[soonest]))
            soonest = i;
    return parcel->replica = (int)soonest;
}

static void all_begun(struct flue_push_sender *sender, struct flue_parcel *parcel)
{
    unlist(sender, parcel);
    /* All of it is under way: the engine may go on to the next item, as long as the server
     * takes them. One that does not is asked by num_consumers items at a time. */
    if (sender->healthy)
        flue_send_free_place(parcel->send);
}

/* What was held and still must be waits for another attempt. */
static void look_at_held(struct flue_parcel *parcel, const struct flue_window_config *window)
{
    for (size_t i = 0; i < parcel->count; i++) {
        struct flue_parcel_part *part = parcel->parts[i];
        uint32_t ms;
        struct flue_error error = {0};
        if (!part->held || part->status != FLUE_PART_OPEN)
            continue;
        ms = flue_part_held_ms(part, window);
        part->held = ms != 0;
        if (!ms)
            continue;
        flue_fail(&error, FLUE_RATE_LIMITED,
                  "held: its time is outside the window that the server takes");
        error.retry_after_ms = ms;
        part->status = FLUE_PART_AGAIN;
        fail_attempt(parcel, &error);
    }
}

/* Opens what this attempt is to send; false where that is nothing. */
static bool open_parts(struct flue_parcel *parcel, const struct flue_push_target *target)
{
    bool open = false;

    for (size_t i = 0; i < parcel->count; i++)
        if (parcel->parts[i]->status == FLUE_PART_AGAIN)
            parcel->parts[i]->status = FLUE_PART_OPEN;
    look_at_held(parcel, &target->config->window);
    for (size_t i = 0; i < parcel->count; i++)
        open = open || parcel->parts[i]->status == FLUE_PART_OPEN;
    return open;
}

/* False: the item is not listed any more. */
static bool make(struct flue_push_sender *sender, struct flue_parcel *parcel)
{
    const struct flue_push_target *target = sender->target;
    struct flue_send *send = parcel->send;
    struct flue_error error = {0};

    if (target->make(sender, parcel, &error)) {
        unlist(sender, parcel);
        send->state = NULL;
        flue_parcel_free(parcel);
        flue_send_fail(send, &error);
        return false;
    }
    if (parcel->note_pending && target->storage) {
        unlist(sender, parcel);
        target->note(sender, parcel);
        return false;
    }
    if (open_parts(parcel, target))
        return true;
    unlist(sender, parcel);
    finish_attempt(parcel);
    return false;
}

/* Begins what the tenant's rate lets go. False: nothing more at present, of any item. */
static bool pump_parcel(struct flue_push_sender *sender, struct flue_parcel *parcel,
                        uint64_t *wait_ns)
{
    const struct flue_push_target *target = sender->target;
    struct flue_parcel_part *part;

    if (!parcel->made && !make(sender, parcel))
        return true;
    while ((part = next_open(parcel)) != NULL) {
        uint64_t wait = part->bucket ? flue_pace_take(target->pace, part->bucket, cost_of(part),
                                                      flue_monotonic_ns())
                                     : 0;
        struct flue_push *push;
        bool more;
        if (wait) {
            flue_metric_add(target->paced, 1);
            *wait_ns = wait < *wait_ns ? wait : *wait_ns;
            return true;
        }
        push = push_new(sender, part);
        if (!push) {
            *wait_ns = 100000000;
            return false;
        }
        push->replica = choose(sender, parcel);
        part->status = FLUE_PART_SENDING;
        parcel->next_part++;
        parcel->running++;
        if (!next_open(parcel))
            all_begun(sender, parcel);
        push->ticket.ready = on_place;
        if (!flue_flow_take(target->flows[push->replica], sender->loop, &push->ticket)) {
            sender->waiting = push;
            return false;
        }
        more = parcel->listed;
        begin(push); /* may end the item, unless parts of it are left */
        if (!more)
            return true;
    }
    return true;
}

/* The list changes while items are begun: it is looked through from its head. */
static struct flue_parcel *not_pumped(const struct flue_push_sender *sender)
{
    struct flue_parcel *parcel = sender->first;

    while (parcel && parcel->round == sender->round)
        parcel = parcel->next;
    return parcel;
}

static void pump(struct flue_push_sender *sender)
{
    uint64_t wait_ns = UINT64_MAX;
    struct flue_parcel *parcel;

    if (sender->pumping)
        return;
    sender->pumping = true;
    sender->round++;
    while (!sender->waiting && (parcel = not_pumped(sender)) != NULL) {
        parcel->round = sender->round;
        if (!pump_parcel(sender, parcel, &wait_ns))
            break;
    }
    sender->pumping = false;
    if (wait_ns != UINT64_MAX)
        flue_timer_arm(sender->loop, &sender->timer, flue_monotonic_ns() + wait_ns);
}

static void on_timer(struct flue_timer *timer)
{
    pump((struct flue_push_sender *)(void *)((char *)timer -
                                             offsetof(struct flue_push_sender, timer)));
}

/* ---- attempts ------------------------------------------------------------------------------- */

void flue_push_attempt(struct flue_push_sender *sender, struct flue_parcel *parcel)
{
    parcel->sender = sender;
    parcel->next_part = 0;
    parcel->tried = 0;
    parcel->failure.code = FLUE_OK;
    parcel->failure.retry_after_ms = 0;
    parcel->send->cancel = flue_push_cancel;
    if (parcel->made && parcel->note_pending && sender->target->storage) {
        sender->target->note(sender, parcel);
    } else if (parcel->made && !open_parts(parcel, sender->target)) {
        finish_attempt(parcel);
    } else {
        list(sender, parcel);
        pump(sender);
    }
}

void flue_push_cancel(struct flue_send *send)
{
    struct flue_parcel *parcel = send->state;
    struct flue_push_sender *sender;

    if (!parcel || parcel->cancelled)
        return;
    sender = parcel->sender;
    parcel->cancelled = true;
    if (parcel->note_pending)
        return; /* ends when the note is written */
    unlist(sender, parcel);
    for (struct flue_push *push = parcel->pushes; push; push = push->next)
        if (push->call.client)
            flue_call_cancel(&push->call);
    if (parcel->running == 0) {
        finish_attempt(parcel);
    } else if (sender->waiting && sender->waiting->parcel == parcel) {
        struct flue_push *push = sender->waiting;
        flue_flow_forget(sender->target->flows[push->replica], &push->ticket);
        fail_push(push, FLUE_CANCELLED, "given up");
    }
}

void flue_push_sender_init(struct flue_push_sender *sender, const struct flue_push_target *target,
                           struct flue_loop *loop)
{
    sender->target = target;
    sender->loop = loop;
    sender->timer.fire = on_timer;
}

void flue_push_sender_destroy(struct flue_push_sender *sender)
{
    flue_push_auth_destroy(&sender->auth);
    flue_label_cache_clear(&sender->cache);
    while (sender->spare) {
        struct flue_push *push = sender->spare;
        sender->spare = push->next;
        free(push);
    }
}
