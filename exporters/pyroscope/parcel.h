/* parcel.h: one item of the queue as the profiles that will be pushed.
 *
 * Made before the first attempt and kept over all of them: labels and times never change once an
 * attempt was made, so that the store can fold what a retry sends twice. Each part is one profile,
 * one Push: a failure of one says nothing of the others, and only what is not yet decided is sent
 * again.
 */
#ifndef EXPORTERS_PYROSCOPE_PARCEL_H
#define EXPORTERS_PYROSCOPE_PARCEL_H

#include "collector/base/codec.h"
#include "collector/net/client.h"
#include "collector/pipeline/exporter.h"
#include "exporters/pyroscope/labels.h"
#include "exporters/pyroscope/moments.h"

enum flue_parcel_status {
    FLUE_PART_OPEN,    /* to be sent in this attempt */
    FLUE_PART_SENDING, /* being compressed or on the wire */
    FLUE_PART_AGAIN,   /* failed in this attempt, to be sent in the next */
    FLUE_PART_SENT,
    FLUE_PART_REFUSED
};

struct flue_parcel_part {
    struct flue_parcel *parcel;
    enum flue_parcel_status status;
    struct flue_series_labels labels;
    struct flue_bytes profile; /* raw or gzip; in the payload, the parcel's arena, or `own` */
    bool gzip;
    bool unseen;            /* from a trusted hop, not looked into: goes out as it is */
    struct flue_block *own; /* rewritten, merged or compressed */
    int64_t time_nanos;
    uint64_t series;           /* flue_labels_hash */
    struct flue_counts counts; /* share of the parcel's */
    struct flue_bytes id;
    struct flue_parcel_part *merge_next; /* while parts of equal labels and time are gathered */
    struct flue_slices body;             /* of the request, once it was made */
    void *push;                          /* of the exporter, while SENDING */
};

struct flue_parcel {
    struct flue_send *send;   /* of the attempt */
    struct flue_parcel *next; /* of the sender's list of items with open parts */
    struct flue_arena arena;
    struct flue_account *account;
    size_t charged;
    struct flue_bytes tenant;
    const struct flue_header *headers; /* of every push of this parcel; made with the first */
    size_t header_count;
    uint64_t timeout_ns;             /* of one push, from the moment it is sent; 0: none */
    struct flue_parcel_part **parts; /* each stays where it is: calls point to it */
    size_t count, room;
    size_t next_part; /* all before it were begun in this attempt */
    size_t running;   /* parts with status SENDING */
    bool cancelled;
    struct flue_counts rejected; /* of parts with status REFUSED */
    struct flue_error failure; /* first of this attempt that may be tried again, or of a refusal */
    size_t trimmed_labels;
    void *sender; /* of the loop */
};

struct flue_parcel_options {
    const struct flue_labels_config *labels;
    const struct flue_bytes *keep_attributes;
    size_t keep_count;
    bool tenant_from_origin;
    struct flue_moments *moments;
};

/* Converts, names, merges and dates. On failure the parcel is freed. */
enum flue_code flue_parcel_new(struct flue_send *send, const struct flue_parcel_options *options,
                               struct flue_parcel **out, struct flue_error *error);
void flue_parcel_free(void *parcel);

#endif
