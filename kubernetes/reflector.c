/* reflector.c: what comes back from the API server for one kind, and what is done next. */
#include "kubernetes/reflector.h"
#include <stdio.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"

#define SECOND      UINT64_C(1000000000)
#define BACKOFF_NS  (SECOND * 8 / 10)
#define BACKOFF_MAX (30 * SECOND)
#define DENIED_NS   (60 * SECOND)
#define HEALTHY_NS  (10 * SECOND)
#define SILENT_NS   (15 * SECOND)
#define SETTLED_NS  SECOND /* a watch that went on is current this long after its answer began */

static void keep_version(char *to, struct flue_bytes version)
{
    if (version.size && version.size < FLUE_KUBE_VERSION_MAX) {
        memcpy(to, version.data, version.size);
        to[version.size] = 0;
    }
}

static void synced(struct flue_kube_reflector *r)
{
    flue_kube_store_end(r->watcher->store, r->spec.kind);
    r->failures = 0;
    r->live_ns = flue_monotonic_ns();
    flue_metric_set(r->synced_gauge, 1);
    if (!r->synced)
        flue_log(FLUE_INFO, "kubernetes", "listed", FLUE_S("processor", r->watcher->id),
                 FLUE_S("kind", flue_kube_kind_name(r->spec.kind)), FLUE_LOG_END);
    r->synced = true;
    if (!r->counted)
        atomic_fetch_sub(&r->watcher->pending, 1);
    r->counted = true;
    if (r->denied)
        flue_log(FLUE_INFO, "kubernetes", "is allowed now", FLUE_S("processor", r->watcher->id),
                 FLUE_S("kind", flue_kube_kind_name(r->spec.kind)), FLUE_LOG_END);
    r->denied = false;
}

/* ---- the body -------------------------------------------------------------------------------- */

static bool on_error_event(struct flue_kube_reflector *r, struct flue_bytes bytes)
{
    struct flue_kube_status status;
    char text[160];

    r->event_code = 500;
    if (flue_kube_status_read(bytes, r->json, &status) == FLUE_OK) {
        if (status.code)
            r->event_code = status.code;
        snprintf(r->reason, sizeof r->reason, "%.60s: %s",
                 flue_printable(status.reason, (char[64]){0}, 64),
                 flue_printable(status.message, text, sizeof text));
        flue_kube_status_done(&status);
    }
    return false;
}

static bool on_list_meta(struct flue_kube_reflector *r, struct flue_bytes bytes)
{
    struct flue_kube_list_meta meta;

    if (!flue_kube_list_meta_read(bytes, r->json, &meta))
        return true;
    keep_version(r->list_version, meta.resource_version);
    r->more[0] = 0;
    if (meta.more.size && meta.more.size < sizeof r->more) {
        memcpy(r->more, meta.more.data, meta.more.size);
        r->more[meta.more.size] = 0;
    }
    flue_kube_list_meta_done(&meta);
    return true;
}

static bool on_object(void *arg, enum flue_kube_event event, struct flue_bytes bytes)
{
    struct flue_kube_reflector *r = arg;
    struct flue_kube_object *object = r->watcher->object;
    struct flue_kube_store *store = r->watcher->store;
    struct flue_error error;

    flue_metric_add(r->events[event], 1);
    if (event == FLUE_KUBE_ERROR)
        return on_error_event(r, bytes);
    if (event == FLUE_KUBE_LIST_META)
        return on_list_meta(r, bytes);
    enum flue_code code = r->json ? flue_kube_object_read_json(bytes, r->spec.kind, object, &error)
                                  : flue_kube_object_read(bytes, r->spec.kind, object, &error);
    if (code) { /* one object is no reason to give up the others */
        flue_metric_add(r->broken, 1);
        flue_log(FLUE_WARN, "kubernetes", "left out an object", FLUE_S("processor", r->watcher->id),
                 FLUE_S("error", error.text), FLUE_LOG_END);
        return true;
    }
    bool initial = r->step == FLUE_KUBE_STEP_WATCHLIST && !r->initial_done;
    switch (event) {
    case FLUE_KUBE_LISTED:
    case FLUE_KUBE_ADDED:
        flue_kube_store_put(store, r->spec.kind, object, false);
        break;
    case FLUE_KUBE_MODIFIED:
        flue_kube_store_put(store, r->spec.kind, object, !initial);
        break;
    case FLUE_KUBE_DELETED:
        flue_kube_store_delete(store, r->spec.kind, object);
        break;
    default: /* BOOKMARK */
        if (initial &&
            flue_bytes_is(flue_kube_pair_find(object->annotations, object->annotation_count,
                                              "k8s.io/initial-events-end"),
                          "true")) {
            r->initial_done = true;
            synced(r);
        }
        break;
    }
    /* During the initial events versions come in no order. */
    if (event != FLUE_KUBE_LISTED && !(initial && !r->initial_done))
        keep_version(r->version, object->resource_version);
    flue_kube_object_done(object);
    return true;
}

static void begin_body(struct flue_kube_reflector *r)
{
    char *type = NULL;
    bool list = r->step == FLUE_KUBE_STEP_LIST;

    r->begun = true;
    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &r->status);
    curl_easy_getinfo(r->easy, CURLINFO_CONTENT_TYPE, &type);
    r->json = !type || strncmp(type, "application/vnd.kubernetes.protobuf", 35) != 0;
    flue_kube_cut_init(&r->cut,
                       r->json ? (list ? FLUE_KUBE_JSON_LIST : FLUE_KUBE_JSON_WATCH)
                               : (list ? FLUE_KUBE_PROTOBUF_LIST : FLUE_KUBE_PROTOBUF_WATCH),
                       on_object, r);
    if (r->status != 200)
        return;
    if (r->step == FLUE_KUBE_STEP_WATCHLIST || (list && !r->list_version[0]))
        flue_kube_store_begin(r->watcher->store, r->spec.kind);
    if (r->step == FLUE_KUBE_STEP_WATCH && !r->live_ns)
        r->live_ns = flue_monotonic_ns() + SETTLED_NS;
}

size_t flue_kube_reflector_write(char *data, size_t size, size_t count, void *arg)
{
    struct flue_kube_reflector *r = arg;
    struct flue_bytes piece = flue_bytes(data, size * count);
    struct flue_error error = {.code = FLUE_OK};

    if (!r->begun)
        begin_body(r);
    r->last_data_ns = flue_monotonic_ns();
    r->watcher->news |= r->spec.kind == FLUE_KUBE_POD;
    if (r->status != 200) {
        size_t room = sizeof r->refusal - r->refusal_size;
        size_t take = piece.size < room ? piece.size : room;
        memcpy(r->refusal + r->refusal_size, piece.data, take);
        r->refusal_size += take;
        return piece.size;
    }
    enum flue_code code = flue_kube_cut_feed(&r->cut, piece, &error);
    flue_kube_store_tick(r->watcher->store);
    if (code && code != FLUE_CANCELLED)
        snprintf(r->reason, sizeof r->reason, "%.250s", error.text);
    r->broken_stream = code == FLUE_INVALID;
    return code ? 0 : piece.size;
}

/* ---- what next ------------------------------------------------------------------------------- */

static void later(struct flue_kube_reflector *r, uint64_t delay)
{
    /* Jitter of one: between the delay and twice the delay. */
    r->due_ns = flue_monotonic_ns() + delay + (delay ? flue_random_u64() % delay : 0);
}

static void back_off(struct flue_kube_reflector *r)
{
    uint64_t delay = BACKOFF_NS;

    for (unsigned i = 0; i < r->failures && delay < BACKOFF_MAX; i++)
        delay *= 2;
    r->failures++;
    later(r, delay < BACKOFF_MAX ? delay : BACKOFF_MAX);
}

static void list_again(struct flue_kube_reflector *r, bool from_etcd)
{
    r->step = r->no_watchlist ? FLUE_KUBE_STEP_LIST : FLUE_KUBE_STEP_WATCHLIST;
    r->from_etcd = from_etcd;
    r->version[0] = r->list_version[0] = r->more[0] = 0;
}

static void go_without_watchlist(struct flue_kube_reflector *r, const char *why)
{
    flue_log(FLUE_INFO, "kubernetes", "this server cannot stream lists: list and watch instead",
             FLUE_S("processor", r->watcher->id), FLUE_S("kind", flue_kube_kind_name(r->spec.kind)),
             FLUE_S("why", why), FLUE_LOG_END);
    r->no_watchlist = true;
    list_again(r, r->synced);
    r->due_ns = flue_monotonic_ns();
}

static void complain(struct flue_kube_reflector *r, const char *what)
{
    flue_metric_add(r->errors, 1);
    flue_log(FLUE_WARN, "kubernetes", what, FLUE_S("processor", r->watcher->id),
             FLUE_S("kind", flue_kube_kind_name(r->spec.kind)), FLUE_U("status", r->status),
             FLUE_S("error", r->reason), FLUE_LOG_END);
}

static void deny(struct flue_kube_reflector *r)
{
    char rule[256];
    const char *group = flue_kube_group(r->spec.kind);

    snprintf(rule, sizeof rule, "apiGroups: [\"%s\"], resources: [%s], verbs: [list, watch]%s",
             group, flue_kube_kind_name(r->spec.kind),
             r->spec.namespace ? " (in the namespace)" : "");
    flue_metric_add(r->errors, 1);
    if (!r->denied)
        flue_log(FLUE_ERROR, "kubernetes",
                 r->status == 403 ? "a rule is missing in the role; going on without this kind"
                                  : "the server has not got this kind; going on without it",
                 FLUE_S("processor", r->watcher->id),
                 FLUE_S("kind", flue_kube_kind_name(r->spec.kind)), FLUE_S("rule", rule),
                 FLUE_S("error", r->reason), FLUE_LOG_END);
    r->denied = true;
    if (!r->counted)
        atomic_fetch_sub(&r->watcher->pending, 1);
    r->counted = true;
    flue_metric_set(r->synced_gauge, 0);
    if (r->synced) /* it was allowed: a server that has just started has not read its roles yet */
        back_off(r);
    else
        later(r, DENIED_NS);
}

static void refused(struct flue_kube_reflector *r)
{
    struct flue_kube_status status;
    curl_off_t wait = 0;
    struct flue_bytes body = flue_bytes(r->refusal, r->refusal_size);
    char text[200];

    /* A Status in protobuf has the envelope around it. */
    if (!r->json && flue_bytes_starts_with(body, FLUE_BYTES("k8s"))) {
        struct flue_bytes raw;
        if (flue_kube_unknown(body, &raw))
            body = raw;
    }
    if (flue_kube_status_read(body, r->json, &status) == FLUE_OK) {
        snprintf(r->reason, sizeof r->reason, "%s",
                 flue_printable(status.message, text, sizeof text));
        flue_kube_status_done(&status);
    }
    curl_easy_getinfo(r->easy, CURLINFO_RETRY_AFTER, &wait);
    switch (r->status) {
    case 401:
        r->refused_token = true;
        if (!r->retried_token) {
            r->retried_token = true;
            r->due_ns = flue_monotonic_ns();
            return;
        }
        break;
    case 403:
    case 404:
        deny(r);
        return;
    case 406:
        if (!r->json_only) {
            r->json_only = true;
            r->due_ns = flue_monotonic_ns();
            return;
        }
        break;
    case 410:
        if (r->step == FLUE_KUBE_STEP_LIST && r->more[0])
            r->no_pages = true; /* the pages before it are of another version: all anew */
        list_again(r, true);
        r->due_ns = flue_monotonic_ns();
        return;
    case 400:
    case 422:
        if (r->step == FLUE_KUBE_STEP_WATCHLIST) {
            go_without_watchlist(r, r->reason);
            return;
        }
        break;
    default:
        break;
    }
    complain(r, "the API server refuses");
    if (wait > 0) {
        r->failures++;
        later(r, (uint64_t)(wait < 60 ? wait : 60) * SECOND);
        return;
    }
    back_off(r);
}

static void list_ended(struct flue_kube_reflector *r)
{
    if (!flue_kube_cut_complete(&r->cut) || !r->list_version[0]) {
        snprintf(r->reason, sizeof r->reason, "a list ended before its end");
        complain(r, "cannot list");
        list_again(r, r->from_etcd);
        back_off(r);
        return;
    }
    r->due_ns = flue_monotonic_ns();
    if (r->more[0])
        return;
    r->no_pages = false;
    memcpy(r->version, r->list_version, sizeof r->version);
    synced(r);
    r->step = FLUE_KUBE_STEP_WATCH;
}

static void watch_ended(struct flue_kube_reflector *r, bool healthy)
{
    bool initial = r->step == FLUE_KUBE_STEP_WATCHLIST && !r->initial_done;

    if (r->event_code == 410) {
        flue_log(FLUE_INFO, "kubernetes", "the watch is too far behind: listing again",
                 FLUE_S("processor", r->watcher->id),
                 FLUE_S("kind", flue_kube_kind_name(r->spec.kind)), FLUE_LOG_END);
        list_again(r, true);
        r->due_ns = flue_monotonic_ns();
        if (!healthy)
            back_off(r);
        return;
    }
    if (r->event_code && initial) {
        go_without_watchlist(r, r->reason);
        return;
    }
    if (r->event_code && r->event_code != 500) {
        complain(r, "the watch ended with an error: listing again");
        list_again(r, true);
        back_off(r);
        return;
    }
    if (initial || !r->version[0])
        list_again(r, r->from_etcd);
    else
        r->step = FLUE_KUBE_STEP_WATCH;
    if (r->reason[0]) {
        complain(r, "the watch broke off");
        back_off(r);
        /* From this version on the same would come again. */
        if (r->broken_stream || r->failures > 5)
            list_again(r, true);
    } else if (!healthy) { /* one that ends at once, every time */
        back_off(r);
    } else {
        r->failures = 0;
        r->due_ns = flue_monotonic_ns();
    }
}

void flue_kube_reflector_ended(struct flue_kube_reflector *r, CURLcode result)
{
    bool healthy = flue_monotonic_ns() - r->started_ns >= HEALTHY_NS;

    if (!r->begun)
        begin_body(r);
    r->live_ns = 0;
    if (result != CURLE_OK && !r->reason[0] && !r->event_code)
        snprintf(r->reason, sizeof r->reason, "%s", curl_easy_strerror(result));
    if (r->status == 0) { /* no answer at all */
        complain(r, "cannot reach the API server");
        back_off(r);
    } else if (r->status != 200) {
        refused(r);
    } else {
        r->retried_token = false;
        if (r->step == FLUE_KUBE_STEP_LIST && result == CURLE_OK) {
            list_ended(r);
        } else if (r->step == FLUE_KUBE_STEP_LIST) {
            complain(r, "a list broke off");
            list_again(r, r->from_etcd);
            back_off(r);
        } else {
            if (result == CURLE_OPERATION_TIMEDOUT && !r->event_code)
                r->reason[0] = 0;
            watch_ended(r, healthy);
        }
    }
    flue_kube_cut_destroy(&r->cut);
}

void flue_kube_reflector_silent(struct flue_kube_reflector *r)
{
    if (r->step != FLUE_KUBE_STEP_WATCHLIST || r->initial_done ||
        flue_monotonic_ns() - r->last_data_ns < SILENT_NS)
        return;
    curl_multi_remove_handle(r->watcher->multi, r->easy);
    r->open = false;
    flue_kube_cut_destroy(&r->cut);
    if (r->begun && r->status == 200) {
        go_without_watchlist(r, "it fell silent before the list was complete");
    } else {
        snprintf(r->reason, sizeof r->reason, "no answer");
        complain(r, "cannot reach the API server");
        back_off(r);
    }
}
