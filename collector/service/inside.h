/* inside.h: a service's parts, shared by graph.c (making) and service.c (life). */
#ifndef FLUE_SERVICE_INSIDE_H
#define FLUE_SERVICE_INSIDE_H

#include "collector/base/memory.h"
#include "collector/net/server.h"
#include "collector/pipeline/graph.h"
#include "collector/service/service.h"
#include "collector/telemetry/status.h"

/* One instance. Processors have none here: their pipeline owns them. */
struct flue_running {
    const struct flue_part *part;
    void *instance; /* RECEIVER, EXTENSION: ours; EXPORTER: the flue_exporter's */
    struct flue_exporter *exporter;
    struct flue_consumer *profiles, *traces; /* RECEIVER: NULL where no pipeline names it */
    struct flue_consumer *metrics;           /* CONNECTOR */
    struct flue_create create;
    bool started;
};

struct flue_service {
    struct flue_status status; /* first: telemetry/status.h */
    const struct flue_configuration *configuration;
    struct flue_arena arena;
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_budget budget;
    struct flue_server_set *servers; /* receivers' */
    struct flue_server_set *admin;   /* metrics page, extensions */
    struct flue_running *running;    /* by index of configuration->parts */
    struct flue_account *accounts;   /* by index of configuration->pipelines */
    struct flue_pipeline **pipelines;
    bool loops_running;
};

/* Makes everything of the configuration; after a failure flue_graph_destroy. */
enum flue_code flue_graph_make(struct flue_service *service, struct flue_error *error);
/* Receivers, consumers, pipelines, exporters, extensions; the loops are stopped. */
void flue_graph_destroy(struct flue_service *service);

#endif
