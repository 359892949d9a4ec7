/* stream.h: the Collector's form of the file exporter: messages one behind the other in one file
 * that is rotated by size.
 *
 * Framing (fileexporter of opentelemetry-collector-contrib): format json without compression is one
 * message a line; everything else is a big-endian 32-bit length before each message; with
 * compression zstd each message is a frame of its own. Rotated files are called
 * name-YYYY-MM-DDTHH-MM-SS.mmm.ext.
 *
 * Called on pool threads; one mutex per file.
 */
#ifndef EXPORTERS_FILE_STREAM_H
#define EXPORTERS_FILE_STREAM_H

#include "collector/base/block.h"

struct flue_stream_rotation {
    int64_t max_megabytes, max_days, max_backups;
    bool localtime;
};
struct flue_stream;

/* `rotation` NULL: never; borrowed. append false: the file is emptied when it is first opened. */
struct flue_stream *flue_stream_new(const char *path, bool append, bool create_directory,
                                    unsigned directory_mode,
                                    const struct flue_stream_rotation *rotation);
/* One message; `framed` puts its length before it, else a newline behind it. What was written in
 * part is taken back, so that a file never holds half a message. */
enum flue_code flue_stream_write(struct flue_stream *stream, struct flue_bytes message, bool framed,
                                 struct flue_error *error);
void flue_stream_destroy(struct flue_stream *stream);

#endif
