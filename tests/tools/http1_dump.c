/* http1_dump: what the HTTP/1.1 reader makes of standard input, one JSON line per request, so that
 * a test can compare it with another reader on the same bytes.
 *
 *   {"method":"POST","target":"/x","authority":"h","version":"1.1","headers":[["host","h"]],
 *    "body":"68690a","keep_alive":true}
 *   {"error":400,"reason":"..."}      and nothing after it
 *   {"incomplete":true}               the input ends within a request
 *
 * http1_dump [N]: feeds pieces of N bytes (default: all at once).
 */
#include <stdio.h>
#include <stdlib.h>

#include "collector/base/buffer.h"
#include "collector/net/http1.h"

#define INPUT_MAX ((size_t)16 << 20)

/* Header bytes over 0x7f have no coding: each is printed as the code point of its number. */
static void print_text(struct flue_buffer *line, struct flue_bytes text)
{
    flue_buffer_text(line, "\"");
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c < 0x20 || c > 0x7e || c == '"' || c == '\\')
            flue_buffer_printf(line, "\\u%04x", c);
        else
            flue_buffer_byte(line, c);
    }
    flue_buffer_text(line, "\"");
}

static void print_head(const struct flue_http1 *reader, struct flue_buffer *line)
{
    flue_buffer_text(line, "{\"method\":");
    print_text(line, reader->method);
    flue_buffer_text(line, ",\"target\":");
    print_text(line, reader->target);
    flue_buffer_text(line, ",\"authority\":");
    print_text(line, reader->authority);
    flue_buffer_printf(line, ",\"version\":\"1.%u\",\"headers\":[", reader->minor);
    for (size_t i = 0; i < reader->field_count; i++) {
        flue_buffer_text(line, i ? ",[" : "[");
        print_text(line, flue_http1_name(reader, i));
        flue_buffer_text(line, ",");
        print_text(line, flue_http1_value(reader, i));
        flue_buffer_text(line, "]");
    }
    flue_buffer_text(line, "],\"body\":\"");
}

static void print_body(struct flue_bytes piece, struct flue_buffer *line)
{
    char hex[2];
    for (size_t i = 0; i < piece.size; i++) {
        flue_hex(flue_bytes(piece.data + i, 1), hex);
        flue_buffer_add(line, flue_bytes(hex, 2));
    }
}

/* False: nothing more can be read. */
static bool feed(struct flue_http1 *reader, struct flue_bytes in, struct flue_buffer *line)
{
    for (;;) {
        switch (flue_http1_feed(reader, &in)) {
        case FLUE_HTTP1_MORE:
            return true;
        case FLUE_HTTP1_HEAD:
            print_head(reader, line);
            break;
        case FLUE_HTTP1_BODY:
            print_body(reader->piece, line);
            break;
        case FLUE_HTTP1_END:
            printf("%.*s\",\"keep_alive\":%s}\n", FLUE_PRI(flue_buffer_bytes(line)),
                   reader->keep_alive ? "true" : "false");
            flue_buffer_clear(line);
            flue_http1_reset(reader);
            break;
        case FLUE_HTTP1_ERROR:
            flue_buffer_clear(line);
            printf("{\"error\":%u,\"reason\":\"%s\"}\n", reader->status, reader->reason);
            return false;
        }
    }
}

int main(int argc, char **argv)
{
    size_t step = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : INPUT_MAX;
    uint8_t *input = malloc(INPUT_MAX);
    size_t size = input ? fread(input, 1, INPUT_MAX, stdin) : 0;
    struct flue_http1 reader;
    struct flue_buffer line;
    if (!input || step == 0)
        return 2;
    flue_http1_init(&reader);
    flue_buffer_init(&line, 4 * INPUT_MAX);
    bool good = true;
    for (size_t at = 0; at < size && good; at += step)
        good = feed(&reader, flue_bytes(input + at, size - at < step ? size - at : step), &line);
    if (good && (line.size || flue_http1_in_head(&reader)))
        printf("{\"incomplete\":true}\n");
    flue_http1_destroy(&reader);
    flue_buffer_destroy(&line);
    free(input);
    return 0;
}
