/* span_links.h: the parts of the component. Everything on the loop of the batch. */
#ifndef PROCESSORS_SPAN_LINKS_SPAN_LINKS_H
#define PROCESSORS_SPAN_LINKS_SPAN_LINKS_H

#include "collector/component.h"
#include "processors/span_links/seen.h"

struct span_links_config {
    bool keep_labels;
    int64_t window, max_bytes, max_spans;
    struct flue_map service_names;
};

struct span_links {
    const struct span_links_config *config;
    struct seen *seen;
    struct flue_account *account;
    /* profiles: samples given a link, ids in impossible forms */
    struct flue_metric *linked, *impossible;
    /* traces: spans */
    struct flue_metric *marked, *held, *unmarked, *full;
};

/* Profiles. Remembers the spans of links and labels, and gives samples with labels their links;
 * *batch is made writable only for that. On an error it may be NULL. */
enum flue_code span_links_otlp(struct span_links *self, struct flue_batch **batch,
                               struct flue_error *error);
/* *out: the changed payload, or NULL where nothing changes. */
enum flue_code span_links_pprof(struct span_links *self, const struct flue_payload *payload,
                                struct flue_payload **out, struct flue_error *error);

/* Traces: gives the batch on, in one or two parts. */
void span_links_traces(struct flue_stage *stage, struct flue_batch *batch,
                       struct flue_delivery *delivery);

static inline uint64_t seen_now(uint64_t monotonic_ns)
{
    return monotonic_ns / 1000000000u + 1; /* 0 is an empty entry */
}

#endif
