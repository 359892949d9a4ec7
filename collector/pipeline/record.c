/* record.c: the head of a record, written and read. */
#include "collector/pipeline/record.h"

#define VERSION     1
#define HEADERS_MAX 4096

static void put_u32(struct flue_buffer *out, size_t value)
{
    for (unsigned i = 0; i < 4; i++)
        flue_buffer_byte(out, (uint8_t)(value >> 8 * i));
}

static void put_u64(struct flue_buffer *out, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++)
        flue_buffer_byte(out, (uint8_t)(value >> 8 * i));
}

static void put_text(struct flue_buffer *out, struct flue_bytes text)
{
    put_u32(out, text.size);
    flue_buffer_add(out, text);
}

enum flue_code flue_record_write(const struct flue_batch *batch, uint64_t time_ns,
                                 const struct flue_record_route *routes, size_t route_count,
                                 struct flue_buffer *out, struct flue_error *error)
{
    static const struct flue_origin none;
    const struct flue_origin *origin = batch->origin ? batch->origin : &none;

    flue_buffer_byte(out, VERSION);
    flue_buffer_byte(out, (uint8_t)batch->payload->ops->form);
    flue_buffer_byte(out, (uint8_t)batch->payload->signal);
    put_u64(out, batch->counts.profiles);
    put_u64(out, batch->counts.samples);
    put_u64(out, batch->counts.bytes);
    put_u64(out, time_ns);
    put_text(out, origin->receiver);
    put_text(out, origin->transport);
    put_text(out, origin->peer);
    put_text(out, origin->peer_address);
    put_text(out, origin->tenant);
    put_text(out, origin->tls_subject);
    put_u32(out, origin->header_count);
    for (size_t i = 0; i < origin->header_count; i++) {
        put_text(out, origin->headers[i].key);
        put_text(out, origin->headers[i].value.text);
    }
    put_u32(out, route_count);
    for (size_t i = 0; i < route_count; i++) {
        put_text(out, routes[i].exporter);
        put_text(out, routes[i].pipeline);
    }
    if (out->failed && out->starved)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the head of a record");
    if (out->failed || out->size > FLUE_RECORD_HEAD_MAX)
        return flue_fail(error, FLUE_TOO_LARGE,
                         "what is known of the request besides its data passes the %d bytes that a "
                         "durable queue keeps: fewer or shorter headers (include_metadata: false "
                         "keeps only those that the configuration names)",
                         FLUE_RECORD_HEAD_MAX);
    return FLUE_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

struct head_reader {
    struct flue_bytes rest;
    bool bad;
};

static uint64_t number(struct head_reader *r, unsigned size)
{
    uint64_t value = 0;

    if (r->rest.size < size) {
        r->bad = true;
        return 0;
    }
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)r->rest.data[i] << 8 * i;
    r->rest = flue_bytes_from(r->rest, size);
    return value;
}

static struct flue_bytes text(struct head_reader *r)
{
    size_t size = (size_t)number(r, 4);

    if (r->bad || r->rest.size < size) {
        r->bad = true;
        return flue_bytes("", 0);
    }
    struct flue_bytes out = flue_bytes_first(r->rest, size);
    r->rest = flue_bytes_from(r->rest, size);
    return out;
}

static bool read_headers(struct head_reader *r, struct flue_arena *arena,
                         struct flue_origin *origin)
{
    size_t count = (size_t)number(r, 4);

    if (r->bad || count > HEADERS_MAX) {
        r->bad = true;
        return true;
    }
    struct flue_attribute *headers = flue_arena_zalloc(arena, count ? count : 1, sizeof *headers);
    if (!headers)
        return false;
    for (size_t i = 0; i < count; i++) {
        headers[i].key = text(r);
        headers[i].value.type = FLUE_VALUE_STRING;
        headers[i].value.text = text(r);
    }
    origin->headers = headers;
    origin->header_count = count;
    return true;
}

enum flue_code flue_record_read(struct flue_bytes bytes, struct flue_arena *arena,
                                struct flue_record_head *out, struct flue_error *error)
{
    struct head_reader r = {bytes, false};

    memset(out, 0, sizeof *out);
    unsigned version = (unsigned)number(&r, 1);
    if (version != VERSION)
        return flue_fail(error, FLUE_INVALID, "the head of a record has version %u, not %d",
                         version, VERSION);
    out->form = (enum flue_form)number(&r, 1);
    out->signal = (enum flue_signal)number(&r, 1);
    out->counts.profiles = number(&r, 8);
    out->counts.samples = number(&r, 8);
    out->counts.bytes = number(&r, 8);
    out->origin.received_ns = number(&r, 8);
    out->origin.receiver = text(&r);
    out->origin.transport = text(&r);
    out->origin.peer = text(&r);
    out->origin.peer_address = text(&r);
    out->origin.tenant = text(&r);
    out->origin.tls_subject = text(&r);
    if (!read_headers(&r, arena, &out->origin))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the head of a record");
    out->route_count = (size_t)number(&r, 4);
    if (out->route_count > FLUE_RECORD_ROUTES)
        r.bad = true;
    for (size_t i = 0; !r.bad && i < out->route_count; i++) {
        out->routes[i].exporter = text(&r);
        out->routes[i].pipeline = text(&r);
    }
    if (r.bad || r.rest.size)
        return flue_fail(error, FLUE_INVALID, "the head of a record is not whole");
    return FLUE_OK;
}
