/* read.c: a body becomes a payload: the fast walk, and what is done when it does not vouch. */
#include <stdlib.h>
#include "proto/otlp/check.h"
#include "proto/otlp/judge.h"
#include "proto/otlp/layout.h"
#include "proto/otlp/otlp.h"
#include "proto/otlp/payload.h"
#include "proto/otlp/repair.h"

/* design.md, "Limits by default": decoded size 8 times the wire with a floor of 1 MiB. */
#define INDEX_FACTOR 8
#define INDEX_FLOOR  (1u << 20)

struct reading {
    struct flue_block *body;
    struct flue_otlp_index *index;
    uint32_t alarms;
    struct flue_otlp_verdict verdict;
    struct flue_otlp_report *report;
    struct flue_error *error;
};

static void check(struct reading *r)
{
    size_t limit = r->body->size * INDEX_FACTOR;
    flue_otlp_index_clear(r->index);
    r->alarms = flue_otlp_check(flue_block_bytes(r->body),
                                limit < INDEX_FLOOR ? INDEX_FLOOR : limit, r->index);
}

static enum flue_code stopped(struct reading *r)
{
    if (r->alarms & FLUE_OTLP_INDEX_SIZE)
        return flue_fail(r->error, FLUE_TOO_LARGE,
                         "the request of %zu bytes has so many resources, scopes or profiles that "
                         "its index would take over %d times its size",
                         r->body->size, INDEX_FACTOR);
    if (r->alarms & FLUE_OTLP_CROWDED)
        return flue_fail(r->error, FLUE_TOO_LARGE,
                         "a Resource or Scope with over %d attributes, the limit",
                         FLUE_OTLP_MAX_ATTRIBUTES);
    if (r->alarms & FLUE_OTLP_MEMORY)
        return flue_fail(r->error, FLUE_NO_MEMORY, "out of memory for the index of a request");
    return FLUE_OK;
}

/* An older layout is found out and made today's. */
static enum flue_code settle_layout(struct reading *r)
{
    enum flue_code code = flue_otlp_layout(flue_block_bytes(r->body), &r->report->layout, r->error);
    if (code != FLUE_OK || r->report->layout == FLUE_OTLP_1_10)
        return code;
    code = flue_otlp_to_1_10(&r->body, r->report->layout, r->error);
    if (code == FLUE_OK)
        check(r);
    return code;
}

#define DOUBTS                                                                                     \
    (FLUE_OTLP_BROKEN | FLUE_OTLP_RANGE | FLUE_OTLP_SHAPE | FLUE_OTLP_DEPTH | FLUE_OTLP_ODD)
#define REPAIRS (FLUE_OTLP_UTF8 | FLUE_OTLP_REFERENCE | FLUE_OTLP_ODD)

static enum flue_code judge(struct reading *r)
{
    enum flue_code code;
    flue_otlp_verdict_clear(&r->verdict);
    code = flue_otlp_judge(flue_block_bytes(r->body), &r->verdict, r->error);
    if (code != FLUE_OK || r->report->rejected_profiles)
        return code;
    r->report->rejected_profiles = r->verdict.bad_count;
    r->report->rejected_samples = r->verdict.bad_samples;
    memcpy(r->report->rejected_reason, r->verdict.reason, sizeof r->verdict.reason);
    if (r->verdict.bad_count && r->verdict.bad_count == r->verdict.profiles)
        return flue_fail(r->error, FLUE_INVALID, "%s", r->verdict.reason);
    return FLUE_OK;
}

static bool any_bad_row(const struct flue_otlp_verdict *verdict)
{
    for (unsigned t = 1; t < FLUE_OTLP_TABLES; t++)
        if (verdict->bad_rows[t])
            return true;
    return false;
}

/* Everything that the fast walk did not take as it is. */
static enum flue_code settle(struct reading *r)
{
    enum flue_code code;
    bool judged = false;

    if (r->alarms & DOUBTS) {
        code = settle_layout(r);
        if (code != FLUE_OK || (code = stopped(r)) != FLUE_OK)
            return code;
    }
    if (r->alarms & (FLUE_OTLP_TWICE | FLUE_OTLP_BROKEN)) {
        code = flue_otlp_join(&r->body, r->error);
        if (code != FLUE_OK)
            return code;
        check(r);
    }
    if (r->alarms & DOUBTS) {
        code = judge(r);
        if (code != FLUE_OK)
            return code;
        judged = true;
    }
    if (r->alarms & REPAIRS || (judged && (r->verdict.bad_count || any_bad_row(&r->verdict)))) {
        code = flue_otlp_repair(&r->body, judged ? &r->verdict : NULL, r->alarms & FLUE_OTLP_ODD,
                                &r->report->repaired_strings, r->error);
        if (code != FLUE_OK)
            return code;
        check(r);
    }
    /* What is left are encodings that only look too large. Anything else would be our own fault:
     * the exact judge has the last word. */
    if (r->alarms && (!judged || r->alarms & ~(uint32_t)FLUE_OTLP_RANGE)) {
        code = stopped(r);
        if (code == FLUE_OK)
            code = judge(r);
        if (code != FLUE_OK)
            return code;
        if (r->verdict.bad_count || r->alarms & ~(uint32_t)FLUE_OTLP_RANGE)
            return flue_fail(r->error, FLUE_INVALID,
                             "the request could not be put in order (checks %#x); please report it",
                             r->alarms);
    }
    return FLUE_OK;
}

static enum flue_code make(struct reading *r, struct flue_payload **out)
{
    struct flue_account *account = r->body->account;

    if (account && !flue_account_charge(account, r->index->bytes))
        return flue_fail(r->error, FLUE_OVERLOADED,
                         "no memory left for the index (%zu bytes) of a request", r->index->bytes);
    atomic_init(&r->index->refs, 1);
    r->index->account = account;
    *out = flue_otlp_payload_new(r->index);
    if (!*out) {
        if (account)
            flue_account_release(account, r->index->bytes);
        return flue_fail(r->error, FLUE_NO_MEMORY, "out of memory for a request");
    }
    r->index->body = r->body;
    r->body = NULL;
    r->index = NULL;
    return FLUE_OK;
}

enum flue_code flue_otlp_read(struct flue_block *body, struct flue_payload **out,
                              struct flue_otlp_report *report, struct flue_error *error)
{
    struct reading r = {.body = body, .report = report, .error = error};
    enum flue_code code;

    *out = NULL;
    memset(report, 0, sizeof *report);
    report->layout = FLUE_OTLP_1_10;
    report->counts.bytes = body->size;
    r.index = calloc(1, sizeof *r.index);
    if (!r.index) {
        flue_block_unref(body);
        return flue_fail(error, FLUE_NO_MEMORY, "out of memory for the index of a request");
    }
    if (body->size > INT32_MAX) {
        code = flue_fail(error, FLUE_TOO_LARGE, "a request of %zu bytes, limit %d", body->size,
                         INT32_MAX);
    } else {
        check(&r);
        code = stopped(&r);
        if (code == FLUE_OK && r.alarms)
            code = settle(&r);
    }
    if (code == FLUE_OK) {
        report->counts.profiles = r.index->profile_count;
        report->counts.samples = r.index->samples;
        if (r.index->profile_count)
            code = make(&r, out);
    }
    flue_otlp_verdict_clear(&r.verdict);
    if (r.index)
        flue_otlp_index_clear(r.index);
    free(r.index);
    flue_block_unref(r.body);
    return code;
}
