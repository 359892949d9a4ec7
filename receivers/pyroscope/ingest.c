/* ingest.c: POST /ingest. The answer is exactly 200 with an empty body (pyroscope-go takes nothing
 * else for success), or {"code","message"} with the status that Pyroscope gives.
 *
 * Unlike Pyroscope, Content-Encoding is honoured. Source: pkg/ingester/pyroscope/ingest_handler.go,
 * pkg/util/http/error.go, pkg/util/connectgrpc. */
#include <stdio.h>

#include "collector/base/buffer.h"
#include "collector/base/clock.h"
#include "collector/net/unpack.h"
#include "receivers/pyroscope/multipart.h"
#include "receivers/pyroscope/profile.h"
#include "receivers/pyroscope/pyroscope.h"

#define SAMPLE_RATE    100
#define RETRY_AFTER_MS 5000

struct ingest {
    struct flue_intake_push intake; /* first */
    struct pyroscope *receiver;
    struct flue_ingest parsed;
    struct flue_unpack body;
    struct flue_error error;
};

/* ---- answers -------------------------------------------------------------------------------- */

static const char *connect_code(unsigned status)
{
    switch (status) {
    case 400:
    case 413:
        return "invalid_argument";
    case 401:
        return "unauthenticated";
    case 403:
        return "permission_denied";
    case 404:
        return "unimplemented";
    case 429:
    case 431:
        return "resource_exhausted";
    case 499:
        return "canceled";
    case 502:
    case 503:
        return "unavailable";
    case 504:
        return "deadline_exceeded";
    default:
        return "unknown";
    }
}

static void answer_error(struct flue_request *request, unsigned status,
                         const struct flue_error *error)
{
    struct flue_buffer body;
    struct flue_header headers[3] = {{FLUE_BYTES("content-type"), FLUE_BYTES("application/json")},
                                     {FLUE_BYTES("x-content-type-options"), FLUE_BYTES("nosniff")}};
    char after[16];
    size_t count = 2;
    flue_buffer_init(&body, 4096);
    flue_buffer_text(&body, "{\"code\":\"");
    flue_buffer_text(&body, connect_code(status));
    flue_buffer_text(&body, "\",\"message\":");
    flue_buffer_json(&body, flue_bytes_of(error->text));
    flue_buffer_text(&body, "}");
    if (status == 429 || status == 503) {
        uint32_t ms = error->retry_after_ms ? error->retry_after_ms : RETRY_AFTER_MS;
        snprintf(after, sizeof after, "%u", (ms + 999) / 1000);
        headers[count++] = (struct flue_header){FLUE_BYTES("retry-after"), flue_bytes_of(after)};
    }
    const struct flue_response response = {.status = status,
                                           .headers = headers,
                                           .header_count = count,
                                           .body = body.failed ? FLUE_BYTES("{}")
                                                               : flue_buffer_bytes(&body)};
    flue_respond(request, &response);
    flue_buffer_destroy(&body);
}

static void refuse(struct flue_request *request, void *arg, const struct flue_error *error)
{
    flue_intake_count_refusal(&((struct pyroscope *)arg)->intake, error->code);
    answer_error(request, flue_code_facts(error->code)->http, error);
}

/* Ends the request; `error` NULL or FLUE_OK: 200. */
static void finish(struct ingest *ingest, const struct flue_error *error)
{
    struct flue_request *request = ingest->intake.request;
    request->user = NULL;
    request->gone = NULL;
    flue_block_unref(ingest->body.block);
    ingest->body.block = NULL;
    if (error && error->code != FLUE_OK) {
        refuse(request, ingest->receiver, error);
        return;
    }
    const struct flue_response response = {.status = 200};
    flue_respond(request, &response);
}

/* What is wrong with the content is 422 here, whatever it is called elsewhere. */
static void refuse_content(struct ingest *ingest)
{
    if (ingest->error.code == FLUE_INVALID)
        ingest->error.code = FLUE_UNPROCESSABLE;
    finish(ingest, &ingest->error);
}

static void sent(struct flue_intake_push *intake, const struct flue_outcome *outcome)
{
    struct flue_error copy = outcome->error;
    /* A later hop that refuses the data for good: Pyroscope says 422 for every validation error. */
    if (copy.code == FLUE_INVALID || copy.code == FLUE_REFUSED)
        copy.code = FLUE_UNPROCESSABLE;
    finish((struct ingest *)(void *)intake, &copy);
}

/* ---- the body ------------------------------------------------------------------------------- */

static enum flue_code other_format(const char *name, struct flue_error *error)
{
    return flue_fail(error, FLUE_UNPROCESSABLE,
                     "format %s is not taken; send pprof or folded text (format=groups or lines)",
                     name);
}

static enum flue_code read_form(struct ingest *ingest, struct flue_bytes content_type,
                                struct flue_ingest_result *result)
{
    struct flue_multipart form;
    struct flue_error *error = &ingest->error;
    enum flue_code code =
        flue_multipart_read(content_type, flue_block_bytes(ingest->body.block), &form, error);
    if (code != FLUE_OK)
        return code;
    const struct flue_form_part *profile = flue_multipart_part(&form, "profile");
    const struct flue_form_part *previous = flue_multipart_part(&form, "prev_profile");
    const struct flue_form_part *config = flue_multipart_part(&form, "sample_type_config");
    if (!profile && flue_multipart_part(&form, "jfr"))
        return other_format("jfr", error);
    if (!profile)
        return flue_fail(error, FLUE_INVALID, "multipart: there is no part \"profile\"");
    if (previous && previous->content.size > 0)
        return flue_fail(
            error, FLUE_INVALID,
            "unsupported client version. Please update github.com/grafana/pyroscope-go "
            "to the latest version (part prev_profile)");
    return flue_ingest_profile(&ingest->parsed, profile->content,
                               config ? config->content : FLUE_BYTES(""), ingest->body.block,
                               result, error);
}

static void read_body(struct ingest *ingest)
{
    struct flue_request *request = ingest->intake.request;
    struct flue_bytes type = flue_request_header(request, "content-type");
    struct flue_bytes body = flue_block_bytes(ingest->body.block);
    struct flue_ingest_result result = {0};
    const char *other = NULL;
    enum flue_code code = FLUE_OK;
    enum flue_ingest_format format =
        flue_ingest_format(flue_request_query(request, "format"), type, body, &other);
    switch (format) {
    case FLUE_INGEST_OTHER:
        code = other_format(other, &ingest->error);
        break;
    case FLUE_INGEST_MULTIPART:
        code = read_form(ingest, type, &result);
        break;
    case FLUE_INGEST_PPROF:
        code = flue_ingest_profile(&ingest->parsed, body, FLUE_BYTES(""), ingest->body.block,
                                   &result, &ingest->error);
        break;
    case FLUE_INGEST_GROUPS:
    case FLUE_INGEST_LINES:
        /* Pyroscope answers 400 to a name whose suffix it does not know, before it reads. */
        code =
            flue_ingest_folded(&ingest->parsed, body,
                               format == FLUE_INGEST_LINES ? FLUE_FOLDED_LINES : FLUE_FOLDED_GROUPS,
                               &result, &ingest->error);
        if (code == FLUE_INVALID && strncmp(ingest->error.text, "unknown profile type", 20) == 0) {
            finish(ingest, &ingest->error);
            return;
        }
        break;
    }
    if (code != FLUE_OK) {
        refuse_content(ingest);
        return;
    }
    if (result.repaired)
        flue_metric_add(ingest->receiver->repaired_profiles, 1);
    if (!result.payload) { /* an empty profile is no mistake, and nothing to keep */
        finish(ingest, NULL);
        return;
    }
    flue_block_unref(ingest->body.block); /* the payload holds it */
    ingest->body.block = NULL;
    flue_intake_push(&ingest->intake, result.payload, &result.counts);
}

static void unpacked(struct flue_unpack *body)
{
    struct ingest *ingest = (struct ingest *)(void *)((char *)body - offsetof(struct ingest, body));
    if (body->block) {
        read_body(ingest);
        return;
    }
    ingest->error = body->error;
    refuse_content(ingest);
}

static void gone(struct flue_request *request)
{
    struct ingest *ingest = request->user;
    if (!ingest)
        return;
    ingest->body.gone = true;
    flue_intake_cancel(&ingest->intake);
}

static void body(struct flue_request *request, void *arg)
{
    struct ingest *ingest = request->user;
    request->gone = gone; /* whose body never came is not told */
    ingest->body.block = request->body;
    request->body = NULL;
    flue_unpack(&ingest->body, request->loop);
}

/* ---- the head ------------------------------------------------------------------------------- */

static enum flue_code parse_head(struct ingest *ingest, struct flue_request *request,
                                 struct flue_error *error)
{
    struct flue_ingest *parsed = &ingest->parsed;
    struct flue_bytes encoding = flue_request_header(request, "content-encoding");
    struct flue_bytes name = flue_request_query(request, "name");
    struct flue_bytes rate = flue_request_query(request, "sampleRate");
    uint64_t now = flue_wall_ns();
    char shown[64];
    enum flue_code code =
        flue_intake_admit(&ingest->receiver->intake, request, &parsed->account, error);
    if (code != FLUE_OK)
        return code;
    if (!flue_coding_by_name(encoding, &ingest->body.coding) ||
        !(flue_server_codings(request->config) & 1u << ingest->body.coding ||
          ingest->body.coding == FLUE_IDENTITY))
        return flue_fail(error, FLUE_BAD_ENCODING, "Content-Encoding \"%s\" is not taken",
                         flue_printable(encoding, shown, sizeof shown));
    if (!name.data)
        return flue_fail(error, FLUE_INVALID, "name: this query parameter is required");
    if (!flue_utf8_valid(name))
        return flue_fail(error, FLUE_INVALID, "name: is not UTF-8");
    if ((code = flue_ingest_name(name, &parsed->name, error)) != FLUE_OK)
        return code;
    parsed->from_ns = flue_ingest_time(flue_request_query(request, "from"), now);
    parsed->until_ns = flue_ingest_time(flue_request_query(request, "until"), now);
    parsed->spy = flue_request_query(request, "spyName");
    if (!flue_utf8_valid(parsed->spy))
        parsed->spy = FLUE_BYTES("unknown");
    if (!rate.data || !flue_parse_u64(rate, &parsed->sample_rate))
        parsed->sample_rate = SAMPLE_RATE;
    return FLUE_OK;
}

static void head(struct flue_request *request, void *arg)
{
    struct pyroscope *receiver = arg;
    struct flue_error error;
    struct ingest *ingest = flue_arena_zalloc(&request->arena, 1, sizeof *ingest);
    if (!ingest) {
        flue_fail(&error, FLUE_NO_MEMORY, "no memory to take the request");
        refuse(request, receiver, &error);
        return;
    }
    ingest->receiver = receiver;
    if (parse_head(ingest, request, &error) != FLUE_OK) {
        refuse(request, receiver, &error);
        return;
    }
    ingest->parsed.limits = (struct flue_pprof_limits){
        (size_t)request->config->max_request_body_size, FLUE_RATIO_LIMIT};
    ingest->body.limit = ingest->parsed.limits.inflated;
    ingest->body.account = ingest->parsed.account;
    ingest->body.done = unpacked;
    ingest->intake = (struct flue_intake_push){
        .intake = &receiver->intake, .request = request, .transport = FLUE_OVER_HTTP, .done = sent};
    request->user = ingest;
    flue_request_admit(request, ingest->parsed.account, 0);
}

void flue_pyroscope_ingest_route(struct pyroscope *receiver, const char *path,
                                 struct flue_route *route)
{
    *route = (struct flue_route){.method = "POST",
                                 .path = path,
                                 .arg = receiver,
                                 .head = head,
                                 .body = body,
                                 .refuse = refuse};
}
