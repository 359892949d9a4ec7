/* decode.c: see decode.h. */
#include "receivers/kafka/decode.h"

#include <stdio.h>
#include "collector/base/clock.h"
#include "collector/base/codec.h"
#include "collector/net/request_origin.h"
#include "collector/pipeline/actions.h"
#include "proto/convert/profile_name.h"
#include "proto/otlp/otlp.h"
#include "proto/pprof/names.h"
#include "proto/pprof/repair.h"

#define CONTEXT_MOST (256u * 1024)
#define OWN_HEADERS  3 /* kafka.topic, kafka.partition, kafka.offset */

/* ---- the origin -------------------------------------------------------------------------------
 */

static bool is_label(struct flue_bytes name)
{
    return flue_bytes_starts_with(name, FLUE_BYTES(FLUE_KAFKA_LABEL_PREFIX));
}

static bool is_secret(struct flue_bytes name)
{
    return flue_bytes_is(name, "authorization") || flue_bytes_is(name, "proxy-authorization") ||
           flue_bytes_is(name, "cookie");
}

static struct flue_bytes lower(struct flue_arena *arena, struct flue_bytes name)
{
    uint8_t *copy = flue_arena_alloc(arena, name.size + 1);

    for (size_t i = 0; copy && i < name.size; i++) {
        uint8_t byte = name.data[i];
        copy[i] = byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte + 32) : byte;
    }
    return flue_bytes(copy, copy ? name.size : 0);
}

static struct flue_bytes unescaped(struct flue_arena *arena, struct flue_bytes value)
{
    uint8_t *copy = flue_arena_alloc(arena, value.size + 1);
    return flue_bytes(copy, copy ? flue_kafka_unescape(value, copy) : 0);
}

static struct flue_attribute text_header(struct flue_bytes name, struct flue_bytes value)
{
    return (struct flue_attribute){name, {.type = FLUE_VALUE_STRING, .text = value}};
}

static bool within(const struct flue_kafka_header *header, size_t *bytes)
{
    if (header->name.size > FLUE_KAFKA_HEADER_NAME_MAX + sizeof FLUE_KAFKA_LABEL_PREFIX ||
        header->value.size > 3 * FLUE_KAFKA_HEADER_VALUE_MAX ||
        *bytes + header->name.size + header->value.size > 2 * FLUE_KAFKA_HEADERS_BYTES)
        return false;
    *bytes += header->name.size + header->value.size;
    return true;
}

enum flue_code kafka_context_make(const struct kafka_arrival *record, bool labels,
                                  struct kafka_context *context, struct flue_error *error)
{
    struct flue_origin origin = {.received_ns = flue_wall_ns(),
                                 .receiver = flue_bytes_of(record->receiver),
                                 .transport = FLUE_BYTES("kafka")};
    struct flue_attribute *headers;
    size_t bytes = 0;
    char number[2][24];

    memset(context, 0, sizeof *context);
    context->time_ms = record->time_ms;
    flue_arena_init(&context->arena, CONTEXT_MOST, 0);
    headers =
        flue_arena_zalloc(&context->arena, FLUE_KAFKA_HEADERS_MAX + OWN_HEADERS, sizeof *headers);
    context->labels = flue_arena_zalloc(&context->arena, labels ? FLUE_KAFKA_HEADERS_MAX : 1,
                                        sizeof *context->labels);
    if (!headers || !context->labels)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to take a record");
    for (size_t i = 0; i < record->header_count; i++) {
        const struct flue_kafka_header *header = &record->headers[i];
        bool label = labels && is_label(header->name);
        if (origin.header_count + context->label_count >= FLUE_KAFKA_HEADERS_MAX ||
            !within(header, &bytes)) {
            context->left_out++;
            continue;
        }
        if (label) {
            const struct flue_pprof_label own = {
                unescaped(&context->arena,
                          flue_bytes_from(header->name, sizeof FLUE_KAFKA_LABEL_PREFIX - 1)),
                unescaped(&context->arena, header->value)};
            if (!own.name.data || !own.value.data)
                return flue_fail(error, FLUE_NO_MEMORY, "no memory to take a record");
            context->labels[context->label_count++] = own;
            continue;
        }
        struct flue_bytes name = lower(&context->arena, header->name);
        if (!name.data)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory to take a record");
        if (flue_bytes_is(name, "x-scope-orgid"))
            origin.tenant = header->value;
        if (!is_secret(name))
            headers[origin.header_count++] = text_header(name, header->value);
    }
    snprintf(number[0], sizeof number[0], "%d", record->partition);
    snprintf(number[1], sizeof number[1], "%lld", (long long)record->offset);
    headers[origin.header_count++] =
        text_header(FLUE_BYTES("kafka.topic"), flue_bytes_of(record->topic));
    headers[origin.header_count++] =
        text_header(FLUE_BYTES("kafka.partition"), flue_bytes_of(number[0]));
    headers[origin.header_count++] =
        text_header(FLUE_BYTES("kafka.offset"), flue_bytes_of(number[1]));
    origin.headers = headers;
    if (flue_tenant_check(origin.tenant, error))
        return error->code;
    context->origin = flue_origin_new(&origin);
    return context->origin ? FLUE_OK
                           : flue_fail(error, FLUE_NO_MEMORY, "no memory to take a record");
}

void kafka_context_release(struct kafka_context *context)
{
    flue_origin_unref(context->origin);
    flue_arena_destroy(&context->arena);
    context->origin = NULL;
}

/* ---- OTLP -------------------------------------------------------------------------------------
 */

static enum flue_code decode_otlp(struct flue_block *body, struct kafka_decoded *out,
                                  struct flue_error *error)
{
    struct flue_otlp_report report = {0};
    enum flue_code code = flue_otlp_read(flue_block_ref(body), &out->payload, &report, error);

    out->counts = report.counts;
    out->rejected_profiles = report.rejected_profiles;
    out->rejected_samples = report.rejected_samples;
    out->repaired = report.repaired_strings;
    return code;
}

/* ---- pprof ------------------------------------------------------------------------------------
 */

struct profile {
    struct flue_pprof_profile profile;
    struct flue_pprof_type_name *types;
    struct flue_pprof_limits limits;
    struct flue_block *block; /* in which it lies; owned */
    struct flue_arena *arena;
};

static enum flue_code check_profile(struct profile *p, struct flue_error *error)
{
    p->profile.bytes = flue_block_bytes(p->block);
    return flue_pprof_check_types(p->profile.bytes, &p->limits, &p->profile.facts, p->arena,
                                  &p->types, error);
}

static void hold(struct profile *p, struct flue_block *block)
{
    flue_block_unref(p->block);
    p->block = block;
    p->profile.bytes = flue_block_bytes(block);
}

/* Repaired where a string needs it; without a time it is dated as the record, so that it is the
 * same profile when it is read again. */
static enum flue_code judge_profile(struct profile *p, int64_t time_ms,
                                    struct flue_account *account, struct kafka_decoded *out,
                                    struct flue_error *error)
{
    struct flue_block *block;
    bool changed = false;
    enum flue_code code = check_profile(p, error);

    if (!code && p->profile.facts.invalid_utf8) {
        if ((code = flue_pprof_repair(p->profile.bytes, &p->limits, account, &block, error)))
            return code;
        hold(p, block);
        out->repaired++;
        changed = true;
    }
    if (!code && p->profile.facts.time_nanos <= 0) {
        int64_t now = time_ms > 0 ? time_ms * 1000000 : (int64_t)flue_wall_ns();
        if ((code = flue_pprof_set_time(p->profile.bytes, now, &p->limits, account, &block, error)))
            return code;
        hold(p, block);
        changed = true;
    }
    return !code && changed ? check_profile(p, error) : code;
}

static struct flue_bytes label_of(const struct kafka_context *context, const char *name)
{
    for (size_t i = 0; i < context->label_count; i++)
        if (flue_bytes_is(context->labels[i].name, name))
            return context->labels[i].value;
    return flue_bytes(NULL, 0);
}

static struct flue_bytes name_of(const struct profile *p)
{
    size_t count = (size_t)p->profile.facts.sample_types;
    struct flue_profile_type no_period = {FLUE_BYTES(""), FLUE_BYTES("")};
    struct flue_profile_type *pairs = flue_arena_zalloc(p->arena, count + 1, sizeof *pairs);

    for (size_t i = 0; pairs && i < count; i++)
        pairs[i] = (struct flue_profile_type){p->types[i].type, p->types[i].unit};
    return pairs ? flue_profile_name(pairs, count, no_period, p->arena) : flue_bytes(NULL, 0);
}

static struct flue_bytes repaired_text(struct flue_arena *arena, struct flue_bytes text)
{
    if (flue_utf8_valid(text))
        return text;
    struct flue_bytes out = {NULL, flue_utf8_repaired_size(text)};
    uint8_t *copy = flue_arena_alloc(arena, out.size + 1);
    if (copy)
        flue_utf8_repair(text, copy);
    out.data = copy;
    return copy ? out : flue_bytes("", 0);
}

static enum flue_code build(const struct profile *p, const struct kafka_context *context,
                            struct flue_account *account, struct kafka_decoded *out,
                            struct flue_error *error)
{
    struct flue_pprof_builder *builder = flue_pprof_builder_new(account);
    struct flue_bytes name = label_of(context, "__name__");
    struct flue_bytes service = flue_origin_header(context->origin, FLUE_BYTES("service.name"));

    if (!builder)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a profile's labels");
    if (!name.size)
        name = name_of(p);
    flue_pprof_builder_keep(builder, p->block);
    flue_pprof_builder_series(builder);
    flue_pprof_builder_label(builder, FLUE_BYTES("__name__"), repaired_text(p->arena, name));
    for (size_t i = 0; i < context->label_count; i++)
        if (!flue_bytes_is(context->labels[i].name, "__name__"))
            flue_pprof_builder_label(builder, repaired_text(p->arena, context->labels[i].name),
                                     repaired_text(p->arena, context->labels[i].value));
    if (!label_of(context, "service_name").size) {
        uint8_t *copy = flue_arena_alloc(p->arena, service.size + 1);
        if (copy && service.size)
            service.size = flue_kafka_unescape(service, copy);
        flue_pprof_builder_label(builder, FLUE_BYTES("service_name"),
                                 copy && service.size
                                     ? repaired_text(p->arena, flue_bytes(copy, service.size))
                                     : FLUE_BYTES("unknown_service"));
    }
    flue_pprof_builder_profile(builder, &p->profile);
    return flue_pprof_builder_finish(builder, &out->payload, &out->counts, error);
}

static enum flue_code decode_pprof(const struct kafka_context *context, struct flue_block *body,
                                   struct flue_account *account, struct kafka_decoded *out,
                                   struct flue_error *error)
{
    struct flue_arena arena;
    struct profile p = {.limits = {KAFKA_BODY_MAX, FLUE_RATIO_LIMIT},
                        .block = flue_block_ref(body),
                        .arena = &arena};

    flue_arena_init(&arena, 16u << 20, 0);
    enum flue_code code = judge_profile(&p, context->time_ms, account, out, error);
    if (!code && p.profile.facts.samples)
        code = build(&p, context, account, out, error);
    flue_block_unref(p.block);
    flue_arena_destroy(&arena);
    return code;
}

/* ---- header_extraction ------------------------------------------------------------------------
 */

static enum flue_code extract(const struct kafka_decoding *decoding,
                              const struct kafka_context *context, struct flue_payload *payload,
                              struct flue_error *error)
{
    const struct flue_payload_ops *ops = payload->ops;
    struct flue_attribute items[FLUE_KAFKA_HEADERS_MAX];
    struct flue_attribute_set set;
    struct flue_block *block = NULL;
    struct flue_arena arena;
    size_t count = 0;
    enum flue_code code = FLUE_OK;

    flue_arena_init(&arena, 1u << 20, 0);
    for (size_t i = 0; i < decoding->extract_count && count < FLUE_KAFKA_HEADERS_MAX; i++) {
        struct flue_bytes name = lower(&arena, flue_bytes_of(decoding->extract[i]));
        struct flue_bytes value = flue_origin_header(context->origin, name);
        char *key = flue_arena_printf(&arena, "kafka.header.%s", decoding->extract[i]);
        if (!name.data || !key)
            code = flue_fail(error, FLUE_NO_MEMORY, "no memory for header_extraction");
        else if (value.data)
            items[count++] = text_header(flue_bytes_of(key), repaired_text(&arena, value));
    }
    if (count && !code)
        code = flue_attribute_block(flue_otlp_attribute_set, &arena, items, count, &set, &block,
                                    error);
    for (size_t i = 0; !code && count && i < ops->resource_count(payload); i++)
        code = ops->attributes_set(payload, i, &set, FLUE_SET_UPSERT, block, error);
    flue_block_unref(block);
    flue_arena_destroy(&arena);
    return code;
}

enum flue_code kafka_decode(const struct kafka_decoding *decoding,
                            const struct kafka_context *context, struct flue_block *body,
                            struct flue_account *account, struct kafka_decoded *out,
                            struct flue_error *error)
{
    memset(out, 0, sizeof *out);
    enum flue_code code = decoding->encoding == FLUE_KAFKA_PPROF
                              ? decode_pprof(context, body, account, out, error)
                              : decode_otlp(body, out, error);
    if (!code && out->payload && decoding->extract_count &&
        (code = extract(decoding, context, out->payload, error))) {
        flue_payload_unref(out->payload);
        out->payload = NULL;
    }
    return code;
}
