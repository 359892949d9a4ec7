/* sample_types.h: names of sample types as Pyroscope takes them: it refuses "cpu-time". */
#ifndef PROTO_PPROF_SAMPLE_TYPES_H
#define PROTO_PPROF_SAMPLE_TYPES_H

#include "proto/pprof/pprof.h"

/* A new, raw profile in which every '-' in a sample type's name is '_'. The names become strings of
 * their own, so whoever else refers to the old ones keeps them; default_sample_type follows. All
 * else stays byte for byte. The profile must have been checked. */
enum flue_code flue_pprof_underscore_types(struct flue_bytes profile,
                                           const struct flue_pprof_limits *limits,
                                           struct flue_account *account, struct flue_block **out,
                                           struct flue_error *error);

#endif
