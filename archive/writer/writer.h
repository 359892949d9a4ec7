/* writer.h: profiles become objects of an archive: the one writer behind awss3,
 * googlecloudstorage, azureblob and file.
 *
 * Layout `otlp` with a durable queue (sending_queue.storage): sends are parked and gathered per
 * place (tenant and hour, rollup.c) until an object is full or due. Everything else: the objects of
 * one request are written, then it is acknowledged (request.c).
 *
 * new: no I/O. start: main thread, before the loops run. send: on any loop. Keys and bytes are
 * functions of what was received, so that every repetition replaces itself.
 */
#ifndef FLUE_ARCHIVE_WRITER_H
#define FLUE_ARCHIVE_WRITER_H

#include "archive/writer/config.h"
#include "collector/component.h"

struct flue_archive_writer;

/* `config` is copied; what it points to must outlive the writer. */
enum flue_code flue_archive_writer_new(const struct flue_create *create,
                                       const struct flue_archive_config *config,
                                       struct flue_archive_writer **out, struct flue_error *error);
enum flue_code flue_archive_writer_start(struct flue_archive_writer *writer,
                                         struct flue_error *error);
void flue_archive_writer_send(struct flue_archive_writer *writer, struct flue_send *send);
bool flue_archive_writer_stopped(struct flue_archive_writer *writer);
void flue_archive_writer_destroy(struct flue_archive_writer *writer); /* NULL: fine */

#endif
