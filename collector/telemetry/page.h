/* page.h: GET /metrics, flue's own metrics as Prometheus text (exposition format 0.0.4). */
#ifndef FLUE_TELEMETRY_PAGE_H
#define FLUE_TELEMETRY_PAGE_H

#include "collector/net/server.h"

#define FLUE_METRICS_PAGE_MAX (32u << 20) /* bytes of one page */

/* The server of one endpoint; lives as long as the server set that it is added to. */
struct flue_metrics_page {
    struct flue_metrics *metrics;
    struct flue_server_config config;
    struct flue_route route;
};

/* Adds the page on `endpoint` ("localhost:8888"); it listens with the set. Everything it needs
 * lives in `arena`. */
enum flue_code flue_metrics_page_add(struct flue_server_set *set, struct flue_arena *arena,
                                     struct flue_metrics *metrics, const char *endpoint,
                                     struct flue_error *error);

/* A server configuration with every default of the http table and this endpoint, in `arena`. */
const struct flue_server_config *flue_plain_server(struct flue_arena *arena, const char *endpoint,
                                                   struct flue_error *error);

#endif
