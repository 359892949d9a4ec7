/* buffer.c: see buffer.h. */
#include "collector/base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define FIRST_CAPACITY ((size_t)256)

void flue_buffer_init(struct flue_buffer *buffer, size_t maximum)
{
    memset(buffer, 0, sizeof *buffer);
    /* One byte is the NUL's. */
    buffer->maximum = maximum < SIZE_MAX / 2 ? maximum : SIZE_MAX / 2;
}

static bool reserve(struct flue_buffer *buffer, size_t more)
{
    size_t capacity = buffer->capacity;
    char *data;

    if (buffer->failed || more > buffer->maximum - buffer->size) {
        buffer->failed = true;
        return false;
    }
    if (buffer->data && buffer->size + more <= capacity)
        return true;
    capacity = capacity ? capacity * 2 : FIRST_CAPACITY;
    if (capacity < buffer->size + more)
        capacity = buffer->size + more;
    if (capacity > buffer->maximum)
        capacity = buffer->maximum;
    data = realloc(buffer->data, capacity + 1);
    if (!data) {
        buffer->failed = buffer->starved = true;
        return false;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

void flue_buffer_add(struct flue_buffer *buffer, struct flue_bytes b)
{
    if (!reserve(buffer, b.size))
        return;
    if (b.size)
        memcpy(buffer->data + buffer->size, b.data, b.size);
    buffer->size += b.size;
    buffer->data[buffer->size] = 0;
}

void flue_buffer_text(struct flue_buffer *buffer, const char *text)
{
    flue_buffer_add(buffer, flue_bytes_of(text));
}

void flue_buffer_byte(struct flue_buffer *buffer, uint8_t byte)
{
    flue_buffer_add(buffer, flue_bytes(&byte, 1));
}

void flue_buffer_printf(struct flue_buffer *buffer, const char *format, ...)
{
    va_list args, again;
    int size;

    va_start(args, format);
    va_copy(again, args);
    size = vsnprintf(NULL, 0, format, args);
    if (size < 0)
        buffer->failed = true;
    else if (reserve(buffer, (size_t)size)) {
        vsnprintf(buffer->data + buffer->size, (size_t)size + 1, format, again);
        buffer->size += (size_t)size;
    }
    va_end(again);
    va_end(args);
}

/* The two-character escape of `c`, or 0. */
static char short_escape(uint8_t c)
{
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    default:
        return 0;
    }
}

/* Is there something at `p` that JSON or a terminal must not see? C1 controls (U+0080 to U+009F)
 * are legal in JSON, but move a terminal's cursor. */
static bool is_control(struct flue_bytes b, size_t i)
{
    return b.data[i] < 0x20 || b.data[i] == 0x7F ||
           (b.data[i] == 0xC2 && i + 1 < b.size && b.data[i + 1] >= 0x80 && b.data[i + 1] < 0xA0);
}

static void json_valid(struct flue_buffer *buffer, struct flue_bytes b)
{
    size_t from = 0;

    for (size_t i = 0; i < b.size; i++) {
        char escape = short_escape(b.data[i]);
        bool control = is_control(b, i), wide = control && b.data[i] == 0xC2;

        if (!escape && !control)
            continue;
        flue_buffer_add(buffer, flue_bytes(b.data + from, i - from));
        if (escape)
            flue_buffer_add(buffer, flue_bytes((const char[]){'\\', escape}, 2));
        else
            flue_buffer_printf(buffer, "\\u%04x", wide ? b.data[i + 1] : b.data[i]);
        i += wide;
        from = i + 1;
    }
    flue_buffer_add(buffer, flue_bytes_from(b, from));
}

void flue_buffer_json(struct flue_buffer *buffer, struct flue_bytes text)
{
    flue_buffer_byte(buffer, '"');
    if (flue_utf8_valid(text)) {
        json_valid(buffer, text);
    } else {
        size_t size = flue_utf8_repaired_size(text);
        uint8_t *repaired = size <= buffer->maximum ? malloc(size) : NULL;

        if (repaired) {
            flue_utf8_repair(text, repaired);
            json_valid(buffer, flue_bytes(repaired, size));
        } else {
            buffer->failed = true;
        }
        free(repaired);
    }
    flue_buffer_byte(buffer, '"');
}

void flue_buffer_clear(struct flue_buffer *buffer)
{
    buffer->size = 0;
    buffer->failed = false;
    if (buffer->data)
        buffer->data[0] = 0;
}

void flue_buffer_destroy(struct flue_buffer *buffer)
{
    free(buffer->data);
    buffer->data = NULL;
    buffer->size = buffer->capacity = 0;
}
