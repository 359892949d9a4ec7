/* loop_inside.h: what loop.c, timer.c and pool.c share and nobody else sees. */
#ifndef FLUE_BASE_LOOP_INSIDE_H
#define FLUE_BASE_LOOP_INSIDE_H

#include "collector/base/loop.h"

/* 0, or a libuv error. The timer is closed with the loop's other handles. */
int flue_timers_init(struct flue_loop *loop);

struct flue_pool;
/* `threads` threads, started now; NULL if none could be. */
struct flue_pool *flue_pool_new(unsigned threads);
/* Finishes what is queued, then joins. NULL is fine. */
void flue_pool_free(struct flue_pool *pool);

#endif
