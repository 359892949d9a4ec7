/* parcel.h: one item of the queue as the profiles that will be pushed.
 *
 * Made when the first of them may go and kept over all attempts: labels and times never change once
 * an attempt was made, so that the store can fold what a retry sends twice. After a restart the
 * same item gives the same parts in the same order, with the same labels; times that had to be
 * moved are in a note (dates.h). Only what is not yet decided is sent again.
 *
 * In this order: series and labels (tenant, mapping, limits, guard), equal labels and time joined
 * into one, what the server would refuse cut into parts, times.
 */
#ifndef EXPORTERS_PYROSCOPE_PARCEL_H
#define EXPORTERS_PYROSCOPE_PARCEL_H

#include "collector/base/codec.h"
#include "collector/net/client.h"
#include "collector/pipeline/exporter.h"
#include "exporters/pyroscope/fit.h"
#include "exporters/pyroscope/label_cache.h"
#include "exporters/pyroscope/moments.h"
#include "exporters/pyroscope/pace.h"

enum flue_parcel_status {
    FLUE_PART_OPEN,    /* to be sent in this attempt */
    FLUE_PART_SENDING, /* being compressed or on the wire */
    FLUE_PART_AGAIN,   /* failed in this attempt, to be sent in the next */
    FLUE_PART_SENT,
    FLUE_PART_REFUSED
};

struct flue_parcel_part {
    struct flue_parcel *parcel;
    uint8_t status; /* enum flue_parcel_status */
    bool gzip;
    bool unseen;                   /* from a trusted hop, not looked into: goes out as it is */
    bool held;                     /* outside the server's window: not yet */
    struct flue_label_set *labels; /* a reference */
    struct flue_bytes profile;     /* raw or gzip; in the payload, the parcel's arena, or `own` */
    struct flue_block *own;        /* made here: rewritten, merged, cut or compressed */
    size_t time_at;                /* of the time in a profile that may be written to; 0: nowhere */
    int64_t time_nanos;            /* in the profile */
    uint32_t shift;                /* nanoseconds to add: of the nth part of a cut profile */
    struct flue_pprof_facts facts;
    struct flue_counts counts; /* share of the parcel's */
    struct flue_bytes id;
    struct flue_pace_bucket *bucket;
    struct flue_parcel_part *next; /* while gathered: of equal labels and time */
};

struct flue_parcel {
    struct flue_send *send;   /* of the attempt */
    struct flue_parcel *next; /* of the sender's list of items with open parts */
    struct flue_arena arena;
    struct flue_account *account;
    size_t charged;
    uint64_t received_ns, record;
    uint64_t timeout_ns;             /* of one push, from the moment it is sent; 0: none */
    struct flue_parcel_part **parts; /* each stays where it is */
    size_t count, room;
    size_t next_part; /* all before it were begun in this attempt */
    size_t running;   /* parts with status SENDING */
    bool made;        /* has its parts */
    bool cancelled, listed;
    unsigned round;              /* of the sender, in which it was looked at */
    struct flue_counts rejected; /* of parts with status REFUSED */
    struct flue_error failure; /* first of this attempt that may be tried again, or of a refusal */
    size_t trimmed;            /* labels, and samples' labels and stacks, that lost something */
    size_t split;              /* parts that came from cutting */
    int replica;               /* where it goes; -1: nowhere yet */
    unsigned tried;            /* bit per replica that failed in this attempt */
    void *sender;              /* of the loop */
    void *pushes;              /* of the sender: those under way */
    /* Times that differ from the profiles' own: must be noted durably before anything is sent. */
    struct flue_bytes note;
    bool note_pending, noted;
};

struct flue_parcel_options {
    const struct flue_pyroscope_config *config;
    const struct flue_bytes *keep_attributes;
    size_t keep_count;
    struct flue_moments *moments;
    struct flue_guard *guard;
    struct flue_pace *pace;
    struct flue_label_cache *cache; /* of the loop */
    /* A label was tripped just now. May be NULL. */
    void (*tripped)(void *arg, struct flue_bytes label);
    void *arg;
    /* Of the item, as dates.h has it, when an earlier process left one; or empty. */
    struct flue_bytes note;
};

/* A parcel without parts; NULL without memory. */
struct flue_parcel *flue_parcel_new(struct flue_send *send);
/* Its parts. One that failed can only be freed. */
enum flue_code flue_parcel_make(struct flue_parcel *parcel,
                                const struct flue_parcel_options *options,
                                struct flue_error *error);
void flue_parcel_free(void *parcel);
/* A part that will never be taken: its share is rejected, with that reason. */
void flue_parcel_refuse(struct flue_parcel_part *part, const struct flue_error *error);
/* Compressed, cut, merged: what it is now. Takes the block's reference. */
void flue_part_set(struct flue_parcel_part *part, struct flue_block *block, bool gzip);
/* It was answered for good: its bytes are read no more. */
void flue_part_done(struct flue_parcel_part *part);
struct flue_parcel_part *flue_parcel_part_new(struct flue_parcel *parcel);
/* What the server takes of one part's labels and samples. */
extern const struct flue_pprof_limits flue_parcel_inflating;

/* dates.c: fixes every part's time: stamped where it is missing, moved where the series has used it
 * or where it lies outside the window, as an earlier note says. Sets parcel->note. */
enum flue_code flue_parcel_date(struct flue_parcel *parcel,
                                const struct flue_parcel_options *options,
                                struct flue_error *error);
/* Is the part outside the window now, and for how long (ms)? For those that are held. */
uint32_t flue_part_held_ms(const struct flue_parcel_part *part,
                           const struct flue_window_config *window);

#endif
