/* rewrite.c: see rewrite.h. */
#include "proto/pprof/rewrite.h"

#include "proto/pprof/series.h"

static enum flue_code put_series(const struct flue_pprof_payload *from, size_t i,
                                 struct flue_pprof_builder *builder, flue_pprof_rewriter rewriter,
                                 void *arg, struct flue_error *error)
{
    const struct flue_pprof_series *series = &from->series[i].series;
    (void)flue_pprof_builder_series(builder); /* finish says what failed */
    for (size_t j = 0; j < series->label_count; j++)
        (void)flue_pprof_builder_label(builder, series->labels[j].name, series->labels[j].value);
    for (size_t j = 0; j < series->profile_count; j++) {
        struct flue_pprof_profile profile = series->profiles[j];
        struct flue_block *block = NULL;
        enum flue_code code = rewriter(arg, i, &profile, &block, error);
        if (code != FLUE_OK)
            return code;
        if (block) {
            (void)flue_pprof_builder_keep(builder, block);
            flue_block_unref(block); /* the builder has its own, or fails */
        }
        (void)flue_pprof_builder_profile(builder, &profile);
    }
    return FLUE_OK;
}

/* Which attribute a label was made from is not known from its name. */
static enum flue_code keep_keys(const struct flue_pprof_payload *from,
                                struct flue_pprof_payload *to, struct flue_error *error)
{
    for (size_t i = 0; i < to->core->count && i < from->core->count; i++) {
        size_t count = to->series[i].series.label_count;
        struct flue_bytes *keys = flue_arena_zalloc(&to->core->arena, count + 1, sizeof *keys);
        for (size_t j = 0; keys && j < count; j++) {
            keys[j] = flue_arena_copy(&to->core->arena, from->series[i].keys[j]);
            if (!keys[j].data)
                keys = NULL;
        }
        if (!keys)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for the labels of %zu series",
                             to->core->count);
        to->core->series[i].keys = to->series[i].keys = keys;
    }
    return FLUE_OK;
}

enum flue_code flue_pprof_rewrite(const struct flue_payload *payload, struct flue_account *account,
                                  flue_pprof_rewriter rewriter, void *arg,
                                  struct flue_payload **out, struct flue_error *error)
{
    const struct flue_pprof_payload *from = flue_pprof_of(payload);
    struct flue_pprof_builder *builder = flue_pprof_builder_new(account);
    enum flue_code code = FLUE_OK;
    if (!builder)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a payload");
    for (size_t i = 0; i < from->core->block_count; i++)
        (void)flue_pprof_builder_keep(builder, from->core->blocks[i]);
    for (size_t i = 0; i < from->core->count && code == FLUE_OK; i++)
        code = put_series(from, i, builder, rewriter, arg, error);
    if (code != FLUE_OK) {
        flue_pprof_builder_discard(builder);
        return code;
    }
    code = flue_pprof_builder_finish(builder, out, NULL, error);
    if (code != FLUE_OK)
        return code;
    code = keep_keys(from, (struct flue_pprof_payload *)*out, error);
    if (code != FLUE_OK) {
        flue_payload_unref(*out);
        *out = NULL;
    }
    return code;
}
