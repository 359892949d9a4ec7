/* status.h: is the service up? Written by the service, read by health_check on any thread. */
#ifndef FLUE_TELEMETRY_STATUS_H
#define FLUE_TELEMETRY_STATUS_H

#include <stdatomic.h>
#include "collector/component.h"

enum flue_status_state {
    FLUE_STARTING, /* nothing listens yet */
    FLUE_SERVING,
    FLUE_DRAINING /* what was accepted is still sent, nothing new is taken */
};

struct flue_status {
    _Atomic int state;         /* enum flue_status_state */
    _Atomic uint64_t up_since; /* wall clock, ns; 0 until serving */
};

/* What flue_create.service points to begins with it. */
static inline struct flue_status *flue_status_of(const struct flue_create *create)
{
    return create->service;
}

#endif
