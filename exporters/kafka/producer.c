/* producer.c: see producer.h. */
#include "exporters/kafka/producer.h"

#include <stdio.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/kafka/wakeup.h"

#define EVENTS_A_TURN 64

struct kafka_producer {
    _Atomic unsigned refs;
    struct kafka_producers *producers;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    struct flue_kafka_wakeup wakeup;
    struct flue_task end;
    struct flue_job destroy;
    size_t limit;
    _Atomic bool fatal; /* its successor is being made */
    struct flue_task replace;
};

/* ---- events, on the home loop -----------------------------------------------------------------
 */

static void say(struct kafka_producers *producers, rd_kafka_resp_err_t code, const char *text)
{
    char printable[160];

    flue_printable(flue_bytes_of(text), printable, sizeof printable);
    flue_metric_add(producers->errors, 1);
    uv_mutex_lock(&producers->lock);
    snprintf(producers->said, sizeof producers->said, "%s%s", printable,
             code == RD_KAFKA_RESP_ERR__AUTHENTICATION ? producers->login_hint : "");
    producers->said_ns = flue_monotonic_ns();
    uv_mutex_unlock(&producers->lock);
    flue_log(
        FLUE_WARN, "exporter", "kafka", FLUE_S("exporter", producers->id),
        FLUE_S("error", printable),
        FLUE_S("hint", code == RD_KAFKA_RESP_ERR__AUTHENTICATION ? producers->login_hint : ""));
}

void kafka_producers_said(struct kafka_producers *producers, char *out, size_t size)
{
    uv_mutex_lock(&producers->lock);
    bool recent = producers->said_ns && flue_monotonic_ns() - producers->said_ns < 60000000000u;
    snprintf(out, size, "%s", recent ? producers->said : "");
    uv_mutex_unlock(&producers->lock);
}

static void meet_fatal(struct kafka_producer *producer)
{
    if (!atomic_exchange(&producer->fatal, true))
        flue_loop_post(producer->producers->home, &producer->replace);
}

static void on_event(struct kafka_producer *producer, rd_kafka_event_t *event)
{
    struct kafka_producers *producers = producer->producers;
    const struct flue_kafka *kafka = producers->kafka;
    const rd_kafka_message_t *message;

    switch (kafka->rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_DR:
        while ((message = kafka->rd_kafka_event_message_next(event))) {
            struct kafka_record *record = message->_private;
            if (message->err == RD_KAFKA_RESP_ERR__FATAL)
                meet_fatal(producer);
            record->status = message->err;
            producers->done(record);
        }
        break;
    case RD_KAFKA_EVENT_ERROR: {
        char why[200] = "";
        say(producers, kafka->rd_kafka_event_error(event),
            kafka->rd_kafka_event_error_string(event));
        if (kafka->rd_kafka_fatal_error(producer->rk, why, sizeof why))
            meet_fatal(producer);
        break;
    }
    default:
        break;
    }
}

static void woken(struct flue_kafka_wakeup *wakeup)
{
    struct kafka_producer *producer =
        (struct kafka_producer *)((char *)wakeup - offsetof(struct kafka_producer, wakeup));
    const struct flue_kafka *kafka = producer->producers->kafka;
    rd_kafka_event_t *event;

    for (unsigned i = 0; i < EVENTS_A_TURN; i++) {
        event = kafka->rd_kafka_queue_poll(producer->queue, 0);
        if (!event)
            return;
        on_event(producer, event);
        kafka->rd_kafka_event_destroy(event);
    }
    flue_kafka_wakeup_again(wakeup);
}

/* ---- life -------------------------------------------------------------------------------------
 */

static void destroy_handle(struct kafka_producer *producer)
{
    const struct flue_kafka *kafka = producer->producers->kafka;

    if (producer->queue)
        kafka->rd_kafka_queue_destroy(producer->queue);
    if (producer->rk)
        kafka->rd_kafka_destroy(producer->rk); /* waits for its threads */
    producer->queue = NULL;
    producer->rk = NULL;
    flue_kafka_wakeup_close_fd(&producer->wakeup);
}

static void destroy_work(struct flue_job *job)
{
    destroy_handle(
        (struct kafka_producer *)((char *)job - offsetof(struct kafka_producer, destroy)));
}

static void destroyed(struct flue_job *job)
{
    struct kafka_producer *producer =
        (struct kafka_producer *)((char *)job - offsetof(struct kafka_producer, destroy));
    struct kafka_producers *producers = producer->producers;

    free(producer);
    atomic_fetch_sub(&producers->living, 1);
}

static void closed(struct flue_kafka_wakeup *wakeup)
{
    struct kafka_producer *producer =
        (struct kafka_producer *)((char *)wakeup - offsetof(struct kafka_producer, wakeup));

    producer->destroy = (struct flue_job){.work = destroy_work, .done = destroyed};
    flue_pool_submit(producer->producers->home, &producer->destroy);
}

static void end(struct flue_task *task)
{
    struct kafka_producer *producer =
        (struct kafka_producer *)((char *)task - offsetof(struct kafka_producer, end));
    flue_kafka_wakeup_stop(&producer->wakeup, closed);
}

void kafka_producer_put(struct kafka_producer *producer)
{
    if (producer && atomic_fetch_sub(&producer->refs, 1) == 1)
        flue_loop_post(producer->producers->home, &producer->end);
}

struct kafka_producer *kafka_producer_get(struct kafka_producers *producers)
{
    uv_mutex_lock(&producers->lock);
    struct kafka_producer *producer = producers->current;
    if (producer)
        atomic_fetch_add(&producer->refs, 1);
    uv_mutex_unlock(&producers->lock);
    return producer;
}

static void replace(struct flue_task *task);

static enum flue_code make(struct kafka_producers *producers, struct kafka_producer **out,
                           struct flue_error *error)
{
    const struct flue_kafka *kafka = producers->kafka;
    struct kafka_producer *producer = calloc(1, sizeof *producer);
    char why[300] = "";

    if (!producer)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a producer");
    atomic_init(&producer->refs, 1);
    producer->producers = producers;
    producer->end.run = end;
    producer->replace.run = replace;
    if (flue_kafka_wakeup_init(&producer->wakeup, woken, error)) {
        free(producer);
        return error->code;
    }
    rd_kafka_conf_t *conf = kafka->rd_kafka_conf_dup(producers->conf);
    producer->limit = atomic_load(&producers->limit);
    if (flue_kafka_set_int(kafka, conf, "batch.size", (int64_t)producer->limit,
                           "producer.max_message_bytes", error)) {
        kafka->rd_kafka_conf_destroy(conf);
        destroy_handle(producer);
        free(producer);
        return error->code;
    }
    producer->rk = kafka->rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (!producer->rk) {
        kafka->rd_kafka_conf_destroy(conf);
        destroy_handle(producer);
        free(producer);
        return flue_fail(error, FLUE_INVALID, "librdkafka: %s", why);
    }
    producer->queue = kafka->rd_kafka_queue_get_main(producer->rk);
    kafka->rd_kafka_queue_io_event_enable(producer->queue, producer->wakeup.fd,
                                          &FLUE_KAFKA_WAKEUP_ONE, sizeof FLUE_KAFKA_WAKEUP_ONE);
    *out = producer;
    return FLUE_OK;
}

struct starting {
    struct kafka_producer *producer;
    struct flue_error *error;
    enum flue_code code;
};

static void poll_it(struct flue_loop *loop, void *arg)
{
    struct starting *starting = arg;
    starting->code = flue_kafka_wakeup_start(&starting->producer->wakeup, loop, starting->error);
}

/* On the home loop, or in start, which stands in for it. */
static enum flue_code begin(struct kafka_producers *producers, struct flue_error *error)
{
    struct starting starting = {.error = error};
    enum flue_code code = make(producers, &starting.producer, error);

    if (code)
        return code;
    flue_loop_call(producers->home, poll_it, &starting);
    if (starting.code) {
        destroy_handle(starting.producer);
        free(starting.producer);
        return starting.code;
    }
    atomic_fetch_add(&producers->living, 1);
    uv_mutex_lock(&producers->lock);
    struct kafka_producer *before = producers->current;
    producers->current = starting.producer;
    uv_mutex_unlock(&producers->lock);
    kafka_producer_put(before);
    return FLUE_OK;
}

static void replace(struct flue_task *task)
{
    struct kafka_producer *producer =
        (struct kafka_producer *)((char *)task - offsetof(struct kafka_producer, replace));
    struct kafka_producers *producers = producer->producers;
    struct flue_error error = {0};

    if (producers->current != producer) /* changed on this loop only */
        return;
    if (begin(producers, &error) == FLUE_OK)
        flue_log(FLUE_WARN, "exporter", "a new kafka producer takes over after a fatal error",
                 FLUE_S("exporter", producers->id), FLUE_LOG_END);
    else
        atomic_store(&producer->fatal, false); /* the next failure tries again */
}

static void shrink(struct flue_task *task)
{
    struct kafka_producers *producers =
        (struct kafka_producers *)((char *)task - offsetof(struct kafka_producers, shrink));
    size_t from = atomic_load(&producers->shrink_from);
    size_t half = from / 2 > KAFKA_LIMIT_LEAST ? from / 2 : KAFKA_LIMIT_LEAST;
    struct flue_error error = {0};

    if (producers->current && atomic_load(&producers->limit) == from && half < from) {
        atomic_store(&producers->limit, half);
        if (begin(producers, &error)) { /* who waits asks again */
            atomic_store(&producers->limit, from);
            flue_log(FLUE_ERROR, "exporter", "no kafka producer for smaller batches",
                     FLUE_S("exporter", producers->id), FLUE_S("error", error.text));
        } else {
            flue_log(FLUE_WARN, "exporter",
                     "a topic takes less than producer.max_message_bytes; from now on it is less",
                     FLUE_S("exporter", producers->id), FLUE_U("bytes", half), FLUE_LOG_END);
        }
    }
    atomic_store(&producers->shrink_from, 0);
}

void kafka_producers_shrink(struct kafka_producers *producers, size_t from)
{
    size_t none = 0;
    if (atomic_compare_exchange_strong(&producers->shrink_from, &none, from)) {
        producers->shrink.run = shrink;
        flue_loop_post(producers->home, &producers->shrink);
    }
}

size_t kafka_producer_limit(const struct kafka_producer *producer)
{
    return producer->limit;
}

enum flue_code kafka_producers_start(struct kafka_producers *producers, rd_kafka_conf_t *conf,
                                     struct flue_error *error)
{
    producers->conf = conf;
    producers->kafka->rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
    if (uv_mutex_init(&producers->lock) != 0) {
        producers->kafka->rd_kafka_conf_destroy(conf);
        return flue_fail(error, FLUE_NO_MEMORY, "no lock for a producer");
    }
    producers->made = true;
    return begin(producers, error);
}

void kafka_producers_stop(struct kafka_producers *producers)
{
    uv_mutex_lock(&producers->lock);
    struct kafka_producer *producer = producers->current;
    producers->current = NULL;
    uv_mutex_unlock(&producers->lock);
    if (producer) /* what nobody waits for any more */
        kafka_producer_purge(producer);
    kafka_producer_put(producer);
}

bool kafka_producers_stopped(const struct kafka_producers *producers)
{
    return atomic_load(&producers->living) == 0;
}

static void free_closed(uv_handle_t *handle)
{
    struct flue_kafka_wakeup *wakeup = handle->data;
    free((char *)wakeup - offsetof(struct kafka_producer, wakeup));
}

static void close_handle(struct flue_loop *loop, void *arg)
{
    struct kafka_producer *producer = arg;
    uv_close((uv_handle_t *)&producer->wakeup.poll, free_closed);
}

void kafka_producers_destroy(struct kafka_producers *producers)
{
    if (!producers->made)
        return;
    if (producers->current) { /* it was never stopped: the start failed elsewhere */
        destroy_handle(producers->current);
        flue_loop_call(producers->home, close_handle, producers->current);
    }
    producers->kafka->rd_kafka_conf_destroy(producers->conf);
    uv_mutex_destroy(&producers->lock);
}

/* ---- records ----------------------------------------------------------------------------------
 */

static rd_kafka_headers_t *headers_of(const struct flue_kafka *kafka,
                                      const struct kafka_record *record)
{
    rd_kafka_headers_t *headers = kafka->rd_kafka_headers_new(record->header_count);

    for (size_t i = 0; headers && i < record->header_count; i++) {
        const struct flue_kafka_header *header = &record->headers[i];
        if (kafka->rd_kafka_header_add(headers, (const char *)header->name.data,
                                       (ssize_t)header->name.size, header->value.data,
                                       (ssize_t)header->value.size)) {
            kafka->rd_kafka_headers_destroy(headers);
            return NULL;
        }
    }
    return headers;
}

rd_kafka_resp_err_t kafka_producer_send(struct kafka_producer *producer,
                                        struct kafka_record *record)
{
    const struct flue_kafka *kafka = producer->producers->kafka;
    rd_kafka_headers_t *headers = NULL;
    rd_kafka_vu_t vus[6];
    size_t count = 0;

    if (record->header_count && !(headers = headers_of(kafka, record)))
        return RD_KAFKA_RESP_ERR__QUEUE_FULL; /* no memory: later */
    vus[count].vtype = RD_KAFKA_VTYPE_TOPIC;
    vus[count++].u.cstr = record->topic;
    vus[count].vtype = RD_KAFKA_VTYPE_MSGFLAGS;
    vus[count++].u.i = 0; /* no copy */
    vus[count].vtype = RD_KAFKA_VTYPE_VALUE;
    vus[count].u.mem.ptr = (void *)record->value.data;
    vus[count++].u.mem.size = record->value.size;
    vus[count].vtype = RD_KAFKA_VTYPE_OPAQUE;
    vus[count++].u.ptr = record;
    if (record->key.data) {
        vus[count].vtype = RD_KAFKA_VTYPE_KEY;
        vus[count].u.mem.ptr = (void *)record->key.data;
        vus[count++].u.mem.size = record->key.size;
    }
    if (headers) {
        vus[count].vtype = RD_KAFKA_VTYPE_HEADERS;
        vus[count++].u.headers = headers;
    }
    rd_kafka_error_t *error = kafka->rd_kafka_produceva(producer->rk, vus, count);
    if (!error)
        return RD_KAFKA_RESP_ERR_NO_ERROR;
    rd_kafka_resp_err_t code = kafka->rd_kafka_error_code(error);
    kafka->rd_kafka_error_destroy(error);
    if (headers)
        kafka->rd_kafka_headers_destroy(headers);
    if (code == RD_KAFKA_RESP_ERR__FATAL)
        meet_fatal(producer);
    return code;
}

void kafka_producer_purge(struct kafka_producer *producer)
{
    producer->producers->kafka->rd_kafka_purge(producer->rk, RD_KAFKA_PURGE_F_QUEUE |
                                                                 RD_KAFKA_PURGE_F_INFLIGHT |
                                                                 RD_KAFKA_PURGE_F_NON_BLOCKING);
}
