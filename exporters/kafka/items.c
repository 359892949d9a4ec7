/* items.c: the items of one loop, from the first attempt to the last record's report.
 *
 * A batch is acknowledged when the brokers have acknowledged all of its records; what of it they
 * have taken is not sent again. The memory of records is not copied: it stays the item's until the
 * delivery report, and is charged to the pipeline's account.
 *
 * Order: of the items of one loop that share a key only one is with librdkafka at a time, in the
 * order in which they came: the library gives up each record by its own clock, so that one behind
 * could arrive when the one before it has failed. An item that failed and waits to be sent again
 * holds up those behind it that share a key, and no others. Keys are told apart by a filter of 256
 * lanes; records without a key have no order. A key so moves one batch per round trip and linger.
 */
#include "exporters/kafka/items.h"
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/pipeline/ledger.h"
#include "proto/convert/convert.h"

#define IN_LINE      (64u * 1024) /* larger batches are made into records on the pool */
#define RECORD_COST  1024         /* of librdkafka and headers, charged for each */
#define ARENA_MOST   (256u << 20) /* of an item's keys, headers and cuts */
#define FULL_WAIT_NS 20000000u

enum { RECORD_WAITS = -1, RECORD_SENT = 0 }; /* else an error of librdkafka, or under way */
#define RECORD_UNDER_WAY (-2)

static void pump(struct kafka_lane *lane);

static void insert(struct kafka_lane *lane, struct kafka_item *item)
{
    struct kafka_item **at = &lane->line;

    while (*at && (*at)->sequence < item->sequence)
        at = &(*at)->next_in_line;
    item->next_in_line = *at;
    *at = item;
    item->in_line = true;
}

static void leave_line(struct kafka_item *item)
{
    struct kafka_item **at = &item->at->line;

    if (!item->in_line)
        return;
    while (*at != item)
        at = &(*at)->next_in_line;
    *at = item->next_in_line;
    item->in_line = false;
}

static void be_troubled(struct kafka_item *item, bool troubled)
{
    struct kafka_item **at = &item->at->troubled;

    if (item->troubled == troubled)
        return;
    item->troubled = troubled;
    if (troubled) {
        item->next_troubled = *at;
        *at = item;
        return;
    }
    while (*at != item)
        at = &(*at)->next_troubled;
    *at = item->next_troubled;
}

static bool share(const uint64_t *a, const uint64_t *b)
{
    uint64_t both = 0;
    for (unsigned i = 0; i < KAFKA_LANE_WORDS; i++)
        both |= a[i] & b[i];
    return both != 0;
}

static void add_keys(uint64_t *to, const uint64_t *keys)
{
    for (unsigned i = 0; i < KAFKA_LANE_WORDS; i++)
        to[i] |= keys[i];
}

static void take_keys(uint64_t *from, const uint64_t *keys)
{
    for (unsigned i = 0; i < KAFKA_LANE_WORDS; i++)
        from[i] &= ~keys[i];
}

static void charge(struct kafka_item *item)
{
    size_t now = item->records.bytes + item->records.count * RECORD_COST;

    if (now <= item->charged)
        return;
    flue_account_charge_always(item->account, now - item->charged);
    item->charged = now;
}

static void one_back(struct kafka_item *item);

/* The library takes nothing back of one item alone: when nobody waits for anything, of all. */
static void give_up(struct kafka_item *item)
{
    struct kafka_exporter *kafka = item->at->kafka;

    item->gone = true;
    if (atomic_fetch_add(&kafka->given_up, 1) + 1 >= atomic_load(&kafka->under_way) &&
        item->producer)
        kafka_producer_purge(item->producer);
}

static void free_item(void *state)
{
    struct kafka_item *item = state;
    struct kafka_lane *lane = item->at;

    bool more = item->in_line && item->busy;
    leave_line(item);
    be_troubled(item, false);
    if (item->busy) { /* it went for another's sake, see help; freed when all is back */
        item->orphan = true;
        give_up(item);
        if (more) {
            item->next_record = NULL;
            one_back(item);
        }
        return;
    }
    for (struct kafka_record *record = item->records.first; record; record = record->next)
        kafka_record_release(record);
    flue_payload_unref(item->payload);
    flue_account_release(item->account, item->charged);
    flue_arena_destroy(&item->arena);
    free(item);
    if (lane->line && !atomic_load(&lane->kafka->stopping))
        flue_timer_arm(lane->loop, &lane->timer, flue_monotonic_ns()); /* who waited for it */
}

/* ---- the end of an attempt
 * ----------------------------------------------------------------------- */

static bool for_good(int status)
{
    switch (status) {
    case RD_KAFKA_RESP_ERR_INVALID_MSG:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT:
        return true;
    default:
        return false;
    }
}

static bool too_large(int status)
{
    return status == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ||
           status == RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE;
}

static void note(struct kafka_item *item, const struct kafka_record *record, enum flue_code code)
{
    char said[200];

    if (item->error.code)
        return;
    kafka_producers_said(&item->at->kafka->producers, said, sizeof said);
    flue_fail(
        &item->error, code, "kafka: %s (topic %s)%s%s",
        item->at->kafka->producers.kafka->rd_kafka_err2str((rd_kafka_resp_err_t)record->status),
        record->topic, said[0] ? "; " : "", said);
}

/* A record over the limit: the same data in smaller ones, in its place. False: as it was, it cannot
 * be cut. */
static bool cut(struct kafka_item *item, struct kafka_record **place, size_t limit)
{
    struct kafka_record *record = *place;
    struct kafka_records parts = {.count = 0};
    struct flue_error error = {0};

    if (kafka_records_cut(&item->at->kafka->rules, record, limit, item->account, &item->arena,
                          &parts, &error) ||
        !parts.first || parts.first->value.size >= record->value.size) {
        for (struct kafka_record *part = parts.first; part; part = part->next)
            kafka_record_release(part);
        return false;
    }
    for (struct kafka_record *part = parts.first; part; part = part->next) {
        part->item = item;
        part->status = RECORD_WAITS;
    }
    flue_counts_add(&item->records.rejected, &parts.rejected);
    if (!item->records.reason.code)
        item->records.reason = parts.reason;
    item->records.bytes += parts.bytes;
    item->records.count += parts.count;
    *parts.last = record->next;
    *place = parts.first;
    kafka_record_release(record);
    charge(item);
    return true;
}

/* A record that will never be taken leaves the item. */
static void reject(struct kafka_item *item, struct kafka_record **place, enum flue_code code)
{
    struct kafka_record *record = *place;
    struct flue_error *reason = &item->records.reason;

    if (!reason->code && code == FLUE_TOO_LARGE)
        flue_fail(reason, code,
                  "topic %s does not take a record of %zu bytes, and it cannot be cut",
                  record->topic, record->value.size);
    else if (!reason->code)
        flue_fail(
            reason, code, "kafka: %s (topic %s)",
            item->at->kafka->producers.kafka->rd_kafka_err2str((rd_kafka_resp_err_t)record->status),
            record->topic);
    flue_counts_add(&item->records.rejected, &record->counts);
    *place = record->next;
    kafka_record_release(record);
}

/* There is a smaller limit than that under which some records were refused. */
static void fit(struct kafka_item *item, size_t limit)
{
    for (struct kafka_record **at = &item->records.first; *at;) {
        struct kafka_record *record = *at;
        size_t size = record->value.size + record->key.size + record->header_bytes;
        bool over = size > limit || limit <= KAFKA_LIMIT_LEAST;
        bool alone = record->refused && record->refused <= size; /* in the batch refused */
        if (record->status == RECORD_WAITS && record->refused && over && !cut(item, at, limit) &&
            (alone || limit <= KAFKA_LIMIT_LEAST)) {
            reject(item, at, FLUE_TOO_LARGE);
            continue;
        }
        at = &(*at)->next;
    }
    item->next_record = item->records.first;
    item->awaits = 0;
}

static void conclude(struct kafka_item *item)
{
    struct flue_send *send = item->send;
    struct flue_verdict verdict = {.kind = FLUE_SENT};
    struct kafka_lane *lane = item->at;

    send->cancel = NULL;
    item->attempt = false;
    if (item->error.code && !item->cancelled) {
        be_troubled(item, flue_code_facts(item->error.code)->retryable);
        flue_send_fail(send, &item->error);
    } else if (item->cancelled && item->error.code) {
        flue_fail(&item->error, FLUE_CANCELLED, "cancelled");
        be_troubled(item, false);
        flue_send_fail(send, &item->error);
    } else {
        be_troubled(item, false);
        verdict.rejected = item->records.rejected;
        verdict.error = item->records.reason;
        if (item->records.reason.code && !item->records.first)
            verdict.kind = FLUE_DROP;
        flue_send_done(send, &verdict);
    }
    pump(lane);
}

/* Records went without an attempt of their own, for the sake of one behind: see help. */
static void helped(struct kafka_item *item)
{
    struct kafka_lane *lane = item->at;
    struct flue_error error = item->error;
    uint64_t keys[KAFKA_LANE_WORDS], sequence = item->sequence;
    struct kafka_item *behind;

    memcpy(keys, item->keys, sizeof keys);
    if (!error.code) { /* its own attempt will find nothing left to do */
        be_troubled(item, false);
        pump(lane);
        return;
    }
    for (behind = lane->line; behind;) { /* they would fare the same */
        if (behind->sequence > sequence && behind->attempt && behind->made && !behind->busy &&
            share(keys, behind->keys)) {
            behind->error = error;
            leave_line(behind);
            conclude(behind);
            behind = lane->line;
            continue;
        }
        behind = behind->next_in_line;
    }
    pump(lane);
}

/* All records of an attempt are back. */
static void returned(struct flue_task *task)
{
    struct kafka_item *item =
        (struct kafka_item *)((char *)task - offsetof(struct kafka_item, task));
    struct kafka_exporter *kafka = item->at->kafka;
    size_t limit = item->producer ? kafka_producer_limit(item->producer) : 0;

    kafka_producer_put(item->producer);
    item->producer = NULL;
    item->busy = false;
    take_keys(item->at->busy, item->keys);
    atomic_fetch_sub(&kafka->under_way, 1);
    if (item->gone) {
        atomic_fetch_sub(&kafka->given_up, 1);
        item->gone = false;
    }
    for (struct kafka_record **at = &item->records.first; *at;) {
        struct kafka_record *record = *at;
        if (for_good(record->status)) {
            reject(item, at, FLUE_REFUSED);
            continue;
        }
        if (too_large(record->status)) {
            flue_metric_add(kafka->cut, 1);
            record->refused = limit;
            item->awaits = limit;
            record->status = RECORD_WAITS;
        } else if (record->status == RECORD_WAITS) { /* cancelled before it was handed over */
            if (!item->error.code)
                flue_fail(&item->error, FLUE_CANCELLED, "cancelled");
        } else if (record->status != RECORD_SENT) {
            note(item, record, FLUE_UNAVAILABLE);
            record->status = RECORD_WAITS;
        }
        at = &record->next;
    }
    if (item->orphan) {
        free_item(item);
        return;
    }
    if (item->awaits && !item->error.code && !item->cancelled) {
        insert(item->at, item);
        pump(item->at);
        return;
    }
    if (item->awaits && !item->error.code)
        flue_fail(&item->error, FLUE_CANCELLED, "cancelled");
    if (item->attempt)
        conclude(item);
    else
        helped(item);
}

static void one_back(struct kafka_item *item)
{
    if (atomic_fetch_sub_explicit(&item->open, 1, memory_order_acq_rel) == 1) {
        item->task.run = returned;
        flue_loop_post(item->at->loop, &item->task);
    }
}

void kafka_record_delivered(struct kafka_record *record)
{
    struct kafka_item *item = record->item;
    struct kafka_exporter *kafka = item->at->kafka;

    if (record->status == RECORD_SENT) {
        flue_metric_add(kafka->records, 1);
        flue_metric_add(kafka->bytes, (int64_t)record->value.size);
    }
    one_back(item);
}

/* ---- handing over
 * -------------------------------------------------------------------------------- */

/* False: librdkafka's queue is full, go on later. */
static bool hand_over(struct kafka_item *item)
{
    struct kafka_exporter *kafka = item->at->kafka;

    if (!item->busy) { /* begins an attempt */
        item->busy = true;
        add_keys(item->at->busy, item->keys);
        item->producer = kafka_producer_get(&kafka->producers);
        item->error = (struct flue_error){0};
        atomic_store_explicit(&item->open, 1, memory_order_release);
        atomic_fetch_add(&kafka->under_way, 1);
    }
    for (; item->next_record; item->next_record = item->next_record->next) {
        struct kafka_record *record = item->next_record;
        if (record->status != RECORD_WAITS)
            continue;
        rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR__DESTROY;
        record->status = RECORD_UNDER_WAY;
        atomic_fetch_add_explicit(&item->open, 1, memory_order_acq_rel);
        if (item->producer)
            code = kafka_producer_send(item->producer, record);
        if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
            continue;
        atomic_fetch_sub_explicit(&item->open, 1, memory_order_acq_rel); /* ours keeps it up */
        record->status = code == RD_KAFKA_RESP_ERR__QUEUE_FULL ? RECORD_WAITS : (int)code;
        if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL)
            return false;
    }
    leave_line(item);
    one_back(item);
    return true;
}

/* The first of those that failed before and that the item must not overtake, or NULL. */
static struct kafka_item *held_up_by(const struct kafka_lane *lane, const struct kafka_item *item)
{
    struct kafka_item *first = NULL;

    for (struct kafka_item *before = lane->troubled; before; before = before->next_troubled)
        if (before != item && before->sequence < item->sequence &&
            share(before->keys, item->keys) && (!first || before->sequence < first->sequence))
            first = before;
    return first;
}

/* The engine may have chosen one to try the destination, and holds back the one that must go first:
 * its records go now, in front. */
static void help(struct kafka_lane *lane, struct kafka_item *first)
{
    if (first->attempt || first->in_line || first->busy || !first->made || first->made_code)
        return;
    first->cancelled = false;
    first->awaits = 0;
    first->next_record = first->records.first;
    insert(lane, first);
    lane->again = true;
}

/* Is there a limit that the item's records may pass? Then they are cut to it. */
static bool smaller(struct kafka_lane *lane, struct kafka_item *item)
{
    struct kafka_producers *producers = &lane->kafka->producers;
    size_t limit = atomic_load(&producers->limit);

    if (limit >= item->awaits && limit > KAFKA_LIMIT_LEAST) {
        kafka_producers_shrink(producers, limit);
        flue_timer_arm(lane->loop, &lane->timer, flue_monotonic_ns() + FULL_WAIT_NS);
        return false;
    }
    fit(item, limit);
    return true;
}

static void pump(struct kafka_lane *lane)
{
    uint64_t blocked[KAFKA_LANE_WORDS] = {0};
    struct kafka_item *item, *next;

    if (lane->pumping) {
        lane->again = true;
        return;
    }
    lane->pumping = true;
    do {
        lane->again = false;
        memcpy(blocked, lane->busy, sizeof blocked);
        for (item = lane->line; item; item = next) {
            next = item->next_in_line;
            if (!item->made) /* its keys are not known yet */
                break;
            if (!item->busy) {
                struct kafka_item *first = held_up_by(lane, item);
                if (first || share(blocked, item->keys)) {
                    if (first && item->attempt)
                        help(lane, first);
                    add_keys(blocked, item->keys);
                    continue;
                }
                if (item->made_code) {
                    leave_line(item);
                    conclude(item);
                    break; /* the line may be another now */
                }
                if (item->awaits && !smaller(lane, item)) {
                    add_keys(blocked, item->keys);
                    continue;
                }
            }
            add_keys(blocked, item->keys);
            if (!hand_over(item)) {
                flue_timer_arm(lane->loop, &lane->timer, flue_monotonic_ns() + FULL_WAIT_NS);
                break;
            }
        }
    } while (lane->again);
    lane->pumping = false;
}

static void on_timer(struct flue_timer *timer)
{
    pump((struct kafka_lane *)((char *)timer - offsetof(struct kafka_lane, timer)));
}

/* ---- making records
 * ------------------------------------------------------------------------------ */

static void make(struct kafka_item *item)
{
    struct kafka_record_rules rules = item->at->kafka->rules;
    size_t limit = atomic_load(&item->at->kafka->producers.limit);

    if (limit < rules.max_bytes)
        rules.max_bytes = limit;
    item->made_code = kafka_records_make(&rules, item->send->batch, item->payload, &item->arena,
                                         &item->records, &item->error);
}

static void made(struct kafka_item *item)
{
    struct kafka_exporter *kafka = item->at->kafka;

    item->made = true;
    item->making = false;
    flue_payload_unref(item->payload);
    item->payload = NULL;
    for (struct kafka_record *record = item->records.first; record; record = record->next) {
        record->item = item;
        record->status = RECORD_WAITS;
        if (record->key.data)
            item->keys[record->lane >> 6] |= (uint64_t)1 << (record->lane & 63);
    }
    item->next_record = item->records.first;
    flue_metric_add(kafka->left_out, (int64_t)item->records.left_out);
    charge(item);
    if (item->cancelled && !item->made_code)
        item->made_code = flue_fail(&item->error, FLUE_CANCELLED, "cancelled");
    pump(item->at);
}

static struct kafka_item *of_job(struct flue_job *job)
{
    return (struct kafka_item *)((char *)job - offsetof(struct kafka_item, job));
}

static void make_work(struct flue_job *job)
{
    make(of_job(job));
}

static void make_done(struct flue_job *job)
{
    made(of_job(job));
}

static void cancel(struct flue_send *send)
{
    struct kafka_item *item = send->state;

    if (item->cancelled)
        return;
    item->cancelled = true;
    if (item->making)
        return;
    if (item->in_line && !item->busy) { /* nothing of it is under way */
        flue_fail(&item->error, FLUE_CANCELLED, "cancelled");
        item->made_code = FLUE_CANCELLED;
        leave_line(item);
        conclude(item);
        return;
    }
    give_up(item);
    if (item->in_line) { /* the rest of it need not be handed over */
        leave_line(item);
        item->next_record = NULL;
        one_back(item);
    }
}

/* A new item's records: the form on this loop, the rest on the pool where it is long. */
static void begin(struct kafka_item *item)
{
    struct kafka_exporter *kafka = item->at->kafka;
    const struct flue_batch *batch = item->send->batch;
    enum flue_form form =
        kafka->rules.encoding == FLUE_KAFKA_PPROF ? FLUE_FORM_PPROF : FLUE_FORM_OTLP;

    item->sequence = ++item->at->sequence;
    insert(item->at, item);
    item->made_code =
        flue_convert(batch->payload, form, batch->account, &item->payload, &item->error);
    if (item->made_code) {
        item->payload = NULL;
        made(item);
    } else if (item->payload->ops->encoded_size(item->payload) <= IN_LINE) {
        make(item);
        made(item);
    } else {
        item->making = true;
        item->job = (struct flue_job){.work = make_work, .done = make_done};
        flue_pool_submit(item->at->loop, &item->job);
    }
}

void kafka_item_send(void *instance, struct flue_send *send)
{
    struct kafka_exporter *kafka = instance;
    struct kafka_lane *lane = &kafka->lanes[send->loop->index];
    struct kafka_item *item = send->state;
    struct flue_error error = {0};

    if (item && item->made && !item->made_code) { /* again */
        send->cancel = cancel;
        item->cancelled = false;
        item->attempt = true;
        if (item->in_line || item->busy) /* under way already */
            return;
        item->awaits = 0;
        item->next_record = item->records.first;
        insert(lane, item);
        pump(lane);
        return;
    }
    if (item) { /* its records could not be made */
        free_item(item);
        send->state = NULL;
    }
    item = calloc(1, sizeof *item);
    if (!item) {
        flue_fail(&error, FLUE_NO_MEMORY, "no memory to send a batch");
        flue_send_fail(send, &error);
        return;
    }
    item->send = send;
    item->attempt = true;
    item->at = lane;
    item->account = send->batch->account;
    flue_arena_init(&item->arena, ARENA_MOST, 0);
    send->state = item;
    send->free_state = free_item;
    send->cancel = cancel;
    begin(item);
}

void kafka_lane_init(struct kafka_lane *lane, struct kafka_exporter *kafka, struct flue_loop *loop)
{
    *lane = (struct kafka_lane){.kafka = kafka, .loop = loop, .timer = {.fire = on_timer}};
}

static bool making(const struct kafka_exporter *kafka)
{
    for (unsigned i = 0; i < kafka->loops->count; i++)
        for (struct kafka_item *item = kafka->lanes[i].line; item; item = item->next_in_line)
            if (item->making)
                return true;
    return false;
}

void kafka_items_settle(struct kafka_exporter *kafka)
{
    while (making(kafka)) {
        uv_sleep(1);
        flue_loops_settle(kafka->loops);
    }
}
