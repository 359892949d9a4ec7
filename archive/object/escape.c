/* escape.c: see escape.h. */
#include "archive/object/escape.h"

#define MOST_PAIRS 24

static bool stays(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

void flue_url_escape(struct flue_buffer *out, struct flue_bytes b, bool slash)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t from = 0;
    for (size_t i = 0; i < b.size; i++) {
        uint8_t c = b.data[i];
        if (stays(c) || (slash && c == '/'))
            continue;
        const uint8_t escaped[3] = {'%', (uint8_t)digits[c >> 4], (uint8_t)digits[c & 15]};
        flue_buffer_add(out, flue_bytes(b.data + from, i - from));
        flue_buffer_add(out, flue_bytes(escaped, sizeof escaped));
        from = i + 1;
    }
    flue_buffer_add(out, flue_bytes_from(b, from));
}

/* Order of the escaped forms, without making them: an escaped byte begins with '%', which is less
 * than every byte that stays. */
static int compare(struct flue_bytes a, struct flue_bytes b)
{
    for (size_t i = 0; i < a.size && i < b.size; i++) {
        uint8_t x = a.data[i], y = b.data[i];
        if (x == y)
            continue;
        if (stays(x) != stays(y))
            return stays(x) ? 1 : -1;
        return x < y ? -1 : 1;
    }
    return a.size == b.size ? 0 : a.size < b.size ? -1 : 1;
}

void flue_url_query(struct flue_buffer *out, const struct flue_url_pair *pairs, size_t count)
{
    uint8_t order[MOST_PAIRS];
    if (count > MOST_PAIRS) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        for (; at > 0; at--) {
            const struct flue_url_pair *before = &pairs[order[at - 1]];
            int less = compare(pairs[i].name, before->name);
            if (less > 0 || (less == 0 && compare(pairs[i].value, before->value) >= 0))
                break;
            order[at] = order[at - 1];
        }
        order[at] = (uint8_t)i;
    }
    for (size_t i = 0; i < count; i++) {
        if (i)
            flue_buffer_byte(out, '&');
        flue_url_escape(out, pairs[order[i]].name, false);
        flue_buffer_byte(out, '=');
        flue_url_escape(out, pairs[order[i]].value, false);
    }
}

bool flue_url_unescape(struct flue_bytes text, struct flue_arena *arena, struct flue_bytes *out)
{
    uint8_t *data = flue_arena_alloc(arena, text.size + 1);
    size_t size = 0;
    if (!data)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] != '%') {
            data[size++] = text.data[i];
            continue;
        }
        if (i + 2 >= text.size || !flue_unhex(flue_bytes(text.data + i + 1, 2), &data[size], 1))
            return false;
        size++;
        i += 2;
    }
    data[size] = 0;
    *out = flue_bytes(data, size);
    return true;
}
