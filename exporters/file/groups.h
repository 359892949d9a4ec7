/* groups.h: group_by of the Collector's file exporter: each resource goes to the file that one of
 * its attributes names.
 *
 * The one '*' of `path` stands for the attribute's value, made safe by archive/layout/key.h
 * ("MISSING" without one). Resources of one value make one message, with a dictionary of what they
 * use. Files are always appended to; at most `max_open_files` are open, the one longest unused is
 * closed first.
 *
 * Called on pool threads.
 */
#ifndef EXPORTERS_FILE_GROUPS_H
#define EXPORTERS_FILE_GROUPS_H

#include "exporters/file/stream.h"

struct flue_payload;
struct flue_groups;

struct flue_groups *flue_groups_new(const char *path, const char *attribute, size_t max_open_files,
                                    bool create_directory, unsigned directory_mode,
                                    const struct flue_stream_rotation *rotation);
void flue_groups_destroy(struct flue_groups *groups); /* NULL is fine */

/* Cuts an OTLP payload by the attribute and gives each part to `write`, with the stream of its
 * group; the first failure ends it. *done counts the groups that are written: of a payload that
 * comes again, with the count it was left with, they are not written twice. */
enum flue_code flue_groups_write(struct flue_groups *groups, const struct flue_payload *payload,
                                 uint32_t *done,
                                 enum flue_code (*write)(void *arg, struct flue_stream *stream,
                                                         const struct flue_payload *part,
                                                         struct flue_error *error),
                                 void *arg, struct flue_error *error);

#endif
