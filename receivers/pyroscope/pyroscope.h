/* pyroscope.h: what the two surfaces of this receiver (/ingest and push.v1) share. */
#ifndef RECEIVERS_PYROSCOPE_PYROSCOPE_H
#define RECEIVERS_PYROSCOPE_PYROSCOPE_H

#include "collector/component.h"
#include "collector/net/intake.h"
#include "collector/net/rpc.h"
#include "proto/pprof/pprof.h"
#include "receivers/pyroscope/trusted.h"

struct pyroscope_config {
    struct flue_server_config server; /* squashed */
    struct flue_list trusted;         /* strings */
};

struct pyroscope {
    const struct pyroscope_config *config;
    struct flue_server_set *servers;
    struct flue_intake intake;
    struct flue_trusted trusted;
    struct flue_rpc_service service;
    struct flue_route routes[3];
    struct flue_metric *rejected_profiles, *repaired_profiles;
};

void flue_pyroscope_ingest_route(struct pyroscope *receiver, const char *path,
                                 struct flue_route *route);
void flue_pyroscope_push_route(struct pyroscope *receiver, struct flue_route *route);

#endif
