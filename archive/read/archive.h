/* archive.h: an archive asked for profiles: by folder and name in layout pprof, by index in layout
 * otlp. Broken objects are said on `warn` and left out.
 */
#ifndef FLUE_ARCHIVE_READ_H
#define FLUE_ARCHIVE_READ_H

#include "archive/read/collect.h"
#include "archive/read/source.h"

struct flue_archive_reader {
    struct flue_source *source;
    struct flue_bytes prefix; /* with '/' behind it, or empty */
    const struct flue_question *question;
    struct flue_collect *collect;
    void (*warn)(const char *text);
};
/* *found: something of this layout is there. A missing archive is no error. */
enum flue_code flue_read_otlp(struct flue_archive_reader *reader, bool *found,
                              struct flue_error *error);
enum flue_code flue_read_pprof(struct flue_archive_reader *reader, bool *found,
                               struct flue_error *error);

#endif
