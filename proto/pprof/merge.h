/* merge.h: several profiles as one, as google/pprof's Merge does it.
 *
 *   sample     equal stack (locations) and labels: values are added; what is 0 in every type is
 * left out location   address relative to its mapping's start, mapping, lines, is_folded: so that
 * programs loaded at other addresses fall together function   name, system name, file, start line
 *   mapping    size rounded up to 4 KiB, file offset, and build id or else file name; addresses
 * move to the mapping that is kept
 *
 * Types and period type must be the same in all, else FLUE_UNPROCESSABLE. Period: the largest;
 * duration: the sum; comments: united, in order; drop_frames and keep_frames: the first profile's;
 * default type and doc url: the first that is there; time: the earliest that is not 0
 * (google/pprof's own code lets a later 0 win, against its documentation).
 */
#ifndef PROTO_PPROF_MERGE_H
#define PROTO_PPROF_MERGE_H

#include "proto/pprof/pprof.h"

/* Profiles, gzip or raw, must have been checked; each may inflate to limits->inflated. The work may
 * use 24 times their inflated bytes and 4 MiB; more is FLUE_TOO_LARGE. The result is raw, in a new
 * block. */
enum flue_code flue_pprof_merge(const struct flue_bytes *profiles, size_t count,
                                const struct flue_pprof_limits *limits,
                                struct flue_account *account, struct flue_block **out,
                                struct flue_error *error);

#endif
