/* What object stores and credential services answer, and AWS's files: XML, JSON, INI, dates. */
#include "archive/object/aws.h"
#include "archive/object/oauth.h"
#include "archive/object/xml.h"
#include "tests/fuzz/fuzz.h"

static void xml_of(struct flue_bytes in, struct flue_arena *arena)
{
    struct flue_xml xml;
    enum flue_xml_event event;
    unsigned depth = 0;
    flue_xml_init(&xml, in, arena);
    while ((event = flue_xml_next(&xml)) < FLUE_XML_END) {
        depth += event == FLUE_XML_OPEN ? 1 : -1u;
        FUZZ_CHECK(xml.depth == depth && depth <= FLUE_XML_DEPTH, "depth");
        FUZZ_CHECK(event != FLUE_XML_CLOSE || xml.text.size <= in.size, "text");
    }
    FUZZ_CHECK(event == FLUE_XML_BAD ? xml.wrong != NULL : depth == 0, "end");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_bytes in = flue_bytes(data, size), out;
    struct object_secret secret;
    struct flue_error error = {0};
    struct flue_arena arena;
    static struct object_ini ini;
    uint64_t a, b;

    fuzz_begin(data, size);
    flue_arena_init(&arena, 4 << 20, 0);
    xml_of(in, &arena);
    if (object_aws_sts(in, 200, &arena, &secret, &error) == FLUE_OK)
        FUZZ_CHECK(secret.id && secret.secret && secret.token, "keys");
    if (object_aws_json(in, &arena, &secret, &error) == FLUE_OK)
        FUZZ_CHECK(secret.id && secret.secret, "keys");
    if (object_oauth_read(in, 1, &arena, &secret, &error) == FLUE_OK)
        FUZZ_CHECK(secret.token && !strpbrk(secret.token, "\r\n"), "token");
    object_ini_read(in, "profile a", &ini);
    object_ini_find(&ini, "role_arn");
    if (object_content_range(in, &a, &b))
        FUZZ_CHECK(a < b, "range");
    object_http_date(in, &a);
    object_iso_date(in, &a);
    if (flue_url_unescape(in, &arena, &out))
        FUZZ_CHECK(out.size <= size, "size");
    flue_arena_destroy(&arena);
    return fuzz_end();
}
