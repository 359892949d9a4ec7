/* reflector.h: the watch of one kind; for watch.c and its parts only. */
#ifndef FLUE_KUBERNETES_REFLECTOR_H
#define FLUE_KUBERNETES_REFLECTOR_H

#include <curl/curl.h>
#include <uv.h>
#include "kubernetes/cut.h"
#include "kubernetes/watch.h"

#define FLUE_KUBE_VERSION_MAX 128
#define FLUE_KUBE_MORE_MAX    4096
#define FLUE_KUBE_REFUSAL_MAX 8192

enum flue_kube_step {
    FLUE_KUBE_STEP_WATCHLIST, /* initial events, then changes, in one stream */
    FLUE_KUBE_STEP_LIST,
    FLUE_KUBE_STEP_WATCH
};

struct flue_kube_reflector {
    struct flue_kube_watcher *watcher;
    struct flue_kube_watch_spec spec;
    CURL *easy;
    struct curl_slist *headers, *connect_to;
    bool open;       /* a request is under way */
    uint64_t due_ns; /* when the next one begins (monotonic) */
    enum flue_kube_step step;
    char version[FLUE_KUBE_VERSION_MAX];      /* resourceVersion to go on from; empty: none */
    char more[FLUE_KUBE_MORE_MAX];            /* `continue` of the next page */
    char list_version[FLUE_KUBE_VERSION_MAX]; /* of the list that is being read */
    bool from_etcd;                           /* the next list must be of now, not of a cache */
    bool no_pages;                            /* after a page's token had expired: all at once */
    bool no_watchlist;                        /* this server cannot */
    bool json_only;
    bool synced, denied, counted;
    unsigned failures; /* in a row */
    bool refused_token, retried_token;

    /* of the request under way */
    struct flue_kube_cut cut;
    bool begun, json, initial_done, broken_stream;
    long status;
    uint64_t started_ns, last_data_ns,
        live_ns; /* monotonic; live: from when it counts as current */
    char refusal[FLUE_KUBE_REFUSAL_MAX];
    size_t refusal_size;
    int64_t event_code; /* of an ERROR event; 0: none */
    char reason[256];   /* for people */

    struct flue_metric *events[FLUE_KUBE_LIST_META + 1], *requests[3], *errors, *synced_gauge,
        *broken;
};

/* request.c: puts together and begins the request of `step`. */
enum flue_code flue_kube_request_begin(struct flue_kube_reflector *reflector, CURLM *multi,
                                       struct flue_error *error);
/* Asks the server for next to nothing: whatever it answers, it is there. */
enum flue_code flue_kube_probe_begin(struct flue_kube_watcher *watcher, struct flue_error *error);
/* "apps" of a kind, "" for the core group. */
const char *flue_kube_group(enum flue_kube_kind kind);

/* reflector.c: what comes back. */
size_t flue_kube_reflector_write(char *data, size_t size, size_t count, void *arg);
/* The request has ended with this; the next step and its time are set. */
void flue_kube_reflector_ended(struct flue_kube_reflector *reflector, CURLcode result);
void flue_kube_reflector_silent(struct flue_kube_reflector *reflector);

struct flue_kube_watcher {
    const char *id;
    struct flue_kube_access *access;
    struct flue_kube_store *store;
    struct flue_kube_reflector *reflectors;
    size_t count;
    CURLM *multi;
    struct flue_kube_object *object; /* for reading; too large for a stack */
    struct flue_metrics *metrics;
    uv_thread_t thread;
    bool started;
    /* What was read last had come after this moment (wall clock); and up to when everything is
     * known: the last of these moments, or of a probe that was answered. */
    uint64_t drained_ns, heard_ns;
    bool news; /* read since drained_ns */
    CURL *probe;
    struct curl_slist *probe_connect_to;
    bool probing;
    uint64_t probe_ns, probe_sent_ns; /* monotonic, wall clock */
    uint64_t asked_ns;                /* monotonic: by a reader */
    struct flue_metric *probes;
    _Atomic bool stop;
    _Atomic uint32_t pending; /* kinds neither listed nor refused */
};

#endif
