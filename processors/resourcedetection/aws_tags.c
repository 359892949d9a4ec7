/* aws_tags.c: tags of an instance by the EC2 API (DescribeTags), with whatever credentials the AWS
 * chain finds. Where they cannot be had everything else that was detected is used all the same.
 *
 * Sources: Amazon EC2 API Reference, DescribeTags; AWS SDKs and Tools Reference, "Service-specific
 * endpoints" (AWS_ENDPOINT_URL_EC2). */
#include <stdlib.h>

#include "archive/object/aws.h"
#include "archive/object/sign.h"
#include "archive/object/xml.h"
#include "collector/base/log.h"
#include "processors/resourcedetection/detect.h"

struct rd_tags {
    struct rd_run *run;
    struct flue_timer late;
    struct object_waiter waiter;
    struct object_identity identity;
    struct object_aws *aws;
    const char *region, *instance; /* in the attempt's arena */
    void (*take)(struct rd_run *run, const char *key, struct flue_bytes value);
};

void rd_tags_end(struct rd_run *run)
{
    struct rd_tags *tags = run->tags;
    run->tags = NULL;
    if (!tags)
        return;
    flue_timer_disarm(run->loop, &tags->late);
    object_identity_leave(&tags->identity, &tags->waiter);
    object_identity_destroy(&tags->identity);
    if (tags->aws)
        object_aws_destroy(tags->aws);
    free(tags);
}

static void without(struct rd_run *run, const char *why)
{
    if (run->tags)
        flue_timer_disarm(run->loop, &run->tags->late);
    flue_log(FLUE_WARN, "resourcedetection", "tags of the instance are left out",
             FLUE_S("detector", run->detector->name),
             FLUE_S("grant", "ec2:DescribeTags, or allow tags in the instance's metadata"),
             FLUE_S("error", why), FLUE_LOG_END);
    rd_found(run);
}

/* ---- the answer ------------------------------------------------------------------------------ */

static void refused(struct rd_run *run)
{
    char code[80] = "an answer that cannot be read", text[160];
    struct flue_xml xml;
    flue_xml_init(&xml, run->ask.response, &run->arena);
    for (enum flue_xml_event event; (event = flue_xml_next(&xml)) < FLUE_XML_END;)
        if (event == FLUE_XML_CLOSE && flue_xml_closed(&xml, "Error", "Code"))
            flue_printable(xml.text, code, sizeof code);
    snprintf(text, sizeof text, "DescribeTags: HTTP status %u, %s", run->ask.status, code);
    without(run, run->ask.error.code ? run->ask.error.text : text);
}

static void answered(struct rd_run *run)
{
    struct rd_tags *tags = run->tags;
    enum flue_xml_event event;
    struct flue_xml xml;
    char key[129] = "";

    run->ask.body = flue_bytes(NULL, 0);
    if (rd_status(run) != 200) {
        refused(run);
        return;
    }
    flue_xml_init(&xml, run->ask.response, &run->arena);
    while ((event = flue_xml_next(&xml)) < FLUE_XML_END) {
        if (event != FLUE_XML_CLOSE)
            continue;
        if (flue_xml_closed(&xml, "item", "key")) {
            bool good = xml.text.size < sizeof key && !memchr(xml.text.data, 0, xml.text.size);
            size_t size = good ? xml.text.size : 0;
            memcpy(key, xml.text.data, size);
            key[size] = 0;
        } else if (flue_xml_closed(&xml, "item", "value") && key[0]) {
            tags->take(run, key, xml.text);
        }
    }
    if (event == FLUE_XML_BAD)
        refused(run);
    else
        rd_found(run);
}

/* ---- the question ---------------------------------------------------------------------------- */

static bool sign(struct rd_run *run, const struct object_secret *secret)
{
    struct rd_tags *tags = run->tags;
    struct flue_slices body = {.items = &run->ask.body, .count = 1, .total = run->ask.body.size};
    struct flue_bytes authorization, host = flue_bytes_of(strstr(run->endpoint, "://") + 3);
    struct flue_digest digest;
    char *date = flue_arena_alloc(&run->arena, FLUE_SIGN_DATE_SIZE), hex[64];
    uint64_t now = flue_wall_ns() / OBJECT_SECOND;

    if (!date || flue_digest_make(&body, FLUE_DIGEST_SHA256, &digest, NULL))
        return false;
    flue_hex(flue_bytes(digest.sha256, 32), hex);
    flue_sign_date(now, date);
    run->ask.field_count = 0;
    rd_field(run, "content-type", "application/x-www-form-urlencoded; charset=utf-8");
    object_ask_field(&run->ask, "host",
                     flue_bytes_first(host, strcspn((const char *)host.data, "/")));
    rd_field(run, "x-amz-date", date);
    if (secret->token) {
        const char *token = flue_arena_string(&run->arena, flue_bytes_of(secret->token));
        if (!token)
            return false;
        rd_field(run, "x-amz-security-token", token);
    }
    const struct flue_sign_v4 v4 = {.key_id = secret->id,
                                    .secret = secret->secret,
                                    .region = tags->region,
                                    .service = "ec2",
                                    .time = now,
                                    .method = FLUE_BYTES("POST"),
                                    .path = FLUE_BYTES("/"),
                                    .headers = run->ask.fields,
                                    .header_count = run->ask.field_count,
                                    .payload = flue_bytes(hex, sizeof hex)};
    if (flue_sign_v4(&v4, &run->arena, &authorization, NULL, NULL))
        return false;
    object_ask_field(&run->ask, "authorization", authorization);
    return true;
}

static void ask(struct rd_run *run)
{
    struct rd_tags *tags = run->tags;
    const char *endpoint = rd_environment("AWS_ENDPOINT_URL_EC2");
    struct flue_buffer form;

    flue_timer_disarm(run->loop, &tags->late);
    if (!endpoint)
        endpoint = rd_environment("AWS_ENDPOINT_URL");
    run->endpoint =
        endpoint && strstr(endpoint, "://")
            ? endpoint
            : flue_arena_printf(&run->arena, "https://ec2.%s.amazonaws.com%s", tags->region,
                                strncmp(tags->region, "cn-", 3) == 0 ? ".cn" : "");
    memset(&run->tls, 0, sizeof run->tls);
    const struct flue_url_pair pairs[] = {
        {FLUE_BYTES("Action"), FLUE_BYTES("DescribeTags")},
        {FLUE_BYTES("Filter.1.Name"), FLUE_BYTES("resource-id")},
        {FLUE_BYTES("Filter.1.Value.1"), flue_bytes_of(tags->instance)},
        {FLUE_BYTES("Version"), FLUE_BYTES("2016-11-15")}};
    flue_buffer_init(&form, 4096);
    flue_url_query(&form, pairs, sizeof pairs / sizeof *pairs);
    run->ask.body = flue_arena_copy(&run->arena, flue_buffer_bytes(&form));
    bool good =
        !form.failed && run->ask.body.data && run->endpoint && sign(run, &tags->identity.secret);
    flue_buffer_destroy(&form);
    if (good)
        rd_ask(run, "POST", "/", answered);
    else
        without(run, "no memory to ask for tags");
}

static void credentials(struct rd_run *run)
{
    struct flue_error error = {.code = FLUE_OK};
    switch (object_identity_get(&run->tags->identity, &run->tags->waiter, &error)) {
    case OBJECT_IDENTITY_READY:
        ask(run);
        return;
    case OBJECT_IDENTITY_WAIT:
        return;
    default:
        without(run, error.text);
    }
}

static void ready(struct object_waiter *waiter, const struct flue_error *error)
{
    struct rd_tags *tags = (struct rd_tags *)((char *)waiter - offsetof(struct rd_tags, waiter));
    if (error && error->code)
        without(tags->run, error->text);
    else
        credentials(tags->run);
}

static void late(struct flue_timer *timer)
{
    struct rd_tags *tags = (struct rd_tags *)((char *)timer - offsetof(struct rd_tags, late));
    object_identity_leave(&tags->identity, &tags->waiter);
    without(tags->run, "no credentials within timeout");
}

static bool plain(const char *text)
{
    return text && *text && text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-")] == 0;
}

void rd_tags_begin(struct rd_run *run, const char *region, const char *instance,
                   void (*take)(struct rd_run *run, const char *key, struct flue_bytes value))
{
    struct flue_error error = {.code = FLUE_OK};
    struct rd_tags *tags = NULL;

    rd_tags_end(run);
    if (!plain(region) || !plain(instance)) {
        without(run, "the instance's document names no region or instance");
        return;
    }
    if (!(tags = calloc(1, sizeof *tags))) {
        without(run, "no memory to ask for tags");
        return;
    }
    run->tags = tags;
    *tags = (struct rd_tags){.run = run,
                             .late.fire = late,
                             .waiter.ready = ready,
                             .region = region,
                             .instance = instance,
                             .take = take};
    object_identity_init(&tags->identity, run->loop);
    if (object_aws_new(&tags->identity, region, NULL, &tags->aws, &error) != FLUE_OK) {
        without(run, error.text);
        return;
    }
    flue_timer_arm(run->loop, &tags->late, run->deadline_ns);
    credentials(run);
}
