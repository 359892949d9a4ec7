/* sender.h: one loop's pushes: which parts go together, where, how many at once, and what becomes
 * of their answers.
 *
 * A request holds one large profile, or small ones of one item and tenant together (up to
 * max_series_per_push and 256 KiB): a server needs half a second for a request, whatever is in it,
 * and a request costs more than a small profile. The server tries every series and fails the call
 * if one fails, without saying which. So after an error that may be one profile's, each of the
 * request goes alone: at once where the error is final, in the next attempt where it is not. What
 * was stored already is sent twice then, with the same labels and time, which the store folds.
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
    struct flue_metric *pushes, *profiles, *trimmed, *split, *alone, *paced, *failovers;
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
/* One attempt: of all parts that are open; flue_send_done follows. */
void flue_push_attempt(struct flue_push_sender *sender, struct flue_parcel *parcel);
/* flue_send.cancel, with the parcel as its state. */
void flue_push_cancel(struct flue_send *send);

#endif
