/* /ingest of Pyroscope and the attributes of pushed profiles: the first line of the input is the
 * query's text (name, times, tenant, spy), the rest the profile or folded stacks. */
#include "collector/net/request_origin.h"
#include "proto/foreign/folded.h"
#include "receivers/pprof/attributes.h"
#include "receivers/pyroscope/profile.h"
#include "receivers/pyroscope/trusted.h"
#include "tests/fuzz/pprof.h"

static const char *const spies[] = {"gospy", "pyspy", "rbspy", "scripting", "dotnetspy", ""};

static void check_payload(struct flue_ingest_result *result)
{
    if (!result->payload)
        return;
    FUZZ_CHECK(result->counts.profiles == 1, "one request is one profile");
    fuzz_pprof_facts(result->payload);
    fuzz_pprof_leaves(result->payload, false, &result->counts);
    flue_payload_unref(result->payload);
}

static void profile(const struct flue_ingest *ingest, struct flue_bytes body)
{
    struct flue_ingest_result result = {0};
    struct flue_error error = {0};
    struct flue_block *holder = fuzz_block(body);
    struct flue_bytes config = {0};
    enum flue_code code;

    if (dice(4) == 0)
        config = FLUE_BYTES("{\"cpu\":{\"units\":\"nanoseconds\",\"display-name\":\"x\"}}");
    code = flue_ingest_profile(ingest, flue_block_bytes(holder), config, holder, &result, &error);
    flue_block_unref(holder);
    if (code == FLUE_OK)
        check_payload(&result);
    else
        fuzz_refused(code, &error);
}

static void folded(const struct flue_ingest *ingest, struct flue_bytes body)
{
    struct flue_ingest_result result = {0};
    struct flue_error error = {0};
    enum flue_code code = flue_ingest_folded(
        ingest, body, dice(2) ? FLUE_FOLDED_GROUPS : FLUE_FOLDED_LINES, &result, &error);
    if (code == FLUE_OK)
        check_payload(&result);
    else
        fuzz_refused(code, &error);
}

static void attributes(struct flue_bytes query)
{
    static const struct flue_map_entry entry = {"x-service", "service.name"};
    const struct flue_map headers = {&entry, 1};
    const struct flue_header given = {FLUE_BYTES("x-service"), flue_bytes_first(query, 20)};
    static struct flue_pprof_attributes out;
    struct flue_error error = {0};
    struct flue_arena arena;

    flue_arena_init(&arena, 1u << 20, 0);
    enum flue_code code =
        flue_pprof_attributes_read(query, &headers, &given, 1, &arena, &out, &error);
    if (code != FLUE_OK)
        fuzz_refused(code, &error);
    for (size_t i = 0; code == FLUE_OK && i < out.count; i++)
        FUZZ_CHECK(flue_utf8_valid(out.items[i].name) && flue_utf8_valid(out.items[i].value),
                   "an attribute that is not UTF-8");
    flue_arena_destroy(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_bytes in = flue_bytes(data, size);
    static struct flue_ingest ingest;
    struct flue_error error = {0};
    const char *format = NULL;
    char text[200];

    fuzz_begin(data, size);
    size_t line = flue_bytes_find(in, '\n');
    struct flue_bytes query = flue_bytes_first(in, line);
    struct flue_bytes body = line == SIZE_MAX ? flue_bytes(data, 0) : flue_bytes_from(in, line + 1);

    attributes(query);
    if (flue_tenant_check(query, &error) != FLUE_OK)
        FUZZ_CHECK(error.code == FLUE_INVALID, error.text);
    (void)flue_ingest_format(query, body, body, &format);
    struct flue_trusted_net net;
    bool unix_socket;
    snprintf(text, sizeof text, "%.*s", (int)(query.size < 150 ? query.size : 150),
             query.size ? (const char *)query.data : "");
    (void)flue_trusted_parse(text, &net, &unix_socket);
    (void)flue_peer_address(text);

    ingest = (struct flue_ingest){.from_ns = flue_ingest_time(query, 1700000000000000000),
                                  .until_ns = 1700000010000000000,
                                  .sample_rate = dice(3) * 100,
                                  .spy = flue_bytes_of(spies[dice(6)]),
                                  .limits = fuzz_limits,
                                  .account = &fuzz_account};
    enum flue_code code = flue_ingest_name(query, &ingest.name, &error);
    if (code != FLUE_OK) {
        fuzz_refused(code, &error);
        if (flue_ingest_name(FLUE_BYTES("app.cpu{region=eu}"), &ingest.name, &error) != FLUE_OK)
            abort();
    }
    profile(&ingest, body);
    folded(&ingest, body);
    return fuzz_end();
}
