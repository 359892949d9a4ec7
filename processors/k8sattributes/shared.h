/* shared.h: what all pipelines of one k8sattributes share: one store, one watcher of the API (or
 * the reader of the downward API's files). Main thread, but for what is said to be for any. */
#ifndef PROCESSORS_K8SATTRIBUTES_SHARED_H
#define PROCESSORS_K8SATTRIBUTES_SHARED_H

#include "processors/k8sattributes/config.h"
#include "kubernetes/watch.h"
#include "processors/k8sattributes/rules.h"

struct k8s_downward_reader;

struct k8s_shared {
    unsigned refs;
    const void *service; /* whose */
    const struct k8s_config *config;
    struct k8s_rules *rules;
    struct flue_kube_store *store;
    struct flue_kube_access *access;
    struct flue_kube_watcher *watcher;
    struct k8s_downward_reader *downward;
    struct flue_metrics *metrics; /* that read the store; NULL before start */
    char id[128];
    bool started;
    char field_selector[1024], label_selector[1024], node_selector[512], namespace_selector[512];
    struct k8s_shared *next;
};

/* The one for this configuration, made if it is the first. No I/O. */
enum flue_code k8s_shared_get(const struct flue_create *create, struct k8s_shared **out,
                              struct flue_error *error);
enum flue_code k8s_shared_start(struct k8s_shared *shared, const char *id,
                                struct flue_metrics *metrics, struct flue_loops *loops,
                                struct flue_error *error);
void k8s_shared_drop(struct k8s_shared *shared);
/* Any thread: is everything listed (or refused)? */
bool k8s_shared_ready(const struct k8s_shared *shared);

#endif
