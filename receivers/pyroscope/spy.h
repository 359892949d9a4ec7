/* spy.h: what Pyroscope rewrites in the profiles of particular old clients.
 *
 *   pyspy, rbspy, scripting   a function's name becomes "file name" (pyspy: not for absolute paths)
 *   dotnetspy                 "-" in sample types becomes "_"; functions that all have id 0, one
 * for every location, get the ids of their locations
 *
 * Source: Pyroscope, pkg/og/convert/pprof/profile.go.
 */
#ifndef RECEIVERS_PYROSCOPE_SPY_H
#define RECEIVERS_PYROSCOPE_SPY_H

#include "proto/pprof/pprof.h"

/* Must this spy's profile be rewritten? */
bool flue_spy_rewrites(struct flue_bytes spy, bool dash_in_sample_type);
/* A checked profile, to a new raw one. */
enum flue_code flue_spy_rewrite(struct flue_bytes spy, struct flue_bytes profile,
                                const struct flue_pprof_limits *limits,
                                struct flue_account *account, struct flue_block **out,
                                struct flue_error *error);
/* A profile that did not pass the check. False: that is not what is wrong with it. */
bool flue_spy_dotnet_ids(struct flue_bytes profile, const struct flue_pprof_limits *limits,
                         struct flue_account *account, struct flue_block **out);

#endif
