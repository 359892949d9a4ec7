/* azure_sign.c: see azure_sign.h. */
#include "archive/object/azure_sign.h"
#include "archive/object/sign.h"
#include "collector/base/base64.h"

#define MOST_FIELDS 48
#define MOST_PAIRS  16

static struct flue_bytes find(const struct flue_azure_sign *sign, const char *name)
{
    for (size_t i = 0; i < sign->header_count; i++)
        if (flue_bytes_is(sign->headers[i].name, name))
            return sign->headers[i].value;
    return (struct flue_bytes){0};
}

static void add_fields(struct flue_buffer *out, const struct flue_azure_sign *sign)
{
    uint8_t order[MOST_FIELDS];
    size_t count = 0;
    for (size_t i = 0; i < sign->header_count && count < MOST_FIELDS; i++) {
        size_t at = count;
        if (!flue_bytes_starts_with(sign->headers[i].name, FLUE_BYTES("x-ms-")))
            continue;
        for (; at > 0 &&
               flue_bytes_compare(sign->headers[i].name, sign->headers[order[at - 1]].name) < 0;
             at--)
            order[at] = order[at - 1];
        order[at] = (uint8_t)i;
        count++;
    }
    for (size_t i = 0; i < count; i++) {
        flue_buffer_add(out, sign->headers[order[i]].name);
        flue_buffer_byte(out, ':');
        flue_buffer_add(out, flue_bytes_trim(sign->headers[order[i]].value));
        flue_buffer_byte(out, '\n');
    }
}

static void add_resource(struct flue_buffer *out, const struct flue_azure_sign *sign)
{
    uint8_t order[MOST_PAIRS];
    size_t count = sign->query_count < MOST_PAIRS ? sign->query_count : MOST_PAIRS;
    flue_buffer_byte(out, '/');
    flue_buffer_text(out, sign->account);
    flue_buffer_add(out, sign->path);
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        for (;
             at > 0 && flue_bytes_compare(sign->query[i].name, sign->query[order[at - 1]].name) < 0;
             at--)
            order[at] = order[at - 1];
        order[at] = (uint8_t)i;
    }
    for (size_t i = 0; i < count; i++) {
        flue_buffer_byte(out, '\n');
        flue_buffer_add(out, sign->query[order[i]].name);
        flue_buffer_byte(out, ':');
        flue_buffer_add(out, sign->query[order[i]].value);
    }
}

enum flue_code flue_azure_sign(const struct flue_azure_sign *sign, struct flue_arena *arena,
                               struct flue_bytes *text, struct flue_bytes *authorization,
                               struct flue_error *error)
{
    static const char *const slots[] = {"content-encoding",
                                        "content-language",
                                        "content-length",
                                        "content-md5",
                                        "content-type",
                                        "date",
                                        "if-modified-since",
                                        "if-match",
                                        "if-none-match",
                                        "if-unmodified-since",
                                        "range"};
    struct flue_buffer out;
    uint8_t mac[32];
    char encoded[48];
    flue_buffer_init(&out, 64 * 1024);
    flue_buffer_add(&out, sign->method);
    flue_buffer_byte(&out, '\n');
    for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++) {
        if (i == 2 && sign->content_length)
            flue_buffer_printf(&out, "%llu", (unsigned long long)sign->content_length);
        else if (i != 2)
            flue_buffer_add(&out, find(sign, slots[i]));
        flue_buffer_byte(&out, '\n');
    }
    add_fields(&out, sign);
    add_resource(&out, sign);
    *text = flue_arena_copy(arena, flue_buffer_bytes(&out));
    bool good = !out.failed && text->data && flue_hmac_sha256(sign->key, *text, mac);
    flue_buffer_destroy(&out);
    if (good) {
        flue_base64_encode(flue_bytes(mac, sizeof mac), encoded);
        const char *line = flue_arena_printf(arena, "SharedKey %s:%.44s", sign->account, encoded);
        *authorization = flue_bytes_of(line);
        good = line != NULL;
    }
    return good ? FLUE_OK : flue_fail(error, FLUE_NO_MEMORY, "no memory to sign a request");
}
