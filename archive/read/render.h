/* render.h: one profile as text or picture.
 *
 * folded: a line per stack, "root;caller;leaf value", in the order of the profile; ';' in a name
 * becomes ':', control characters blanks.
 * svg: a flame graph, root below, wide enough to read, with a title for every frame and a script
 * that zooms; nothing is loaded from elsewhere, every text is escaped.
 */
#ifndef FLUE_ARCHIVE_RENDER_H
#define FLUE_ARCHIVE_RENDER_H

#include "collector/base/buffer.h"
#include "collector/base/error.h"

/* `raw`: a checked pprof; `value`: which of its sample types. */
enum flue_code flue_render_folded(struct flue_bytes raw, uint32_t value, struct flue_buffer *out,
                                  struct flue_error *error);
enum flue_code flue_render_svg(struct flue_bytes raw, uint32_t value, const char *title,
                               struct flue_buffer *out, struct flue_error *error);

#endif
