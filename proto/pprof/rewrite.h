/* rewrite.h: a payload again with other profiles in it; series and labels stay as they are. */
#ifndef PROTO_PPROF_REWRITE_H
#define PROTO_PPROF_REWRITE_H

#include "proto/pprof/pprof.h"

/* Called for every profile in order. *profile is it, to be changed: its bytes then lie in *block,
 * whose reference it gives away; NULL: they stay. Other than FLUE_OK ends it. */
typedef enum flue_code (*flue_pprof_rewriter)(void *arg, size_t series,
                                              struct flue_pprof_profile *profile,
                                              struct flue_block **block, struct flue_error *error);
enum flue_code flue_pprof_rewrite(const struct flue_payload *payload, struct flue_account *account,
                                  flue_pprof_rewriter rewriter, void *arg,
                                  struct flue_payload **out, struct flue_error *error);

#endif
