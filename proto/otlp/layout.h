/* layout.h: which layout of opentelemetry-proto is this body written in, and making it 1.10.
 *
 * Nothing in a request names its layout: samples are scored under each. Numbers of fields:
 *   Sample   1.8, 1.9: values 2, attribute_indices 3, link_index 4; 1.10: 4, 2, 3
 *   Profile  1.8: comment_strindices 7, profile_id 8, dropped 9, format 10, payload 11, attributes
 * 12; from 1.9: profile_id 7, dropped 8, format 9, payload 10, attributes 11
 */
#ifndef PROTO_OTLP_LAYOUT_H
#define PROTO_OTLP_LAYOUT_H

#include "proto/otlp/otlp.h"

/* The layout with the fewest violations, the newer of equals. FLUE_INVALID: one of 1.3 to 1.7,
 * named. Reads with bounds: the body may be broken anywhere. */
enum flue_code flue_otlp_layout(struct flue_bytes body, enum flue_otlp_layout *layout,
                                struct flue_error *error);

/* Rewrites a body of layout 1.8 or 1.9 as 1.10: tags are changed in place (in a copy if the block
 * is shared). Comments of 1.8, which 1.10 has no field for, become the Profile's attribute
 * pprof.profile.comment. */
enum flue_code flue_otlp_to_1_10(struct flue_block **body, enum flue_otlp_layout layout,
                                 struct flue_error *error);

#endif
