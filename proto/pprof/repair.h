/* repair.h: small changes to a profile's bytes, by one walk over its top level. */
#ifndef PROTO_PPROF_REPAIR_H
#define PROTO_PPROF_REPAIR_H

#include "proto/pprof/pprof.h"

/* A new, raw profile in which every string that is not UTF-8 has its ill-formed parts replaced by
 * U+FFFD. The profile must have been checked. */
enum flue_code flue_pprof_repair(struct flue_bytes profile, const struct flue_pprof_limits *limits,
                                 struct flue_account *account, struct flue_block **out,
                                 struct flue_error *error);

/* Puts another time in the place of one whose varint stands at `at` of a raw profile that the
 * caller may write to. False: it has another size, nothing was changed. */
bool flue_pprof_patch_time(uint8_t *profile, size_t at, int64_t from_nanos, int64_t to_nanos);

/* A new, raw profile with time_nanos set, everything else byte for byte. The profile must have been
 * checked. */
enum flue_code flue_pprof_set_time(struct flue_bytes profile, int64_t time_nanos,
                                   const struct flue_pprof_limits *limits,
                                   struct flue_account *account, struct flue_block **out,
                                   struct flue_error *error);

#endif
