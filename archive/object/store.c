/* store.c: requests and their HTTP calls, from begin to done. See store.h. */
#include "archive/object/store.h"
#include "collector/base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define CALL_BUDGET (1024 * 1024)
#define OP_BUDGET   (64 * 1024 * 1024) /* a list of 5,000 keys */
#define CLEANING    (10 * OBJECT_SECOND)

static const char *const kinds[OBJECT_KINDS] = {"put", "get", "list", "delete"};

/* ---- ops ------------------------------------------------------------------------------------ */

static void count(struct object_op *op)
{
    struct flue_object_store *store = op->store;
    enum flue_code code = op->request->error.code;
    if (!store->metrics)
        return;
    if (!store->counted[op->kind][code]) {
        const struct flue_label labels[] = {{"vendor", store->driver->vendor},
                                            {"operation", kinds[op->kind]},
                                            {"result", code ? flue_code_facts(code)->name : "ok"},
                                            {NULL, NULL}};
        store->counted[op->kind][code] =
            flue_metric(store->metrics, FLUE_COUNTER, "exporter_object_requests",
                        "requests to object stores", labels);
    }
    flue_metric_add(store->counted[op->kind][code], 1);
}

static void op_deliver(struct object_op *op)
{
    struct flue_object_store *store = op->store;
    struct flue_object_request *request = op->request;
    if (op->delivered)
        return;
    op->delivered = true;
    flue_timer_disarm(store->loop, &op->later);
    if (op->previous)
        op->previous->next = op->next;
    else
        store->ops = op->next;
    if (op->next)
        op->next->previous = op->previous;
    if (request->error.code && request->data) {
        flue_block_unref(request->data);
        request->data = NULL;
    }
    count(op);
    request->transport = NULL;
    request->done(request); /* may free the request, and send others; lists live until here */
    flue_arena_destroy(&op->arena);
    free(op);
}

static void on_op_later(struct flue_timer *timer)
{
    op_deliver((struct object_op *)(void *)((char *)timer - offsetof(struct object_op, later)));
}

void object_op_finish(struct object_op *op)
{
    if (op->finished)
        return;
    op->finished = true;
    if (op->cancelled)
        flue_fail(&op->request->error, FLUE_CANCELLED, "cancelled");
    if (op->calls == 0)
        flue_timer_arm(op->store->loop, &op->later, flue_monotonic_ns());
}

void object_op_fail(struct object_op *op, enum flue_code code, const char *format, ...)
{
    va_list arguments;
    struct flue_error *error = &op->request->error;
    if (!op->finished) {
        *error = (struct flue_error){.code = code};
        va_start(arguments, format);
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
    }
    object_op_finish(op);
}

void object_op_take(struct object_op *op, const struct object_call *call)
{
    if (op->finished)
        return;
    op->request->error = call->error;
    op->request->existed = call->existed;
}

void object_op_answered(struct object_call *call)
{
    object_op_take(call->op, call);
    object_op_finish(call->op);
}

void object_op_data(struct object_op *op, struct flue_bytes data)
{
    struct flue_object_request *request = op->request;
    request->data = flue_block_copy(NULL, data);
    if (!request->data) {
        object_op_fail(op, FLUE_NO_MEMORY, "no memory for an object of %zu bytes", data.size);
        return;
    }
    flue_block_finish(request->data);
}

void object_op_got(struct object_call *call,
                   bool (*damaged)(struct object_call *call, struct flue_bytes data))
{
    struct object_op *op = call->op;
    struct flue_object_request *request = op->request;
    struct flue_bytes data = call->http.response;
    unsigned status = call->http.status;
    uint64_t from = 0, total = data.size;
    if (request->offset < 0 && !call->cancelled &&
        (status == 416 || (status == 206 && data.size == 0))) {
        call->error = (struct flue_error){0}; /* the end of an empty object */
        data = (struct flue_bytes){0};
        total = 0;
    } else if (!call->error.code && status == 206 &&
               !object_content_range(flue_call_header(&call->http, "content-range"), &from,
                                     &total)) {
        flue_fail(&call->error, FLUE_UNAVAILABLE, "%s: an answer without Content-Range",
                  op->store->label);
    } else if (!call->error.code && status == 200 && damaged(call, data)) {
        flue_fail(&call->error, FLUE_UNAVAILABLE, "%s: the object's checksum is wrong",
                  op->store->label);
    }
    object_op_take(op, call);
    if (!call->error.code) {
        request->object_size = total;
        object_op_data(op, data);
    }
    object_op_finish(op);
}

void object_op_listed(struct object_op *op, struct flue_object_listed *items, size_t listed,
                      bool truncated)
{
    op->request->listed = items;
    op->request->listed_count = listed;
    op->request->truncated = truncated;
}

static int by_key(const void *a, const void *b)
{
    return flue_bytes_compare(((const struct flue_object_listed *)a)->key,
                              ((const struct flue_object_listed *)b)->key);
}

void object_sort_listed(struct flue_object_listed *items, size_t listed)
{
    if (listed)
        qsort(items, listed, sizeof *items, by_key);
}

enum flue_code object_key_check(struct flue_bytes key, struct flue_error *error)
{
    char text[80];
    if (key.size == 0 || key.size > FLUE_OBJECT_KEY_LIMIT)
        return flue_fail(error, FLUE_INVALID, "a key of %zu bytes, it must have 1 to %u", key.size,
                         FLUE_OBJECT_KEY_LIMIT);
    if (flue_bytes_find(key, 0) != SIZE_MAX || !flue_utf8_valid(key))
        return flue_fail(error, FLUE_INVALID, "the key \"%s\" is not UTF-8 without NUL",
                         flue_printable(key, text, sizeof text));
    return FLUE_OK;
}

static void on_starved(struct flue_task *task)
{
    struct flue_object_request *request =
        (struct flue_object_request *)(void *)((char *)task -
                                               offsetof(struct flue_object_request, task));
    request->done(request);
}

static void op_begin(struct flue_object_request *request, enum object_kind kind)
{
    struct flue_object_store *store = request->store;
    struct object_op *op = calloc(1, sizeof *op);
    request->error = (struct flue_error){0};
    request->existed = request->truncated = false;
    request->data = NULL;
    request->listed = NULL;
    request->listed_count = 0;
    request->object_size = 0;
    request->transport = op;
    if (!op) {
        flue_fail(&request->error, FLUE_NO_MEMORY, "no memory for a request");
        request->task.run = on_starved;
        flue_loop_post(store->loop, &request->task);
        return;
    }
    *op = (struct object_op){.request = request,
                             .store = store,
                             .kind = kind,
                             .next = store->ops,
                             .later = {.fire = on_op_later}};
    if (store->ops)
        store->ops->previous = op;
    store->ops = op;
    flue_arena_init(&op->arena, OP_BUDGET, 1024);
    if (store->closing) {
        object_op_fail(op, FLUE_CANCELLED, "the store is being closed");
        return;
    }
    if (kind != OBJECT_LIST && object_key_check(request->key, &request->error)) {
        object_op_finish(op);
        return;
    }
    if (kind == OBJECT_GET && request->offset < 0 &&
        request->size != (uint64_t)0 - (uint64_t)request->offset) {
        object_op_fail(op, FLUE_INTERNAL, "a range from the end must reach it");
        return;
    }
    if (kind == OBJECT_GET && request->size > FLUE_OBJECT_GET_LIMIT) {
        object_op_fail(op, FLUE_TOO_LARGE, "a range of %llu bytes, limit %u",
                       (unsigned long long)request->size, FLUE_OBJECT_GET_LIMIT);
        return;
    }
    store->driver->begin(op);
}

void flue_object_put(struct flue_object_request *request)
{
    op_begin(request, OBJECT_PUT);
}

void flue_object_get(struct flue_object_request *request)
{
    op_begin(request, OBJECT_GET);
}

void flue_object_list(struct flue_object_request *request)
{
    op_begin(request, OBJECT_LIST);
}

void flue_object_delete(struct flue_object_request *request)
{
    op_begin(request, OBJECT_DELETE);
}

void flue_object_cancel(struct flue_object_request *request)
{
    struct object_op *op = request->transport;
    if (!op || op->cancelled || op->delivered)
        return;
    op->cancelled = true;
    if (op->finished) {
        flue_fail(&request->error, FLUE_CANCELLED, "cancelled");
        return;
    }
    for (struct object_call *call = op->store->calls; call; call = call->next)
        if (call->op == op && !call->cleaning)
            object_call_cancel(call);
}

/* ---- digests -------------------------------------------------------------------------------- */

struct object_digest_job {
    struct flue_job job;
    struct object_call *call; /* NULL: it is gone */
    const struct flue_slices *slices;
    unsigned which;
    struct flue_digest digest;
    struct flue_error error;
    uv_sem_t ended;
};

static void digest_work(struct flue_job *job)
{
    struct object_digest_job *digest = (struct object_digest_job *)(void *)job;
    flue_digest_make(digest->slices, digest->which, &digest->digest, &digest->error);
    uv_sem_post(&digest->ended);
}

static void call_identify(struct object_call *call);
static void call_finish(struct object_call *call);

/* What is still to be computed: not what the caller knows already. */
static unsigned digests_missing(const struct object_call *call)
{
    return call->sha256 ? call->digests & ~(unsigned)FLUE_DIGEST_SHA256 : call->digests;
}

static void take_digest(struct object_call *call, const struct flue_digest *digest)
{
    call->digest = *digest;
    if (call->sha256 && call->digests & FLUE_DIGEST_SHA256) {
        memcpy(call->digest.sha256, call->sha256, sizeof call->digest.sha256);
        call->digest.which |= FLUE_DIGEST_SHA256;
    }
}

static void digest_done(struct flue_job *job)
{
    struct object_digest_job *digest = (struct object_digest_job *)(void *)job;
    struct object_call *call = digest->call;
    if (call) {
        call->job = NULL;
        take_digest(call, &digest->digest);
        if (digest->error.code) {
            call->error = digest->error;
            call_finish(call);
        } else {
            call_identify(call);
        }
    }
    uv_sem_destroy(&digest->ended);
    free(digest);
}

/* ---- calls ---------------------------------------------------------------------------------- */

static void on_call_later(struct flue_timer *timer)
{
    struct object_call *call =
        (struct object_call *)(void *)((char *)timer - offsetof(struct object_call, later));
    call_finish(call);
}

/* Not from within object_call_start. */
static void call_finish_later(struct object_call *call)
{
    call->state = OBJECT_DONE;
    flue_timer_arm(call->store->loop, &call->later, flue_monotonic_ns());
}

static void call_finish(struct object_call *call)
{
    struct flue_object_store *store = call->store;
    struct object_op *op = call->op;
    call->state = OBJECT_DONE;
    flue_timer_disarm(store->loop, &call->later);
    object_identity_leave(&store->identity, &call->waiter);
    if (call->cancelled)
        flue_fail(&call->error, FLUE_CANCELLED, "cancelled");
    if (call->previous)
        call->previous->next = call->next;
    else
        store->calls = call->next;
    if (call->next)
        call->next->previous = call->previous;
    op->calls--;
    if (call->done)
        call->done(call);
    flue_arena_destroy(&call->arena);
    free(call);
    if (op->finished && op->calls == 0)
        op_deliver(op);
}

static void on_ready(struct object_waiter *waiter, const struct flue_error *error);
static void on_answer(struct flue_call *http);

struct object_call *object_call_new(struct flue_object_store *store, struct object_op *op,
                                    const char *method, struct flue_bytes key,
                                    void (*done)(struct object_call *call))
{
    struct object_call *call = calloc(1, sizeof *call);
    if (!call) {
        object_op_fail(op, FLUE_NO_MEMORY, "no memory for a request");
        return NULL;
    }
    call->store = store;
    call->op = op;
    call->method = method;
    call->key = key;
    call->done = done;
    call->waiter.ready = on_ready;
    call->later.fire = on_call_later;
    flue_arena_init(&call->arena, CALL_BUDGET, 2048);
    call->next = store->calls;
    if (store->calls)
        store->calls->previous = call;
    store->calls = call;
    op->calls++;
    return call;
}

static void starve(struct object_call *call)
{
    if (!call->error.code)
        flue_fail(&call->error, FLUE_NO_MEMORY, "no memory for a request");
}

void object_call_query(struct object_call *call, const char *name, struct flue_bytes value)
{
    if (call->query_count == OBJECT_PAIRS) {
        starve(call);
        return;
    }
    call->query[call->query_count++] = (struct flue_url_pair){flue_bytes_of(name), value};
}

void object_call_field(struct object_call *call, const char *name, const char *value)
{
    if (!value || !*value)
        return;
    const char *copy = flue_arena_string(&call->arena, flue_bytes_of(value));
    if (!copy || call->field_count == OBJECT_FIELDS) {
        starve(call);
        return;
    }
    call->fields[call->field_count++] =
        (struct flue_header){flue_bytes_of(name), flue_bytes_of(copy)};
}

void object_call_send_field(struct object_call *call, const char *name, const char *value)
{
    const char *copy = flue_arena_string(&call->arena, flue_bytes_of(value));
    if (!copy || call->sent_count == OBJECT_FIELDS + 16) {
        starve(call);
        return;
    }
    call->sent[call->sent_count++] = (struct flue_header){flue_bytes_of(name), flue_bytes_of(copy)};
}

void object_call_text(struct object_call *call, struct flue_buffer *text)
{
    struct flue_slices *body = flue_arena_zalloc(&call->arena, 1, sizeof *body);
    struct flue_bytes copy = flue_arena_copy(&call->arena, flue_buffer_bytes(text));
    if (text->failed || !body || !copy.data || !flue_slices_add(body, &call->arena, copy))
        starve(call);
    flue_buffer_destroy(text);
    call->body = body;
}

static void call_send(struct object_call *call)
{
    struct flue_object_store *store = call->store;
    call->sent_count = call->field_count;
    if (call->field_count)
        memcpy(call->sent, call->fields, call->field_count * sizeof call->fields[0]);
    call->http = (struct flue_call){.method = flue_bytes_of(call->method), .body = call->body};
    call->identity_version = store->identity.version;
    enum flue_code code = store->driver->prepare(call, &call->error);
    if (code || call->error.code) {
        if (!call->error.code)
            call->error.code = code;
        call_finish_later(call);
        return;
    }
    call->http.headers = call->sent;
    call->http.header_count = call->sent_count;
    call->http.deadline_ns =
        call->cleaning ? flue_monotonic_ns() + CLEANING : call->op->request->deadline_ns;
    call->http.done = on_answer;
    call->http.user = call;
    call->state = OBJECT_SENT;
    flue_call_send(&call->http);
}

static void on_ready(struct object_waiter *waiter, const struct flue_error *error)
{
    struct object_call *call =
        (struct object_call *)(void *)((char *)waiter - offsetof(struct object_call, waiter));
    if (error) {
        call->error = *error;
        flue_fail_prefix(&call->error, "%s", call->store->label);
        call_finish(call);
        return;
    }
    call_send(call);
}

static void call_identify(struct object_call *call)
{
    if (call->cancelled || call->store->closing) {
        call_finish_later(call);
        return;
    }
    call->state = OBJECT_WAITING;
    switch (object_identity_get(&call->store->identity, &call->waiter, &call->error)) {
    case OBJECT_IDENTITY_READY:
        call_send(call);
        break;
    case OBJECT_IDENTITY_WAIT:
        break;
    case OBJECT_IDENTITY_FAILED:
        flue_fail_prefix(&call->error, "%s", call->store->label);
        call_finish_later(call);
    }
}

static void on_answer(struct flue_call *http)
{
    struct object_call *call = http->user;
    struct flue_object_store *store = call->store;
    if (http->error.code) {
        call->error = http->error;
        if (http->error.code == FLUE_INVALID && http->status)
            call->error.code = FLUE_TOO_LARGE; /* the response limit */
        flue_fail_prefix(&call->error, "%s", store->label);
        call_finish(call);
        return;
    }
    call->error = (struct flue_error){0};
    call->existed = false;
    if (store->driver->judge(call) && !call->cancelled && !store->closing) {
        call->error = (struct flue_error){0};
        call_identify(call);
        return;
    }
    call_finish(call);
}

void object_call_start(struct object_call *call)
{
    struct flue_object_store *store = call->store;
    if (store->closing || call->cancelled || (call->op->cancelled && !call->cleaning))
        call->cancelled = true;
    if (call->error.code || call->cancelled) {
        call_finish_later(call);
        return;
    }
    unsigned missing = digests_missing(call);
    if (!call->body || call->body->total <= OBJECT_INLINE || !missing) {
        struct flue_digest made;
        if (flue_digest_make(call->body, missing, &made, &call->error)) {
            call_finish_later(call);
        } else {
            take_digest(call, &made);
            call_identify(call);
        }
        return;
    }
    struct object_digest_job *digest = calloc(1, sizeof *digest);
    if (!digest || uv_sem_init(&digest->ended, 0) != 0) {
        free(digest);
        starve(call);
        call_finish_later(call);
        return;
    }
    *digest = (struct object_digest_job){.job = {.work = digest_work, .done = digest_done},
                                         .call = call,
                                         .slices = call->body,
                                         .which = missing,
                                         .ended = digest->ended};
    call->job = digest;
    call->state = OBJECT_DIGESTING;
    flue_pool_submit(store->loop, &digest->job);
}

void object_call_cancel(struct object_call *call)
{
    if (call->cancelled)
        return;
    call->cancelled = true;
    switch (call->state) {
    case OBJECT_SENT:
        flue_call_cancel(&call->http);
        break;
    case OBJECT_WAITING:
        object_identity_leave(&call->store->identity, &call->waiter);
        call_finish_later(call);
        break;
    default:
        break;
    }
}

bool object_digest_differs(struct flue_bytes data, unsigned which, struct flue_bytes said)
{
    struct flue_slices slices = {.items = &data, .count = 1, .total = data.size};
    struct flue_digest digest;
    char own[48];
    if (flue_digest_make(&slices, which, &digest, NULL))
        return false;
    flue_digest_base64(&digest, which, own);
    return !flue_bytes_is(said, own);
}

bool object_is_one_of(struct flue_bytes text, const char *const *names)
{
    for (; *names; names++)
        if (flue_bytes_is(text, *names))
            return true;
    return false;
}

bool object_status_ok(const struct object_call *call)
{
    return call->http.status >= 200 && call->http.status < 300;
}

/* ---- text ----------------------------------------------------------------------------------- */

const char *object_printable(struct object_call *call, struct flue_bytes b)
{
    char *out = flue_arena_alloc(&call->arena, 200);
    return out ? flue_printable(flue_bytes_trim(b), out, 200) : "";
}

uint64_t object_now(const struct flue_object_store *store)
{
    return object_identity_now(&store->identity);
}

bool object_take_date(struct object_call *call)
{
    if (call->skew_tried)
        return false;
    call->skew_tried = true;
    return object_identity_take_date(&call->store->identity, flue_call_header(&call->http, "date"),
                                     call->store->label);
}

void object_range(const struct flue_object_request *request, char *out)
{
    out[0] = 0;
    if (request->offset < 0)
        snprintf(out, 64, "bytes=-%llu", (unsigned long long)request->size);
    else if (request->size)
        snprintf(out, 64, "bytes=%lld-%llu", (long long)request->offset,
                 (unsigned long long)request->offset + request->size - 1);
    else if (request->offset)
        snprintf(out, 64, "bytes=%lld-", (long long)request->offset);
}

bool object_content_range(struct flue_bytes text, uint64_t *from, uint64_t *total)
{
    uint64_t to;
    if (!flue_bytes_starts_with(text, FLUE_BYTES("bytes ")))
        return false;
    text = flue_bytes_from(text, 6);
    size_t slash = flue_bytes_find(text, '/');
    if (slash == SIZE_MAX || !flue_parse_u64(flue_bytes_from(text, slash + 1), total))
        return false;
    text = flue_bytes_first(text, slash);
    size_t dash = flue_bytes_find(text, '-');
    return dash != SIZE_MAX && flue_parse_u64(flue_bytes_first(text, dash), from) &&
           flue_parse_u64(flue_bytes_from(text, dash + 1), &to) && *from <= to && to < *total;
}

/* ---- one store ------------------------------------------------------------------------------ */

void object_store_init(struct flue_object_store *store, const struct object_driver *driver,
                       struct flue_loop *loop, struct flue_metrics *metrics, const char *what,
                       const char *name)
{
    char printable[80];
    store->driver = driver;
    store->loop = loop;
    store->metrics = metrics;
    object_identity_init(&store->identity, loop);
    snprintf(store->label, sizeof store->label, "%s \"%s\"", what,
             flue_printable(flue_bytes_of(name), printable, sizeof printable));
}

enum flue_code object_store_opened(struct flue_object_store *store, enum flue_code code,
                                   struct flue_object_store **out)
{
    if (code)
        flue_object_store_destroy(store);
    else
        *out = store;
    return code;
}

enum flue_code object_client_new(struct flue_loop *loop, const char *endpoint,
                                 const struct flue_tls_client_config *tls, struct flue_client **out,
                                 struct flue_error *error)
{
    struct flue_client_config config = {.endpoint = endpoint,
                                        .tls = *tls,
                                        .tls_by_scheme = true,
                                        .protocol = FLUE_CLIENT_HTTP1,
                                        .max_connections = 64,
                                        .idle_timeout = (int64_t)(60 * OBJECT_SECOND),
                                        .response_limit = FLUE_OBJECT_GET_LIMIT};
    return flue_client_new(loop, &config, NULL, out, error);
}

void flue_object_store_destroy(struct flue_object_store *store)
{
    if (!store)
        return;
    store->closing = true;
    if (store->driver->disconnect)
        store->driver->disconnect(store); /* ends what is on the wire */
    while (store->calls) {
        struct object_call *call = store->calls;
        if (call->job) { /* it reads a body that its owner frees next */
            uv_sem_wait(&call->job->ended);
            call->job->call = NULL;
        }
        call->cancelled = true;
        call_finish(call);
    }
    while (store->ops) {
        struct object_op *op = store->ops;
        if (!op->finished)
            object_op_fail(op, FLUE_CANCELLED, "the store was closed");
        op_deliver(op);
    }
    object_identity_destroy(&store->identity);
    store->driver->destroy(store);
}
