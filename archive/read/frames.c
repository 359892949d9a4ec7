/* frames.c: see frames.h. */
#include "archive/read/frames.h"
#include <inttypes.h>
#include <stdlib.h>

#define BUDGET ((size_t)4 << 30)

static struct flue_bytes function_name(const struct flue_pprof_document *d, uint32_t row)
{
    if (row >= d->function_count)
        return FLUE_BYTES("[unknown]");
    const struct flue_pprof_function *f = &d->functions[row];
    struct flue_bytes name = d->strings[f->name];
    if (!name.size)
        name = d->strings[f->system_name];
    return name.size ? name : FLUE_BYTES("[unknown]");
}

/* Without symbols: file and address, which is what there is. */
static struct flue_bytes address_name(struct flue_frames *frames,
                                      const struct flue_pprof_location *location)
{
    const struct flue_pprof_document *d = &frames->document;
    struct flue_bytes file = flue_bytes(NULL, 0);

    if (location->mapping < d->mapping_count)
        file = d->strings[d->mappings[location->mapping].filename];
    for (size_t i = file.size; i > 0; i--)
        if (file.data[i - 1] == '/') {
            file = flue_bytes_from(file, i);
            break;
        }
    char *text = flue_arena_printf(&frames->arena, "%.*s%s0x%" PRIx64, FLUE_PRI(file),
                                   file.size ? "+" : "", location->address);
    return flue_bytes_of(text ? text : "[no memory]");
}

enum flue_code flue_frames_open(struct flue_frames *frames, struct flue_bytes raw,
                                struct flue_error *error)
{
    struct flue_pprof_document *d = &frames->document;
    enum flue_code code;

    memset(frames, 0, sizeof *frames);
    flue_arena_init(&frames->arena, BUDGET, 0);
    code = flue_pprof_decode(raw, &frames->arena, d, error);
    if (code)
        return code;
    frames->names = flue_arena_zalloc(&frames->arena, d->line_count + 1, sizeof *frames->names);
    frames->bare = flue_arena_zalloc(&frames->arena, d->location_count + 1, sizeof *frames->bare);
    if (!frames->names || !frames->bare)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the names of a profile");
    for (uint32_t i = 0; i < d->line_count; i++)
        frames->names[i] = function_name(d, d->lines[i].function);
    for (uint32_t i = 0; i < d->location_count; i++)
        if (!d->locations[i].line_count)
            frames->bare[i] = address_name(frames, &d->locations[i]);
    return FLUE_OK;
}

void flue_frames_close(struct flue_frames *frames)
{
    free(frames->stack);
    flue_arena_destroy(&frames->arena);
}

static bool push(struct flue_frames *frames, size_t *count, struct flue_bytes name)
{
    if (*count == frames->stack_room) {
        size_t room = frames->stack_room ? frames->stack_room * 2 : 64;
        struct flue_bytes *stack = realloc(frames->stack, room * sizeof *stack);
        if (!stack)
            return false;
        frames->stack = stack;
        frames->stack_room = room;
    }
    frames->stack[(*count)++] = name;
    return true;
}

enum flue_code flue_frames_stack(struct flue_frames *frames, uint32_t sample,
                                 struct flue_bytes **names, size_t *count, struct flue_error *error)
{
    const struct flue_pprof_document *d = &frames->document;
    const struct flue_pprof_sample *s = &d->samples[sample];
    bool ok = true;

    *count = 0;
    for (uint32_t i = s->location_count; ok && i-- > 0;) { /* stored leaf first */
        uint32_t row = d->stack[s->first_location + i];
        const struct flue_pprof_location *location = &d->locations[row];
        if (!location->line_count)
            ok = push(frames, count, frames->bare[row]);
        for (uint32_t k = location->line_count; ok && k-- > 0;) /* innermost first */
            ok = push(frames, count, frames->names[location->first_line + k]);
    }
    *names = frames->stack;
    return ok ? FLUE_OK : flue_fail(error, FLUE_NO_MEMORY, "no memory for a stack");
}
