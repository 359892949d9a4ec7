/* convert.c: a payload in the form asked for. See convert.h. */
#include "proto/convert/convert.h"

#include "proto/convert/from_pprof.h"
#include "proto/otlp/dictionary.h"
#include "proto/pprof/names.h"

#define MOST_LABELS 120 /* of a series; a few less than the payload takes */

struct to_series {
    const struct flue_payload *payload;
    struct flue_account *account;
    struct flue_pprof_builder *builder;
    struct flue_arena arena;
    bool failed;
    /* The series that is open: another resource, scope or name begins the next. */
    size_t resource;
    struct flue_bytes name, scope_name, scope_version;
    bool open;
    size_t labels;
};

static void label(struct to_series *to, struct flue_bytes name, struct flue_bytes value)
{
    if (value.size == 0 || to->labels >= MOST_LABELS)
        return;
    to->labels++;
    to->failed = to->failed || !flue_pprof_builder_label(to->builder, name, value);
}

static bool resource_label(void *arg, const struct flue_attribute *attribute)
{
    struct to_series *to = arg;
    struct flue_bytes name = flue_attribute_label(attribute->key, &to->arena);
    struct flue_bytes text = flue_label_text(&attribute->value, &to->arena);

    if (name.size && text.data && !flue_label_is_identity(name))
        label(to, name, text);
    return !to->failed;
}

static void series_begin(struct to_series *to, const struct flue_to_pprof_result *result)
{
    to->open = true;
    to->resource = result->resource;
    to->name = result->name;
    to->scope_name = result->scope_name;
    to->scope_version = result->scope_version;
    to->labels = 0;
    to->failed = to->failed || !flue_pprof_builder_series(to->builder);
    label(to, FLUE_BYTES("__name__"), result->name);
    for (size_t i = 0; i < result->identity_count; i++)
        label(to, result->identity[i].name, result->identity[i].value);
    to->payload->ops->attribute_each(to->payload, result->resource, resource_label, to);
    label(to, flue_attribute_label(FLUE_BYTES("otel.scope.name"), &to->arena), result->scope_name);
    label(to, flue_attribute_label(FLUE_BYTES("otel.scope.version"), &to->arena),
          result->scope_version);
}

static bool same_series(const struct to_series *to, const struct flue_to_pprof_result *result)
{
    return to->open && to->resource == result->resource &&
           flue_bytes_equal(to->name, result->name) && result->identity_count == 0 &&
           flue_bytes_equal(to->scope_name, result->scope_name) &&
           flue_bytes_equal(to->scope_version, result->scope_version);
}

static void uuid(struct flue_bytes id, char out[36])
{
    char hex[32];
    size_t n = 0;

    flue_hex(id, hex);
    for (size_t i = 0; i < sizeof hex; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            out[n++] = '-';
        out[n++] = hex[i];
    }
}

static void profile_add(void *arg, const struct flue_to_pprof_result *result)
{
    struct to_series *to = arg;
    struct flue_pprof_profile profile = {.facts = result->facts};
    struct flue_block *block;
    char id[36];

    if (to->failed)
        return;
    if (!same_series(to, result))
        series_begin(to, result);
    block = flue_block_copy(NULL, result->pprof);
    if (!block) {
        to->failed = true;
        return;
    }
    if (to->account)
        flue_block_recharge(block, to->account);
    profile.bytes = flue_block_bytes(block);
    if (result->profile_id.size == 16) {
        uuid(result->profile_id, id);
        profile.id = flue_bytes(id, sizeof id);
    }
    to->failed = !flue_pprof_builder_keep(to->builder, block) ||
                 !flue_pprof_builder_profile(to->builder, &profile) || to->failed;
    flue_block_unref(block);
}

static enum flue_code otlp_to_series(const struct flue_payload *payload,
                                     struct flue_account *account, struct flue_payload **out,
                                     struct flue_error *error)
{
    struct to_series to = {
        .payload = payload, .account = account, .builder = flue_pprof_builder_new(account)};
    struct flue_counts counts;
    enum flue_code code;

    *out = NULL;
    if (!to.builder)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the series of a payload");
    flue_arena_init(
        &to.arena,
        payload->ops->encoded_size(payload) * FLUE_OTLP_WORK_FACTOR + FLUE_OTLP_WORK_FLOOR, 0);
    code = flue_otlp_to_pprof(payload, NULL, &to.arena, profile_add, &to, error);
    if (code == FLUE_OK && !to.open)
        code = flue_fail(error, FLUE_INVALID, "the payload holds no profile");
    if (code == FLUE_OK) {
        code = flue_pprof_builder_finish(to.builder, out, &counts, error);
        if (code == FLUE_OK && to.failed) { /* the builder knows why, unless memory was all */
            flue_payload_unref(*out);
            *out = NULL;
            code = flue_fail(error, FLUE_NO_MEMORY, "no memory for the series of a payload");
        }
    } else {
        flue_pprof_builder_discard(to.builder);
    }
    flue_arena_destroy(&to.arena);
    return code;
}

enum flue_code flue_convert(struct flue_payload *payload, enum flue_form form,
                            struct flue_account *account, struct flue_payload **out,
                            struct flue_error *error)
{
    enum flue_code code;

    *out = NULL;
    if (payload->ops->form == form) {
        *out = flue_payload_ref(payload);
        return FLUE_OK;
    }
    if (payload->signal != FLUE_PROFILES)
        return flue_fail(error, FLUE_INTERNAL, "only profiles have another form");
    if (!payload->other_form) {
        code = form == FLUE_FORM_PPROF
                   ? otlp_to_series(payload, account, &payload->other_form, error)
                   : flue_pprof_to_otlp(payload, account, &payload->other_form, error);
        if (code != FLUE_OK)
            return code;
    }
    *out = flue_payload_ref(payload->other_form);
    return FLUE_OK;
}
