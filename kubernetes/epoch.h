/* epoch.h: readers that never wait, one writer that knows when nobody looks any more.
 *
 * The writer unlinks a record from where readers find it, then retires it; its memory is freed once
 * every reader that could have seen it has left. A reader enters before it looks and leaves when it
 * has what it wants (once a batch: two stores), and keeps nothing that it found without copying it.
 *
 * Everything is sequentially consistent: a reader's slot is stored before it loads a link, a link
 * is cleared before the slots are read, so one of the two sees the other. (Loads cost nothing extra
 * on x86-64, stores of slots are one exchange a batch.)
 */
#ifndef FLUE_KUBERNETES_EPOCH_H
#define FLUE_KUBERNETES_EPOCH_H

#include <stdatomic.h>
#include <stdint.h>

#define FLUE_KUBE_MAX_READERS 64

struct flue_kube_retired { /* embedded in a record */
    struct flue_kube_retired *next;
    uint64_t epoch;
    void (*release)(struct flue_kube_retired *retired, void *arg);
};

struct flue_kube_epochs {
    _Atomic uint64_t now; /* begins at 1 */
    struct {
        _Alignas(64) _Atomic uint64_t at; /* 0: reads nothing */
    } readers[FLUE_KUBE_MAX_READERS];
    struct flue_kube_retired *first, **last; /* the writer's */
    uint64_t waiting;                        /* retired and not yet released */
};

static inline void flue_kube_enter(struct flue_kube_epochs *epochs, unsigned reader)
{
    atomic_store(&epochs->readers[reader].at, atomic_load(&epochs->now));
}
static inline void flue_kube_leave(struct flue_kube_epochs *epochs, unsigned reader)
{
    atomic_store_explicit(&epochs->readers[reader].at, 0, memory_order_release);
}

/* The writer's: `retired` is unlinked already. */
static inline void flue_kube_retire(struct flue_kube_epochs *epochs,
                                    struct flue_kube_retired *retired)
{
    retired->epoch = atomic_fetch_add(&epochs->now, 1) + 1;
    retired->next = NULL;
    *epochs->last = retired;
    epochs->last = &retired->next;
    epochs->waiting++;
}

/* Releases what nobody can see; call it often. */
static inline void flue_kube_reclaim(struct flue_kube_epochs *epochs, void *arg)
{
    uint64_t oldest = UINT64_MAX;

    if (!epochs->first)
        return;
    for (unsigned i = 0; i < FLUE_KUBE_MAX_READERS; i++) {
        uint64_t at = atomic_load(&epochs->readers[i].at);
        if (at && at < oldest)
            oldest = at;
    }
    while (epochs->first && epochs->first->epoch <= oldest) {
        struct flue_kube_retired *retired = epochs->first;
        epochs->first = retired->next;
        if (!epochs->first)
            epochs->last = &epochs->first;
        epochs->waiting--;
        retired->release(retired, arg);
    }
}

#endif
