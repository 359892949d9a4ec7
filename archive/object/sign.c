/* sign.c: see sign.h. */
#include "archive/object/sign.h"
#include "collector/base/base64.h"
#include "collector/base/buffer.h"

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <time.h>

#define MOST_HEADERS 48
#define MOST_TEXT    (64u * 1024)

bool flue_hmac_sha256(struct flue_bytes key, struct flue_bytes text, uint8_t out[32])
{
    unsigned size = 32;
    return HMAC(EVP_sha256(), key.size ? key.data : (const uint8_t *)"", (int)key.size,
                text.size ? text.data : (const uint8_t *)"", text.size, out, &size) != NULL;
}

void flue_sign_date(uint64_t time, char *out)
{
    time_t seconds = (time_t)time;
    struct tm tm;
    gmtime_r(&seconds, &tm);
    strftime(out, FLUE_SIGN_DATE_SIZE, "%Y%m%dT%H%M%SZ", &tm);
}

bool flue_sign_v4_key(const struct flue_sign_v4 *sign, uint8_t out[32])
{
    char date[FLUE_SIGN_DATE_SIZE], first[256];
    size_t size = strlen(sign->secret);
    uint8_t next[32];
    if (size > sizeof first - 4)
        return false;
    memcpy(first, "AWS4", 4);
    memcpy(first + 4, sign->secret, size);
    flue_sign_date(sign->time, date);
    bool good = flue_hmac_sha256(flue_bytes(first, size + 4), flue_bytes(date, 8), next) &&
                flue_hmac_sha256(flue_bytes(next, 32), flue_bytes_of(sign->region), out) &&
                flue_hmac_sha256(flue_bytes(out, 32), flue_bytes_of(sign->service), next) &&
                flue_hmac_sha256(flue_bytes(next, 32), FLUE_BYTES("aws4_request"), out);
    OPENSSL_cleanse(first, sizeof first);
    OPENSSL_cleanse(next, sizeof next);
    return good;
}

static bool kept_key(const struct flue_sign_v4 *sign, const char *date, uint8_t out[32])
{
    struct flue_sign_v4_kept *kept = sign->kept;
    size_t region = strlen(sign->region);
    if (!kept || region >= sizeof kept->region)
        return flue_sign_v4_key(sign, out);
    if (!kept->good || kept->version != sign->version || memcmp(kept->date, date, 8) != 0 ||
        strcmp(kept->region, sign->region) != 0) {
        kept->good = flue_sign_v4_key(sign, kept->key);
        kept->version = sign->version;
        memcpy(kept->date, date, 8);
        memcpy(kept->region, sign->region, region + 1);
    }
    memcpy(out, kept->key, sizeof kept->key);
    return kept->good;
}

/* Blanks at the ends go, inner runs and folded lines become one blank. */
static void add_value(struct flue_buffer *out, struct flue_bytes value)
{
    bool blank = false, any = false;
    for (size_t i = 0; i < value.size; i++) {
        uint8_t c = value.data[i];
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
            blank = true;
            continue;
        }
        if (blank && any)
            flue_buffer_byte(out, ' ');
        flue_buffer_byte(out, c);
        any = true;
        blank = false;
    }
}

enum flue_code flue_sign_v4(const struct flue_sign_v4 *sign, struct flue_arena *arena,
                            struct flue_bytes *authorization, struct flue_bytes *canonical,
                            struct flue_error *error)
{
    uint8_t order[MOST_HEADERS], hash[32], key[32], mac[32];
    char date[FLUE_SIGN_DATE_SIZE], hex[65];
    struct flue_buffer request, names, text;
    enum flue_code code = FLUE_NO_MEMORY;
    if (sign->header_count > MOST_HEADERS)
        return flue_fail(error, FLUE_INTERNAL, "%zu headers to sign, limit %u", sign->header_count,
                         MOST_HEADERS);
    for (size_t i = 0; i < sign->header_count; i++) { /* by name, equal ones as they came */
        size_t at = i;
        for (; at > 0 &&
               flue_bytes_compare(sign->headers[i].name, sign->headers[order[at - 1]].name) < 0;
             at--)
            order[at] = order[at - 1];
        order[at] = (uint8_t)i;
    }
    flue_buffer_init(&request, MOST_TEXT);
    flue_buffer_init(&names, MOST_TEXT);
    flue_buffer_init(&text, MOST_TEXT);
    flue_buffer_add(&request, sign->method);
    flue_buffer_byte(&request, '\n');
    flue_buffer_add(&request, sign->path);
    flue_buffer_byte(&request, '\n');
    flue_buffer_add(&request, sign->query);
    for (size_t i = 0; i < sign->header_count; i++) {
        const struct flue_header *header = &sign->headers[order[i]];
        if (i && flue_bytes_equal(header->name, sign->headers[order[i - 1]].name)) {
            flue_buffer_byte(&request, ',');
        } else {
            if (i)
                flue_buffer_byte(&names, ';');
            flue_buffer_add(&names, header->name);
            flue_buffer_byte(&request, '\n');
            flue_buffer_add(&request, header->name);
            flue_buffer_byte(&request, ':');
        }
        add_value(&request, header->value);
    }
    flue_buffer_text(&request, "\n\n");
    flue_buffer_add(&request, flue_buffer_bytes(&names));
    flue_buffer_byte(&request, '\n');
    flue_buffer_add(&request, sign->payload);

    flue_sign_date(sign->time, date);
    if (!request.failed && !names.failed &&
        EVP_Digest(request.data, request.size, hash, NULL, EVP_sha256(), NULL) == 1 &&
        kept_key(sign, date, key)) {
        flue_hex(flue_bytes(hash, 32), hex);
        hex[64] = 0;
        flue_buffer_printf(&text, "AWS4-HMAC-SHA256\n%s\n%.8s/%s/%s/aws4_request\n%s", date, date,
                           sign->region, sign->service, hex);
        if (!text.failed && flue_hmac_sha256(flue_bytes(key, 32), flue_buffer_bytes(&text), mac)) {
            flue_hex(flue_bytes(mac, 32), hex);
            char *line = flue_arena_printf(
                arena,
                "AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/%s/aws4_request, SignedHeaders=%s, "
                "Signature=%s",
                sign->key_id, date, sign->region, sign->service, names.size ? names.data : "", hex);
            if (line) {
                *authorization = flue_bytes_of(line);
                code = FLUE_OK;
            }
        }
    }
    if (!code && canonical)
        *canonical = flue_arena_copy(arena, flue_buffer_bytes(&request));
    OPENSSL_cleanse(key, sizeof key);
    flue_buffer_destroy(&request);
    flue_buffer_destroy(&names);
    flue_buffer_destroy(&text);
    return code ? flue_fail(error, code, "a request could not be signed (no memory)") : FLUE_OK;
}

/* ---- JWT ------------------------------------------------------------------------------------ */

static void add_base64url(struct flue_buffer *out, struct flue_arena *arena, struct flue_bytes b)
{
    size_t size = (b.size + 2) / 3 * 4;
    char *text = flue_arena_alloc(arena, size + 1);
    if (!text) {
        out->failed = true;
        return;
    }
    flue_base64_encode(b, text);
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '=')
            size = i;
        else if (text[i] == '+')
            text[i] = '-';
        else if (text[i] == '/')
            text[i] = '_';
    }
    flue_buffer_add(out, flue_bytes(text, size));
}

enum flue_code flue_sign_jwt(struct flue_bytes pem, const char *header, const char *claims,
                             struct flue_arena *arena, struct flue_bytes *jwt,
                             struct flue_error *error)
{
    BIO *bio = BIO_new_mem_buf(pem.size ? pem.data : (const uint8_t *)"", (int)pem.size);
    /* an empty password: nobody is asked on a terminal */
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)(uintptr_t) "") : NULL;
    BIO_free(bio);
    if (!key || EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA) {
        EVP_PKEY_free(key);
        return flue_fail(error, FLUE_INVALID, "private_key is not an unencrypted RSA key in PEM");
    }
    struct flue_buffer text;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t signature[1024];
    size_t size = sizeof signature;
    enum flue_code code = FLUE_NO_MEMORY;
    flue_buffer_init(&text, MOST_TEXT);
    add_base64url(&text, arena, flue_bytes_of(header));
    flue_buffer_byte(&text, '.');
    add_base64url(&text, arena, flue_bytes_of(claims));
    if (context && !text.failed && EVP_PKEY_get_size(key) <= (int)sizeof signature &&
        EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
        EVP_DigestSign(context, signature, &size, (const uint8_t *)text.data, text.size) == 1) {
        flue_buffer_byte(&text, '.');
        add_base64url(&text, arena, flue_bytes(signature, size));
        *jwt = flue_arena_copy(arena, flue_buffer_bytes(&text));
        if (!text.failed && jwt->data)
            code = FLUE_OK;
    }
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    flue_buffer_destroy(&text);
    return code ? flue_fail(error, code, "a token request could not be signed") : FLUE_OK;
}
