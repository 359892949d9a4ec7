/* workload.c: see workload.h. */
#include "kubernetes/workload.h"

struct flue_bytes flue_kube_deployment_name(struct flue_bytes replicaset, struct flue_bytes hash)
{
    if (hash.size == 0 || replicaset.size < hash.size + 2 ||
        !flue_bytes_ends_with(replicaset, hash) ||
        replicaset.data[replicaset.size - hash.size - 1] != '-')
        return flue_bytes(NULL, 0);
    return flue_bytes_first(replicaset, replicaset.size - hash.size - 1);
}

struct flue_bytes flue_kube_cronjob_name(struct flue_bytes job)
{
    size_t digits = 0;

    while (digits < job.size && job.data[job.size - 1 - digits] >= '0' &&
           job.data[job.size - 1 - digits] <= '9')
        digits++;
    if (digits < 8 || job.size < digits + 2 || job.data[job.size - 1 - digits] != '-')
        return flue_bytes(NULL, 0);
    return flue_bytes_first(job, job.size - digits - 1);
}
