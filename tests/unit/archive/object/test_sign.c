/* Signatures against published vectors; escaping, digests, tokens of credentials' services. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "archive/object/aws.h"
#include "archive/object/azure_sign.h"
#include "archive/object/digest.h"
#include "archive/object/escape.h"
#include "archive/object/oauth.h"
#include "archive/object/sign.h"
#include "archive/object/xml.h"
#include "collector/base/base64.h"

static struct flue_arena arena;

static int setup(void **state)
{
    flue_arena_init(&arena, 8 * 1024 * 1024, 0);
    return 0;
}

static int teardown(void **state)
{
    flue_arena_destroy(&arena);
    return 0;
}

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define H(n, v)                                                                                    \
    {                                                                                              \
        FLUE_BYTES_INIT(n), FLUE_BYTES_INIT(v)                                                     \
    }

static const char *signature(const struct flue_sign_v4 *sign)
{
    struct flue_bytes authorization, canonical;
    assert_int_equal(flue_sign_v4(sign, &arena, &authorization, &canonical, NULL), FLUE_OK);
    const char *text = (const char *)authorization.data;
    assert_non_null(canonical.data);
    assert_non_null(strstr(text, "Signature="));
    return strstr(text, "Signature=") + 10;
}

/* ---- Amazon's test suite: key AKIDEXAMPLE, us-east-1, "service", 2015-08-30T12:36:00Z -----------
 */

static struct flue_sign_v4 suite(const struct flue_header *headers, size_t count)
{
    return (struct flue_sign_v4){.key_id = "AKIDEXAMPLE",
                                 .secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                                 .region = "us-east-1",
                                 .service = "service",
                                 .time = 1440938160,
                                 .method = FLUE_BYTES("GET"),
                                 .path = FLUE_BYTES("/"),
                                 .headers = headers,
                                 .header_count = count,
                                 .payload = FLUE_BYTES(EMPTY)};
}

static void vanilla(void **state)
{
    const struct flue_header headers[] = {H("host", "example.amazonaws.com"),
                                          H("x-amz-date", "20150830T123600Z")};
    struct flue_sign_v4 sign = suite(headers, 2);
    struct flue_bytes authorization;
    flue_sign_v4(&sign, &arena, &authorization, NULL, NULL);
    assert_string_equal(
        (const char *)authorization.data,
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
}

/* A kept key signs as a new one does, whatever changes between two requests. */
static void a_kept_key_is_that_of_its_day_region_and_credentials(void **state)
{
    const struct flue_header headers[] = {H("host", "example.amazonaws.com")};
    struct flue_sign_v4_kept kept = {.good = false};
    struct flue_sign_v4 with = suite(headers, 1), without = with;

    with.kept = &kept;
    for (unsigned change = 0; change < 5; change++) {
        if (change == 1)
            with.time += 86400;
        else if (change == 2)
            with.region = "eu-central-1";
        else if (change == 3) {
            with.secret = "another";
            with.version++;
        } else if (change == 4)
            with.region =
                "a-region-whose-name-is-longer-than-any-that-there-is-and-than-what-is-kept";
        without = with;
        without.kept = NULL;
        for (unsigned again = 0; again < 2; again++)
            assert_string_equal(signature(&with), signature(&without));
    }
    with = suite(headers, 1);
    with.kept = &kept;
    with.version = 7;
    const char *first = signature(&with);
    memset(kept.key, 0, sizeof kept.key); /* it is what is used */
    assert_string_not_equal(signature(&with), first);
}

static void headers_are_trimmed_joined_and_sorted(void **state)
{
    const struct flue_header given[] = {
        H("x-amz-date", "20150830T123600Z"), H("my-header2", "  \"a   b   c\"  "),
        H("my-header1", "value4"),           H("my-header1", "value1"),
        H("host", "example.amazonaws.com"),  H("my-header1", " value3\r\n  value2 ")};
    struct flue_sign_v4 sign = suite(given, 6);
    struct flue_bytes authorization, canonical;
    assert_int_equal(flue_sign_v4(&sign, &arena, &authorization, &canonical, NULL), FLUE_OK);
    assert_string_equal((const char *)canonical.data,
                        "GET\n/\n\n"
                        "host:example.amazonaws.com\n"
                        "my-header1:value4,value1,value3 value2\n"
                        "my-header2:\"a b c\"\n"
                        "x-amz-date:20150830T123600Z\n\n"
                        "host;my-header1;my-header2;x-amz-date\n" EMPTY);
}

/* ---- the examples of S3's page, 2013-05-24 ------------------------------------------------------
 */

static struct flue_sign_v4 page(const struct flue_header *headers, size_t count)
{
    return (struct flue_sign_v4){.key_id = "AKIAIOSFODNN7EXAMPLE",
                                 .secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                 .region = "us-east-1",
                                 .service = "s3",
                                 .time = 1369353600,
                                 .method = FLUE_BYTES("GET"),
                                 .path = FLUE_BYTES("/"),
                                 .headers = headers,
                                 .header_count = count,
                                 .payload = FLUE_BYTES(EMPTY)};
}

#define HOST H("host", "examplebucket.s3.amazonaws.com")
#define DATE H("x-amz-date", "20130524T000000Z")

static void s3_get_with_a_range(void **state)
{
    const struct flue_header headers[] = {HOST, H("range", "bytes=0-9"),
                                          H("x-amz-content-sha256", EMPTY), DATE};
    struct flue_sign_v4 sign = page(headers, 4);
    sign.path = FLUE_BYTES("/test.txt");
    assert_memory_equal(signature(&sign), "f0e8bdb87c964420", 16);
}

static void s3_put(void **state)
{
    struct flue_bytes body = FLUE_BYTES("Welcome to Amazon S3.");
    struct flue_slices slices = {.items = &body, .count = 1, .total = body.size};
    struct flue_digest digest;
    char hex[65] = {0};
    assert_int_equal(flue_digest_make(&slices, FLUE_DIGEST_SHA256, &digest, NULL), FLUE_OK);
    flue_hex(flue_bytes(digest.sha256, 32), hex);
    assert_memory_equal(hex, "44ce7dd6", 8);
    const struct flue_header headers[] = {HOST,
                                          H("date", "Fri, 24 May 2013 00:00:00 GMT"),
                                          {FLUE_BYTES("x-amz-content-sha256"), flue_bytes(hex, 64)},
                                          DATE,
                                          H("x-amz-storage-class", "REDUCED_REDUNDANCY")};
    struct flue_buffer path;
    flue_buffer_init(&path, 100);
    flue_url_escape(&path, FLUE_BYTES("/test$file.text"), true);
    struct flue_sign_v4 sign = page(headers, 5);
    sign.method = FLUE_BYTES("PUT");
    sign.path = flue_buffer_bytes(&path);
    sign.payload = flue_bytes(hex, 64);
    assert_memory_equal(signature(&sign), "98ad721746da40c6", 16);
    flue_buffer_destroy(&path);
}

static void query_signature(const struct flue_url_pair *pairs, size_t count, const char *want)
{
    const struct flue_header headers[] = {HOST, H("x-amz-content-sha256", EMPTY), DATE};
    struct flue_buffer query;
    flue_buffer_init(&query, 1000);
    flue_url_query(&query, pairs, count);
    struct flue_sign_v4 sign = page(headers, 3);
    sign.query = flue_buffer_bytes(&query);
    assert_memory_equal(signature(&sign), want, 16);
    flue_buffer_destroy(&query);
}

static void s3_queries(void **state)
{
    const struct flue_url_pair lifecycle[] = {H("lifecycle", "")};
    const struct flue_url_pair list[] = {H("prefix", "J"), H("max-keys", "2")};
    query_signature(lifecycle, 1, "fea454ca298b7da1");
    query_signature(list, 2, "34b48302e7b5fa45");
}

/* The chain of a chunked upload shows the key of the day, and the signature of its seed. */
static void s3_chunked_upload(void **state)
{
    static uint8_t chunk[65536];
    const struct flue_header headers[] = {
        H("content-encoding", "aws-chunked"),
        H("content-length", "66824"),
        H("host", "s3.amazonaws.com"),
        H("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        DATE,
        H("x-amz-decoded-content-length", "66560"),
        H("x-amz-storage-class", "REDUCED_REDUNDANCY")};
    static const char *const want[] = {"ad80c730a21e5b8d", "0055627c9e194cb4", "b6c6ea8a5354eaf1"};
    static const size_t sizes[] = {65536, 1024, 0};
    struct flue_sign_v4 sign = page(headers, 7);
    uint8_t key[32], mac[32];
    char before[65] = {0}, hash[65] = {0}, text[400];
    sign.method = FLUE_BYTES("PUT");
    sign.path = FLUE_BYTES("/examplebucket/chunkObject.txt");
    sign.payload = FLUE_BYTES("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    memcpy(before, signature(&sign), 64);
    assert_memory_equal(before, "4f232c4386841ef7", 16);
    assert_true(flue_sign_v4_key(&sign, key));
    memset(chunk, 'a', sizeof chunk);
    for (unsigned i = 0; i < 3; i++) {
        struct flue_bytes piece = flue_bytes(chunk, sizes[i]);
        struct flue_slices slices = {.items = &piece, .count = 1, .total = piece.size};
        struct flue_digest digest;
        flue_digest_make(&slices, FLUE_DIGEST_SHA256, &digest, NULL);
        flue_hex(flue_bytes(digest.sha256, 32), hash);
        int size = snprintf(text, sizeof text,
                            "AWS4-HMAC-SHA256-PAYLOAD\n20130524T000000Z\n"
                            "20130524/us-east-1/s3/aws4_request\n%s\n" EMPTY "\n%s",
                            before, hash);
        assert_true(flue_hmac_sha256(flue_bytes(key, 32), flue_bytes(text, (size_t)size), mac));
        flue_hex(flue_bytes(mac, 32), before);
        assert_memory_equal(before, want[i], 16);
    }
}

static void too_many_headers_are_an_error(void **state)
{
    struct flue_header headers[49];
    for (unsigned i = 0; i < 49; i++)
        headers[i] = (struct flue_header)H("x", "y");
    struct flue_sign_v4 sign = page(headers, 49);
    struct flue_bytes authorization;
    assert_int_equal(flue_sign_v4(&sign, &arena, &authorization, NULL, NULL), FLUE_INTERNAL);
    sign.header_count = 48;
    assert_int_equal(flue_sign_v4(&sign, &arena, &authorization, NULL, NULL), FLUE_OK);
}

/* ---- escaping ---------------------------------------------------------------------------------
 */

static void every_byte_is_escaped_or_stays(void **state)
{
    static const char stays[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~";
    for (unsigned c = 0; c < 256; c++) {
        const uint8_t byte = (uint8_t)c;
        char want[4];
        struct flue_bytes back;
        struct flue_buffer out;
        flue_buffer_init(&out, 16);
        flue_url_escape(&out, flue_bytes(&byte, 1), true);
        snprintf(want, sizeof want, (c && strchr(stays, (int)c)) || c == '/' ? "%c" : "%%%02X", c);
        assert_string_equal(out.data, want);
        assert_true(flue_url_unescape(flue_buffer_bytes(&out), &arena, &back));
        assert_int_equal(back.size, 1);
        assert_int_equal(back.data[0], c);
        flue_buffer_clear(&out);
        flue_url_escape(&out, flue_bytes(&byte, 1), false);
        snprintf(want, sizeof want, c && strchr(stays, (int)c) ? "%c" : "%%%02X", c);
        assert_string_equal(out.data, want);
        flue_buffer_destroy(&out);
    }
    struct flue_bytes out;
    static const char *const broken[] = {"%", "%4", "a%4", "%zz", "%4g", "x%"};
    for (size_t i = 0; i < 6; i++)
        assert_false(flue_url_unescape(flue_bytes_of(broken[i]), &arena, &out));
}

static void queries_are_sorted_as_escaped(void **state)
{
    const struct flue_url_pair pairs[] = {H("Param-3", "V3"), H("Param", "V2"),  H("%", "x"),
                                          H("Param", "V1"),   H("a", "b c+d/e"), H("uploads", "")};
    struct flue_buffer out;
    flue_buffer_init(&out, 1000);
    flue_url_query(&out, pairs, 6);
    assert_string_equal(out.data, "%25=x&Param=V1&Param=V2&Param-3=V3&a=b%20c%2Bd%2Fe&uploads=");
    flue_buffer_destroy(&out);
    struct flue_url_pair many[25] = {{{0}, {0}}};
    flue_buffer_init(&out, 1000);
    flue_url_query(&out, many, 25);
    assert_true(out.failed);
    flue_buffer_destroy(&out);
}

/* ---- digests ----------------------------------------------------------------------------------
 */

static void digests_of_slices(void **state)
{
    static const struct {
        unsigned which;
        const char *want;
    } known[] = {{FLUE_DIGEST_CRC32, "y/Q5Jg=="},
                 {FLUE_DIGEST_CRC32C, "4waSgw=="},
                 {FLUE_DIGEST_CRC64NVME, "rosUhgp5mIg="},
                 {FLUE_DIGEST_MD5, "JfnnlDI7RTiF9RgfG2JNCw=="},
                 {FLUE_DIGEST_SHA1, "98O8HYCOBHMqAChtY3W8QI93NE0="},
                 {FLUE_DIGEST_SHA256, "FeKw01izrWWMPUuatn9SG7TjVRNDYK7TgEP1YSaguuU="}};
    struct flue_digest all, one;
    char text[48];
    for (size_t cut = 0; cut <= 9; cut++) {
        struct flue_bytes items[2] = {flue_bytes("123456789", cut),
                                      flue_bytes(&"123456789"[cut], 9 - cut)};
        struct flue_slices slices = {.items = items, .count = 2, .total = 9};
        assert_int_equal(flue_digest_make(&slices, 63, &all, NULL), FLUE_OK);
        for (size_t i = 0; i < 6; i++) {
            if (known[i].which == FLUE_DIGEST_SHA1 || known[i].which == FLUE_DIGEST_SHA256) {
                uint8_t own[32]; /* OpenSSL's own, in one piece */
                EVP_Digest("123456789", 9, own, NULL,
                           known[i].which == FLUE_DIGEST_SHA1 ? EVP_sha1() : EVP_sha256(), NULL);
                flue_base64_encode(flue_bytes(own, known[i].which == FLUE_DIGEST_SHA1 ? 20 : 32),
                                   text);
                char other[48];
                flue_digest_base64(&all, known[i].which, other);
                assert_memory_equal(other, text, strlen(other));
                continue;
            }
            flue_digest_base64(&all, known[i].which, text);
            assert_string_equal(text, known[i].want);
            flue_digest_make(&slices, known[i].which, &one, NULL);
            flue_digest_base64(&one, known[i].which, text);
            assert_string_equal(text, known[i].want);
        }
    }
    /* Pieces, and one byte by one against eight at a time. */
    uint8_t *large = malloc(100003);
    for (size_t i = 0; i < 100003; i++)
        large[i] = (uint8_t)(i * 31 >> 3);
    struct flue_bytes whole = flue_bytes(large, 100003),
                      parts[2] = {flue_bytes(large, 3), flue_bytes(large + 3, 100000)};
    struct flue_slices a = {.items = &whole, .count = 1}, b = {.items = parts, .count = 2};
    flue_digest_make(&a, FLUE_DIGEST_CRC64NVME, &one, NULL);
    flue_digest_make(&b, 63, &all, NULL);
    assert_true(one.crc64nvme == all.crc64nvme);
    free(large);
    flue_digest_make(NULL, FLUE_DIGEST_SHA256, &one, NULL);
    char hex[65] = {0};
    flue_hex(flue_bytes(one.sha256, 32), hex);
    assert_string_equal(hex, EMPTY);
}

/* ---- Azure ------------------------------------------------------------------------------------
 */

static void azure_string_to_sign(void **state)
{
    const struct flue_header headers[] = {H("x-ms-version", "2021-12-02"),
                                          H("x-ms-date", "Sat, 21 Nov 2026 11:00:00 GMT"),
                                          H("x-ms-blob-type", " BlockBlob "),
                                          H("content-type", "text/plain"),
                                          H("range", "bytes=0-9"),
                                          H("if-none-match", "*"),
                                          H("host", "ignored")};
    const struct flue_url_pair query[] = {H("restype", "container"), H("comp", "list"),
                                          H("prefix", "a/b c")};
    struct flue_azure_sign sign = {.account = "acc",
                                   .key = FLUE_BYTES("key"),
                                   .method = FLUE_BYTES("PUT"),
                                   .path = FLUE_BYTES("/acc/container/a%20b"),
                                   .query = query,
                                   .query_count = 3,
                                   .headers = headers,
                                   .header_count = 7,
                                   .content_length = 12};
    struct flue_bytes text, authorization;
    assert_int_equal(flue_azure_sign(&sign, &arena, &text, &authorization, NULL), FLUE_OK);
    assert_string_equal((const char *)text.data,
                        "PUT\n\n\n12\n\ntext/plain\n\n\n\n*\n\nbytes=0-9\n"
                        "x-ms-blob-type:BlockBlob\nx-ms-date:Sat, 21 Nov 2026 11:00:00 GMT\n"
                        "x-ms-version:2021-12-02\n"
                        "/acc/acc/container/a%20b\ncomp:list\nprefix:a/b c\nrestype:container");
    assert_memory_equal(authorization.data, "SharedKey acc:", 14);
    assert_int_equal(authorization.size, 14 + 44);
    sign.content_length = 0;
    assert_int_equal(flue_azure_sign(&sign, &arena, &text, &authorization, NULL), FLUE_OK);
    assert_memory_equal(text.data, "PUT\n\n\n\n\n", 8);
}

/* ---- JWT --------------------------------------------------------------------------------------
 */

static void jwt_is_verified_by_its_public_key(void **state)
{
    EVP_PKEY *key = EVP_RSA_gen(2048);
    BIO *bio = BIO_new(BIO_s_mem());
    char *pem;
    assert_int_equal(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
    long size = BIO_get_mem_data(bio, &pem);
    struct flue_bytes jwt;
    struct flue_error error;
    assert_int_equal(flue_sign_jwt(flue_bytes(pem, (size_t)size), "{\"alg\":\"RS256\"}",
                                   "{\"a\":1}", &arena, &jwt, &error),
                     FLUE_OK);
    size_t dot = (size_t)((const uint8_t *)memrchr(jwt.data, '.', jwt.size) - jwt.data);
    uint8_t mac[1024];
    size_t mac_size;
    assert_true(flue_base64_decode(flue_bytes_from(jwt, dot + 1), mac, &mac_size));
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key);
    assert_int_equal(EVP_DigestVerify(context, mac, mac_size, jwt.data, dot), 1);
    assert_memory_equal(jwt.data, "eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.", 32);
    EVP_MD_CTX_free(context);
    for (long cut = 0; cut < size - 30; cut += 97) /* a key that is cut off is refused */
        assert_int_equal(
            flue_sign_jwt(flue_bytes(pem, (size_t)cut), "{}", "{}", &arena, &jwt, &error),
            FLUE_INVALID);
    BIO_free(bio);
    EVP_PKEY_free(key);
}

/* ---- answers of credential services -------------------------------------------------------------
 */

static void json_of_metadata_services(void **state)
{
    struct object_secret secret;
    struct flue_error error;
    struct flue_bytes good =
        FLUE_BYTES("{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"topsecret\",\"Token\":\"t\","
                   "\"Expiration\":\"2026-11-21T11:00:00Z\"}");
    assert_int_equal(object_aws_json(good, &arena, &secret, &error), FLUE_OK);
    assert_string_equal(secret.id, "a");
    assert_string_equal(secret.token, "t");
    assert_true(secret.ends == 1795258800);
    for (size_t cut = 0; cut < good.size; cut++) {
        assert_int_equal(object_aws_json(flue_bytes_first(good, cut), &arena, &secret, &error),
                         FLUE_UNAVAILABLE);
        assert_null(strstr(error.text, "topsecret"));
    }
    static const char *const bad[] = {"[]", "null", "{\"AccessKeyId\":1,\"SecretAccessKey\":2}",
                                      "{\"AccessKeyId\":\"\",\"SecretAccessKey\":\"x\"}",
                                      ("{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"b\","
                                       "\"Expiration\":\"tomorrow\"}")};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(object_aws_json(flue_bytes_of(bad[i]), &arena, &secret, &error),
                         FLUE_UNAVAILABLE);
    assert_int_equal(object_oauth_read(FLUE_BYTES("{\"access_token\":\"x\",\"expires_in\":\"60\"}"),
                                       1000, &arena, &secret, &error),
                     FLUE_OK);
    assert_true(secret.ends == 1060);
    assert_int_equal(object_oauth_read(FLUE_BYTES("{\"access_token\":\"x\\r\\ny: z\"}"), 1000,
                                       &arena, &secret, &error),
                     FLUE_UNAVAILABLE);
}

static void xml_of_sts(void **state)
{
    struct object_secret secret;
    struct flue_error error;
    struct flue_bytes good = FLUE_BYTES(
        "<R xmlns='x'><A><Credentials><AccessKeyId>i</AccessKeyId><SecretAccessKey>s&lt;"
        "</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2026-11-21T11:00:00Z"
        "</Expiration></Credentials></A></R>");
    assert_int_equal(object_aws_sts(good, 200, &arena, &secret, &error), FLUE_OK);
    assert_string_equal(secret.secret, "s<");
    assert_int_equal(object_aws_sts(good, 403, &arena, &secret, &error), FLUE_UNAVAILABLE);
    for (size_t cut = 0; cut < good.size; cut++)
        assert_int_equal(object_aws_sts(flue_bytes_first(good, cut), 200, &arena, &secret, &error),
                         FLUE_UNAVAILABLE);
}

static void plain_http_to_local_addresses_only(void **state)
{
    static const char *const good[] = {"127.0.0.1",     "127.9.9.9",      "localhost",
                                       "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]",
                                       "[::1]"};
    static const char *const bad[] = {"127.evil.example", "169.254.169.254", "10.0.0.1", "",
                                      "localhost.evil",   "1127.0.0.1"};
    for (size_t i = 0; i < 7; i++)
        assert_true(object_aws_plain_allowed(flue_bytes_of(good[i])));
    for (size_t i = 0; i < 6; i++)
        assert_false(object_aws_plain_allowed(flue_bytes_of(bad[i])));
}

static void ini_files(void **state)
{
    static const char text[] = "top=1\n[default]\na = 1 # not this\nb=x#y\n  nested = 2\r\n"
                               "[profile   x ]\r\na=2\r\nA=3\r\n=4\nbroken\n[other]\n[x]\na=5";
    struct object_ini ini;
    assert_true(object_ini_read(flue_bytes_of(text), "default", &ini));
    assert_true(flue_bytes_is(object_ini_find(&ini, "a"), "1"));
    assert_true(flue_bytes_is(object_ini_find(&ini, "b"), "x#y"));
    assert_int_equal(object_ini_find(&ini, "nested").size, 0);
    assert_int_equal(object_ini_find(&ini, "top").size, 0);
    assert_true(object_ini_read(flue_bytes_of(text), "profile x", &ini));
    assert_true(flue_bytes_is(object_ini_find(&ini, "a"), "3"));
    assert_true(object_ini_read(flue_bytes_of(text), "x", &ini));
    assert_true(flue_bytes_is(object_ini_find(&ini, "a"), "5"));
    assert_true(object_ini_read(flue_bytes_of(text), "other", &ini));
    assert_int_equal(ini.count, 0);
    assert_false(object_ini_read(flue_bytes_of(text), "nowhere", &ini));
    struct flue_buffer many; /* over the limit of keys */
    flue_buffer_init(&many, 100000);
    flue_buffer_text(&many, "[s]\n");
    for (unsigned i = 0; i < 1000; i++)
        flue_buffer_printf(&many, "k%u=v\n", i);
    assert_true(object_ini_read(flue_buffer_bytes(&many), "s", &ini));
    assert_int_equal(ini.count, OBJECT_INI_KEYS);
    flue_buffer_destroy(&many);
}

/* ---- XML --------------------------------------------------------------------------------------
 */

static enum flue_xml_event to_end(struct flue_bytes in, struct flue_xml *xml)
{
    enum flue_xml_event event;
    flue_xml_init(xml, in, &arena);
    while ((event = flue_xml_next(xml)) < FLUE_XML_END)
        continue;
    return event;
}

static void xml_text_and_entities(void **state)
{
    static const char text[] =
        "\xef\xbb\xbf<?xml version='1.0'?><!-- c --><s:a x=\"1\" y='>'><b>&lt;&#65;&#x20AC;&amp;"
        "<![CDATA[<&>]]> </b><c/><d><e>1</e></d></s:a>\n";
    struct flue_xml xml;
    unsigned seen = 0;
    flue_xml_init(&xml, flue_bytes(text, sizeof text - 1), &arena);
    for (enum flue_xml_event event; (event = flue_xml_next(&xml)) < FLUE_XML_END;) {
        if (event == FLUE_XML_OPEN && xml.depth == 1)
            assert_true(flue_bytes_is(xml.attributes, " x=\"1\" y='>'>"));
        if (event != FLUE_XML_CLOSE)
            continue;
        if (flue_xml_closed(&xml, "a", "b") && flue_bytes_is(xml.text, "<A\xe2\x82\xac&<&> "))
            seen |= 1;
        if (flue_xml_closed(&xml, "a", "c") && xml.text.size == 0)
            seen |= 2;
        if (flue_xml_closed(&xml, "d", "e") && flue_bytes_is(xml.text, "1"))
            seen |= 4;
        if (flue_xml_closed(&xml, "a", "d") && xml.text.size == 0)
            seen |= 8;
    }
    assert_int_equal(seen, 15);
    assert_int_equal(to_end(flue_bytes(text, sizeof text - 1), &xml), FLUE_XML_END);
    for (size_t cut = 0; cut < sizeof text - 3; cut++) {
        assert_int_equal(to_end(flue_bytes(text, cut), &xml), FLUE_XML_BAD);
        assert_non_null(xml.wrong);
        assert_int_equal(flue_xml_next(&xml), FLUE_XML_BAD); /* and stays so */
    }
}

static void xml_that_is_refused(void **state)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "x",
                                      "<a>",
                                      "<a></b>",
                                      "<a></a><b></b>",
                                      "<a></a>x",
                                      "<!DOCTYPE a><a></a>",
                                      "<a>&nope;</a>",
                                      "<a>&#0;</a>",
                                      "<a>&#xD800;</a>",
                                      "<a>&#x110000;</a>",
                                      "<a>&#;</a>",
                                      "<a>&#x;</a>",
                                      "<a>&</a>",
                                      "<a>&lt</a>",
                                      "<a b></a>",
                                      "<a b=c></a>",
                                      "<a b='<'></a>",
                                      "<a b='1'c='2'></a>",
                                      "<a\x01></a>",
                                      "<a>\x01</a>",
                                      "< a></a>",
                                      "</a>",
                                      "<a/></a>",
                                      "<a><![CDATA[x</a>",
                                      "<a><!-- x</a>",
                                      "<a><?x</a>",
                                      "<a>&#99999999999;</a>"};
    struct flue_xml xml;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (to_end(flue_bytes_of(bad[i]), &xml) != FLUE_XML_BAD)
            fail_msg("taken: %s", bad[i]);
    char deep[200] = "";
    size_t size = 0;
    for (unsigned i = 0; i < 16; i++)
        size += (size_t)snprintf(deep + size, sizeof deep - size, "<a>");
    size_t half = size;
    for (unsigned i = 0; i < 16; i++)
        size += (size_t)snprintf(deep + size, sizeof deep - size, "</a>");
    assert_int_equal(to_end(flue_bytes(deep, size), &xml), FLUE_XML_END);
    memmove(deep + half + 7, deep + half, size - half);
    memcpy(deep + half, "<a></a>", 7);
    assert_int_equal(to_end(flue_bytes(deep, size + 7), &xml), FLUE_XML_BAD);
}

/* Any bytes end in END or BAD, within their own bounds (the sanitizers look). */
static void xml_of_noise(void **state)
{
    static const char *const pieces[] = {"<a>", "</a>", "<",    ">",   "&lt;",      "&#6",  ";",
                                         "x",   "<b/>", "<!--", "-->", "<![CDATA[", "]]>",  "<?",
                                         "?>",  " c='", "'",    "\"",  "=",         "\x80", "<!"};
    uint64_t random = 88172645463325252u;
    for (unsigned round = 0; round < 20000; round++) {
        char text[160];
        size_t size = 0, count = round % 14 + 1;
        for (size_t i = 0; i < count; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            const char *piece = pieces[random % 21];
            memcpy(text + size, piece, strlen(piece));
            size += strlen(piece);
        }
        struct flue_xml xml;
        uint8_t *exact = malloc(size ? size : 1);
        memcpy(exact, text, size);
        enum flue_xml_event event = to_end(flue_bytes(exact, size), &xml);
        assert_true(event == FLUE_XML_END || event == FLUE_XML_BAD);
        free(exact);
        flue_arena_reset(&arena);
    }
}

static void xml_is_escaped(void **state)
{
    struct flue_buffer out;
    flue_buffer_init(&out, 100);
    flue_xml_escape(&out, FLUE_BYTES("\"a\"<b>&'\n"));
    assert_string_equal(out.data, "&#34;a&#34;&#60;b&#62;&#38;&#39;&#10;");
    flue_buffer_destroy(&out);
}

/* ---- times and ranges ---------------------------------------------------------------------------
 */

static void times_and_ranges(void **state)
{
    uint64_t seconds, from, total;
    char text[30];
    assert_true(object_http_date(FLUE_BYTES("Sat, 21 Nov 2026 11:00:00 GMT"), &seconds));
    assert_true(seconds == 1795258800);
    object_rfc1123(seconds, text);
    assert_string_equal(text, "Sat, 21 Nov 2026 11:00:00 GMT");
    assert_true(object_iso_date(FLUE_BYTES("2026-11-21T11:00:00.123Z"), &seconds));
    assert_true(seconds == 1795258800);
    assert_false(object_iso_date(FLUE_BYTES("2026-11-21T11:00:00"), &seconds));
    assert_false(object_iso_date(FLUE_BYTES("2026-11-21"), &seconds));
    assert_false(object_http_date(FLUE_BYTES("now"), &seconds));
    assert_true(object_content_range(FLUE_BYTES("bytes 5-9/100"), &from, &total));
    assert_true(from == 5 && total == 100);
    static const char *const bad[] = {"bytes 5-9/*",
                                      "bytes */100",
                                      "bytes 9-5/100",
                                      "bytes 5-100/100",
                                      "5-9/100",
                                      "bytes 5/100",
                                      ""};
    for (size_t i = 0; i < 7; i++)
        assert_false(object_content_range(flue_bytes_of(bad[i]), &from, &total));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {T(vanilla),
                                       T(a_kept_key_is_that_of_its_day_region_and_credentials),
                                       T(headers_are_trimmed_joined_and_sorted),
                                       T(s3_get_with_a_range),
                                       T(s3_put),
                                       T(s3_queries),
                                       T(s3_chunked_upload),
                                       T(too_many_headers_are_an_error),
                                       T(every_byte_is_escaped_or_stays),
                                       T(queries_are_sorted_as_escaped),
                                       T(digests_of_slices),
                                       T(azure_string_to_sign),
                                       T(jwt_is_verified_by_its_public_key),
                                       T(json_of_metadata_services),
                                       T(xml_of_sts),
                                       T(plain_http_to_local_addresses_only),
                                       T(ini_files),
                                       T(xml_text_and_entities),
                                       T(xml_that_is_refused),
                                       T(xml_of_noise),
                                       T(xml_is_escaped),
                                       T(times_and_ranges)};
    return cmocka_run_group_tests_name("object", tests, NULL, NULL);
}
