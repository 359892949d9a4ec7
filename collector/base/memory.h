/* memory.h: who uses how much, and who is refused first.
 *
 * One process-wide budget (default: 80 % of the cgroup's limit, else 25 % of RAM up to 1 GiB; the
 * memory_limiter processor may lower it). Bytes are charged to an account: one per pipeline now.
 * Over its soft share an account's NEW data is refused before the body is read
 * (flue_account_admit); over the hard limit all new data is, and a body in progress fails. What was
 * acknowledged is never dropped for memory: charging on behalf of data already taken may pass the
 * limit (flue_account_charge_always).
 *
 * Atomics only: any thread.
 */
#ifndef FLUE_BASE_MEMORY_H
#define FLUE_BASE_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "collector/base/error.h"

struct flue_budget {
    _Atomic int64_t used;
    _Atomic int64_t hard; /* bytes; new data is refused above it */
};

struct flue_account {
    struct flue_budget *budget;
    const char *name; /* pipeline id, for messages */
    _Atomic int64_t used;
    _Atomic int64_t soft; /* this account's share in bytes; 0: only the hard limit counts */
};

/* The default above, from /sys/fs/cgroup and /proc/meminfo. */
int64_t flue_budget_default_bytes(void);
void flue_budget_init(struct flue_budget *budget, int64_t hard);
void flue_account_init(struct flue_account *account, struct flue_budget *budget, const char *name,
                       int64_t soft);

/* May a request of `bytes` more begin? FLUE_OVERLOADED names account, use and limit. */
enum flue_code flue_account_admit(struct flue_account *account, size_t bytes,
                                  struct flue_error *error);
/* Charges unless the hard limit would be passed. */
bool flue_account_charge(struct flue_account *account, size_t bytes);
void flue_account_charge_always(struct flue_account *account, size_t bytes);
void flue_account_release(struct flue_account *account, size_t bytes);

#endif
