/* rules.h: which labels and annotations become which attributes; runs where objects are read, so
 * that nothing of it is left for the data path. */
#ifndef PROCESSORS_K8SATTRIBUTES_RULES_H
#define PROCESSORS_K8SATTRIBUTES_RULES_H

#include "processors/k8sattributes/config.h"
#include "kubernetes/store.h"

struct k8s_rules;
/* The configuration was checked and outlives the rules. */
enum flue_code k8s_rules_new(const struct k8s_config *config, struct k8s_rules **out,
                             struct flue_error *error);
void k8s_rules_destroy(struct k8s_rules *rules);
/* A flue_kube_extractor; `arg` is the rules. One thread. Of a pod also service.name and the like,
 * where extract.metadata asks for them (service.version only where the pod itself says it). */
void k8s_rules_extract(void *arg, enum flue_kube_kind kind, const struct flue_kube_object *object,
                       struct flue_kube_extract *out);

#endif
