/* http1.h: a small, strict reader of HTTP/1.x requests: bytes in, events out, no input or output.
 *
 * Feed it bytes in pieces of any size; the events are the same however they are cut. What RFC 9110
 * and 9112 leave to the taste of a lenient reader (bare LF, folded lines, blanks before a colon,
 * two lengths, a length beside chunked) is refused: two readers that disagree about where a request
 * ends are how requests are smuggled. After an error nothing more may be read from the connection.
 *
 *     struct flue_bytes in = received;
 *     while ((event = flue_http1_feed(&reader, &in)) != FLUE_HTTP1_MORE) ...
 *
 * One thread. Everything is bounded by the constants below.
 */
#ifndef FLUE_NET_HTTP1_H
#define FLUE_NET_HTTP1_H

#include "collector/base/bytes.h"

#define FLUE_HTTP1_HEAD_MAX       (16u * 1024) /* request line and header lines together */
#define FLUE_HTTP1_TRAILERS_MAX   (8u * 1024)  /* trailer lines; read and forgotten */
#define FLUE_HTTP1_FIELDS_MAX     128u
#define FLUE_HTTP1_CHUNK_LINE_MAX 256u         /* one chunk's size and extensions */
#define FLUE_HTTP1_EXTENSIONS_MAX (16u * 1024) /* all chunk extensions of a body */

enum flue_http1_event {
    FLUE_HTTP1_MORE, /* everything was consumed; nothing to report */
    FLUE_HTTP1_HEAD, /* the head is complete: method ... fields are valid until the next feed */
    FLUE_HTTP1_BODY, /* `piece` is the next part of the body, borrowed from the input */
    FLUE_HTTP1_END,  /* the request is complete; flue_http1_reset before the next */
    FLUE_HTTP1_ERROR /* `status` and `reason` say why */
};

struct flue_http1_field { /* offsets into `text`: it moves while it grows */
    uint32_t name, value;
    uint32_t name_size, value_size;
};

struct flue_http1 {
    /* Set by FLUE_HTTP1_HEAD. */
    struct flue_bytes method, target, authority; /* authority: of the target, else Host */
    unsigned minor;                              /* HTTP/1.minor, 0 or 1 */
    int64_t content_length;                      /* -1: not stated */
    bool chunked, keep_alive, expect_continue;
    size_t field_count;
    struct flue_http1_field fields[FLUE_HTTP1_FIELDS_MAX]; /* names lower-case */
    /* FLUE_HTTP1_BODY, FLUE_HTTP1_ERROR */
    struct flue_bytes piece;
    unsigned status;
    const char *reason;

    /* The reader's own. */
    int state;
    char *text; /* the head, then the trailers' lines; malloc, kept over resets */
    size_t size, room, line, head_size, trailer_count;
    bool started, blank_skipped;
    uint64_t left; /* of the body, or of this chunk */
    size_t line_size, extensions;
    unsigned digits;
};

void flue_http1_init(struct flue_http1 *reader);
void flue_http1_destroy(struct flue_http1 *reader);
/* Ready for the next request of the same connection. */
void flue_http1_reset(struct flue_http1 *reader);
/* Consumes from the front of *in up to the next event. */
enum flue_http1_event flue_http1_feed(struct flue_http1 *reader, struct flue_bytes *in);
/* True between the first byte of a head and its end. */
bool flue_http1_in_head(const struct flue_http1 *reader);

/* How many body bytes follow without framing; they may be received straight into their place and
 * then be accounted for with flue_http1_received (count <= direct). */
uint64_t flue_http1_direct(const struct flue_http1 *reader);
void flue_http1_received(struct flue_http1 *reader, uint64_t count);

static inline struct flue_bytes flue_http1_name(const struct flue_http1 *reader, size_t i)
{
    return flue_bytes(reader->text + reader->fields[i].name, reader->fields[i].name_size);
}
static inline struct flue_bytes flue_http1_value(const struct flue_http1 *reader, size_t i)
{
    return flue_bytes(reader->text + reader->fields[i].value, reader->fields[i].value_size);
}

#endif
