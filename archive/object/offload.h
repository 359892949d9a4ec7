/* offload.h: a piece of work on the pool whose owner may be gone before it ends: destroying waits
 * for the work, and no done follows. On the loop. */
#ifndef FLUE_ARCHIVE_OFFLOAD_H
#define FLUE_ARCHIVE_OFFLOAD_H

#include "collector/base/loop.h"

struct object_offload { /* zeroed; lives until done or object_offload_stop */
    struct flue_loop *loop;
    void (*work)(void *user); /* on a pool thread */
    void (*done)(void *user); /* on the loop, never from within object_offload */
    void *user;
    struct object_offload_job *job; /* its own, as is the timer */
    struct flue_timer starved;
};
void object_offload(struct object_offload *offload);
void object_offload_stop(struct object_offload *offload); /* fine when nothing runs */

#endif
