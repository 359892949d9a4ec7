/* OTLP/JSON: what is read is a protobuf body that is judged as any other; what is written is read
 * again to the same counts. Input that begins with '{' is JSON, other is protobuf. */
#include "collector/base/buffer.h"
#include "tests/fuzz/otlp.h"
#include "tests/fuzz/wire.h"

#define JSON_BUDGET ((size_t)16 << 20)

static void write_and_read(const struct flue_payload *payload, const struct flue_counts *counts)
{
    struct flue_error error = {0};
    struct flue_otlp_report report;
    struct flue_block *body = NULL;
    struct flue_payload *again = NULL;
    struct flue_buffer text;

    flue_buffer_init(&text, (size_t)8 << 20);
    enum flue_code code = flue_otlp_json_write(payload, &text, &error);
    FUZZ_CHECK(code == FLUE_OK, error.text);
    FUZZ_CHECK(!text.failed, "the text is over 8 MiB");
    FUZZ_CHECK(flue_utf8_valid(flue_buffer_bytes(&text)), "not UTF-8");
    code = flue_otlp_json_read(flue_buffer_bytes(&text), (size_t)256 << 20, &fuzz_account, &body,
                               &error);
    FUZZ_CHECK(code == FLUE_OK, error.text);
    code = flue_otlp_read(body, &again, &report, &error);
    FUZZ_CHECK(code == FLUE_OK && again, error.text);
    FUZZ_CHECK(report.rejected_profiles == 0, report.rejected_reason);
    FUZZ_CHECK(report.counts.profiles == counts->profiles, "other profiles");
    FUZZ_CHECK(report.counts.samples == counts->samples, "other samples");
    flue_payload_unref(again);
    flue_buffer_destroy(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_error error = {0};
    struct flue_otlp_report report;
    struct flue_block *body = NULL;
    struct flue_payload *payload = NULL;
    enum flue_code code;

    fuzz_begin(data, size);
    if (size && data[0] == '{') {
        code =
            flue_otlp_json_read(flue_bytes(data, size), JSON_BUDGET, &fuzz_account, &body, &error);
        if (code != FLUE_OK) {
            fuzz_refused(code, &error);
            FUZZ_CHECK(!body, "refused, and a body");
            return fuzz_end();
        }
    } else {
        body = fuzz_block(flue_bytes(data, size));
    }
    code = flue_otlp_read(body, &payload, &report, &error);
    if (code != FLUE_OK)
        fuzz_refused(code, &error);
    else if (payload)
        write_and_read(payload, &report.counts);
    flue_payload_unref(payload);
    return fuzz_end();
}
