/* HTTP/1.1 requests: however the bytes are cut, the events are the same. */
#include "collector/base/buffer.h"
#include "collector/net/http1.h"
#include "tests/fuzz/fuzz.h"

static void say(struct flue_buffer *log, const char *what, struct flue_bytes text)
{
    flue_buffer_printf(log, "%s %zu ", what, text.size);
    flue_buffer_add(log, text);
    flue_buffer_byte(log, '\n');
}

static void say_head(struct flue_buffer *log, const struct flue_http1 *reader)
{
    say(log, "method", reader->method);
    say(log, "target", reader->target);
    say(log, "authority", reader->authority);
    flue_buffer_printf(log, "minor %u length %lld chunked %d keep %d expect %d\n", reader->minor,
                       (long long)reader->content_length, reader->chunked, reader->keep_alive,
                       reader->expect_continue);
    for (size_t i = 0; i < reader->field_count; i++) {
        say(log, "name", flue_http1_name(reader, i));
        say(log, "value", flue_http1_value(reader, i));
    }
}

/* `step`: the most bytes a piece has. */
static void read_all(struct flue_bytes in, uint32_t step, struct flue_buffer *log)
{
    struct flue_http1 reader;
    bool in_body = false, over = false;

    flue_http1_init(&reader);
    while (in.size && !over) {
        struct flue_bytes piece = flue_bytes_first(in, 1 + dice(step));
        /* In memory of its own size, so that reading beyond it is seen. */
        uint8_t *copy = malloc(piece.size);
        FUZZ_CHECK(copy, "memory");
        memcpy(copy, piece.data, piece.size);
        in = flue_bytes_from(in, piece.size);
        struct flue_bytes rest = flue_bytes(copy, piece.size);
        uint64_t direct = flue_http1_direct(&reader);
        if (in_body && direct && dice(4) == 0) {
            size_t count = direct < rest.size ? (size_t)direct : rest.size;
            flue_buffer_add(log, flue_bytes_first(rest, count));
            flue_http1_received(&reader, count);
            rest = flue_bytes_from(rest, count);
        }
        for (;;) {
            enum flue_http1_event event = flue_http1_feed(&reader, &rest);
            if (event == FLUE_HTTP1_MORE) {
                FUZZ_CHECK(rest.size == 0, "more is asked for, with bytes left");
                break;
            }
            if (event == FLUE_HTTP1_BODY) {
                FUZZ_CHECK(in_body, "a body before its head");
                flue_buffer_add(log, reader.piece);
            } else if (event == FLUE_HTTP1_HEAD) {
                say_head(log, &reader);
                in_body = true;
            } else if (event == FLUE_HTTP1_END) {
                flue_buffer_text(log, "\nend\n");
                in_body = false;
                flue_http1_reset(&reader);
            } else {
                FUZZ_CHECK(reader.status >= 400 && reader.status < 600, "a status");
                flue_buffer_printf(log, "\nerror %u %s\n", reader.status, reader.reason);
                over = true;
                break;
            }
        }
        free(copy);
    }
    flue_buffer_printf(log, "\nin head %d\n", !over && flue_http1_in_head(&reader));
    flue_http1_destroy(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_buffer whole, cut;

    fuzz_begin(data, size);
    flue_buffer_init(&whole, (size_t)4 << 20);
    flue_buffer_init(&cut, (size_t)4 << 20);
    read_all(flue_bytes(data, size), 1u << 24, &whole);
    static const uint32_t steps[] = {1, 2, 7, 50, 1000};
    for (unsigned i = 0; i < 2; i++) {
        flue_buffer_clear(&cut);
        read_all(flue_bytes(data, size), steps[dice(5)], &cut);
        FUZZ_CHECK(flue_bytes_equal(flue_buffer_bytes(&whole), flue_buffer_bytes(&cut)),
                   cut.data ? cut.data : "");
    }
    flue_buffer_destroy(&whole);
    flue_buffer_destroy(&cut);
    return fuzz_end();
}
