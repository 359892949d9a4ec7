/* watch.h: keeps a store equal to what the API server has: one thread, one watch for every kind.
 *
 * By kind: WatchList (sendInitialEvents) first; where the server refuses it, cannot finish it or
 * falls silent, list (in pages) and watch. Then events and bookmarks; a clean end is watched on
 * from the last version; 410, as HTTP status or as an event, lists again. 401 reads the token
 * again, 403 is said once with the rule that is missing and tried again every minute, 429 and 503
 * wait as long as they say; everything else waits 0.8 s, doubled up to 30 s, with jitter. Objects
 * are read one by one as they arrive (cut.h); nothing of an answer is kept. A watch that is silent
 * proves nothing: while readers ask up to when addresses are known (store.h), a server that has
 * said nothing for a second is asked for /version, at most once a second.
 *
 * By libcurl itself, since collector/net's client gives a body when it is complete, and a watch
 * never is (nor may this folder, which the processors and resourcedetection share, depend on the
 * loops of the collector).
 *
 * Source: client-go tools/cache/reflector.go; numbers as there.
 */
#ifndef FLUE_KUBERNETES_WATCH_H
#define FLUE_KUBERNETES_WATCH_H

#include "kubernetes/access.h"
#include "kubernetes/store.h"

struct flue_kube_watch_spec {
    enum flue_kube_kind kind;
    const char *namespace;      /* NULL: all */
    const char *field_selector; /* NULL: none */
    const char *label_selector;
};

struct flue_kube_watcher;
/* Everything given must outlive the watcher; `id` is for messages and metrics. */
enum flue_code flue_kube_watcher_new(const char *id, struct flue_kube_access *access,
                                     struct flue_kube_store *store,
                                     const struct flue_kube_watch_spec *specs, size_t count,
                                     struct flue_metrics *metrics, struct flue_kube_watcher **out,
                                     struct flue_error *error);
enum flue_code flue_kube_watcher_start(struct flue_kube_watcher *watcher, struct flue_error *error);
/* Any thread: has every kind been listed once, or been refused (403, 404)? */
bool flue_kube_watcher_ready(const struct flue_kube_watcher *watcher);
/* Stops the thread, waits for it, gives all back. NULL is fine. */
void flue_kube_watcher_destroy(struct flue_kube_watcher *watcher);

#endif
