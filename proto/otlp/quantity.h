/* quantity.h: what the samples of an OTLP profile are as a counter (metric_types.h). */
#ifndef PROTO_OTLP_QUANTITY_H
#define PROTO_OTLP_QUANTITY_H

#include "proto/otlp/index.h"
#include "proto/otlp/metric_types.h"

/* Of a profile as edited. A count that also comes with its time, in another profile of the
 * resource, stays a count: the same time is not counted twice. `d`: of the payload; the name is
 * borrowed from it. */
void flue_otlp_quantity(const struct flue_payload *payload, const struct flue_otlp_dictionary *d,
                        const struct flue_otlp_profile *profile, struct flue_quantity_type *out);

#endif
