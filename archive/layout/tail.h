/* tail.h: the end of a data object of layout `otlp`: index and seek table (otlp.h). */
#ifndef FLUE_ARCHIVE_TAIL_H
#define FLUE_ARCHIVE_TAIL_H

#include "archive/layout/index.h"
#include "collector/base/block.h"

/* Both skippable frames into a new block. */
enum flue_code flue_tail_write(const struct flue_index_object *object, struct flue_block **out,
                               struct flue_error *error);

#endif
