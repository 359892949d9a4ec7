/* associate.h: which pod, and which container of it, a resource comes from; or none.
 *
 * The rules in order; the first whose keys are all there decides, and where it finds nothing, the
 * search is over. What a resource already says of its pod must agree with what was found. */
#ifndef PROCESSORS_K8SATTRIBUTES_ASSOCIATE_H
#define PROCESSORS_K8SATTRIBUTES_ASSOCIATE_H

#include "collector/pipeline/batch.h"
#include "processors/k8sattributes/config.h"
#include "kubernetes/store.h"
#include "processors/k8sattributes/peers.h"
#include "processors/k8sattributes/processes.h"

enum k8s_result {
    K8S_MATCHED,
    K8S_UNIDENTIFIED, /* no key is there */
    K8S_UNKNOWN,      /* a key that no pod has */
    K8S_INVALID,      /* a key in an impossible form */
    K8S_DOUBTFUL,     /* more than one pod may have had the address (or name) */
    K8S_CONFLICTING,  /* the resource says another pod, uid or namespace */
    K8S_EXCLUDED,     /* by exclude, or by annotation */
    K8S_STALE,        /* the watch was not standing at the time of an address (or name) */
    K8S_RELAYED,      /* the connection is of a relay */
    K8S_RESULTS,
    K8S_WAIT = K8S_RESULTS /* ask again at *wait_ns */
};
extern const char *const k8s_result_names[K8S_RESULTS];

/* What of a batch, a loop and the configuration a decision needs. */
struct k8s_context {
    const struct k8s_config *config;
    struct flue_kube_store *store;
    const struct k8s_peers *relays, *senders; /* senders: NULL without host_processes */
    struct k8s_processes *processes;
    struct k8s_downward_reader *own; /* downward_api; else NULL */
    const struct flue_payload *payload;
    const struct flue_origin *origin;
    size_t resources;
    bool final;      /* it has waited long enough: decide now */
    int64_t wait_ns; /* out, with K8S_WAIT: wall clock */
};

/* Between flue_kube_enter and flue_kube_leave. */
enum k8s_result k8s_associate(struct k8s_context *context, size_t resource,
                              const struct flue_kube_record **record, int *container);

/* The same for a pod that is known beforehand (NULL: it is not): only what the resource says is
 * compared. */
enum k8s_result k8s_associate_with(struct k8s_context *context, size_t resource,
                                   const struct flue_kube_record *pod,
                                   const struct flue_kube_record **record, int *container);

/* From when to when the profiles of a resource are; the time of receipt where they do not say. */
void k8s_profile_times(const struct flue_payload *payload, size_t resource, int64_t received_ns,
                       int64_t *from_ns, int64_t *until_ns);

#endif
