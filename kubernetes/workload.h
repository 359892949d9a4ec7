/* workload.h: names that follow from other names, by the rules of Kubernetes' own controllers.
 * Pure functions; what they return borrows from their arguments. */
#ifndef FLUE_KUBERNETES_WORKLOAD_H
#define FLUE_KUBERNETES_WORKLOAD_H

#include "collector/base/bytes.h"

/* The Deployment of a ReplicaSet: its name without "-" and the pod's label pod-template-hash. Empty
 * where the name does not end so: then no Deployment made it. */
struct flue_bytes flue_kube_deployment_name(struct flue_bytes replicaset, struct flue_bytes hash);
/* The CronJob of a Job: its name without "-" and digits (the minute it was due, at least eight of
 * them, so that a Job that ends in a small number is not taken for one). Else empty. */
struct flue_bytes flue_kube_cronjob_name(struct flue_bytes job);

#endif
