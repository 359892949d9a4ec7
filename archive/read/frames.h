/* frames.h: a profile's samples as names of frames, root first. One thread. */
#ifndef FLUE_ARCHIVE_FRAMES_H
#define FLUE_ARCHIVE_FRAMES_H

#include "collector/base/error.h"
#include "proto/pprof/document.h"

struct flue_frames {
    struct flue_arena arena;
    struct flue_pprof_document document;
    struct flue_bytes *names; /* of every line; addresses where a location has none */
    struct flue_bytes *bare;  /* of every location without lines */
    struct flue_bytes *stack;
    size_t stack_room;
};
/* Closed by flue_frames_close, also on failure. */
enum flue_code flue_frames_open(struct flue_frames *frames, struct flue_bytes raw,
                                struct flue_error *error);
void flue_frames_close(struct flue_frames *frames);
/* Valid until the next call. */
enum flue_code flue_frames_stack(struct flue_frames *frames, uint32_t sample,
                                 struct flue_bytes **names, size_t *count,
                                 struct flue_error *error);
static inline int64_t flue_frames_value(const struct flue_frames *frames, uint32_t sample,
                                        uint32_t value)
{
    return value < frames->document.type_count
               ? frames->document.values[(size_t)sample * frames->document.type_count + value]
               : 0;
}

#endif
