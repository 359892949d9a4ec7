/* The HTTP/1.1 reader: what it takes, what it refuses, and that cutting the input changes nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
/* after setjmp.h and stdarg.h */
#include <cmocka.h>

#include "collector/base/buffer.h"
#include "collector/net/http1.h"

/* Everything that the reader says, as text; `cut` bytes at a time (0: at once), the first `once`.
 */
static void transcript(struct flue_bytes in, size_t cut, size_t once, struct flue_buffer *out)
{
    struct flue_http1 reader;
    flue_http1_init(&reader);
    flue_buffer_clear(out);
    size_t at = 0;
    bool in_body = false;
    while (at < in.size) {
        size_t take = once && at == 0 ? once : cut ? cut : in.size;
        if (take > in.size - at)
            take = in.size - at;
        struct flue_bytes piece = flue_bytes(in.data + at, take);
        at += take;
        for (enum flue_http1_event event = FLUE_HTTP1_HEAD; event != FLUE_HTTP1_MORE;) {
            event = flue_http1_feed(&reader, &piece);
            switch (event) {
            case FLUE_HTTP1_MORE:
                assert_int_equal(piece.size, 0);
                break;
            case FLUE_HTTP1_HEAD:
                flue_buffer_printf(
                    out, "%.*s %.*s 1.%u @%.*s length=%lld%s%s%s\n", FLUE_PRI(reader.method),
                    FLUE_PRI(reader.target), reader.minor, FLUE_PRI(reader.authority),
                    (long long)reader.content_length, reader.chunked ? " chunked" : "",
                    reader.keep_alive ? " keep" : "", reader.expect_continue ? " expect" : "");
                for (size_t i = 0; i < reader.field_count; i++)
                    flue_buffer_printf(out, "%.*s=[%.*s]\n", FLUE_PRI(flue_http1_name(&reader, i)),
                                       FLUE_PRI(flue_http1_value(&reader, i)));
                break;
            case FLUE_HTTP1_BODY:
                assert_true(reader.piece.size > 0);
                if (!in_body)
                    flue_buffer_text(out, "body:");
                in_body = true;
                flue_buffer_add(out, reader.piece);
                break;
            case FLUE_HTTP1_END:
                flue_buffer_text(out, in_body ? "\nend\n" : "end\n");
                in_body = false;
                flue_http1_reset(&reader);
                break;
            case FLUE_HTTP1_ERROR:
                flue_buffer_printf(out, "%serror %u %s\n", in_body ? "\n" : "", reader.status,
                                   reader.reason);
                assert_true(strlen(reader.reason) > 5);
                flue_http1_destroy(&reader);
                return;
            }
        }
    }
    flue_http1_destroy(&reader);
}

static struct flue_buffer whole, pieces;

/* At once, byte by byte, in threes, and cut in two at every place: the same. */
static const char *read_all(struct flue_bytes in)
{
    transcript(in, 0, 0, &whole);
    for (size_t cut = 1; cut <= 3; cut += 2) {
        transcript(in, cut, 0, &pieces);
        assert_string_equal(pieces.data, whole.data);
    }
    for (size_t once = 1; once < in.size && in.size < 2000; once++) {
        transcript(in, 0, once, &pieces);
        assert_string_equal(pieces.data, whole.data);
    }
    return whole.data;
}

static void expect(const char *in, const char *wanted)
{
    assert_string_equal(read_all(flue_bytes_of(in)), wanted);
}

static void refused(const char *in, unsigned status)
{
    char wanted[32];
    const char *said = read_all(flue_bytes_of(in));
    snprintf(wanted, sizeof wanted, "error %u ", status);
    const char *at = strstr(said, "error ");
    if (!at || strncmp(at, wanted, strlen(wanted)) != 0)
        fail_msg("wanted %sfor \"%s\", got \"%s\"", wanted, in, said);
}

static void test_taken(void **state)
{
    expect("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / 1.1 @a length=-1 keep\nhost=[a]\nend\n");
    expect("POST /x?y=%20{z} HTTP/1.1\r\nHOST: a:80\r\nContent-Length: 3\r\n\r\nabc",
           "POST /x?y=%20{z} 1.1 @a:80 length=3 keep\nhost=[a:80]\ncontent-length=[3]\n"
           "body:abc\nend\n");
    expect("POST / HTTP/1.1\r\nHost:\r\nContent-Length: 000\r\n\r\n",
           "POST / 1.1 @ length=0 keep\nhost=[]\ncontent-length=[000]\nend\n");
    /* blanks around a value, an empty one, obs-text, HTTP/1.9 read as 1.1 */
    expect("PUT / HTTP/1.9\r\nHost: a\r\nX: \t b\t c \t\r\nY:\r\nZ: \xe4\r\n\r\n",
           "PUT / 1.1 @a length=-1 keep\nhost=[a]\nx=[b\t c]\ny=[]\nz=[\xe4]\nend\n");
    expect("\r\nGET / HTTP/1.0\r\n\r\n", "GET / 1.0 @ length=-1\nend\n");
    expect("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
           "GET / 1.0 @ length=-1 keep\nconnection=[Keep-Alive]\nend\n");
    expect("GET / HTTP/1.1\r\nHost: a\r\nConnection: x , CLOSE\r\n\r\n",
           "GET / 1.1 @a length=-1\nhost=[a]\nconnection=[x , CLOSE]\nend\n");
    expect("GET http://b:1/c?d HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET /c?d 1.1 @b:1 length=-1 keep\nhost=[a]\nend\n");
    expect("GET https://b HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET / 1.1 @b length=-1 keep\nhost=[a]\nend\n");
    expect("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
           "OPTIONS * 1.1 @a length=-1 keep\nhost=[a]\nend\n");
    expect("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
           "POST / 1.1 @a length=1 keep expect\nhost=[a]\nexpect=[100-Continue]\n"
           "content-length=[1]\nbody:x\nend\n");
}

static void test_chunked(void **state)
{
    expect(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
        "3\r\nabc\r\n00A;q=\"1;\xe4\"\t\r\n0123456789\r\n000\r\nX-T: 1\r\nContent-Length: 9\r\n\r\n"
        "GET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
        "POST / 1.1 @a length=-1 chunked keep\nhost=[a]\ntransfer-encoding=[Chunked]\n"
        "body:abc0123456789\nend\nGET /2 1.1 @b length=-1 keep\nhost=[b]\nend\n");
    expect("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "POST / 1.1 @a length=-1 chunked keep\nhost=[a]\ntransfer-encoding=[chunked]\nend\n");
#define C "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    refused(C "\r\n", 400);
    refused(C "g\r\n", 400);
    refused(C "0x3\r\nabc\r\n", 400);
    refused(C "-1\r\n", 400);
    refused(C " 3\r\nabc\r\n", 400);
    refused(C "3 \r\nabc\r\n", 400);
    refused(C ";x\r\n", 400);
    refused(C "3\nabc\r\n", 400);
    refused(C "3\rabc\r\n", 400);
    refused(C "3\r\nabcd\r\n", 400);
    refused(C "3\r\nabc\n0\r\n\r\n", 400);
    refused(C "3\r\nabc\rx", 400);
    refused(C "3;a\x01\r\nabc\r\n", 400);
    refused(C "3;a\nb\r\nabc\r\n", 400);
    refused(C "1000000000000000\r\n", 400); /* 16 digits */
    refused(C "0\r\nbad trailer\r\n\r\n", 400);
    refused(C "0\r\nX: 1\n\r\n", 400);
    refused(C "0\r\n folded\r\n\r\n", 400);
}

static void test_lines(void **state)
{
    refused("GET / HTTP/1.1\nHost: a\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\n\n", 400);
    refused("GET / HTTP/1.1\rHost: a\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400);
    refused("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\nX(y): x\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400);
}

static void test_request_line(void **state)
{
    refused(" GET / HTTP/1.1\r\n\r\n", 400);
    refused("G\xe4T / HTTP/1.1\r\n\r\n", 400);
    refused("GET  / HTTP/1.1\r\n\r\n", 400);
    refused("GET /  HTTP/1.1\r\n\r\n", 400);
    refused("GET\t/ HTTP/1.1\r\n\r\n", 400);
    refused("GET / HTTP/1.1 \r\n\r\n", 400);
    refused("GET /\r\n\r\n", 400);
    refused("GET\r\n\r\n", 400);
    refused("GET /\x80 HTTP/1.1\r\n\r\n", 400);
    refused("GET / http/1.1\r\n\r\n", 400);
    refused("GET / HTTP/1\r\n\r\n", 400);
    refused("GET / HTTP/1.10\r\n\r\n", 400);
    refused("GET / HTTP/x.1\r\n\r\n", 400);
    refused("GET / HTTP/2.0\r\n\r\n", 505);
    refused("GET / HTTP/0.9\r\n\r\n", 505);
    refused("GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET http://a@b/x HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501);
    refused("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n\r\n", 400);
}

static void test_framing(void **state)
{
#define P "POST / HTTP/1.1\r\nHost: a\r\n"
    refused(P "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400);
    refused(P "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400);
    refused(P "Content-Length: 3, 3\r\n\r\nabc", 400);
    refused(P "Content-Length: +3\r\n\r\nabc", 400);
    refused(P "Content-Length: -3\r\n\r\nabc", 400);
    refused(P "Content-Length: 0x3\r\n\r\nabc", 400);
    refused(P "Content-Length: 3 4\r\n\r\nabc", 400);
    refused(P "Content-Length:\r\n\r\n", 400);
    refused(P "Content-Length: 18446744073709551619\r\n\r\nabc", 400);
    refused(P "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    refused(P "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400);
    refused(P "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    refused(P "Transfer-Encoding: gzip, chunked\r\n\r\n", 501);
    refused(P "Transfer-Encoding: chunked, identity\r\n\r\n", 501);
    refused(P "Transfer-Encoding: xchunked\r\n\r\n", 501);
    refused(P "Transfer-Encoding: \x0b"
              "chunked\r\n\r\n",
            400);
    refused(P "Transfer-Encoding:\r\n\r\n", 501);
    refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    refused(P "Expect: 200-ok\r\n\r\n", 417);
}

static void test_host(void **state)
{
    refused("GET / HTTP/1.1\r\n\r\n", 400);
    refused(P "Host: a\r\n\r\n", 400);
    refused("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: u@b\r\n\r\n", 400);
    expect("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
           "GET / 1.1 @[::1]:80 length=-1 keep\nhost=[[::1]:80]\nend\n");
}

/* The limits, and one byte more. */
static void test_limits(void **state)
{
    static char text[64 * 1024];
    for (int over = 0; over <= 1; over++) {
        int head = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
        size_t fill = FLUE_HTTP1_HEAD_MAX - (size_t)head - 4 + (size_t)over;
        memset(text + head, 'v', fill);
        snprintf(text + head + fill, 5, "\r\n\r\n");
        if (over)
            refused(text, 431);
        else
            assert_memory_equal(read_all(flue_bytes_of(text)), "GET / 1.1", 9);
        int lines = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\n");
        for (int i = 0; i < 127 + over; i++)
            lines += snprintf(text + lines, sizeof text - (size_t)lines, "a:\r\n");
        snprintf(text + lines, sizeof text - (size_t)lines, "\r\n");
        if (over)
            refused(text, 431);
        else
            assert_memory_equal(read_all(flue_bytes_of(text)), "GET / 1.1", 9);
        int chunk = snprintf(text, sizeof text, C "1;");
        fill = FLUE_HTTP1_CHUNK_LINE_MAX - 3 + (size_t)over;
        memset(text + chunk, 'e', fill);
        snprintf(text + chunk + fill, sizeof text - (size_t)chunk - fill, "\r\nx\r\n0\r\n\r\n");
        if (over)
            refused(text, 400);
        else
            assert_non_null(strstr(read_all(flue_bytes_of(text)), "body:x\nend\n"));
    }
    memset(text, 'A', sizeof text - 1);
    memcpy(text, "GET /", 5);
    refused(text, 414);
    /* a head without an end does not grow for ever */
    memset(text, 'v', sizeof text - 1);
    memcpy(text, "GET / HTTP/1.1\r\nX: ", 19);
    refused(text, 431);
    int used = snprintf(text, sizeof text, C);
    for (int i = 0; i < 90; i++) /* 90 * 200 bytes of extensions, each line short enough */
        used += snprintf(text + used, sizeof text - (size_t)used, "1;%0199d\r\nx\r\n", 0);
    refused(text, 400);
    used = snprintf(text, sizeof text, C "0\r\n");
    for (int i = 0; i < 90; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "t: %0196d\r\n", 0);
    refused(text, 431);
}

/* However bytes are flipped, the reader neither crashes nor depends on how it is fed. */
static void test_mutations(void **state)
{
    static const char seed[] =
        P "Content-Length: 4\r\nX: y\r\n\r\nabcd" C "3;x\r\nabc\r\n0\r\nT: u\r\n\r\n";
    char text[sizeof seed];
    for (size_t i = 0; i < sizeof seed - 1; i++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(text, seed, sizeof seed);
            text[i] = (char)(text[i] ^ 1 << bit);
            struct flue_bytes in = flue_bytes(text, sizeof seed - 1);
            transcript(in, 0, 0, &whole);
            transcript(in, 1, 0, &pieces);
            assert_string_equal(flue_buffer_bytes(&pieces).data ? pieces.data : "",
                                whole.data ? whole.data : "");
        }
}

static void test_direct(void **state)
{
    struct flue_http1 reader;
    flue_http1_init(&reader);
    struct flue_bytes in = FLUE_BYTES(P "Content-Length: 10\r\n\r\nab");
    assert_int_equal(flue_http1_feed(&reader, &in), FLUE_HTTP1_HEAD);
    assert_false(flue_http1_in_head(&reader));
    assert_int_equal(flue_http1_feed(&reader, &in), FLUE_HTTP1_BODY);
    assert_int_equal(flue_http1_direct(&reader), 8);
    flue_http1_received(&reader, 7);
    assert_int_equal(flue_http1_feed(&reader, &in), FLUE_HTTP1_MORE);
    flue_http1_received(&reader, 1);
    assert_int_equal(flue_http1_direct(&reader), 0);
    assert_int_equal(flue_http1_feed(&reader, &in), FLUE_HTTP1_END);
    flue_http1_destroy(&reader);
}

int main(void)
{
    flue_buffer_init(&whole, 1 << 20);
    flue_buffer_init(&pieces, 1 << 20);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taken),   cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_lines),   cmocka_unit_test(test_request_line),
        cmocka_unit_test(test_framing), cmocka_unit_test(test_host),
        cmocka_unit_test(test_limits),  cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_direct),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    flue_buffer_destroy(&whole);
    flue_buffer_destroy(&pieces);
    return failed;
}
