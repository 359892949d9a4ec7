/* cgroup.h: container id and pod uid in /proc/PID/cgroup, for every runtime that is known.
 *
 * The last id of a path wins (a container in a container), and the pod is the last one before it.
 * A monitor (crio-conmon) is no container. Pure functions; ids are lower-case hex as written.
 * Source of the forms: the eBPF profiler, OBI, Datadog's agent, kubelet (cgroup_manager_linux.go).
 */
#ifndef FLUE_KUBERNETES_CGROUP_H
#define FLUE_KUBERNETES_CGROUP_H

#include "collector/base/bytes.h"

struct flue_kube_cgroup {
    char container[80]; /* empty: none */
    char pod[40];       /* with dashes as in the API, or 32 hex digits of a static pod; or empty */
};

/* One path ("/kubepods/burstable/pod.../..."). False: neither a container nor a pod. */
bool flue_kube_cgroup_path(struct flue_bytes path, struct flue_kube_cgroup *out);
/* The whole file, v1 ("N:controllers:path" lines) or v2 ("0::path"): the first line that says
 * something; name=systemd last. */
bool flue_kube_cgroup_file(struct flue_bytes text, struct flue_kube_cgroup *out);

#endif
