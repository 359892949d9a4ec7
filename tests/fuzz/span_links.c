/* span_links on OTLP and on pprof: whatever was accepted comes out with as many samples and is
 * accepted again; a second time there is nothing to do. */
#include "collector/pipeline/batch.h"
#include "processors/span_links/span_links.h"
#include "tests/fuzz/otlp.h"
#include "tests/fuzz/pprof.h"

static struct span_links self;
static struct span_links_config config;

static void begin(void)
{
    if (self.config)
        return;
    struct flue_metrics *metrics = flue_metrics_new("fuzz");
    FUZZ_CHECK(metrics, "memory");
    self.linked = flue_metric(metrics, FLUE_COUNTER, "linked", "x", NULL);
    self.impossible = flue_metric(metrics, FLUE_COUNTER, "impossible", "x", NULL);
    self.seen = seen_get(metrics, &config);
    FUZZ_CHECK(self.seen && seen_wanted(self.seen, 1024, 1000000000), "memory");
    self.config = &config;
    self.account = &fuzz_account;
}

static void through_otlp(struct flue_payload *payload)
{
    struct flue_counts counts = fuzz_counts(payload);
    struct flue_batch *batch = flue_batch_new(payload, NULL, counts, &fuzz_account);
    struct flue_error error = {0};
    enum flue_code code;

    FUZZ_CHECK(batch, "memory");
    code = span_links_otlp(&self, &batch, &error);
    if (code == FLUE_OK) {
        struct flue_counts after = fuzz_counts(batch->payload);
        int64_t linked = flue_metric_get(self.linked);
        FUZZ_CHECK(after.samples == counts.samples && after.profiles == counts.profiles,
                   "samples were lost or made");
        fuzz_otlp_leaves(batch->payload, &counts);
        code = span_links_otlp(&self, &batch, &error);
        FUZZ_CHECK(code != FLUE_OK || flue_metric_get(self.linked) == linked, "linked twice");
    }
    FUZZ_CHECK(code == FLUE_OK || code == FLUE_NO_MEMORY || code == FLUE_TOO_LARGE, error.text);
    flue_batch_unref(batch);
}

static void through_pprof(struct flue_bytes in)
{
    struct flue_pprof_profile profile = {0};
    struct flue_payload *payload = NULL, *changed = NULL, *again = NULL;
    struct flue_counts counts;
    struct flue_error error = {0};

    if (flue_pprof_check(in, &fuzz_limits, &profile.facts, &error) != FLUE_OK ||
        profile.facts.invalid_utf8)
        return;
    struct flue_block *block = fuzz_block(in);
    struct flue_pprof_builder *builder = flue_pprof_builder_new(&fuzz_account);
    FUZZ_CHECK(builder, "memory");
    profile.bytes = flue_block_bytes(block);
    flue_pprof_builder_keep(builder, block);
    for (unsigned i = 0; i < 2; i++) {
        flue_pprof_builder_series(builder);
        flue_pprof_builder_label(builder, FLUE_BYTES("__name__"), FLUE_BYTES("process_cpu"));
        flue_pprof_builder_profile(builder, &profile);
    }
    FUZZ_CHECK(flue_pprof_builder_finish(builder, &payload, &counts, &error) == FLUE_OK,
               error.text);
    flue_block_unref(block);
    enum flue_code code = span_links_pprof(&self, payload, &changed, &error);
    FUZZ_CHECK(code == FLUE_OK || code == FLUE_NO_MEMORY || code == FLUE_TOO_LARGE, error.text);
    if (changed) {
        fuzz_pprof_facts(changed);
        code = span_links_pprof(&self, changed, &again, &error);
        FUZZ_CHECK(code != FLUE_OK || (again != NULL) == config.keep_labels, "changed twice");
        flue_payload_unref(again);
    }
    flue_payload_unref(changed);
    flue_payload_unref(payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_otlp_report report;
    struct flue_payload *payload = NULL;
    struct flue_error error = {0};

    fuzz_begin(data, size);
    begin();
    if (flue_otlp_read(fuzz_block(flue_bytes(data, size)), &payload, &report, &error) == FLUE_OK &&
        payload)
        through_otlp(payload);
    through_pprof(flue_bytes(data, size));
    return fuzz_end();
}
