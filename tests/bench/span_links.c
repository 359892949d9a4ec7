/* span_links on a profile whose dictionary is most of it: bytes a second, on one core. */
#include <stdio.h>
#include <time.h>
#include "processors/span_links/span_links.h"
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

static struct flue_block *body(void)
{
    struct out d = {0}, row = {0}, any = {0}, p = {0}, s = {0}, r = {0}, q = {0};
    char text[96];
    for (unsigned table = 1; table <= 7; table++)
        out_field(&d, table, "", 0);
    out_text(&d, 5, "span_id"); /* string 1 */
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
        out_text(&any, 1, text);
        out_message(&row, 2, &any);
        out_message(&d, 6, &row);
    }
    for (unsigned i = 0; i < 10000; i++) {
        out_number(&s, 1, 1 + i % (ROWS - 1));
        out_number(&s, 2, 1 + i % IDS);
        out_number(&s, 4, 1);
        out_message(&p, 2, &s);
    }
    out_message(&s, 2, &p);
    out_message(&r, 2, &s);
    out_message(&q, 1, &r);
    out_message(&q, 2, &d);
    return block_of(q.data, q.size);
}

int main(void)
{
    struct flue_block *block = body();
    struct span_links_config config = {.max_spans = 262144, .window = 30000000000};
    struct flue_metrics *metrics = flue_metrics_new("bench");
    struct flue_metric *metric = flue_metric(metrics, FLUE_COUNTER, "linked", "x", NULL);
    struct span_links self = {.config = &config,
                              .seen = seen_get(metrics, &config),
                              .linked = metric,
                              .impossible = metric};
    struct flue_otlp_report report;
    struct flue_payload *payload;
    struct flue_error error = {0};
    double took = 0;
    unsigned rounds = 60;
    size_t size = block->size;

    (void)seen_wanted(self.seen, 262144, 60000000000);
    if (flue_otlp_read(block, &payload, &report, &error) != FLUE_OK) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    for (unsigned i = 0; i < rounds; i++) {
        struct flue_payload *copy = payload->ops->clone(payload, &error);
        double start = seconds();
        bool concerns = span_links_otlp_concerns(&self, copy);
        enum flue_code code = span_links_otlp(&self, copy, &error);
        took += seconds() - start;
        if (!concerns || code != FLUE_OK) {
            fprintf(stderr, "%s\n", error.text);
            return 1;
        }
        flue_payload_unref(copy);
    }
    printf("span_links: %zu bytes, %lld samples linked a round, %.2f GB/s\n", size,
           (long long)(flue_metric_get(metric) / rounds), (double)size * rounds / took / 1e9);
    return 0;
}
