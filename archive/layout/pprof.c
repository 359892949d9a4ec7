/* pprof.c: see pprof.h. */
#include "archive/layout/pprof.h"
#include <inttypes.h>
#include <openssl/evp.h>
#include <time.h>
#include "archive/layout/key.h"
#include "collector/base/buffer.h"
#include "collector/base/clock.h"
#include "collector/base/codec.h"
#include "proto/convert/convert.h"
#include "proto/pprof/pprof.h"

#define PLAN_BUDGET  (64u << 20)
#define MANIFEST_MAX (1u << 20)

static struct flue_bytes label(const struct flue_pprof_series *series, const char *name,
                               const char *otherwise)
{
    for (size_t i = 0; i < series->label_count; i++)
        if (flue_bytes_is(series->labels[i].name, name) && series->labels[i].value.size)
            return series->labels[i].value;
    return flue_bytes_of(otherwise);
}

/* First 16 digits of the SHA-256 over all labels, each with its length, and the profile's own. */
static bool content_hash(const struct flue_pprof_series *series, const uint8_t profile[32],
                         char out[17])
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t digest[EVP_MAX_MD_SIZE];
    bool ok = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL);

    for (size_t i = 0; ok && i < series->label_count; i++) {
        const struct flue_bytes parts[] = {series->labels[i].name, series->labels[i].value};
        for (unsigned k = 0; ok && k < 2; k++) {
            uint64_t size = parts[k].size;
            ok = EVP_DigestUpdate(context, &size, sizeof size) &&
                 EVP_DigestUpdate(context, parts[k].data, parts[k].size);
        }
    }
    ok = ok && EVP_DigestUpdate(context, profile, 32) && EVP_DigestFinal_ex(context, digest, NULL);
    EVP_MD_CTX_free(context);
    if (ok) {
        flue_hex(flue_bytes(digest, 8), out);
        out[16] = 0;
    }
    return ok;
}

static bool write_manifest(struct flue_pprof_plan *plan, struct flue_pprof_object *object,
                           const struct flue_pprof_series *series,
                           const struct flue_pprof_profile *profile, const struct flue_batch *batch,
                           uint64_t time_ns)
{
    struct flue_buffer json;
    char when[25];
    const char *slash = strrchr(object->key, '/');

    flue_buffer_init(&json, MANIFEST_MAX);
    flue_buffer_text(&json, "{\"object\":");
    flue_buffer_byte(&json, '"');
    flue_buffer_text(&json, slash ? slash + 1 : object->key);
    flue_buffer_text(&json, ".pb.gz\",\"time\":");
    flue_format_time(time_ns, when);
    flue_buffer_printf(&json, "\"%s\",\"time_unix_nano\":\"%" PRIu64 "\"", when, time_ns);
    flue_buffer_printf(&json, ",\"duration_nano\":\"%" PRId64 "\"", profile->facts.duration_nanos);
    flue_buffer_printf(&json, ",\"samples\":%" PRIu64, profile->facts.samples);
    flue_buffer_printf(&json, ",\"size\":%zu", profile->facts.inflated_size);
    flue_buffer_text(&json, ",\"tenant\":");
    flue_buffer_json(&json, batch->origin->tenant);
    flue_buffer_text(&json, ",\"receiver\":");
    flue_buffer_json(&json, batch->origin->receiver);
    flue_format_time(batch->origin->received_ns, when);
    flue_buffer_printf(&json, ",\"received\":\"%s\",\"labels\":{", when);
    for (size_t i = 0; i < series->label_count; i++) {
        if (i)
            flue_buffer_byte(&json, ',');
        flue_buffer_json(&json, series->labels[i].name);
        flue_buffer_byte(&json, ':');
        flue_buffer_json(&json, series->labels[i].value);
    }
    flue_buffer_text(&json, "}}\n");
    if (!json.failed) {
        struct flue_bytes copy = flue_arena_copy(&plan->arena, flue_buffer_bytes(&json));
        object->manifest = (char *)(uintptr_t)copy.data;
        object->manifest_size = copy.size;
    }
    flue_buffer_destroy(&json);
    return object->manifest != NULL;
}

static enum flue_code plan_profile(struct flue_pprof_plan *plan, const struct flue_batch *batch,
                                   const struct flue_pprof_series *series,
                                   const struct flue_pprof_profile *profile,
                                   struct flue_error *error)
{
    char tenant[FLUE_KEY_ELEMENT_ROOM], service[FLUE_KEY_ELEMENT_ROOM];
    char type[FLUE_KEY_ELEMENT_ROOM], hash[17];
    struct flue_pprof_object object = {.pprof = profile->bytes, .gzip = profile->facts.gzip};
    uint64_t time_ns =
        flue_key_time((uint64_t)profile->facts.time_nanos, batch->origin->received_ns);
    time_t seconds = (time_t)(time_ns / 1000000000u);
    struct tm utc;

    flue_key_element(
        batch->origin->tenant.size ? batch->origin->tenant : FLUE_BYTES(FLUE_TENANT_NONE), tenant);
    flue_key_element(label(series, "service_name", FLUE_SERVICE_NONE), service);
    flue_key_element(label(series, "__name__", "profile"), type);
    if (!gmtime_r(&seconds, &utc) ||
        !EVP_Digest(profile->bytes.data, profile->bytes.size, object.sha256, NULL, EVP_sha256(),
                    NULL) ||
        !content_hash(series, object.sha256, hash))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to name an archive object");
    object.key = flue_arena_printf(
        &plan->arena, "%s/%s/%s/dt=%04d-%02d-%02d/hour=%02d/%019" PRIu64 "-%s", tenant, service,
        type, utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, time_ns, hash);
    if (!object.key || !write_manifest(plan, &object, series, profile, batch, time_ns) ||
        !FLUE_ARENA_PUSH(&plan->arena, plan->objects, plan->count, plan->room, object))
        return flue_fail(error, FLUE_NO_MEMORY, "the names of one batch take more than %u bytes",
                         PLAN_BUDGET);
    return FLUE_OK;
}

enum flue_code flue_pprof_plan_open(const struct flue_batch *batch, struct flue_pprof_plan *plan,
                                    struct flue_error *error)
{
    memset(plan, 0, sizeof *plan);
    flue_arena_init(&plan->arena, PLAN_BUDGET, 0);
    return flue_convert(batch->payload, FLUE_FORM_PPROF, batch->account, &plan->payload, error);
}

enum flue_code flue_pprof_plan_name(const struct flue_batch *batch, struct flue_pprof_plan *plan,
                                    struct flue_error *error)
{
    for (size_t i = 0; i < flue_pprof_series_count(plan->payload); i++) {
        const struct flue_pprof_series *series = flue_pprof_series_at(plan->payload, i);
        for (size_t k = 0; series && k < series->profile_count; k++) {
            enum flue_code code = plan_profile(plan, batch, series, &series->profiles[k], error);
            if (code)
                return code;
        }
    }
    return FLUE_OK;
}

void flue_pprof_plan_destroy(struct flue_pprof_plan *plan)
{
    flue_payload_unref(plan->payload);
    flue_arena_destroy(&plan->arena);
    memset(plan, 0, sizeof *plan);
}

enum flue_code flue_pprof_object_content(const struct flue_pprof_object *object,
                                         struct flue_bytes *content, struct flue_block **packed,
                                         struct flue_error *error)
{
    struct flue_bytes raw = object->pprof;
    struct flue_slices one = {.items = &raw, .count = 1, .room = 1, .total = raw.size};
    enum flue_code code = FLUE_OK;

    *packed = NULL;
    *content = raw;
    if (!object->gzip &&
        (code = flue_deflate(FLUE_GZIP, FLUE_LEVEL_DEFAULT, &one, packed, error)) == FLUE_OK)
        *content = flue_block_bytes(*packed);
    return code;
}
