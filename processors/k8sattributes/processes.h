/* processes.h: which container a process of this host runs in, by /proc.
 *
 * For senders that are listed as using this host's process ids. An answer is kept per (pid, start
 * time) and holds for profiles that began before it was last looked at: a later one asks again, for
 * the id may have been given to another process meanwhile. One per loop; reads of /proc do not
 * block. */
#ifndef PROCESSORS_K8SATTRIBUTES_PROCESSES_H
#define PROCESSORS_K8SATTRIBUTES_PROCESSES_H

#include "collector/base/bytes.h"
#include "kubernetes/cgroup.h"

#define K8S_PROCESSES 4096 /* remembered */

struct k8s_process {
    int64_t pid;                   /* 0: empty */
    uint64_t start;                /* ticks since boot */
    int64_t started_ns, looked_ns; /* wall clock */
    struct flue_kube_cgroup cgroup;
};
struct k8s_processes {
    const char *proc;
    struct k8s_process *items; /* K8S_PROCESSES of them, made at first use */
    int64_t boot_ns;           /* wall clock */
};

void k8s_processes_init(struct k8s_processes *processes, const char *proc);
void k8s_processes_destroy(struct k8s_processes *processes);
/* The container of the process that had this id when a profile began. False: it is gone, began
 * later, or is in no container. */
bool k8s_process_find(struct k8s_processes *processes, int64_t pid, int64_t profile_ns,
                      struct flue_kube_cgroup *out);

#endif
