/* rollup_inside.h: what the files of the roll-up (rollup*.c) share. See rollup.c. */
#ifndef FLUE_ARCHIVE_ROLLUP_INSIDE_H
#define FLUE_ARCHIVE_ROLLUP_INSIDE_H

#include "archive/layout/otlp.h"
#include "archive/object/offload.h"
#include "archive/writer/cut.h"
#include "archive/writer/lane.h"

#define FLUE_ROLLUP_RETRY (2000000000ull)  /* the shortest wait */
#define FLUE_ROLLUP_WAIT  (30000000000ull) /* the longest */

struct item;
struct cut;
struct place { /* one for all that go there */
    struct flue_place place;
    struct place *next;
    size_t refs;
    char text[]; /* bucket, folder */
};
struct member {
    struct item *item;
    struct member *next, *previous; /* in its gathering */
    struct gathering *gathering;    /* one of these two, or neither: written */
    struct cut *cut;
    struct place *place;
    uint64_t min_ns, max_ns;
    uint64_t bytes; /* encoded, its share */
};
struct item { /* many: small */
    struct flue_rollup *rollup;
    struct flue_send *send;
    uint32_t open; /* members that are not written */
    uint32_t count;
    bool leaving; /* its end waits for a cut to let go */
    struct member members[];
};
struct gathering {
    struct flue_rollup *rollup;
    struct gathering *next;
    struct place *place;
    struct member *first, *last;
    size_t count;
    uint64_t bytes;
    struct flue_timer timer;
};
enum cut_state {
    CUT_RECOVERED, /* from the log; waits for its records */
    CUT_LOGGING,
    CUT_QUEUED,
    CUT_ENCODING,
    CUT_WRITING, /* object, then index */
    CUT_NOTING,
    CUT_WRITTEN
};
struct cut_note { /* the log may hold it longer than its cut lives */
    struct flue_storage_note note;
    struct flue_buffer text;
    struct cut *cut; /* NULL: it is gone */
    bool held;
    void (*done)(struct cut *cut, const struct flue_error *error);
};
struct cut {
    struct flue_rollup *rollup;
    struct cut *next;
    struct flue_arena arena; /* text: records, place */
    struct flue_cut_text text;
    uint64_t number; /* of its note */
    enum cut_state state;
    struct member **members; /* by record; NULL: not here */
    size_t present, unfinished;
    bool abandoned, busy; /* busy: a load, job, put or note is under way */
    /* encoding */
    size_t at;
    unsigned part;
    uint64_t encoded, stored;
    struct flue_otlp_object *object;
    struct flue_otlp_made made;
    struct object_offload offload;
    struct flue_error error;
    bool last_part, putting, indexing;
    char *key;
    struct flue_put put;
    struct flue_hours_add add;
    struct cut_note *note;
    struct flue_timer timer;
    unsigned failures;
};
struct flue_rollup {
    struct flue_archive_writer *writer;
    struct flue_archive_lane *lane; /* of the first send */
    struct place *places;
    struct gathering *gatherings;
    size_t gathering_count;
    struct cut *cuts;
    uint64_t number; /* last note */
    struct cut *encoding;
    unsigned uploads;
    size_t recovering;
    uint64_t started_ns, recovered_ns; /* wall; monotonic, of the last recovered send */
    struct flue_timer recovery;
    double ratio;
    _Atomic unsigned busy; /* cuts with work under way */
};

static inline const char *rollup_who(const struct flue_rollup *rollup)
{
    return rollup->writer->create->id;
}

/* rollup.c: items. An item that ends is freed and its send answered. */
void flue_rollup_item_end(struct item *item, const struct flue_error *error, bool drop);
/* Takes the item out of all that is not written yet. False: a cut that works on it has to let go
 * first. */
bool flue_rollup_item_leave(struct item *item);
void flue_rollup_member_written(struct member *member);

/* For the end of all: whatever it is a member of lets it go. */
void flue_rollup_item_drop(struct item *item);

/* rollup_gather.c: places and what gathers for them. */
struct place *flue_rollup_place(struct flue_rollup *rollup, const struct flue_place *wanted);
void flue_rollup_place_unref(struct flue_rollup *rollup, struct place *place); /* NULL: fine */
/* False: no memory; the item must end, to come again. */
bool flue_rollup_gather(struct flue_rollup *rollup, struct member *member);
void flue_rollup_leave_gathering(struct member *member);
void flue_rollup_gathering_free(struct gathering *gathering);

/* rollup_cut.c: the life of a cut. */
struct cut *flue_rollup_cut_new(struct flue_rollup *rollup);
void flue_rollup_cut_forget(struct cut *cut); /* frees it; waits for its work on the pool */
void flue_rollup_cut_set_busy(struct cut *cut, bool busy);
void flue_rollup_cut_log(struct cut *cut); /* its note, then it is queued */
void flue_rollup_cut_drop_note(struct cut *cut);
/* Its place among the records; SIZE_MAX: not one of them. */
size_t flue_rollup_cut_index(const struct cut *cut, uint64_t record);
void flue_rollup_cut_is_written(struct cut *cut);   /* object and index are there */
void flue_rollup_cut_finished_one(struct cut *cut); /* may free it */
/* It lets go as soon as it can: what is under way ends, and then it is dissolved. */
void flue_rollup_cut_abandon(struct cut *cut);
/* Its members gather anew; those that wait for it to let go end. Frees it. */
void flue_rollup_cut_dissolve(struct cut *cut, bool keep_note);
void flue_rollup_cut_retry(struct cut *cut, void (*fire)(struct flue_timer *));
struct cut *flue_rollup_cut_of_timer(struct flue_timer *timer);
void flue_rollup_cut_tell(const struct cut *cut, const char *what, const struct flue_error *error);

/* rollup_write.c: encodes the next cut and writes it, if there is room for one more. */
void flue_rollup_start_next(struct flue_rollup *rollup);

/* rollup_recover.c: cuts of the log, after a restart. */
void flue_rollup_recover(struct flue_rollup *rollup);
void flue_rollup_recovery_begin(struct flue_rollup *rollup, uint64_t now);
bool flue_rollup_rejoin(struct flue_rollup *rollup, struct member *member); /* it found its cut */

#endif
