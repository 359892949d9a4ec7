/* sender.h: one loop's pushes: where each part goes, how many at once, and what becomes of their
 * answers.
 *
 * A request holds one profile. The server tries every series of a request and fails the call if one
 * of them fails, without saying which (its wire error is that of the first), so of several together
 * those that were stored would be sent again, and count twice until the store compacts.
 *
 * Places: pipeline/flow.h, one flow a replica. Rates: pace.h; an item that must wait for its
 * tenant's rate lets others pass. An item stays with its replica until that one fails.
 */
#ifndef EXPORTERS_PYROSCOPE_SENDER_H
#define EXPORTERS_PYROSCOPE_SENDER_H

#include "collector/pipeline/flow.h"
#include "exporters/pyroscope/auth.h"
#include "exporters/pyroscope/parcel.h"

struct flue_storage_queue;

struct flue_push_sender;
struct flue_push_target { /* of all loops */
    const struct flue_pyroscope_config *config;
    const char *id;
    int level;
    const char *endpoints[FLUE_PUSH_REPLICAS];
    size_t endpoint_count;
    struct flue_flow *flows[FLUE_PUSH_REPLICAS];
    const struct flue_header *headers; /* content-type, protocol version, the configured ones */
    size_t header_count;
    size_t tenant_header; /* where it stands in `headers`, or header_count */
    struct flue_pace *pace;
    struct flue_storage_queue *storage; /* NULL: no notes */
    /* Makes a parcel's parts. Not before the first of them may go: they need more memory than the
     * item. */
    enum flue_code (*make)(struct flue_push_sender *sender, struct flue_parcel *parcel,
                           struct flue_error *error);
    /* Notes its times; flue_push_attempt, or an end of the attempt, follows. */
    void (*note)(struct flue_push_sender *sender, struct flue_parcel *parcel);
    struct flue_metric *pushes, *trimmed, *split, *paced, *failovers;
};

struct flue_push;
struct flue_push_sender { /* of one loop */
    const struct flue_push_target *target;
    struct flue_loop *loop;
    struct flue_client *clients[FLUE_PUSH_REPLICAS];
    struct flue_push_auth auth;
    struct flue_label_cache cache;
    struct flue_parcel *first, *last; /* with open parts */
    struct flue_push *spare;
    struct flue_push *waiting; /* for a place at its replica; nothing is begun behind it */
    struct flue_timer timer;   /* until a tenant's rate lets more go */
    unsigned turn, round;
    bool pumping;
    bool healthy; /* the last answer was none that asks to come again */
};

void flue_push_sender_init(struct flue_push_sender *sender, const struct flue_push_target *target,
                           struct flue_loop *loop);
void flue_push_sender_destroy(struct flue_push_sender *sender); /* after its clients */
/* One attempt: of all parts that are open, made first where they are not; flue_send_done follows.
 */
void flue_push_attempt(struct flue_push_sender *sender, struct flue_parcel *parcel);
/* flue_send.cancel, with the parcel as its state. */
void flue_push_cancel(struct flue_send *send);

#endif
