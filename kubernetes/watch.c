/* watch.c: the watcher's thread. */
#include "kubernetes/watch.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "kubernetes/reflector.h"

#define SECOND   UINT64_C(1000000000)
#define PROBE_NS SECOND        /* between two, and of silence before one */
#define ASKED_NS (5 * SECOND)  /* so long after a question there may be another */
#define CLOSE_NS (SECOND / 10) /* how often is looked while there may be */

static void make_metrics(struct flue_kube_reflector *r, const char *id,
                         struct flue_metrics *metrics)
{
    static const char *const events[] = {"listed",   "added", "modified", "deleted",
                                         "bookmark", "error", "list"};
    static const char *const steps[] = {"watchlist", "list", "watch"};
    const char *kind = flue_kube_kind_name(r->spec.kind);

    for (unsigned i = 0; i < sizeof events / sizeof events[0]; i++) {
        const struct flue_label labels[] = {
            {"processor", id}, {"kind", kind}, {"event", events[i]}, {NULL, NULL}};
        r->events[i] = flue_metric(metrics, FLUE_COUNTER, "kubernetes_events",
                                   "objects and events read from the API server", labels);
    }
    for (unsigned i = 0; i < 3; i++) {
        const struct flue_label labels[] = {
            {"processor", id}, {"kind", kind}, {"type", steps[i]}, {NULL, NULL}};
        r->requests[i] = flue_metric(metrics, FLUE_COUNTER, "kubernetes_requests",
                                     "lists and watches begun", labels);
    }
    const struct flue_label labels[] = {{"processor", id}, {"kind", kind}, {NULL, NULL}};
    r->errors = flue_metric(metrics, FLUE_COUNTER, "kubernetes_errors",
                            "lists and watches that failed", labels);
    r->broken = flue_metric(metrics, FLUE_COUNTER, "kubernetes_broken_objects",
                            "objects that could not be read", labels);
    r->synced_gauge = flue_metric(metrics, FLUE_GAUGE, "kubernetes_synced",
                                  "1 once the kind has been listed", labels);
}

enum flue_code flue_kube_watcher_new(const char *id, struct flue_kube_access *access,
                                     struct flue_kube_store *store,
                                     const struct flue_kube_watch_spec *specs, size_t count,
                                     struct flue_metrics *metrics, struct flue_kube_watcher **out,
                                     struct flue_error *error)
{
    struct flue_kube_watcher *watcher = calloc(1, sizeof *watcher);
    bool good = watcher && curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;

    if (good) {
        watcher->id = id;
        watcher->access = access;
        watcher->store = store;
        watcher->metrics = metrics;
        watcher->multi = curl_multi_init();
        watcher->probe = curl_easy_init();
        watcher->object = calloc(1, sizeof *watcher->object);
        watcher->reflectors = calloc(count, sizeof *watcher->reflectors);
        good = watcher->multi && watcher->probe && watcher->object && watcher->reflectors;
        const struct flue_label labels[] = {{"processor", id}, {NULL, NULL}};
        watcher->probes = flue_metric(metrics, FLUE_COUNTER, "kubernetes_probes",
                                      "questions to a silent API server whether it is there, asked "
                                      "while addresses decide",
                                      labels);
    }
    for (size_t i = 0; good && i < count; i++) {
        struct flue_kube_reflector *r = &watcher->reflectors[i];
        r->watcher = watcher;
        r->spec = specs[i];
        r->easy = curl_easy_init();
        good = r->easy != NULL;
        make_metrics(r, id, metrics);
        watcher->count++;
        atomic_fetch_add(&watcher->pending, 1);
    }
    if (!good) {
        flue_kube_watcher_destroy(watcher);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to watch the API server");
    }
    *out = watcher;
    return FLUE_OK;
}

bool flue_kube_watcher_ready(const struct flue_kube_watcher *watcher)
{
    return atomic_load(&((struct flue_kube_watcher *)(uintptr_t)watcher)->pending) == 0;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void begin_due(struct flue_kube_watcher *watcher, uint64_t now)
{
    for (size_t i = 0; i < watcher->count; i++) {
        struct flue_kube_reflector *r = &watcher->reflectors[i];
        struct flue_error error = {.code = FLUE_OK};
        if (r->open) {
            flue_kube_reflector_silent(r);
            continue;
        }
        if (r->due_ns > now)
            continue;
        flue_metric_add(r->requests[r->step], 1);
        if (flue_kube_request_begin(r, watcher->multi, &error) == FLUE_OK)
            continue;
        flue_metric_add(r->errors, 1);
        flue_log(FLUE_WARN, "kubernetes", "cannot ask the API server",
                 FLUE_S("processor", watcher->id), FLUE_S("error", error.text), FLUE_LOG_END);
        r->failures++;
        r->due_ns = now + SECOND * (r->failures < 30 ? r->failures : 30);
    }
}

/* Is the watch of pods open and past its list? */
static bool pods_live(const struct flue_kube_watcher *watcher, uint64_t now)
{
    for (size_t i = 0; i < watcher->count; i++) {
        const struct flue_kube_reflector *r = &watcher->reflectors[i];
        if (r->spec.kind == FLUE_KUBE_POD)
            return r->open && r->step != FLUE_KUBE_STEP_LIST && r->live_ns && r->live_ns <= now;
    }
    return false;
}

/* A watch that says nothing may be one whose server hangs or cannot be reached: while somebody
 * wants to know, it is asked. */
static void probe(struct flue_kube_watcher *watcher, uint64_t now)
{
    struct flue_error error;

    if (flue_kube_store_asked(watcher->store))
        watcher->asked_ns = now;
    if (watcher->probing || !watcher->asked_ns || now - watcher->asked_ns > ASKED_NS ||
        now - watcher->probe_ns < PROBE_NS || !pods_live(watcher, now) ||
        watcher->heard_ns + PROBE_NS > flue_wall_ns())
        return;
    watcher->probe_ns = now;
    watcher->probe_sent_ns = flue_wall_ns();
    watcher->probing = flue_kube_probe_begin(watcher, &error) == FLUE_OK;
    flue_metric_add(watcher->probes, 1);
}

static void probed(struct flue_kube_watcher *watcher, CURLcode result)
{
    long status = 0;

    curl_easy_getinfo(watcher->probe, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(watcher->multi, watcher->probe);
    watcher->probing = false;
    /* 5xx may be a balancer's word on a server that is not there. */
    if (result == CURLE_OK && status > 0 && status < 500 &&
        watcher->probe_sent_ns > watcher->heard_ns)
        watcher->heard_ns = watcher->probe_sent_ns;
}

static void take_ended(struct flue_kube_watcher *watcher)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(watcher->multi, &left))) {
        struct flue_kube_reflector *r = NULL;
        CURLcode result = message->data.result;
        if (message->msg != CURLMSG_DONE)
            continue;
        if (message->easy_handle == watcher->probe) {
            probed(watcher, result);
            continue;
        }
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&r);
        curl_multi_remove_handle(watcher->multi, r->easy);
        r->open = false;
        flue_kube_reflector_ended(r, result);
    }
}

static int until_due(const struct flue_kube_watcher *watcher, uint64_t now)
{
    bool asked = watcher->asked_ns && now - watcher->asked_ns <= ASKED_NS;
    uint64_t wait = asked ? CLOSE_NS : SECOND; /* the store's tick */

    for (size_t i = 0; i < watcher->count; i++) {
        const struct flue_kube_reflector *r = &watcher->reflectors[i];
        if (!r->open && r->due_ns <= now)
            return 0;
        if (!r->open && r->due_ns - now < wait)
            wait = r->due_ns - now;
    }
    return (int)(wait / 1000000) + 1;
}

static void run(void *arg)
{
    struct flue_kube_watcher *watcher = arg;
    sigset_t all;

    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    watcher->drained_ns = flue_wall_ns();
    while (!atomic_load(&watcher->stop)) {
        int running, ready = 0;
        long timer = -1;
        begin_due(watcher, flue_monotonic_ns());
        probe(watcher, flue_monotonic_ns());
        curl_multi_perform(watcher->multi, &running);
        take_ended(watcher);
        flue_kube_store_tick(watcher->store);
        uint64_t now = flue_monotonic_ns(), moment = flue_wall_ns();
        int wait = until_due(watcher, now);
        if (curl_multi_poll(watcher->multi, NULL, 0, 0, &ready) != CURLM_OK)
            break;
        curl_multi_timeout(watcher->multi, &timer);
        if (ready || timer == 0 || wait == 0)
            continue;
        /* Everything that had come is read. */
        if (watcher->news && watcher->drained_ns > watcher->heard_ns)
            watcher->heard_ns = watcher->drained_ns;
        watcher->news = false;
        watcher->drained_ns = moment;
        if (pods_live(watcher, now))
            flue_kube_store_set_current(watcher->store, watcher->heard_ns);
        curl_multi_poll(watcher->multi, NULL, 0, wait, NULL);
    }
}

enum flue_code flue_kube_watcher_start(struct flue_kube_watcher *watcher, struct flue_error *error)
{
    if (uv_thread_create(&watcher->thread, run, watcher) != 0)
        return flue_fail(error, FLUE_INTERNAL, "cannot start the thread that watches the API");
    watcher->started = true;
    return FLUE_OK;
}

void flue_kube_watcher_destroy(struct flue_kube_watcher *watcher)
{
    if (!watcher)
        return;
    if (watcher->started) {
        atomic_store(&watcher->stop, true);
        curl_multi_wakeup(watcher->multi);
        uv_thread_join(&watcher->thread);
    }
    for (size_t i = 0; i < watcher->count; i++) {
        struct flue_kube_reflector *r = &watcher->reflectors[i];
        if (r->open)
            curl_multi_remove_handle(watcher->multi, r->easy);
        curl_easy_cleanup(r->easy);
        curl_slist_free_all(r->headers);
        curl_slist_free_all(r->connect_to);
        flue_kube_cut_destroy(&r->cut);
    }
    if (watcher->probing)
        curl_multi_remove_handle(watcher->multi, watcher->probe);
    curl_easy_cleanup(watcher->probe);
    curl_slist_free_all(watcher->probe_connect_to);
    if (watcher->multi)
        curl_multi_cleanup(watcher->multi);
    free(watcher->reflectors);
    free(watcher->object);
    free(watcher);
}
