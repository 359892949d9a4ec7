/* buffer.h: a growable byte buffer that states its maximum when it is made.
 *
 * For text and small messages (responses, JSON, config, metrics pages). Bodies live in blocks. An
 * append that would pass the maximum or cannot be allocated sets `failed` and changes nothing;
 * later appends do nothing, so a builder checks once at its end. `data` is always terminated by a
 * NUL that does not count (NULL while nothing was ever appended). One thread.
 */
#ifndef FLUE_BASE_BUFFER_H
#define FLUE_BASE_BUFFER_H

#include "collector/base/bytes.h"

struct flue_buffer {
    char *data;
    size_t size, capacity, maximum;
    bool failed, starved; /* starved: for want of memory, not over the maximum */
};

void flue_buffer_init(struct flue_buffer *buffer, size_t maximum);
void flue_buffer_add(struct flue_buffer *buffer, struct flue_bytes b);
void flue_buffer_text(struct flue_buffer *buffer, const char *text);
void flue_buffer_byte(struct flue_buffer *buffer, uint8_t byte);
void flue_buffer_printf(struct flue_buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A JSON string with quotes; invalid UTF-8 becomes U+FFFD. */
void flue_buffer_json(struct flue_buffer *buffer, struct flue_bytes text);
void flue_buffer_clear(struct flue_buffer *buffer);
void flue_buffer_destroy(struct flue_buffer *buffer);
static inline struct flue_bytes flue_buffer_bytes(const struct flue_buffer *buffer)
{
    return flue_bytes(buffer->data, buffer->size);
}

#endif
