/* origin.c: one allocation that holds where a batch came from. */
#include "collector/pipeline/origin.h"
#include <stdlib.h>

/* The plain strings of an origin, so that they are copied by one loop. */
static struct flue_bytes *field(struct flue_origin *origin, unsigned index)
{
    switch (index) {
    case 0:
        return &origin->receiver;
    case 1:
        return &origin->transport;
    case 2:
        return &origin->peer;
    case 3:
        return &origin->peer_address;
    case 4:
        return &origin->tenant;
    case 5:
        return &origin->tls_subject;
    default:
        return NULL;
    }
}

static struct flue_bytes put(uint8_t **at, struct flue_bytes b)
{
    struct flue_bytes copy = flue_bytes(*at, b.size);
    if (b.size)
        memcpy(*at, b.data, b.size);
    (*at)[b.size] = 0;
    *at += b.size + 1;
    return copy;
}

struct flue_origin *flue_origin_new(const struct flue_origin *from)
{
    struct flue_origin source = *from;
    size_t size = sizeof(struct flue_origin) + from->header_count * sizeof *from->headers;

    for (unsigned i = 0; field(&source, i); i++)
        size += field(&source, i)->size + 1;
    for (size_t i = 0; i < from->header_count; i++)
        size += from->headers[i].key.size + from->headers[i].value.text.size + 2;

    struct flue_origin *origin = malloc(size);
    if (!origin)
        return NULL;
    *origin = source;
    atomic_init(&origin->refs, 1);
    struct flue_attribute *headers = (struct flue_attribute *)(origin + 1);
    uint8_t *at = (uint8_t *)(headers + from->header_count);
    for (unsigned i = 0; field(origin, i); i++)
        *field(origin, i) = put(&at, *field(&source, i));
    for (size_t i = 0; i < from->header_count; i++) {
        headers[i] = from->headers[i];
        headers[i].key = put(&at, from->headers[i].key);
        headers[i].value.text = put(&at, from->headers[i].value.text);
    }
    origin->headers = headers;
    return origin;
}

struct flue_origin *flue_origin_ref(struct flue_origin *origin)
{
    atomic_fetch_add_explicit(&origin->refs, 1, memory_order_relaxed);
    return origin;
}

void flue_origin_unref(struct flue_origin *origin)
{
    if (origin && atomic_fetch_sub_explicit(&origin->refs, 1, memory_order_acq_rel) == 1)
        free(origin);
}

struct flue_bytes flue_origin_header(const struct flue_origin *origin, struct flue_bytes name)
{
    for (size_t i = 0; i < origin->header_count; i++)
        if (flue_bytes_equal(origin->headers[i].key, name))
            return origin->headers[i].value.text;
    return flue_bytes(NULL, 0);
}
