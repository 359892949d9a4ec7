/* span_links on a profile whose dictionary is most of it: bytes a second, on one core. As OTLP with
 * 2,000 ids as text and as numbers, and without any; as pprof, raw, with numbers. */
#include <stdio.h>
#include <time.h>
#include "processors/span_links/span_links.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"
#include "tests/unit/proto/otlp/bodies.h"

#define ROWS 60000u
#define IDS  2000u

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* `key`: NULL for no label of a span. */
static struct flue_block *body(const char *key, bool text_values)
{
    struct out d = {0}, row = {0}, any = {0}, p = {0}, s = {0}, r = {0}, q = {0};
    char text[96];
    for (unsigned table = 1; table <= 7; table++)
        out_field(&d, table, "", 0);
    out_text(&d, 5, key ? key : "thread.id"); /* string 1 */
    for (unsigned i = 1; i < ROWS; i++) {
        snprintf(text, sizeof text, "media::encoder::lookahead::Frame<%u>::analyse(int, int)", i);
        out_text(&d, 5, text);
        out_number(&row, 1, i + 1);
        out_message(&d, 3, &row);
        out_number(&row, 2, 0x400000 + i * 16);
        out_number(&any, 1, i);
        out_message(&row, 3, &any);
        out_message(&d, 2, &row);
        out_number(&row, 1, i);
        out_message(&d, 7, &row);
    }
    for (unsigned i = 1; i <= IDS; i++) {
        snprintf(text, sizeof text, "%016x", i);
        out_number(&row, 1, 1);
        if (text_values)
            out_text(&any, 1, text);
        else
            out_number(&any, 3, i);
        out_message(&row, 2, &any);
        out_message(&d, 6, &row);
    }
    for (unsigned i = 0; i < 10000; i++) {
        out_number(&s, 1, 1 + i % (ROWS - 1));
        out_number(&s, 2, 1 + i % IDS);
        out_number(&s, 4, 1);
        out_message(&p, 2, &s);
    }
    out_number(&any, 1, 1);
    out_number(&any, 2, 1);
    out_message(&p, 1, &any);
    out_message(&s, 2, &p);
    out_message(&r, 2, &s);
    out_message(&q, 1, &r);
    out_message(&q, 2, &d);
    return block_of(q.data, q.size);
}

static void fail(const struct flue_error *error)
{
    fprintf(stderr, "%s\n", error->text);
    exit(1);
}

static struct flue_payload *payload_of(const char *key, bool text_values, enum flue_form form)
{
    struct flue_payload *payload, *other;
    struct flue_otlp_report report;
    struct flue_error error = {0};

    if (flue_otlp_read(body(key, text_values), &payload, &report, &error) != FLUE_OK)
        fail(&error);
    if (form == FLUE_FORM_OTLP)
        return payload;
    if (flue_convert(payload, form, NULL, &other, &error) != FLUE_OK)
        fail(&error);
    flue_payload_unref(payload);
    return other;
}

static void once(struct span_links *self, struct flue_batch **batch)
{
    struct flue_payload *changed = NULL;
    struct flue_error error = {0};
    enum flue_code code = (*batch)->payload->ops->form == FLUE_FORM_OTLP
                              ? span_links_otlp(self, batch, &error)
                              : span_links_pprof(self, (*batch)->payload, &changed, &error);

    if (code != FLUE_OK)
        fail(&error);
    flue_payload_unref(changed);
}

static void measure(struct span_links *self, const char *name, struct flue_payload *payload)
{
    int64_t before = flue_metric_get(self->linked);
    size_t size = payload->ops->encoded_size(payload);
    struct flue_error error = {0};
    double took = 0;
    unsigned rounds = 60;

    for (unsigned i = 0; i < rounds; i++) {
        struct flue_payload *copy = payload->ops->clone(payload, &error);
        struct flue_batch *batch = flue_batch_new(copy, NULL, (struct flue_counts){0}, NULL);
        double start = seconds();
        once(self, &batch);
        took += seconds() - start;
        flue_batch_unref(batch);
    }
    printf("span_links, %s: %zu bytes, %lld samples linked a round, %.2f GB/s\n", name, size,
           (long long)((flue_metric_get(self->linked) - before) / rounds),
           (double)size * rounds / took / 1e9);
    flue_payload_unref(payload);
}

int main(void)
{
    struct span_links_config config = {.max_spans = 262144, .window = 30000000000};
    struct flue_metrics *metrics = flue_metrics_new("bench");
    struct flue_metric *metric = flue_metric(metrics, FLUE_COUNTER, "linked", "x", NULL);
    struct span_links self = {.config = &config,
                              .seen = seen_get(metrics, &config),
                              .linked = metric,
                              .impossible = metric};

    (void)seen_wanted(self.seen, 262144, 60000000000);
    measure(&self, "otlp, span_id", payload_of("span_id", true, FLUE_FORM_OTLP));
    measure(&self, "otlp, numbers", payload_of("span id", false, FLUE_FORM_OTLP));
    measure(&self, "otlp, none", payload_of(NULL, false, FLUE_FORM_OTLP));
    measure(&self, "pprof, numbers", payload_of("span id", false, FLUE_FORM_PPROF));
    measure(&self, "pprof, none", payload_of(NULL, false, FLUE_FORM_PPROF));
    return 0;
}
