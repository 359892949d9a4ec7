/* folder.h: layout `pprof` below a folder, on a pool thread: each file under a temporary name,
 * synced, and renamed, the manifest first. */
#ifndef EXPORTERS_FILE_FOLDER_H
#define EXPORTERS_FILE_FOLDER_H

#include "archive/layout/pprof.h"

/* Writes all below `root`, a path. */
enum flue_code flue_folder_write(const struct flue_pprof_plan *plan, const char *root,
                                 unsigned directory_mode, struct flue_error *error);

#endif
