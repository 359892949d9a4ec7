/* pyroscope.c: profiles to a Pyroscope server by push.v1.PusherService/Push.
 *
 * Each profile is one Push (a server that refuses one of several stores the others and fails the
 * call). A server takes half a second to accept a push, whatever its size, so very many are in
 * flight: as streams of few HTTP/2 connections where the server speaks it, up to `max_concurrency`
 * over all loops. Labels: labels.h. Times: parcel.h. Answers: Connect's table; the ambiguous 500
 * "unknown" is tried again, since every profile was checked before it was sent.
 */
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/component.h"
#include "collector/net/client_keys.h"
#include "exporters/pyroscope/parcel.h"
#include "proto/wire/json_budget.h"

#define PUSH_PATH       "/push.v1.PusherService/Push"
#define RESPONSE_LIMIT  (64u << 10)
#define ANSWER_BUDGET   (1u << 20)
#define POOL_FROM_BYTES (64u << 10)
#define LABEL_NAMES_MAX 20

enum { COMPRESSION_GZIP, COMPRESSION_NONE };

struct pyroscope_config {
    const char *endpoint;
    struct flue_tls_client_config tls;
    struct flue_map headers;
    int compression;
    const char *level;
    struct flue_labels_config labels;
    struct flue_list sample_attributes;
    bool tenant_from_origin;
    int64_t max_concurrency;
    const char *proxy_url;
};
static const char *const compressions[] = {"gzip", "none", NULL};
static const struct flue_field pyroscope_fields[] = {
    FLUE_ENDPOINT(struct pyroscope_config, endpoint, .required = true,
                  .help = "URL of the server, \"http://pyroscope:4040\""),
    FLUE_BLOCK(struct pyroscope_config, tls, struct flue_tls_client_config, flue_tls_client_fields,
               .help = "for https endpoints"),
    FLUE_SECRETS(struct pyroscope_config, headers,
                 .help =
                     "sent with every request; X-Scope-OrgID here is the tenant of all, or with "
                     "tenant_from_origin of what came with none"),
    FLUE_ENUM(struct pyroscope_config, compression, .choices = compressions,
              .help = "of profiles that flue writes; what came compressed goes out as it came"),
    FLUE_STRING(struct pyroscope_config, level, .def = "default",
                .help = "default (fast), dense (smaller, dearer), or 0 to 9"),
    FLUE_BLOCK(struct pyroscope_config, labels, struct flue_labels_config, flue_labels_fields,
               .help = "how attributes become labels"),
    FLUE_STRINGS(struct pyroscope_config, sample_attributes,
                 .help =
                     "OTLP sample attributes that stay on samples; each value makes a series of "
                     "its own, so samples are added up without all others (span_id and trace_id "
                     "always stay and cost no series)"),
    FLUE_BOOL(struct pyroscope_config, tenant_from_origin,
              .help = "pass on the X-Scope-OrgID that the profile came with"),
    FLUE_INT(struct pyroscope_config, max_concurrency, .def = "1024", .minimum = 1,
             .maximum = 65536, .help = "pushes in flight, over all cores"),
    FLUE_STRING(struct pyroscope_config, proxy_url, .help = "HTTP proxy, for HTTP/1.1"),
    FLUE_FIELDS_END};

struct push { /* a part while it is being sent; a loop has few of these and many parts */
    struct flue_parcel_part *part;
    struct push *next; /* of the spare ones */
    struct flue_job job;
    struct flue_error error; /* of the job */
    struct flue_call call;
};

struct sender { /* of one loop */
    struct pyroscope *owner;
    struct flue_loop *loop;
    struct flue_client *client;
    struct flue_parcel *first, *last; /* with open parts */
    struct push *spare;
    size_t in_flight, limit;
    bool pumping;
    bool healthy; /* the last answer was none that asks to come again */
};

struct pyroscope {
    const struct pyroscope_config *config;
    const char *id;
    struct flue_loops *loops;
    struct flue_tls *tls;
    struct sender *senders;
    struct flue_moments *moments;
    struct flue_parcel_options options;
    const struct flue_header *headers; /* content-type, protocol version, the configured ones */
    size_t header_count;
    size_t tenant_header; /* where it stands in `headers`, or header_count */
    int level;
    struct flue_metric *pushes, *trimmed;
};

/* ---- configuration -------------------------------------------------------------------------- */

static bool parse_level(const char *text, int *level)
{
    int64_t number;

    if (strcmp(text, "default") == 0)
        *level = FLUE_LEVEL_DEFAULT;
    else if (strcmp(text, "dense") == 0)
        *level = FLUE_LEVEL_DENSE;
    else if (flue_parse_i64(flue_bytes_of(text), &number) && number >= 0 && number <= 9)
        *level = (int)number;
    else
        return false;
    return true;
}

static void pyroscope_check(const void *config, struct flue_check *check)
{
    const struct pyroscope_config *c = config;
    int level;

    if (c->endpoint && strncmp(c->endpoint, "http://", 7) != 0 &&
        strncmp(c->endpoint, "https://", 8) != 0)
        flue_check_fail(check, "endpoint",
                        "\"%s\" is not a URL; it begins with http:// or https://", c->endpoint);
    if (!parse_level(c->level, &level))
        flue_check_fail(check, "level", "\"%s\" is none of default, dense, 0 to 9", c->level);
    if (c->sample_attributes.count > LABEL_NAMES_MAX)
        flue_check_fail(check, "sample_attributes",
                        "%zu names; at most %d, since a series has 30 labels in all",
                        c->sample_attributes.count, LABEL_NAMES_MAX);
    flue_tls_check(&c->tls.common, "tls", check);
    flue_client_headers_check(&c->headers, check);
}

static enum flue_code make_headers(struct pyroscope *p, struct flue_arena *arena,
                                   struct flue_error *error)
{
    static const struct flue_header own[] = {
        {FLUE_BYTES("content-type"), FLUE_BYTES("application/proto")},
        {FLUE_BYTES("connect-protocol-version"), FLUE_BYTES("1")}};
    enum flue_code code = flue_client_headers(&p->config->headers, own, sizeof own / sizeof *own,
                                              arena, &p->headers, &p->header_count, error);

    p->tenant_header = p->header_count;
    for (size_t i = 0; !code && i < p->header_count; i++)
        if (flue_bytes_is(p->headers[i].name, "x-scope-orgid"))
            p->tenant_header = i;
    return code;
}

static enum flue_code pyroscope_create(const struct flue_create *create, void **instance,
                                       struct flue_error *error)
{
    const struct pyroscope_config *config = create->config;
    struct pyroscope *p = flue_arena_zalloc(create->arena, 1, sizeof *p);
    struct flue_bytes *keep;
    const struct flue_label labels[] = {{"exporter", create->id}, {NULL, NULL}};

    if (!p)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    p->config = config;
    p->id = create->id;
    p->loops = create->loops;
    p->senders = flue_arena_zalloc(create->arena, create->loops->count, sizeof *p->senders);
    p->moments = flue_arena_zalloc(create->arena, 1, sizeof *p->moments);
    keep = flue_arena_zalloc(create->arena, config->sample_attributes.count + 1, sizeof *keep);
    if (!p->senders || !p->moments || !keep)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", create->id);
    for (size_t i = 0; i < config->sample_attributes.count; i++)
        keep[i] = flue_bytes_of(((const char *const *)config->sample_attributes.items)[i]);
    p->options = (struct flue_parcel_options){
        .labels = &config->labels,
        .keep_attributes = keep,
        .keep_count = config->sample_attributes.count,
        .tenant_from_origin = config->tenant_from_origin,
        .moments = p->moments,
    };
    parse_level(config->level, &p->level);
    p->pushes = flue_metric(create->metrics, FLUE_COUNTER, "pyroscope_pushes",
                            "profiles pushed, attempts included", labels);
    p->trimmed = flue_metric(create->metrics, FLUE_COUNTER, "pyroscope_labels_trimmed",
                             "labels left out or cut, since the server would refuse them", labels);
    *instance = p;
    return make_headers(p, create->arena, error);
}

static enum flue_code pyroscope_start(void *instance, struct flue_error *error)
{
    struct pyroscope *p = instance;
    struct flue_client_config client = {
        .endpoint = p->config->endpoint,
        .tls = p->config->tls,
        .protocol = FLUE_CLIENT_PROBE,
        .tls_by_scheme = true,
        .proxy_url = p->config->proxy_url,
        .idle_timeout = 90ll * 1000000000,
        .response_limit = RESPONSE_LIMIT,
    };
    enum flue_code code = FLUE_OK;

    if (strncmp(p->config->endpoint, "https://", 8) == 0)
        code = flue_tls_client_new(&p->config->tls, "h2,http/1.1", &p->tls, error);
    for (unsigned i = 0; !code && i < p->loops->count; i++) {
        struct sender *sender = &p->senders[i];
        sender->owner = p;
        sender->loop = p->loops->items[i];
        sender->limit = (size_t)p->config->max_concurrency / p->loops->count;
        if (sender->limit == 0)
            sender->limit = 1;
        code = flue_client_new(sender->loop, &client, p->tls, &sender->client, error);
    }
    return code;
}

static void pyroscope_destroy(void *instance)
{
    struct pyroscope *p = instance;

    for (unsigned i = 0; i < p->loops->count; i++) {
        struct sender *sender = &p->senders[i];
        if (sender->client)
            flue_client_destroy(sender->client);
        while (sender->spare) {
            struct push *push = sender->spare;
            sender->spare = push->next;
            free(push);
        }
    }
    if (p->tls)
        flue_tls_destroy(p->tls);
}

/* ---- answers -------------------------------------------------------------------------------- */

/* Which of the codes of Connect come again with the same data; "unknown" and "internal" are what a
 * server says when its own store fails, and our data was checked. */
static enum flue_code code_of(const char *name, unsigned status)
{
    static const struct {
        const char *name;
        enum flue_code code;
    } table[] = {
        {"resource_exhausted", FLUE_RATE_LIMITED},
        {"unavailable", FLUE_UNAVAILABLE},
        {"deadline_exceeded", FLUE_TIMEOUT},
        {"canceled", FLUE_UNAVAILABLE},
        {"aborted", FLUE_UNAVAILABLE},
        {"unknown", FLUE_UNAVAILABLE},
        {"internal", FLUE_UNAVAILABLE},
        {"data_loss", FLUE_UNAVAILABLE},
        {"unauthenticated", FLUE_UNAUTHENTICATED},
        {"permission_denied", FLUE_FORBIDDEN},
        {"unimplemented", FLUE_NOT_FOUND},
        {"not_found", FLUE_NOT_FOUND},
    };
    for (size_t i = 0; name && i < sizeof table / sizeof table[0]; i++)
        if (strcmp(name, table[i].name) == 0)
            return table[i].code;
    if (name)
        return FLUE_REFUSED;
    switch (status) {
    case 401:
        return FLUE_UNAUTHENTICATED;
    case 403:
        return FLUE_FORBIDDEN;
    case 404:
        return FLUE_NOT_FOUND;
    case 413:
        return FLUE_TOO_LARGE;
    case 429:
        return FLUE_RATE_LIMITED;
    case 408:
    case 499:
        return FLUE_UNAVAILABLE;
    default:
        return status >= 500 ? FLUE_UNAVAILABLE : FLUE_REFUSED;
    }
}

static void read_answer(const struct flue_call *call, struct flue_error *error)
{
    struct flue_json_budget budget;
    struct flue_bytes name = {NULL, 0}, message = call->response;
    char code_name[32] = "", text[300];
    json_t *json = NULL;

    flue_json_begin(&budget, ANSWER_BUDGET);
    if (flue_bytes_starts_with(flue_bytes_trim(call->response), FLUE_BYTES("{")) &&
        flue_json_parse(&budget, call->response, &json, NULL) == FLUE_OK) {
        name = flue_bytes_of(json_string_value(json_object_get(json, "code")));
        if (json_is_string(json_object_get(json, "message")))
            message = flue_bytes_of(json_string_value(json_object_get(json, "message")));
    }
    flue_printable(name, code_name, sizeof code_name);
    flue_printable(message, text, sizeof text);
    if (json)
        json_decref(json);
    flue_json_end(&budget);
    flue_fail(error, code_of(code_name[0] ? code_name : NULL, call->status),
              "the server answered %u%s%s: %s", call->status, code_name[0] ? " " : "", code_name,
              text);
    error->retry_after_ms = flue_call_retry_after_ms(call);
}

/* ---- sending -------------------------------------------------------------------------------- */

static void pump(struct sender *sender);

static struct push *push_take(struct sender *sender, struct flue_parcel_part *part)
{
    struct push *push = sender->spare;

    if (push)
        sender->spare = push->next;
    else
        push = malloc(sizeof *push);
    if (push) {
        push->part = part;
        push->error.code = FLUE_OK;
        push->call.client = NULL;
    }
    part->push = push;
    return push;
}

static void push_give(struct sender *sender, struct flue_parcel_part *part)
{
    struct push *push = part->push;

    part->push = NULL;
    if (!push)
        return;
    push->next = sender->spare;
    sender->spare = push;
}

/* All parts of the attempt have an answer. */
static void finish_attempt(struct flue_parcel *parcel)
{
    struct flue_verdict verdict = {.kind = FLUE_SENT, .rejected = parcel->rejected};
    size_t again = 0, sent = 0;

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
    flue_send_done(parcel->send, &verdict);
}

static void end_part(struct flue_parcel_part *part, const struct flue_error *error)
{
    struct flue_parcel *parcel = part->parcel;
    struct sender *sender = parcel->sender;

    sender->in_flight--;
    parcel->running--;
    if (error->code == FLUE_OK) {
        part->status = FLUE_PART_SENT;
        sender->healthy = true;
    } else if (flue_code_facts(error->code)->retryable) {
        uint32_t later = parcel->failure.retry_after_ms; /* the longest that any part was told */
        sender->healthy = false;
        part->status = FLUE_PART_AGAIN;
        if (!parcel->failure.code || !flue_code_facts(parcel->failure.code)->retryable)
            parcel->failure = *error;
        parcel->failure.retry_after_ms =
            later > error->retry_after_ms ? later : error->retry_after_ms;
    } else {
        part->status = FLUE_PART_REFUSED;
        parcel->rejected.profiles += part->counts.profiles;
        parcel->rejected.samples += part->counts.samples;
        parcel->rejected.bytes += part->counts.bytes;
        flue_log(FLUE_WARN, sender->owner->id, "a profile was refused and is dropped",
                 FLUE_S("reason", error->text), FLUE_U("samples", part->counts.samples),
                 FLUE_LOG_END);
        if (!parcel->failure.code)
            parcel->failure = *error;
    }
    push_give(sender, part);
    if (parcel->running == 0 && (parcel->next_part >= parcel->count || parcel->cancelled))
        finish_attempt(parcel);
    pump(sender);
}

static void on_answer(struct flue_call *call)
{
    struct push *push = call->user;
    struct flue_error error = call->error;

    if (error.code == FLUE_OK && call->status != 200)
        read_answer(call, &error);
    else if (error.code == FLUE_INVALID)
        error.code =
            FLUE_UNAVAILABLE; /* no answer that could be understood: the same may come again */
    end_part(push->part, &error);
}

/* Made once for an parcel: the exporter's, and the tenant that the profile came with. */
static bool make_parcel_headers(struct flue_parcel *parcel, const struct pyroscope *p)
{
    struct flue_header *headers;

    if (!parcel->tenant.size) {
        parcel->headers = p->headers;
        parcel->header_count = p->header_count;
        return true;
    }
    headers = flue_arena_zalloc(&parcel->arena, p->header_count + 1, sizeof *headers);
    if (!headers)
        return false;
    memcpy(headers, p->headers, p->header_count * sizeof *headers);
    headers[p->tenant_header] = (struct flue_header){FLUE_BYTES("x-scope-orgid"), parcel->tenant};
    parcel->headers = headers;
    parcel->header_count = p->header_count + (p->tenant_header == p->header_count);
    return true;
}

static void transmit(struct push *push)
{
    struct flue_parcel_part *part = push->part;
    struct flue_parcel *parcel = part->parcel;
    struct sender *sender = parcel->sender;
    struct flue_error error = {0};

    if ((!parcel->headers && !make_parcel_headers(parcel, sender->owner)) ||
        (!part->body.count &&
         flue_push_write(&parcel->arena, part->labels.items, part->labels.count, part->profile,
                         part->id, &part->body, &error))) {
        flue_fail(&error, FLUE_NO_MEMORY, "no memory for a push request");
        end_part(part, &error);
        return;
    }
    push->call = (struct flue_call){
        .client = sender->client,
        .method = FLUE_BYTES("POST"),
        .path = FLUE_BYTES(PUSH_PATH),
        .headers = parcel->headers,
        .header_count = parcel->header_count,
        .body = &part->body,
        .deadline_ns = parcel->timeout_ns ? flue_monotonic_ns() + parcel->timeout_ns : 0,
        .done = on_answer,
        .user = push,
    };
    flue_metric_add(sender->owner->pushes, 1);
    flue_call_send(&push->call);
}

static struct push *of_job(struct flue_job *job)
{
    return (struct push *)(void *)((char *)job - offsetof(struct push, job));
}

static void compress(struct push *push)
{
    struct flue_parcel_part *part = push->part;
    const struct sender *sender = part->parcel->sender;
    struct flue_slices one = {
        .items = &part->profile, .count = 1, .room = 1, .total = part->profile.size};
    struct flue_block *packed = NULL;

    if (flue_deflate(FLUE_GZIP, sender->owner->level, &one, &packed, &push->error))
        return;
    flue_block_unref(part->own);
    part->own = packed;
    part->profile = flue_block_bytes(packed);
    part->gzip = true;
}

static void compress_work(struct flue_job *job)
{
    compress(of_job(job));
}

static void compressed(struct push *push)
{
    if (push->error.code)
        end_part(push->part, &push->error);
    else if (push->part->parcel->cancelled)
        end_part(push->part, &(struct flue_error){.code = FLUE_CANCELLED, .text = "given up"});
    else
        transmit(push);
}

static void compress_done(struct flue_job *job)
{
    compressed(of_job(job));
}

static void begin_part(struct sender *sender, struct flue_parcel_part *part)
{
    struct push *push = push_take(sender, part);

    part->status = FLUE_PART_SENDING;
    part->parcel->running++;
    sender->in_flight++;
    if (!push) {
        end_part(part,
                 &(struct flue_error){.code = FLUE_NO_MEMORY, .text = "no memory for a push"});
        return;
    }
    if (part->gzip || sender->owner->config->compression == COMPRESSION_NONE) {
        transmit(push);
        return;
    }
    if (part->profile.size > POOL_FROM_BYTES) {
        push->job =
            (struct flue_job){.loop = sender->loop, .work = compress_work, .done = compress_done};
        flue_pool_submit(sender->loop, &push->job);
        return;
    }
    compress(push);
    compressed(push);
}

static void unlink_parcel(struct sender *sender, struct flue_parcel *parcel)
{
    struct flue_parcel *before = NULL;

    for (struct flue_parcel *at = sender->first; at; before = at, at = at->next) {
        if (at != parcel)
            continue;
        if (before)
            before->next = parcel->next;
        else
            sender->first = parcel->next;
        if (sender->last == parcel)
            sender->last = before;
        parcel->next = NULL;
        return;
    }
}

/* Begins parts of the items in turn while there is room. */
static void pump(struct sender *sender)
{
    if (sender->pumping)
        return;
    sender->pumping = true;
    while (sender->first && sender->in_flight < sender->limit) {
        struct flue_parcel *parcel = sender->first;
        struct flue_parcel_part *part = NULL;
        while (parcel->next_part < parcel->count && !part) {
            part = parcel->parts[parcel->next_part++];
            if (part->status != FLUE_PART_OPEN)
                part = NULL;
        }
        if (parcel->next_part >= parcel->count) {
            unlink_parcel(sender, parcel);
            /* All of it is under way: the engine may go on to the next item, as long as the server
             * takes them. One that does not is asked by num_consumers items at a time. */
            if (sender->healthy)
                flue_send_free_place(parcel->send);
        }
        if (part)
            begin_part(sender, part);
    }
    sender->pumping = false;
}

static void cancel(struct flue_send *send)
{
    struct flue_parcel *parcel = send->state;
    struct sender *sender;

    if (!parcel || parcel->cancelled)
        return;
    sender = parcel->sender;
    parcel->cancelled = true;
    unlink_parcel(sender, parcel);
    parcel->next_part = parcel->count;
    for (size_t i = 0; i < parcel->count; i++) {
        struct push *push = parcel->parts[i]->push;
        if (push && push->call.client)
            flue_call_cancel(&push->call);
    }
    if (parcel->running == 0)
        finish_attempt(parcel);
}

static void pyroscope_send(void *instance, struct flue_send *send)
{
    struct pyroscope *p = instance;
    struct sender *sender = &p->senders[send->loop->index];
    struct flue_parcel *parcel = send->state;
    struct flue_error error = {0};
    uint64_t now = flue_monotonic_ns();
    size_t open = 0;

    if (!parcel) {
        if (flue_parcel_new(send, &p->options, &parcel, &error)) {
            flue_send_fail(send, &error);
            return;
        }
        send->state = parcel;
        send->free_state = flue_parcel_free;
        flue_metric_add(p->trimmed, (int64_t)parcel->trimmed_labels);
    }
    parcel->send = send;
    parcel->sender = sender;
    parcel->next_part = 0;
    parcel->timeout_ns = send->deadline_ns > now ? send->deadline_ns - now : send->deadline_ns != 0;
    parcel->failure.code = FLUE_OK;
    parcel->failure.retry_after_ms = 0;
    for (size_t i = 0; i < parcel->count; i++) {
        if (parcel->parts[i]->status == FLUE_PART_AGAIN)
            parcel->parts[i]->status = FLUE_PART_OPEN;
        open += parcel->parts[i]->status == FLUE_PART_OPEN;
    }
    if (open == 0) {
        finish_attempt(parcel);
        return;
    }
    send->cancel = cancel;
    if (sender->last)
        sender->last->next = parcel;
    else
        sender->first = parcel;
    sender->last = parcel;
    pump(sender);
}

const struct flue_component flue_exporter_pyroscope = {
    .kind = FLUE_EXPORTER,
    .name = "pyroscope",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "profiles to a Pyroscope server, by push.v1",
    .config_size = sizeof(struct pyroscope_config),
    .fields = pyroscope_fields,
    .timeout_def = 10ll * 1000000000,
    .check = pyroscope_check,
    .create = pyroscope_create,
    .start = pyroscope_start,
    .send = pyroscope_send,
    .destroy = pyroscope_destroy,
};
