/* key.c: see key.h. */
#include "archive/layout/key.h"
#include <openssl/sha.h>

static bool plain(uint8_t byte, size_t position)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '_' || byte == '-' || byte == '=' ||
           (byte == '.' && position > 0);
}

size_t flue_key_element(struct flue_bytes text, char out[FLUE_KEY_ELEMENT_ROOM])
{
    static const char digits[] = "0123456789ABCDEF";
    uint8_t digest[SHA256_DIGEST_LENGTH];
    size_t at = 0;

    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.data[i];
        size_t need = plain(byte, i) ? 1 : 3;
        if (at + need > FLUE_KEY_ELEMENT) {
            SHA256(text.data, text.size, digest);
            out[at++] = '~';
            flue_hex(flue_bytes(digest, 4), out + at);
            out[at + 8] = 0;
            return at + 8;
        }
        if (need == 1) {
            out[at++] = (char)byte;
        } else {
            out[at++] = '%';
            out[at++] = digits[byte >> 4];
            out[at++] = digits[byte & 15];
        }
    }
    if (at == 0)
        out[at++] = '%';
    out[at] = 0;
    return at;
}

struct flue_bytes flue_key_element_text(struct flue_bytes element, struct flue_arena *arena)
{
    uint8_t *out = flue_arena_alloc(arena, element.size + 1);
    size_t at = 0;

    if (!out)
        return flue_bytes(NULL, 0);
    if (flue_bytes_is(element, "%"))
        return flue_bytes(out, 0);
    for (size_t i = 0; i < element.size; i++) {
        if (element.data[i] == '~')
            return flue_bytes(NULL, 0);
        if (element.data[i] == '%' && i + 2 < element.size &&
            flue_unhex(flue_bytes(element.data + i + 1, 2), out + at, 1)) {
            at++;
            i += 2;
        } else {
            out[at++] = element.data[i];
        }
    }
    return flue_bytes(out, at);
}

char *flue_key_prefix(struct flue_arena *arena, const char *text)
{
    size_t size = text ? strlen(text) : 0, at = 0;
    char *out = flue_arena_alloc(arena, size + 2);

    for (size_t i = 0; out && i < size;) {
        size_t part = strcspn(text + i, "/");
        bool dots = (part == 1 && text[i] == '.') || (part == 2 && memcmp(text + i, "..", 2) == 0);
        if (part && !dots) {
            memcpy(out + at, text + i, part);
            at += part;
            out[at++] = '/';
        }
        i += part + (text[i + part] == '/');
    }
    if (out)
        out[at] = 0;
    return out;
}
