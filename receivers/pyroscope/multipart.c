/* multipart.c: see multipart.h. */
#include "receivers/pyroscope/multipart.h"

#define MAX_BOUNDARY 70 /* RFC 2046 */
#define MAX_HEADERS  4096

/* The value of `key` among the parameters of a header ("; key=value; key=\"value\""), without
 * quotes. NULL data: not there, or a quote that does not end. Backslashes within quotes stay: no
 * name that is asked for has any. */
static struct flue_bytes parameter(struct flue_bytes header, const char *key)
{
    struct flue_bytes wanted = flue_bytes_of(key);
    size_t at = flue_bytes_find(header, ';');
    while (at != SIZE_MAX && at < header.size) {
        struct flue_bytes rest = flue_bytes_trim(flue_bytes_from(header, at + 1));
        size_t equals = flue_bytes_find(rest, '=');
        if (equals == SIZE_MAX)
            break;
        struct flue_bytes name = flue_bytes_trim(flue_bytes_first(rest, equals));
        struct flue_bytes value = flue_bytes_from(rest, equals + 1), text;
        if (value.size > 0 && value.data[0] == '"') {
            size_t end = 1;
            while (end < value.size && value.data[end] != '"')
                end += value.data[end] == '\\' ? 2 : 1;
            if (end >= value.size)
                break;
            text = flue_bytes(value.data + 1, end - 1);
            value = flue_bytes_from(value, end + 1);
        } else {
            text = flue_bytes_trim(flue_bytes_first(value, flue_bytes_find(value, ';')));
        }
        if (flue_bytes_equal_nocase(name, wanted))
            return text;
        size_t next = flue_bytes_find(value, ';');
        if (next == SIZE_MAX)
            break;
        at = (size_t)(value.data - header.data) + next;
    }
    return flue_bytes(NULL, 0);
}

static enum flue_code headers_of(struct flue_bytes headers, struct flue_form_part *part,
                                 size_t number, struct flue_error *error)
{
    bool disposed = false;
    while (headers.size > 0) {
        const uint8_t *end = memmem(headers.data, headers.size, "\r\n", 2);
        struct flue_bytes line =
            end ? flue_bytes(headers.data, (size_t)(end - headers.data)) : headers;
        headers = flue_bytes_from(headers, line.size + 2);
        size_t colon = flue_bytes_find(line, ':');
        if (colon == SIZE_MAX || colon == 0)
            return flue_fail(error, FLUE_INVALID,
                             "multipart: part %zu has a header line without \":\"", number);
        struct flue_bytes name = flue_bytes_first(line, colon);
        struct flue_bytes value = flue_bytes_trim(flue_bytes_from(line, colon + 1));
        if (flue_bytes_equal_nocase(name, FLUE_BYTES("content-type"))) {
            part->content_type = value;
        } else if (flue_bytes_equal_nocase(name, FLUE_BYTES("content-transfer-encoding"))) {
            if (!flue_bytes_equal_nocase(value, FLUE_BYTES("binary")) &&
                !flue_bytes_equal_nocase(value, FLUE_BYTES("8bit")) &&
                !flue_bytes_equal_nocase(value, FLUE_BYTES("7bit")))
                return flue_fail(error, FLUE_INVALID,
                                 "multipart: part %zu has a Content-Transfer-Encoding that is not "
                                 "taken (send it binary)",
                                 number);
        } else if (flue_bytes_equal_nocase(name, FLUE_BYTES("content-disposition"))) {
            disposed = true;
            part->name = parameter(value, "name");
            part->file = parameter(value, "filename").data != NULL ||
                         parameter(value, "filename*").data != NULL;
        }
    }
    if (!disposed || !part->name.data || part->name.size == 0)
        return flue_fail(error, FLUE_INVALID,
                         "multipart: part %zu has no name in its Content-Disposition", number);
    return FLUE_OK;
}

enum flue_code flue_multipart_read(struct flue_bytes content_type, struct flue_bytes body,
                                   struct flue_multipart *out, struct flue_error *error)
{
    uint8_t delimiter[MAX_BOUNDARY + 4] = "\r\n--";
    struct flue_bytes boundary = parameter(content_type, "boundary");
    out->count = 0;
    if (boundary.size == 0 || boundary.size > MAX_BOUNDARY)
        return flue_fail(error, FLUE_INVALID,
                         "multipart: Content-Type has no boundary of 1 to %d characters",
                         MAX_BOUNDARY);
    memcpy(delimiter + 4, boundary.data, boundary.size);
    const size_t size = boundary.size + 4;
    /* The first delimiter has no line before it. */
    if (body.size < size - 2 || memcmp(body.data, delimiter + 2, size - 2) != 0)
        return flue_fail(error, FLUE_INVALID,
                         "multipart: the body does not begin with its boundary");
    body = flue_bytes_from(body, size - 2);
    for (;;) {
        if (flue_bytes_starts_with(body, FLUE_BYTES("--")))
            return FLUE_OK;
        if (!flue_bytes_starts_with(body, FLUE_BYTES("\r\n")))
            return flue_fail(error, FLUE_INVALID,
                             "multipart: a boundary is not followed by the end of its line");
        if (out->count == FLUE_MULTIPART_MAX_PARTS)
            return flue_fail(error, FLUE_INVALID, "multipart: more than %d parts",
                             FLUE_MULTIPART_MAX_PARTS);
        body = flue_bytes_from(body, 2);
        struct flue_bytes window = flue_bytes_first(body, MAX_HEADERS);
        const uint8_t *blank = memmem(window.data, window.size, "\r\n\r\n", 4);
        if (!blank)
            return flue_fail(error, FLUE_INVALID,
                             "multipart: the headers of part %zu do not end within %d bytes",
                             out->count + 1, MAX_HEADERS);
        struct flue_form_part *part = &out->parts[out->count++];
        *part = (struct flue_form_part){0};
        enum flue_code code = headers_of(flue_bytes_first(body, (size_t)(blank - body.data)), part,
                                         out->count, error);
        if (code != FLUE_OK)
            return code;
        /* From the second CRLF on, so that an empty part has its delimiter's too. */
        body = flue_bytes_from(body, (size_t)(blank - body.data) + 2);
        const uint8_t *end = memmem(body.data, body.size, delimiter, size);
        if (!end)
            return flue_fail(error, FLUE_INVALID,
                             "multipart: part %zu does not end with the boundary", out->count);
        size_t length = (size_t)(end - body.data);
        part->content =
            length < 2 ? flue_bytes(body.data, 0) : flue_bytes(body.data + 2, length - 2);
        body = flue_bytes_from(body, length + size);
    }
}

const struct flue_form_part *flue_multipart_part(const struct flue_multipart *parts,
                                                 const char *name)
{
    for (size_t i = 0; i < parts->count; i++)
        if (flue_bytes_is(parts->parts[i].name, name))
            return &parts->parts[i];
    return NULL;
}
