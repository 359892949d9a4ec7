/* Bodies of traces: read, edited, cut, joined, written as JSON; whatever leaves is accepted again.
 */
#include "collector/base/buffer.h"
#include "proto/otlp/otlp.h"
#include "proto/otlp/trace.h"
#include "tests/fuzz/fuzz.h"

static uint32_t spans;

static void part(void *arg, struct flue_payload *payload, const struct flue_counts *counts)
{
    FUZZ_CHECK(flue_otlp_index_of(payload)->profile_count > 0, "a part without spans");
    spans += flue_otlp_index_of(payload)->profile_count;
    flue_payload_unref(payload);
}

static struct flue_payload *again(const struct flue_payload *payload)
{
    struct flue_payload *one = (struct flue_payload *)payload, *out = NULL;
    struct flue_error error = {0};
    enum flue_code code = flue_trace_merge(&one, 1, &fuzz_account, &out, &error);
    FUZZ_CHECK(code == FLUE_OK, error.text);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct flue_attribute mark = {
        FLUE_BYTES("pyroscope.profile.id"),
        {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("0102030405060708")}};
    struct flue_counts total = {9, 9, 9};
    struct flue_trace_report report;
    struct flue_error error = {0};
    struct flue_payload *payload = NULL, *second;
    struct flue_trace_span span;

    fuzz_begin(data, size);
    if (flue_trace_read(fuzz_block(flue_bytes(data, size)), &payload, &report, &error) != FLUE_OK ||
        !payload)
        return fuzz_end();
    uint32_t count = flue_otlp_index_of(payload)->profile_count, chosen = dice(count);
    if (!flue_otlp_profile_removed(payload, chosen)) {
        FUZZ_CHECK(flue_trace_span_add(payload, chosen, &mark, &error) == FLUE_OK, error.text);
        flue_trace_span_read(payload, chosen, mark.key, &span);
        FUZZ_CHECK(span.has_attribute, "an attribute that was set is not there");
    }
    second = again(payload);
    if (second) {
        spans = 0;
        FUZZ_CHECK(flue_trace_split(second, 1 + dice(400), dice(2), &total, &fuzz_account, part,
                                    NULL, &error) == FLUE_OK,
                   error.text);
        FUZZ_CHECK(spans == report.counts.samples, "spans were lost or doubled");
        struct flue_buffer json;
        struct flue_block *body = NULL;
        flue_buffer_init(&json, 16u << 20);
        if (flue_otlp_json_write(second, &json, &error) == FLUE_OK &&
            flue_trace_json_read(flue_buffer_bytes(&json), 64u << 20, &fuzz_account, &body,
                                 &error) == FLUE_OK)
            flue_block_unref(body);
        flue_buffer_destroy(&json);
        flue_payload_unref(second);
    }
    flue_payload_unref(payload);
    return fuzz_end();
}
