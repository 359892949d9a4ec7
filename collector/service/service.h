/* service.h: a configuration brought to life, and taken down without losing what was accepted.
 *
 * new makes everything (no I/O: it is what `flue validate` does too); start opens, listens and runs
 * the loops; stop drains; destroy frees. All on the main thread.
 *
 * A receiver or exporter that several pipelines name is one instance; a processor is one per
 * pipeline. Receivers' listeners and the administrative ones (metrics page, extensions) are two
 * sets, so that health and metrics still answer while the receivers drain.
 */
#ifndef FLUE_SERVICE_SERVICE_H
#define FLUE_SERVICE_SERVICE_H

#include "collector/service/configuration.h"

struct flue_service;

/* `configuration` has no mistakes and outlives the service. */
enum flue_code flue_service_new(const struct flue_configuration *configuration,
                                struct flue_service **out, struct flue_error *error);
/* In order: exporters, processors, receivers, extensions; then listens; then runs the loops. After
 * a failure destroy it. */
enum flue_code flue_service_start(struct flue_service *service, struct flue_error *error);

/* Receivers take no more and finish what is open (at most half of the time), processors give on
 * what they hold, queues are sent; at the deadline the rest is given up. Logs for every exporter
 * what was left. `hurry` (may be NULL) is asked every few milliseconds: true ends the waiting at
 * once. Returns with the loops stopped. `*lost` (may be NULL): samples that were accepted and not
 * sent. */
void flue_service_stop(struct flue_service *service, bool (*hurry)(void *arg), void *arg,
                       uint64_t *lost);
void flue_service_destroy(struct flue_service *service); /* NULL: fine */

/* What a listener got ("127.0.0.1:43511") by its endpoint as configured; of receivers, then of
 * extensions and the metrics page. NULL: unknown. */
const char *flue_service_address(struct flue_service *service, const char *endpoint);

#endif
