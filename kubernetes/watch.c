/* watch.c: the watcher's thread. */
#include "kubernetes/watch.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "kubernetes/reflector.h"

#define SECOND UINT64_C(1000000000)

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
        watcher->object = calloc(1, sizeof *watcher->object);
        watcher->reflectors = calloc(count, sizeof *watcher->reflectors);
        good = watcher->multi && watcher->object && watcher->reflectors;
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

static void take_ended(struct flue_kube_watcher *watcher)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(watcher->multi, &left))) {
        struct flue_kube_reflector *r = NULL;
        CURLcode result = message->data.result;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&r);
        curl_multi_remove_handle(watcher->multi, r->easy);
        r->open = false;
        flue_kube_reflector_ended(r, result);
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

static int until_due(const struct flue_kube_watcher *watcher, uint64_t now)
{
    uint64_t wait = SECOND; /* the store's tick */

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
    while (!atomic_load(&watcher->stop)) {
        int running, ready = 0;
        long timer = -1;
        begin_due(watcher, flue_monotonic_ns());
        curl_multi_perform(watcher->multi, &running);
        take_ended(watcher);
        flue_kube_store_tick(watcher->store);
        uint64_t now = flue_monotonic_ns();
        int wait = until_due(watcher, now);
        if (curl_multi_poll(watcher->multi, NULL, 0, 0, &ready) != CURLM_OK)
            break;
        curl_multi_timeout(watcher->multi, &timer);
        if (ready || timer == 0 || wait == 0)
            continue;
        /* Everything that had come is read: what is known is known up to now, and stays so as long
         * as nothing comes. */
        bool live = pods_live(watcher, now);
        if (live)
            flue_kube_store_set_current(watcher->store, UINT64_MAX);
        curl_multi_poll(watcher->multi, NULL, 0, wait, NULL);
        if (live)
            flue_kube_store_set_current(watcher->store, flue_wall_ns());
    }
    flue_kube_store_set_current(watcher->store, flue_wall_ns());
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
    if (watcher->multi)
        curl_multi_cleanup(watcher->multi);
    free(watcher->reflectors);
    free(watcher->object);
    free(watcher);
}
