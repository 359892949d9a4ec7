/* downward.h: the pod that this process runs in, from its environment and a downwardAPI volume.
 *
 * Put into a store as the only pod; its labels and annotations are read again every `interval`, on
 * the pool. Owners are not given there: where a label proves one (pod-template-hash,
 * batch.kubernetes.io/job-name, apps.kubernetes.io/pod-index), it is derived. */
#ifndef PROCESSORS_K8SATTRIBUTES_DOWNWARD_H
#define PROCESSORS_K8SATTRIBUTES_DOWNWARD_H

#include "processors/k8sattributes/config.h"
#include "kubernetes/store.h"

struct k8s_downward_reader;
/* Reads once, here; then on `loop`'s timer. FLUE_INVALID: the pod's name or uid is not given. */
enum flue_code k8s_downward_start(const struct k8s_downward *config, struct flue_kube_store *store,
                                  struct flue_loop *loop, struct k8s_downward_reader **out,
                                  struct flue_error *error);
/* Main thread, the loops run: reads no more; stopped once nothing is being read. */
void k8s_downward_stop(struct k8s_downward_reader *reader);
bool k8s_downward_stopped(const struct k8s_downward_reader *reader);
void k8s_downward_destroy(struct k8s_downward_reader *reader);
/* For look-ups; constant. */
struct flue_bytes k8s_downward_uid(const struct k8s_downward_reader *reader);
struct flue_bytes k8s_downward_address(const struct k8s_downward_reader *reader);

/* A file of `key="escaped"` lines, unescaped into `arena`; for tests. */
unsigned k8s_downward_pairs(struct flue_bytes text, struct flue_arena *arena,
                            struct flue_kube_pair *out, unsigned room);

#endif
