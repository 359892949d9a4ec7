/* dictionary_merge.c: several payloads as one; one payload without unused rows. See dictionary.h.
 */
#include "proto/otlp/dictionary.h"
#include "proto/otlp/dictionary_copy.h"

struct merge {
    struct flue_work work;
    struct flue_otlp_tables tables;
    struct flue_out body;
    struct flue_otlp_copy copy;
    struct flue_otlp_map map;
};

static size_t held(const struct merge *merge)
{
    return flue_out_size(&merge->body) + flue_otlp_tables_size(&merge->tables);
}

static bool profile_merge(void *arg, const struct flue_otlp_profile *profile)
{
    struct merge *merge = arg;
    struct flue_otlp_samples samples = flue_otlp_samples(merge->copy.payload, profile->profile);
    struct flue_bytes sample;

    flue_otlp_copy_close(&merge->copy, profile);
    flue_otlp_copy_open(&merge->copy, profile);
    while (!merge->tables.failed && flue_otlp_samples_next(&samples, &sample))
        flue_otlp_copy_sample(&merge->copy, sample);
    flue_work_charge(&merge->work, held(merge));
    return !merge->tables.failed && !merge->body.failed;
}

/* The maps over one source are as large as its tables and of no use for the next: an arena of their
 * own would be reset between sources; the budget counts them together instead. */
static enum flue_code payload_merge(struct merge *merge, const struct flue_payload *payload,
                                    struct flue_error *error)
{
    struct flue_otlp_dictionary dictionary;
    enum flue_code code =
        flue_otlp_dictionary_open(payload, &merge->work.arena, &dictionary, error);

    if (code != FLUE_OK)
        return code == FLUE_NO_MEMORY ? flue_work_failed(&merge->work, error) : code;
    if (!flue_otlp_map_init(&merge->map, &dictionary, &merge->tables, false))
        return flue_work_failed(&merge->work, error);
    flue_otlp_copy_begin(&merge->copy, payload, &merge->map, &merge->body);
    flue_otlp_each_profile(payload, profile_merge, merge);
    flue_otlp_copy_close(&merge->copy, NULL);
    return merge->tables.failed || merge->body.failed ? flue_work_failed(&merge->work, error)
                                                      : FLUE_OK;
}

static enum flue_code merge_all(const struct flue_payload *const *payloads, size_t count,
                                bool intern, struct flue_account *account,
                                struct flue_payload **out, struct flue_error *error)
{
    struct merge merge;
    enum flue_code code = FLUE_OK;
    size_t encoded = 0;

    *out = NULL;
    for (size_t i = 0; i < count; i++)
        encoded += payloads[i]->ops->encoded_size(payloads[i]);
    flue_work_begin(&merge.work, account, encoded);
    flue_otlp_tables_init(&merge.tables, &merge.work, intern, encoded);
    flue_out_init(&merge.body, encoded + encoded / 8 + 256, merge.work.budget);
    if (merge.tables.failed || merge.body.failed)
        code = flue_work_failed(&merge.work, error);
    for (size_t i = 0; i < count && code == FLUE_OK; i++)
        code = payload_merge(&merge, payloads[i], error);
    if (code == FLUE_OK && flue_out_size(&merge.body) > 0)
        code = flue_otlp_copy_finish(&merge.body, &merge.tables, &merge.work, out, error);
    flue_out_destroy(&merge.body);
    flue_otlp_tables_destroy(&merge.tables);
    flue_work_end(&merge.work);
    return code;
}

enum flue_code flue_otlp_merge(struct flue_payload *const *payloads, size_t count,
                               struct flue_account *account, struct flue_payload **out,
                               struct flue_error *error)
{
    return merge_all((const struct flue_payload *const *)payloads, count, true, account, out,
                     error);
}

enum flue_code flue_otlp_prune(const struct flue_payload *payload, struct flue_account *account,
                               struct flue_payload **out, struct flue_error *error)
{
    return merge_all(&payload, 1, false, account, out, error);
}
