/* component.h: what a receiver, processor, connector, exporter or extension is.
 *
 * One constant description per component, beside one table of fields. The table alone drives
 * parsing, defaults, bounds, error messages, `flue components --help`, and the generated reference.
 * The build finds components by their folder: receivers/NAME/, processors/NAME/, ... and collects
 * every `const struct flue_component flue_KIND_NAME` (KIND: receiver, processor, ...; NAME: the
 * folder's). See docs/writing-a-component.md.
 *
 * Life: check (pure) -> create (no I/O; main thread) -> start (main thread, loops not yet running;
 * exporters before processors before receivers) -> push/send on the loops -> stop (main thread, the
 * loops run; receivers first: take no more, finish what is open) -> destroy (loops stopped).
 * What a component keeps per loop it makes in start for every loop (create->loops->count).
 */
#ifndef FLUE_COMPONENT_H
#define FLUE_COMPONENT_H

#include "collector/base/arena.h"
#include "collector/base/loop.h"
#include "collector/base/metrics.h"
#include "collector/pipeline/delivery.h"
#include "config/field.h"

enum flue_kind {
    FLUE_RECEIVER,
    FLUE_PROCESSOR,
    FLUE_CONNECTOR,
    FLUE_EXPORTER,
    FLUE_EXTENSION,
    FLUE_KINDS
};
enum flue_stability { FLUE_DEVELOPMENT, FLUE_ALPHA, FLUE_BETA, FLUE_STABLE };

/* ---- instances ------------------------------------------------------------------------------- */

struct flue_server_set; /* net/server.h: listeners shared by receivers */
struct flue_budget;
struct flue_storage_queue; /* storage/storage.h */

/* What create gets; lives as long as the instance. */
struct flue_create {
    const char *id;     /* "pyroscope/media" */
    const void *config; /* the bound struct, immutable */
    enum flue_kind kind;
    enum flue_signal signals; /* of the pipelines that name it */
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_arena *arena; /* lives as long as the instance; start-up only */
    struct flue_server_set *servers;
    struct flue_budget *budget;
    /* EXPORTER: its place in the log of sending_queue.storage, for notes; NULL without one. */
    struct flue_storage_queue *storage;
    /* RECEIVER: where to push, per signal; NULL when no pipeline of that signal names it. */
    struct flue_consumer *profiles, *traces;
    /* CONNECTOR: the pipelines of the signal that it gives. */
    struct flue_consumer *metrics_out;
    /* PROCESSOR: the account and id of its pipeline. */
    struct flue_account *account;
    const char *pipeline;
    /* The instance of an extension by id ("basicauth/team-a"), or NULL. */
    void *(*extension)(const struct flue_create *create, const char *id);
    void *service;
};

/* A processor's place in a pipeline; give the batch on with flue_stage_next. */
struct flue_stage;
void flue_stage_next(struct flue_stage *stage, struct flue_batch *batch,
                     struct flue_delivery *delivery);
void *flue_stage_instance(struct flue_stage *stage);

struct flue_send; /* pipeline/exporter.h */

struct flue_component {
    enum flue_kind kind;
    const char *name;
    const char *alias; /* deprecated type name, or NULL; accepted with one log line */
    unsigned signals; /* enum flue_signal, or'ed; 0 for extensions; of a connector: what it takes */
    /* CONNECTOR: an exporter (no_queue, send) of pipelines of `signals` whose instance pushes into
     * pipelines of this signal, among whose receivers it stands. Made after those, started and
     * stopped (a last push is possible) before their exporters stop. */
    enum flue_signal gives;
    /* PROCESSOR: signals without which it can do nothing for the others: an id that no pipeline of
     * theirs names is a warning. 0: each stands for itself. */
    unsigned needs;
    enum flue_stability stability;
    const char *summary;
    size_t config_size;
    const struct flue_field *fields;
    /* Also for exporters whose work the engine queues and retries: the engine adds the fields
     * sending_queue, retry_on_failure, timeout unless set. */
    bool no_queue;   /* debug, nop, file: neither queue nor retry keys */
    bool no_timeout; /* queue and retry, but no `timeout` key of the engine */
    /* EXPORTER: with sending_queue.storage all items are sent on one loop, whichever received them
     * (roll-up of many items into one object). Without storage items stay on their loops. */
    bool single_loop;
    /* EXPORTER: with storage the sends of items begin in the order of their records, always
     * (Kafka's order of a key), also after a restart; what is cut goes on before all that has not
     * begun, and what is refused is not cut in search of the reason. While an older one is under
     * way, or waits to be sent again, younger ones begin: those that must wait for it the component
     * knows. Everything else sends the newest first after an outage. Needs single_loop. */
    bool in_order;
    int64_t timeout_def; /* ns; 0: 5 s */

    void (*check)(const void *config, struct flue_check *check); /* may be NULL */
    /* What only shows when it is known which signals' pipelines name it: warnings. May be NULL. */
    void (*check_signals)(const void *config, unsigned signals, struct flue_check *check);
    enum flue_code (*create)(const struct flue_create *create, void **instance,
                             struct flue_error *error);
    enum flue_code (*start)(void *instance, struct flue_error *error); /* may be NULL */
    /* PROCESSOR, CONNECTOR: takes the batch's reference; calls flue_stage_next any number of times,
     * now or (holding the delivery) later, or flue_delivery_refuse. Runs on every loop. */
    void (*push)(struct flue_stage *stage, struct flue_batch *batch,
                 struct flue_delivery *delivery);
    /* EXPORTER: begin to send; the answer is flue_send_done(send, verdict), now or later, on the
     * same loop. */
    void (*send)(void *instance, struct flue_send *send);
    /* Begin to stop; `stopped` must become true by itself until the deadline (monotonic ns). */
    void (*stop)(void *instance, uint64_t deadline_ns);
    bool (*stopped)(void *instance); /* NULL: at once */
    void (*destroy)(void *instance); /* NULL: everything lies in the arena */
};
static inline void flue_component_destroy(const struct flue_component *component, void *instance)
{
    if (instance && component->destroy)
        component->destroy(instance);
}

#endif
