/* gcs.c: the Google Cloud Storage store, by its JSON API. See gcs.h.
 *
 * A body goes up as multipart/related: its CRC32C stands in the metadata before it, so that the
 * store itself refuses what was damaged; what it answers is compared as well. Large ones go up in a
 * resumable session, continued where it broke.
 *
 * Sources: Cloud Storage JSON API (objects: insert, get, list, delete), "Perform resumable
 * uploads", "Request preconditions", "Retry strategy". */
#include "archive/object/gcs.h"
#include "archive/object/oauth.h"
#include "archive/object/url.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

struct gcs {
    struct flue_object_store store;
    const struct flue_gcs_config *config;
    struct flue_arena arena;
    struct object_oauth oauth;
    bool tokens;
    struct flue_client *client;
};

const struct flue_field flue_gcs_fields[] = {
    FLUE_STRING(struct flue_gcs_config, name, .required = true, .help = "name of the bucket"),
    FLUE_STRING(struct flue_gcs_config, endpoint,
                .help = "URL of the JSON API; default: STORAGE_EMULATOR_HOST, else Google's"),
    FLUE_STRING(struct flue_gcs_config, credentials_file,
                .help = "JSON of a service account, user or workload identity; default: "
                        "GOOGLE_APPLICATION_CREDENTIALS, gcloud's own, the metadata server"),
    FLUE_BOOL(struct flue_gcs_config, anonymous, .help = "send no credentials"),
    FLUE_BLOCK(struct flue_gcs_config, tls, struct flue_tls_client_config, flue_tls_client_fields,
               .help = "TLS towards the endpoint"),
    FLUE_FIELDS_END};

static struct gcs *of_store(struct flue_object_store *store)
{
    return (struct gcs *)store;
}

/* ---- what is sent --------------------------------------------------------------------------- */

static const char *content_type(const struct flue_object_request *request)
{
    return request->content_type ? request->content_type : "application/octet-stream";
}

/* The metadata of an object, as JSON. */
static void metadata(struct flue_buffer *out, const struct flue_object_request *request,
                     const struct flue_digest *digest)
{
    char crc[48];
    flue_digest_base64(digest, FLUE_DIGEST_CRC32C, crc);
    flue_buffer_text(out, "{\"name\":");
    flue_buffer_json(out, request->key);
    flue_buffer_printf(out, ",\"crc32c\":\"%s\",\"contentType\":", crc);
    flue_buffer_json(out, flue_bytes_of(content_type(request)));
    if (request->content_encoding && *request->content_encoding) {
        flue_buffer_text(out, ",\"contentEncoding\":");
        flue_buffer_json(out, flue_bytes_of(request->content_encoding));
    }
    flue_buffer_byte(out, '}');
}

enum { GCS_PLAIN, GCS_RELATED, GCS_SESSION };

static bool add_text(struct object_call *call, struct flue_slices *slices, struct flue_buffer *text)
{
    struct flue_bytes copy = flue_arena_copy(&call->arena, flue_buffer_bytes(text));
    bool good = !text->failed && copy.data && flue_slices_add(slices, &call->arena, copy);
    flue_buffer_clear(text);
    return good;
}

/* The body with what stands around it; the bytes themselves are borrowed. */
static enum flue_code wrap(struct object_call *call, struct flue_error *error)
{
    const struct flue_object_request *request = call->op->request;
    struct flue_slices *slices = flue_arena_zalloc(&call->arena, 1, sizeof *slices);
    struct flue_buffer text;
    char boundary[48], type[96];
    bool good = slices != NULL;
    snprintf(boundary, sizeof boundary, "flue%016llx%016llx", (unsigned long long)flue_random_u64(),
             (unsigned long long)flue_random_u64());
    flue_buffer_init(&text, 64 * 1024);
    if (call->probe == GCS_RELATED) {
        flue_buffer_printf(&text, "--%s\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n",
                           boundary);
        metadata(&text, request, &call->digest);
        flue_buffer_printf(&text, "\r\n--%s\r\ncontent-type: %s\r\n\r\n", boundary,
                           content_type(request));
        good = good && add_text(call, slices, &text);
        for (size_t i = 0; good && call->body && i < call->body->count; i++)
            good = flue_slices_add(slices, &call->arena, call->body->items[i]);
        flue_buffer_printf(&text, "\r\n--%s--\r\n", boundary);
        snprintf(type, sizeof type, "multipart/related; boundary=%s", boundary);
    } else {
        metadata(&text, request, &call->digest);
        snprintf(type, sizeof type, "application/json; charset=UTF-8");
    }
    good = good && add_text(call, slices, &text);
    flue_buffer_destroy(&text);
    if (!good)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
    object_call_send_field(call, "content-type", type);
    call->http.body = slices;
    return FLUE_OK;
}

static enum flue_code prepare(struct object_call *call, struct flue_error *error)
{
    struct gcs *gcs = of_store(call->store);
    struct flue_buffer path;
    flue_buffer_init(&path, 16 * 1024);
    if (call->url_path) {
        flue_buffer_text(&path, call->url_path);
    } else {
        flue_buffer_printf(&path, "%s/storage/v1/b/", call->probe ? "/upload" : "");
        flue_url_escape(&path, flue_bytes_of(gcs->config->name), false);
        flue_buffer_text(&path, "/o");
        if (call->key.size) {
            flue_buffer_byte(&path, '/');
            flue_url_escape(&path, call->key, false);
        }
        if (call->query_count) {
            flue_buffer_byte(&path, '?');
            flue_url_query(&path, call->query, call->query_count);
        }
    }
    call->http.path = flue_arena_copy(&call->arena, flue_buffer_bytes(&path));
    bool failed = path.failed || !call->http.path.data;
    flue_buffer_destroy(&path);
    if (failed)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
    if (gcs->tokens) {
        const char *line =
            flue_arena_printf(&call->arena, "Bearer %s", gcs->store.identity.secret.token);
        if (!line)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
        object_call_send_field(call, "authorization", line);
    }
    call->http.client = gcs->client;
    return call->probe ? wrap(call, error) : FLUE_OK;
}

/* ---- what an answer means ------------------------------------------------------------------- */

static json_t *parse(const struct object_call *call)
{
    return json_loadb((const char *)call->http.response.data, call->http.response.size, 0, NULL);
}

static bool judge(struct object_call *call)
{
    unsigned status = call->http.status;
    bool put = call->op->kind == OBJECT_PUT;
    uint32_t wait_ms = 0;
    enum flue_code code;
    if (object_status_ok(call) || (status == 308 && call->url_path))
        return false;
    if (status == 401 && !call->identity_tried && of_store(call->store)->tokens) {
        call->identity_tried = true;
        object_identity_drop(&call->store->identity, call->identity_version);
        return true;
    }
    if (status == 404 && call->op->kind == OBJECT_DELETE)
        return false; /* gone is gone */
    if (status == 412) {
        call->existed = true;
        flue_fail(&call->error, FLUE_REFUSED, "%s: the object exists already", call->store->label);
        return false;
    }
    json_t *root = call->http.response.size <= 64 * 1024 ? parse(call) : NULL;
    json_t *error = json_object_get(root, "error");
    json_t *first = json_array_get(json_object_get(error, "errors"), 0);
    const char *message = json_string_value(json_object_get(error, "message"));
    const char *reason = json_string_value(json_object_get(first, "reason"));
    bool slower = reason && (strcmp(reason, "rateLimitExceeded") == 0 ||
                             strcmp(reason, "userRateLimitExceeded") == 0);
    if (status == 429 || slower) {
        code = FLUE_RATE_LIMITED;
        wait_ms = 2000;
    } else if (status >= 500 || status == 408) {
        code = FLUE_UNAVAILABLE;
    } else if (status == 401 || status == 403 || status == 404 || status == 410 ||
               (status >= 300 && status < 400)) {
        /* 404 and 410 of a put: no bucket, or its session is gone */
        code = put             ? FLUE_UNAVAILABLE
               : status == 401 ? FLUE_UNAUTHENTICATED
               : status == 403 ? FLUE_FORBIDDEN
                               : FLUE_NOT_FOUND;
        wait_ms = put && !call->url_path ? OBJECT_HELD_MS : 0;
    } else {
        code = status == 413 ? FLUE_TOO_LARGE : status == 416 ? FLUE_INVALID : FLUE_REFUSED;
    }
    flue_fail(&call->error, code, "%s answered HTTP %u %s%s%s", call->store->label, status,
              reason ? object_printable(call, flue_bytes_of(reason)) : "", message ? ": " : "",
              message ? object_printable(call, flue_bytes_of(message)) : "");
    uint32_t asked = flue_call_retry_after_ms(&call->http);
    call->error.retry_after_ms = asked ? asked : wait_ms;
    json_decref(root);
    return false;
}

/* The stored object's checksum against ours. */
static void compare(struct object_call *call, const struct flue_digest *digest)
{
    char own[48];
    json_t *root = parse(call);
    const char *theirs = json_string_value(json_object_get(root, "crc32c"));
    flue_digest_base64(digest, FLUE_DIGEST_CRC32C, own);
    if (theirs && strcmp(theirs, own) != 0)
        flue_fail(&call->error, FLUE_UNAVAILABLE, "%s: the stored object's checksum is wrong",
                  call->store->label);
    json_decref(root);
}

/* ---- put ------------------------------------------------------------------------------------ */

static void on_put(struct object_call *call)
{
    if (!call->error.code)
        compare(call, &call->digest);
    object_op_take(call->op, call);
    object_op_finish(call->op);
}

static void upload_query(struct object_call *call, const char *type)
{
    const struct flue_object_request *request = call->op->request;
    object_call_query(call, "uploadType", flue_bytes_of(type));
    object_call_query(call, "name", request->key);
    if (request->create == FLUE_OBJECT_CREATE)
        object_call_query(call, "ifGenerationMatch", FLUE_BYTES("0"));
}

/* object_op.own of a large put. */
struct session {
    const char *path; /* escaped, with query */
    struct flue_digest digest;
    uint64_t offset;
    unsigned tries;
};

static void session_send(struct object_op *op);
static void session_query(struct object_op *op);

static struct session *session_of(struct object_op *op)
{
    return op->own;
}

static void session_end(struct object_op *op)
{
    struct session *session = session_of(op);
    if (op->request->error.code && session->path) {
        struct object_call *call =
            object_call_new(op->store, op, "DELETE", (struct flue_bytes){0}, NULL);
        if (call) {
            call->cleaning = true;
            call->url_path = session->path;
            object_call_start(call);
        }
    }
    object_op_finish(op);
}

/* "bytes=0-123": 124 bytes are there. */
static uint64_t stored_bytes(const struct object_call *call)
{
    struct flue_bytes range = flue_call_header(&call->http, "range");
    uint64_t last;
    size_t dash = flue_bytes_find(range, '-');
    if (!flue_bytes_starts_with(range, FLUE_BYTES("bytes=0-")) ||
        !flue_parse_u64(flue_bytes_from(range, dash + 1), &last))
        return 0;
    return last + 1;
}

static void on_session(struct object_call *call)
{
    struct object_op *op = call->op;
    struct session *session = session_of(op);
    uint64_t total = op->request->body->total;
    if (!call->error.code && object_status_ok(call)) {
        compare(call, &session->digest);
    } else if (!call->error.code) { /* 308: not whole yet */
        session->offset = stored_bytes(call);
        if (session->offset < total && session->tries++ < 8) {
            session_send(op);
            return;
        }
        flue_fail(&call->error, FLUE_UNAVAILABLE, "%s: the session does not go on",
                  op->store->label);
    } else if (flue_code_facts(call->error.code)->retryable && !call->cancelled &&
               session->tries++ < 8) {
        session_query(op);
        return;
    }
    object_op_take(op, call);
    session_end(op);
}

static void session_query(struct object_op *op)
{
    struct object_call *call =
        object_call_new(op->store, op, "PUT", (struct flue_bytes){0}, on_session);
    if (!call)
        return;
    char range[64];
    snprintf(range, sizeof range, "bytes */%zu", op->request->body->total);
    call->url_path = session_of(op)->path;
    object_call_field(call, "content-range", range);
    object_call_start(call);
}

static void session_send(struct object_op *op)
{
    struct session *session = session_of(op);
    const struct flue_slices *body = op->request->body;
    struct object_call *call =
        object_call_new(op->store, op, "PUT", (struct flue_bytes){0}, on_session);
    uint64_t skip = session->offset;
    char range[96];
    if (!call)
        return;
    struct flue_slices *rest = flue_arena_zalloc(&call->arena, 1, sizeof *rest);
    for (size_t i = 0; rest && i < body->count; i++) {
        struct flue_bytes b = body->items[i];
        size_t off = skip < b.size ? (size_t)skip : b.size;
        skip -= off;
        if (off < b.size && !flue_slices_add(rest, &call->arena, flue_bytes_from(b, off)))
            rest = NULL;
    }
    if (!rest)
        flue_fail(&call->error, FLUE_NO_MEMORY, "no memory for an upload");
    snprintf(range, sizeof range, "bytes %llu-%zu/%zu", (unsigned long long)session->offset,
             body->total - 1, body->total);
    call->url_path = session->path;
    call->body = rest;
    object_call_field(call, "content-range", range);
    object_call_start(call);
}

/* Path and query of an absolute URL; the host stays ours. */
static const char *session_path(struct object_op *op, struct flue_bytes url)
{
    const uint8_t *found = url.size ? memmem(url.data, url.size, "://", 3) : NULL;
    if (found)
        url = flue_bytes_from(url, (size_t)(found - url.data) + 3);
    size_t slash = flue_bytes_find(url, '/');
    if (slash == SIZE_MAX || url.size > 8192)
        return NULL;
    url = flue_bytes_from(url, slash);
    for (size_t i = 0; i < url.size; i++)
        if (url.data[i] <= ' ' || url.data[i] >= 0x7f)
            return NULL;
    return flue_arena_string(&op->arena, url);
}

static void on_session_begun(struct object_call *call)
{
    struct object_op *op = call->op;
    struct session *session = session_of(op);
    session->digest = call->digest;
    if (!call->error.code) {
        session->path = session_path(op, flue_call_header(&call->http, "location"));
        if (!session->path)
            flue_fail(&call->error, FLUE_UNAVAILABLE, "%s: a session without a Location",
                      op->store->label);
    }
    object_op_take(op, call);
    if (call->error.code)
        object_op_finish(op);
    else
        session_send(op);
}

static void put(struct object_op *op)
{
    const struct flue_object_request *request = op->request;
    bool large = request->body && request->body->total > OBJECT_SINGLE;
    struct object_call *call = object_call_new(op->store, op, "POST", (struct flue_bytes){0},
                                               large ? on_session_begun : on_put);
    if (!call)
        return;
    call->body = request->body;
    call->digests = FLUE_DIGEST_CRC32C;
    call->probe = large ? GCS_SESSION : GCS_RELATED;
    upload_query(call, large ? "resumable" : "multipart");
    if (large) {
        char size[32];
        snprintf(size, sizeof size, "%zu", request->body->total);
        object_call_field(call, "x-upload-content-type", content_type(request));
        object_call_field(call, "x-upload-content-length", size);
        struct session *session = flue_arena_zalloc(&op->arena, 1, sizeof *session);
        if (!session)
            flue_fail(&call->error, FLUE_NO_MEMORY, "no memory for an upload");
        op->own = session;
    }
    object_call_start(call);
}

/* ---- get, list, delete ---------------------------------------------------------------------- */

/* x-goog-hash: crc32c=…,md5=… (one or several fields). */
static bool hash_wrong(struct object_call *call, struct flue_bytes data)
{
    for (size_t i = 0; i < call->http.response_header_count; i++) {
        const struct flue_header *field = &call->http.response_headers[i];
        struct flue_bytes rest = field->value;
        if (!flue_bytes_is(field->name, "x-goog-hash"))
            continue;
        while (rest.size) {
            size_t comma = flue_bytes_find(rest, ',');
            struct flue_bytes one =
                flue_bytes_trim(flue_bytes_first(rest, comma == SIZE_MAX ? rest.size : comma));
            rest = flue_bytes_from(rest, comma == SIZE_MAX ? rest.size : comma + 1);
            if (flue_bytes_starts_with(one, FLUE_BYTES("crc32c=")))
                return object_digest_differs(data, FLUE_DIGEST_CRC32C, flue_bytes_from(one, 7));
        }
    }
    return false;
}

static void on_got(struct object_call *call)
{
    object_op_got(call, hash_wrong);
}

static void get(struct object_op *op)
{
    struct object_call *call = object_call_new(op->store, op, "GET", op->request->key, on_got);
    char range[64];
    if (!call)
        return;
    object_range(op->request, range);
    object_call_query(call, "alt", FLUE_BYTES("media"));
    object_call_field(call, "range", range);
    object_call_field(call, "accept-encoding", "gzip"); /* or stored gzip would be unpacked there */
    object_call_start(call);
}

static bool take_item(struct object_op *op, json_t *item, struct flue_object_listed *out)
{
    const char *name = json_string_value(json_object_get(item, "name"));
    const char *size = json_string_value(json_object_get(item, "size"));
    const char *updated = json_string_value(json_object_get(item, "updated"));
    uint64_t seconds;
    *out = (struct flue_object_listed){0};
    if (!name || (size && !flue_parse_u64(flue_bytes_of(size), &out->size)))
        return false;
    if (updated && object_iso_date(flue_bytes_of(updated), &seconds))
        out->modified = (int64_t)seconds;
    out->key = flue_arena_copy(&op->arena,
                               flue_bytes(name, json_string_length(json_object_get(item, "name"))));
    return out->key.data != NULL;
}

static void on_listed(struct object_call *call)
{
    struct object_op *op = call->op;
    struct flue_bytes after = op->request->start_after;
    struct flue_object_listed *items = NULL, listed;
    size_t count = 0, room = 0, i;
    json_t *root = call->error.code ? NULL : parse(call), *item;
    bool good = json_is_object(root), more;
    object_op_take(op, call);
    json_array_foreach(json_object_get(root, "items"), i, item)
    {
        good = good && take_item(op, item, &listed);
        if (good && (!after.size || flue_bytes_compare(listed.key, after) > 0))
            good = FLUE_ARENA_PUSH(&op->arena, items, count, room, listed);
    }
    json_array_foreach(json_object_get(root, "prefixes"), i, item)
    {
        listed = (struct flue_object_listed){.folder = true};
        listed.key = flue_arena_copy(&op->arena,
                                     flue_bytes(json_string_value(item), json_string_length(item)));
        good = good && listed.key.size;
        if (good && (!after.size || flue_bytes_compare(listed.key, after) > 0))
            good = FLUE_ARENA_PUSH(&op->arena, items, count, room, listed);
    }
    more = json_object_get(root, "nextPageToken") != NULL;
    json_decref(root);
    if (!call->error.code && !good)
        flue_fail(&op->request->error, FLUE_UNAVAILABLE, "%s: the list cannot be read",
                  op->store->label);
    object_sort_listed(items, count);
    if (op->request->limit && count > op->request->limit) {
        count = op->request->limit;
        more = true;
    }
    object_op_listed(op, items, count, more);
    object_op_finish(op);
}

static void list(struct object_op *op)
{
    const struct flue_object_request *request = op->request;
    struct object_call *call =
        object_call_new(op->store, op, "GET", (struct flue_bytes){0}, on_listed);
    if (!call)
        return;
    if (request->key.size)
        object_call_query(call, "prefix", request->key);
    if (request->delimiter)
        object_call_query(call, "delimiter", flue_bytes(&request->delimiter, 1));
    if (request->start_after.size) /* it begins with this one, which is left out below */
        object_call_query(call, "startOffset", request->start_after);
    if (request->limit) {
        unsigned limit = request->limit < 1000 ? request->limit + 1 : 1000;
        object_call_query(call, "maxResults",
                          flue_bytes_of(flue_arena_printf(&call->arena, "%u", limit)));
    }
    object_call_start(call);
}

static void delete (struct object_op *op)
{
    struct object_call *call =
        object_call_new(op->store, op, "DELETE", op->request->key, object_op_answered);
    if (call)
        object_call_start(call);
}

static void begin(struct object_op *op)
{
    static void (*const kinds[OBJECT_KINDS])(struct object_op * op) = {put, get, list, delete};
    kinds[op->kind](op);
}

/* ---- the store ------------------------------------------------------------------------------ */

static void disconnect(struct flue_object_store *store)
{
    flue_client_destroy(of_store(store)->client);
}

static void destroy(struct flue_object_store *store)
{
    struct gcs *gcs = of_store(store);
    object_oauth_destroy(&gcs->oauth);
    flue_arena_destroy(&gcs->arena);
    free(gcs);
}

static const struct object_driver driver = {.vendor = "gcs",
                                            .begin = begin,
                                            .prepare = prepare,
                                            .judge = judge,
                                            .disconnect = disconnect,
                                            .destroy = destroy};

static void check(const void *raw, struct flue_check *check)
{
    const struct flue_gcs_config *config = raw;
    struct flue_error error;
    if (config->name && (strchr(config->name, '/') || strlen(config->name) > 255))
        flue_check_fail(check, "name", "is not the name of a bucket");
    if (config->endpoint && *config->endpoint &&
        flue_client_endpoint_check(config->endpoint, true, &error))
        flue_check_fail(check, "endpoint", "%s", error.text);
    flue_tls_check(&config->tls.common, "tls", check);
}

static enum flue_code open_store(const void *raw, struct flue_loop *loop,
                                 struct flue_metrics *metrics, struct flue_object_store **out,
                                 struct flue_error *error)
{
    const struct flue_gcs_config *config = raw;
    const char *endpoint = config->endpoint, *emulator = getenv("STORAGE_EMULATOR_HOST");
    if (!config->name || !*config->name)
        return flue_fail(error, FLUE_INVALID, "the bucket's name is missing");
    struct gcs *gcs = calloc(1, sizeof *gcs);
    if (!gcs)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a store");
    gcs->config = config;
    flue_arena_init(&gcs->arena, 64 * 1024, 1024);
    object_store_init(&gcs->store, &driver, loop, metrics, "GCS bucket", config->name);
    object_oauth_init(&gcs->oauth, &gcs->store.identity, object_google_plan, config);
    bool emulated = (!endpoint || !*endpoint) && emulator && *emulator;
    if (emulated)
        endpoint = strstr(emulator, "://") ? emulator
                                           : flue_arena_printf(&gcs->arena, "http://%s", emulator);
    else if (!endpoint || !*endpoint)
        endpoint = "https://storage.googleapis.com";
    /* An emulator knows no credentials, unless some are named for it. */
    gcs->tokens = !config->anonymous && (!emulated || config->credentials_file);
    if (!gcs->tokens)
        gcs->store.identity.renew = NULL;
    enum flue_code code = endpoint
                              ? object_client_new(loop, endpoint, &config->tls, &gcs->client, error)
                              : flue_fail(error, FLUE_NO_MEMORY, "no memory for a store");
    return object_store_opened(&gcs->store, code, out);
}

static enum flue_code from_url(const char *url, struct flue_arena *arena, void *raw,
                               struct flue_bytes *prefix, struct flue_error *error)
{
    struct flue_gcs_config *config = raw;
    return object_url_bucket(url, "gs", flue_gcs_fields, raw, arena, &config->name, prefix, error);
}

static const char *const schemes[] = {"gs", NULL};
const struct flue_object_vendor flue_object_gcs = {.name = "gcs",
                                                   .schemes = schemes,
                                                   .config_size = sizeof(struct flue_gcs_config),
                                                   .fields = flue_gcs_fields,
                                                   .check = check,
                                                   .open = open_store,
                                                   .from_url = from_url};
