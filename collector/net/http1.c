#include "collector/net/http1.h"

#include <stdlib.h>

enum {
    REQUEST_LINE,
    FIELD_LINES,
    BODY_START, /* the head was reported */
    BODY_LENGTH,
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    TRAILER_LINES,
    ENDED,
    BROKEN
};

/* token characters (RFC 9110 5.6.2) */
static bool is_token(uint8_t c)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != 0 && strchr(others, c));
}

static bool is_field_value(uint8_t c)
{
    return (c >= 0x20 && c != 0x7f) || c == '\t';
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static enum flue_http1_event broken(struct flue_http1 *reader, unsigned status, const char *reason)
{
    reader->state = BROKEN;
    reader->status = status;
    reader->reason = reason;
    return FLUE_HTTP1_ERROR;
}

void flue_http1_init(struct flue_http1 *reader)
{
    memset(reader, 0, sizeof *reader);
    reader->content_length = -1;
}

void flue_http1_destroy(struct flue_http1 *reader)
{
    free(reader->text);
    reader->text = NULL;
}

void flue_http1_reset(struct flue_http1 *reader)
{
    char *text = reader->text;
    size_t room = reader->room;
    if (room > 4096) { /* an idle connection should not keep a large head */
        free(text);
        text = NULL;
        room = 0;
    }
    size_t keep = offsetof(struct flue_http1, fields);
    memset(reader, 0, keep);
    memset((char *)reader + keep + sizeof reader->fields, 0,
           sizeof *reader - keep - sizeof reader->fields);
    reader->content_length = -1;
    reader->text = text;
    reader->room = room;
}

bool flue_http1_in_head(const struct flue_http1 *reader)
{
    return reader->started && reader->state <= FIELD_LINES;
}

/* ---- lines ---------------------------------------------------------------------------------- */

static bool make_room(struct flue_http1 *reader, size_t more)
{
    if (reader->room - reader->size >= more)
        return true;
    size_t room = reader->room ? reader->room : 1024;
    while (room < reader->size + more)
        room *= 2;
    char *text = realloc(reader->text, room);
    if (!text)
        return false;
    reader->text = text;
    reader->room = room;
    return true;
}

/* Takes bytes up to and with the next LF into text. False: the line is not complete, or it is
 * broken. A complete line lies in text from reader->line, without CR LF, `size` being its end. */
static bool take_line(struct flue_http1 *reader, struct flue_bytes *in)
{
    if (in->size == 0)
        return false;
    const uint8_t *lf = memchr(in->data, '\n', in->size);
    size_t take = lf ? (size_t)(lf - in->data) + 1 : in->size;
    size_t limit = reader->state == TRAILER_LINES ? reader->head_size + FLUE_HTTP1_TRAILERS_MAX
                                                  : FLUE_HTTP1_HEAD_MAX;
    if (take > limit - reader->size) {
        bool target = reader->state == REQUEST_LINE;
        broken(reader, target ? 414 : 431,
               target ? "the request line is over 16384 bytes"
                      : "the headers are over 16384 bytes");
        return false;
    }
    if (!make_room(reader, take)) {
        broken(reader, 503, "no memory for the headers");
        return false;
    }
    const uint8_t *from = (const uint8_t *)reader->text + reader->size;
    memcpy(reader->text + reader->size, in->data, take);
    reader->size += take;
    *in = flue_bytes_from(*in, take);
    /* A CR must be the last but one of a line; look at what is new and the byte before it. */
    const uint8_t *end = (const uint8_t *)reader->text + reader->size;
    const uint8_t *start = (const uint8_t *)reader->text + reader->line;
    const uint8_t *at = from > start ? from - 1 : start;
    while ((at = memchr(at, '\r', (size_t)(end - at)))) {
        if (at + 1 == end)
            return false; /* what follows is not here yet */
        if (at[1] != '\n') {
            broken(reader, 400, "a CR without LF");
            return false;
        }
        at++;
    }
    if (!lf)
        return false;
    if (end - start < 2 || end[-2] != '\r') {
        broken(reader, 400, "a line that ends in LF without CR");
        return false;
    }
    return true;
}

/* ---- the head ------------------------------------------------------------------------------- */

static struct flue_bytes line_of(const struct flue_http1 *reader)
{
    return flue_bytes(reader->text + reader->line, reader->size - 2 - reader->line);
}

/* uri-host [":" port], loosely: what cannot be one is refused, e.g. blanks, "/", "@" and ",". */
static bool valid_authority(struct flue_bytes host)
{
    for (size_t i = 0; i < host.size; i++) {
        uint8_t c = host.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              (c != 0 && strchr("-._~!$&'()*+;=:[]%", c))))
            return false;
    }
    return true;
}

static bool request_line(struct flue_http1 *reader)
{
    struct flue_bytes line = line_of(reader);
    size_t method = 0;
    while (method < line.size && is_token(line.data[method]))
        method++;
    if (method == 0 || method > 32 || method == line.size || line.data[method] != ' ')
        return broken(reader, 400, "the request line has no valid method"), false;
    size_t target = method + 1, end = target;
    while (end < line.size && line.data[end] > 0x20 && line.data[end] < 0x7f)
        end++;
    if (end == target || end == line.size || line.data[end] != ' ')
        return broken(reader, 400, "the request line has no valid target"), false;
    struct flue_bytes version = flue_bytes_from(line, end + 1);
    if (version.size != 8 || memcmp(version.data, "HTTP/", 5) != 0 || version.data[6] != '.' ||
        version.data[5] < '0' || version.data[5] > '9' || version.data[7] < '0' ||
        version.data[7] > '9')
        return broken(reader, 400, "the request line has no valid HTTP version"), false;
    if (version.data[5] != '1')
        return broken(reader, 505, "only HTTP/1.0, HTTP/1.1 and HTTP/2 are served"), false;
    reader->minor = version.data[7] == '0' ? 0 : 1;
    /* Kept as offsets until the head is complete: text may move. */
    reader->method = flue_bytes(NULL, method);
    reader->target = flue_bytes(NULL, end - target);
    reader->line_size = target;
    return true;
}

static bool field_line(struct flue_http1 *reader, bool keep)
{
    struct flue_bytes line = line_of(reader);
    if (line.data[0] == ' ' || line.data[0] == '\t')
        return broken(reader, 400, "a folded header line"), false;
    size_t name = 0;
    while (name < line.size && is_token(line.data[name]))
        name++;
    if (name == 0 || name == line.size || line.data[name] != ':')
        return broken(reader, 400, "a header line without a valid name and colon"), false;
    struct flue_bytes value = flue_bytes_from(line, name + 1);
    while (value.size && (value.data[0] == ' ' || value.data[0] == '\t'))
        value = flue_bytes_from(value, 1);
    while (value.size && (value.data[value.size - 1] == ' ' || value.data[value.size - 1] == '\t'))
        value.size--;
    for (size_t i = 0; i < value.size; i++)
        if (!is_field_value(value.data[i]))
            return broken(reader, 400, "a control character in a header value"), false;
    if ((keep ? reader->field_count : reader->trailer_count++) == FLUE_HTTP1_FIELDS_MAX)
        return broken(reader, 431, "more than 128 header lines"), false;
    if (!keep)
        return true;
    char *lower = reader->text + reader->line;
    for (size_t i = 0; i < name; i++)
        if (lower[i] >= 'A' && lower[i] <= 'Z')
            lower[i] = (char)(lower[i] + 32);
    reader->fields[reader->field_count++] =
        (struct flue_http1_field){.name = (uint32_t)reader->line,
                                  .name_size = (uint32_t)name,
                                  .value = (uint32_t)(value.data - (const uint8_t *)reader->text),
                                  .value_size = (uint32_t)value.size};
    return true;
}

static bool same_nocase(struct flue_bytes a, const char *text)
{
    size_t size = strlen(text);
    if (a.size != size)
        return false;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = a.data[i];
        if (c >= 'A' && c <= 'Z')
            c = (uint8_t)(c + 32);
        if (c != (uint8_t)text[i])
            return false;
    }
    return true;
}

/* close and keep-alive among a comma-separated list */
static void connection_options(struct flue_bytes list, bool *close, bool *keep)
{
    while (list.size) {
        const uint8_t *comma = memchr(list.data, ',', list.size);
        struct flue_bytes item =
            flue_bytes(list.data, comma ? (size_t)(comma - list.data) : list.size);
        list = flue_bytes_from(list, item.size + (comma != NULL));
        while (item.size && (item.data[0] == ' ' || item.data[0] == '\t'))
            item = flue_bytes_from(item, 1);
        while (item.size && (item.data[item.size - 1] == ' ' || item.data[item.size - 1] == '\t'))
            item.size--;
        *close |= same_nocase(item, "close");
        *keep |= same_nocase(item, "keep-alive");
    }
}

static bool parse_length(struct flue_bytes value, int64_t *out)
{
    if (value.size == 0 || value.size > 18)
        return false;
    int64_t length = 0;
    for (size_t i = 0; i < value.size; i++) {
        if (value.data[i] < '0' || value.data[i] > '9')
            return false;
        length = length * 10 + (value.data[i] - '0');
    }
    *out = length;
    return true;
}

static bool framing_field(struct flue_http1 *reader, struct flue_bytes name,
                          struct flue_bytes value, unsigned *hosts, bool *close, bool *keep)
{
    if (flue_bytes_is(name, "content-length")) {
        if (reader->content_length >= 0)
            return broken(reader, 400, "Content-Length is there twice"), false;
        if (!parse_length(value, &reader->content_length))
            return broken(reader, 400, "Content-Length is not a decimal number"), false;
    } else if (flue_bytes_is(name, "transfer-encoding")) {
        if (reader->chunked)
            return broken(reader, 400, "Transfer-Encoding is there twice"), false;
        if (!same_nocase(value, "chunked"))
            return broken(reader, 501, "a Transfer-Encoding other than chunked"), false;
        reader->chunked = true;
    } else if (flue_bytes_is(name, "host")) {
        if ((*hosts)++)
            return broken(reader, 400, "Host is there twice"), false;
        if (!valid_authority(value))
            return broken(reader, 400, "Host is not a host and port"), false;
        if (!reader->authority.data)
            reader->authority = value;
    } else if (flue_bytes_is(name, "connection")) {
        connection_options(value, close, keep);
    } else if (flue_bytes_is(name, "expect") && reader->minor > 0) {
        if (!same_nocase(value, "100-continue"))
            return broken(reader, 417, "an Expect other than 100-continue"), false;
        reader->expect_continue = true;
    }
    return true;
}

/* Splits an absolute-form target; its authority wins over Host (RFC 9112 3.2.2). */
static bool target_form(struct flue_http1 *reader)
{
    struct flue_bytes target = reader->target;
    if (memchr(target.data, '#', target.size))
        return broken(reader, 400, "a fragment in the request target"), false;
    if (flue_bytes_is(reader->method, "CONNECT"))
        return broken(reader, 501, "CONNECT is not served"), false;
    if (target.data[0] == '/')
        return true;
    if (flue_bytes_is(target, "*"))
        return flue_bytes_is(reader->method, "OPTIONS") ||
               (broken(reader, 400, "the target * is for OPTIONS only"), false);
    size_t scheme = same_nocase(flue_bytes_first(target, 7), "http://")    ? 7
                    : same_nocase(flue_bytes_first(target, 8), "https://") ? 8
                                                                           : 0;
    struct flue_bytes rest = flue_bytes_from(target, scheme);
    size_t size = 0;
    while (size < rest.size && rest.data[size] != '/' && rest.data[size] != '?')
        size++;
    reader->authority = flue_bytes_first(rest, size);
    if (!scheme || size == 0 || !valid_authority(reader->authority))
        return broken(reader, 400, "the request target is neither a path nor an http URL"), false;
    reader->target = flue_bytes_from(rest, size);
    if (reader->target.size == 0)
        reader->target = FLUE_BYTES("/");
    else if (reader->target.data[0] == '?')
        return broken(reader, 400, "the URL of the request target has no path"), false;
    return true;
}

static bool head_complete(struct flue_http1 *reader)
{
    bool close = false, keep = false;
    unsigned hosts = 0;
    size_t first = reader->blank_skipped ? 2 : 0;
    reader->method.data = (const uint8_t *)reader->text + first;
    reader->target.data = (const uint8_t *)reader->text + first + reader->line_size;
    if (!target_form(reader))
        return false;
    for (size_t i = 0; i < reader->field_count; i++)
        if (!framing_field(reader, flue_http1_name(reader, i), flue_http1_value(reader, i), &hosts,
                           &close, &keep))
            return false;
    if (hosts == 0 && reader->minor > 0)
        return broken(reader, 400, "HTTP/1.1 without Host"), false;
    if (reader->chunked && reader->content_length >= 0)
        return broken(reader, 400, "Content-Length beside Transfer-Encoding"), false;
    if (reader->chunked && reader->minor == 0)
        return broken(reader, 400, "Transfer-Encoding in HTTP/1.0"), false;
    reader->keep_alive = !close && (reader->minor > 0 || keep);
    return true;
}

/* One line of the head. False: go on. */
static bool head_line(struct flue_http1 *reader, enum flue_http1_event *event)
{
    *event = FLUE_HTTP1_ERROR;
    bool empty = reader->size - reader->line == 2;
    if (reader->state == REQUEST_LINE) {
        if (empty && !reader->blank_skipped) { /* RFC 9112 2.2: one, before the request line */
            reader->blank_skipped = true;
            reader->line = reader->size;
            return false;
        }
        if (!request_line(reader))
            return true;
        reader->state = FIELD_LINES;
    } else if (!empty) {
        if (!field_line(reader, true))
            return true;
    } else {
        if (!head_complete(reader))
            return true;
        reader->state = BODY_START;
        *event = FLUE_HTTP1_HEAD;
        return true;
    }
    reader->line = reader->size;
    return false;
}

static bool trailer_line(struct flue_http1 *reader, enum flue_http1_event *event)
{
    if (reader->size - reader->line == 2) {
        reader->state = ENDED;
        *event = FLUE_HTTP1_END;
        return true;
    }
    *event = FLUE_HTTP1_ERROR;
    if (!field_line(reader, false))
        return true;
    reader->line = reader->size;
    return false;
}

/* ---- the body ------------------------------------------------------------------------------- */

uint64_t flue_http1_direct(const struct flue_http1 *reader)
{
    return reader->state == BODY_LENGTH || reader->state == CHUNK_DATA ? reader->left : 0;
}

void flue_http1_received(struct flue_http1 *reader, uint64_t count)
{
    reader->left -= count;
    if (reader->left == 0)
        reader->state = reader->state == BODY_LENGTH ? ENDED : CHUNK_DATA_CR;
}

static void begin_chunk(struct flue_http1 *reader)
{
    reader->state = CHUNK_SIZE;
    reader->left = 0;
    reader->digits = 0;
    reader->line_size = 0;
}

/* One byte of the framing between chunks. False: broken. */
static bool chunk_byte(struct flue_http1 *reader, uint8_t c)
{
    switch (reader->state) {
    case CHUNK_SIZE:
    case CHUNK_EXTENSION:
        if (++reader->line_size > FLUE_HTTP1_CHUNK_LINE_MAX)
            return broken(reader, 400, "a chunk's size line is over 256 bytes"), false;
        if (reader->state == CHUNK_SIZE && hex_digit(c) >= 0) {
            if (++reader->digits > 15)
                return broken(reader, 400, "a chunk size of more than 15 digits"), false;
            reader->left = reader->left << 4 | (uint64_t)hex_digit(c);
        } else if (reader->digits == 0) {
            return broken(reader, 400, "a chunk size that is not hexadecimal"), false;
        } else if (c == '\r') {
            reader->state = CHUNK_SIZE_LF;
        } else if (reader->state == CHUNK_SIZE && c != ';') {
            return broken(reader, 400, "a chunk size that is not hexadecimal"), false;
        } else {
            if (!is_field_value(c))
                return broken(reader, 400, "a control character in a chunk extension"), false;
            if (++reader->extensions > FLUE_HTTP1_EXTENSIONS_MAX)
                return broken(reader, 400, "chunk extensions over 16384 bytes"), false;
            reader->state = CHUNK_EXTENSION;
        }
        return true;
    case CHUNK_SIZE_LF:
        if (c != '\n')
            return broken(reader, 400, "a CR without LF behind a chunk size"), false;
        reader->state = reader->left ? CHUNK_DATA : TRAILER_LINES;
        return true;
    case CHUNK_DATA_CR:
        if (c != '\r')
            return broken(reader, 400, "a chunk longer than its size"), false;
        reader->state = CHUNK_DATA_LF;
        return true;
    default:
        if (c != '\n')
            return broken(reader, 400, "a CR without LF behind a chunk"), false;
        begin_chunk(reader);
        return true;
    }
}

/* HEAD was reported; what comes now? Trailers are read into the same text behind the head. */
static void body_start(struct flue_http1 *reader)
{
    reader->line = reader->head_size = reader->size;
    if (reader->chunked) {
        begin_chunk(reader);
    } else if (reader->content_length > 0) {
        reader->left = (uint64_t)reader->content_length;
        reader->state = BODY_LENGTH;
    } else {
        reader->state = ENDED;
    }
}

enum flue_http1_event flue_http1_feed(struct flue_http1 *reader, struct flue_bytes *in)
{
    enum flue_http1_event event;
    for (;;) {
        switch (reader->state) {
        case REQUEST_LINE:
        case FIELD_LINES:
        case TRAILER_LINES:
            reader->started |= in->size > 0;
            if (!take_line(reader, in))
                return reader->state == BROKEN ? FLUE_HTTP1_ERROR : FLUE_HTTP1_MORE;
            if (reader->state == TRAILER_LINES ? trailer_line(reader, &event)
                                               : head_line(reader, &event))
                return event;
            break;
        case BODY_START:
            body_start(reader);
            if (reader->state == ENDED)
                return FLUE_HTTP1_END;
            break;
        case BODY_LENGTH:
        case CHUNK_DATA:
            if (in->size == 0)
                return FLUE_HTTP1_MORE;
            reader->piece =
                flue_bytes_first(*in, reader->left < in->size ? (size_t)reader->left : in->size);
            *in = flue_bytes_from(*in, reader->piece.size);
            flue_http1_received(reader, reader->piece.size);
            return FLUE_HTTP1_BODY;
        case ENDED:
            return FLUE_HTTP1_END;
        case BROKEN:
            return FLUE_HTTP1_ERROR;
        default:
            if (in->size == 0)
                return FLUE_HTTP1_MORE;
            if (!chunk_byte(reader, in->data[0]))
                return FLUE_HTTP1_ERROR;
            *in = flue_bytes_from(*in, 1);
            break;
        }
    }
}
