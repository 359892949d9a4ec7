/* image.c: see image.h. */
#include "kubernetes/image.h"

static bool hex_digest(struct flue_bytes b)
{
    if (flue_bytes_starts_with(b, FLUE_BYTES("sha256:")))
        b = flue_bytes_from(b, 7);
    if (b.size != 64)
        return false;
    for (size_t i = 0; i < 64; i++)
        if (!((b.data[i] >= '0' && b.data[i] <= '9') || (b.data[i] >= 'a' && b.data[i] <= 'f')))
            return false;
    return true;
}

bool flue_kube_image_read(struct flue_bytes reference, struct flue_kube_image *out)
{
    memset(out, 0, sizeof *out);
    if (!reference.size || reference.size > 1024 || hex_digest(reference))
        return false;
    for (size_t i = 0; i < reference.size; i++)
        if (reference.data[i] <= ' ' || reference.data[i] >= 0x7f)
            return false;
    size_t at = flue_bytes_find(reference, '@');
    struct flue_bytes rest = reference;
    if (at != SIZE_MAX) {
        out->digest = flue_bytes_from(reference, at + 1);
        rest = flue_bytes_first(reference, at);
    }
    /* A colon behind the last slash begins the tag; one before it, a port. */
    size_t colon = SIZE_MAX;
    for (size_t i = rest.size; i-- > 0 && rest.data[i] != '/';)
        if (rest.data[i] == ':')
            colon = i;
    if (colon != SIZE_MAX) {
        out->tag = flue_bytes_from(rest, colon + 1);
        rest = flue_bytes_first(rest, colon);
    } else if (!out->digest.size) {
        out->tag = FLUE_BYTES("latest");
    }
    out->name = rest;
    if (!rest.size || (colon != SIZE_MAX && !out->tag.size)) {
        memset(out, 0, sizeof *out);
        return false;
    }
    return true;
}

struct flue_bytes flue_kube_image_digest(struct flue_bytes image_id)
{
    for (size_t i = 0; i + 3 <= image_id.size; i++)
        if (memcmp(image_id.data + i, "://", 3) == 0) {
            image_id = flue_bytes_from(image_id, i + 3);
            break;
        }
    size_t at = flue_bytes_find(image_id, '@');
    return at == SIZE_MAX || at == 0 || !hex_digest(flue_bytes_from(image_id, at + 1))
               ? flue_bytes(NULL, 0)
               : image_id;
}
