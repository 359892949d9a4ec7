/* intake.c: see intake.h. */
#include "collector/net/intake.h"

#include "collector/net/request_origin.h"

static const char *const transport_names[FLUE_TRANSPORTS] = {"http", "connect", "grpc"};

/* ---- counting ------------------------------------------------------------------------------- */

static struct flue_metric *samples_metric(const struct flue_create *create, const char *name,
                                          const char *help, unsigned transport)
{
    const struct flue_label labels[] = {
        {"receiver", create->id}, {"transport", transport_names[transport]}, {NULL, NULL}};
    return flue_metric(create->metrics, FLUE_COUNTER, name, help, labels);
}

static void init(struct flue_intake *intake, const struct flue_create *create, unsigned transports,
                 const char *const names[3])
{
    intake->receiver = create->id;
    intake->metrics = create->metrics;
    for (unsigned i = 0; i < FLUE_TRANSPORTS; i++) {
        if (!(transports & 1u << i))
            continue;
        intake->accepted[i] =
            samples_metric(create, names[0], "taken by every pipeline of the receiver", i);
        intake->refused[i] = samples_metric(create, names[1], "given back to their sender", i);
        intake->failed[i] =
            samples_metric(create, names[2], "refused because something failed here", i);
    }
}

void flue_intake_init(struct flue_intake *intake, const struct flue_create *create,
                      unsigned transports)
{
    static const char *const names[] = {"receiver_accepted_profile_samples",
                                        "receiver_refused_profile_samples",
                                        "receiver_failed_profile_samples"};
    intake->consumer = create->profiles;
    init(intake, create, transports, names);
}

void flue_intake_init_traces(struct flue_intake *intake, const struct flue_create *create,
                             unsigned transports)
{
    static const char *const names[] = {"receiver_accepted_spans", "receiver_refused_spans",
                                        "receiver_failed_spans"};
    intake->consumer = create->traces;
    init(intake, create, transports, names);
}

void flue_intake_count_refusal(struct flue_intake *intake, enum flue_code code)
{
    struct flue_metric *metric = atomic_load_explicit(&intake->reasons[code], memory_order_acquire);
    if (!metric) {
        const struct flue_label labels[] = {
            {"receiver", intake->receiver}, {"reason", flue_code_facts(code)->name}, {NULL, NULL}};
        /* The same metric, whoever asks first. */
        metric = flue_metric(intake->metrics, FLUE_COUNTER, "receiver_refused_requests",
                             "requests answered with an error, by reason", labels);
        atomic_store_explicit(&intake->reasons[code], metric, memory_order_release);
    }
    flue_metric_add(metric, 1);
}

bool flue_intake_stopped(const struct flue_intake *intake)
{
    return atomic_load(&intake->open) == 0;
}

/* ---- pushing -------------------------------------------------------------------------------- */

enum flue_code flue_intake_admit(const struct flue_intake *intake,
                                 const struct flue_request *request, struct flue_account **account,
                                 struct flue_error *error)
{
    *account = flue_consumer_account(intake->consumer);
    return flue_tenant_check(flue_request_header(request, "x-scope-orgid"), error);
}

static void finish(struct flue_intake_push *push, const struct flue_outcome *outcome)
{
    struct flue_intake *intake = push->intake;
    enum flue_code code = outcome->error.code;
    struct flue_metric **metrics = code == FLUE_OK ? intake->accepted
                                   : code == FLUE_INTERNAL || code == FLUE_NO_MEMORY
                                       ? intake->failed
                                       : intake->refused;
    flue_metric_add(metrics[push->transport], (int64_t)push->samples);
    push->delivery = NULL;
    push->done(push, outcome);
    atomic_fetch_sub(&intake->open, 1);
}

static void delivered(void *arg, const struct flue_outcome *outcome)
{
    finish(arg, outcome);
}

void flue_intake_push(struct flue_intake_push *push, struct flue_payload *payload,
                      const struct flue_counts *counts)
{
    struct flue_intake *intake = push->intake;
    struct flue_request *request = push->request;
    struct flue_delivery *delivery = NULL;
    struct flue_batch *batch = NULL;
    struct flue_origin *origin =
        flue_request_origin(request, intake->receiver, transport_names[push->transport]);

    push->samples = counts->samples;
    atomic_fetch_add(&intake->open, 1);
    if (origin)
        batch = flue_batch_new(payload, origin, *counts, flue_consumer_account(intake->consumer));
    else
        flue_payload_unref(payload);
    flue_origin_unref(origin);
    if (batch)
        delivery = flue_delivery_begin(request->loop, request->deadline_ns, delivered, push);
    if (!delivery) {
        struct flue_outcome outcome = {0};
        flue_batch_unref(batch);
        flue_fail(&outcome.error, FLUE_NO_MEMORY, "no memory to take the request; send it again");
        finish(push, &outcome);
        return;
    }
    push->delivery = delivery;
    flue_consumer_push(intake->consumer, batch, delivery);
    flue_delivery_end(delivery); /* may have answered: `push` may be gone */
}

void flue_intake_cancel(struct flue_intake_push *push)
{
    if (push->delivery)
        flue_delivery_cancel(push->delivery);
}
