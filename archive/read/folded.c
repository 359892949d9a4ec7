/* folded.c: see render.h. */
#include "archive/read/render.h"
#include <inttypes.h>
#include "archive/read/frames.h"

static void write_name(struct flue_bytes name, struct flue_buffer *out)
{
    for (size_t i = 0; i < name.size; i++) {
        uint8_t byte = name.data[i];
        flue_buffer_byte(out, byte == ';' ? ':' : byte < 0x20 || byte == 0x7f ? ' ' : byte);
    }
}

enum flue_code flue_render_folded(struct flue_bytes raw, uint32_t value, struct flue_buffer *out,
                                  struct flue_error *error)
{
    struct flue_frames frames;
    enum flue_code code = flue_frames_open(&frames, raw, error);

    for (uint32_t i = 0; !code && i < frames.document.sample_count; i++) {
        struct flue_bytes *names;
        size_t count;
        int64_t v = flue_frames_value(&frames, i, value);
        if (v == 0)
            continue;
        if ((code = flue_frames_stack(&frames, i, &names, &count, error)))
            break;
        for (size_t k = 0; k < count; k++) {
            if (k)
                flue_buffer_byte(out, ';');
            write_name(names[k], out);
        }
        flue_buffer_printf(out, "%s %" PRId64 "\n", count ? "" : "[no stack]", v);
    }
    if (!code && out->failed)
        code = flue_fail(error, FLUE_NO_MEMORY, "the text is over %zu bytes", out->maximum);
    flue_frames_close(&frames);
    return code;
}
