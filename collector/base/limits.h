/* limits.h: what the system allows this process, from its cgroups (v1, v2) and its CPU affinity. */
#ifndef FLUE_BASE_LIMITS_H
#define FLUE_BASE_LIMITS_H

#include <stdint.h>

struct flue_limits {
    int64_t memory; /* bytes; INT64_MAX: none */
    int64_t cpus;   /* thousandths of a CPU; INT64_MAX: none */
};

/* The least limits of the process's groups and all above them. `root` is put before /proc and /sys
 * ("" but in tests). */
void flue_limits_read(const char *root, struct flue_limits *out);
/* The CPUs of its affinity, but no more than its quota, rounded up; at least 1. */
unsigned flue_usable_cpus(void);

#endif
