/* k8sattributes.c: which pod, container, workload and node did this profile come from?
 *
 * Every resource is matched to a pod (associate.h) in a store that a thread of its own keeps equal
 * to the API server (kubernetes/); what is set was encoded before (attributes.h). A batch is
 * decided on the loop where it is. It waits, in a bounded amount, before the first list is
 * complete, and where an address is all there is to go by and its profile is too young for the API
 * to know who has it (address_settle). Doubt sets nothing, and is counted. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "processors/k8sattributes/associate.h"
#include "processors/k8sattributes/attributes.h"
#include "collector/base/clock.h"
#include "collector/pipeline/actions.h"
#include "processors/k8sattributes/downward.h"
#include "proto/otlp/otlp.h"
#include "processors/k8sattributes/shared.h"

#define HELD_MAX     65536 /* batches */
#define HELD_LOOK_NS UINT64_C(20000000)
#define SPARE_NS     INT64_C(1000000000) /* left of the sender's patience for what comes behind */
#define PROBE_NS     INT64_C(3000000000) /* a silent API server has this long to say that it is there \
                                          */

struct held {
    struct flue_stage *stage;
    struct flue_batch *batch;
    struct flue_delivery *delivery;
    size_t resource; /* to go on with */
    /* Monotonic: look again; decide whatever is known; no longer wait for the first list. */
    int64_t due_ns, last_ns, ready_ns;
    struct flue_error error;
    struct held *next;
};

struct k8s_loop {
    struct flue_timer timer;
    struct flue_task flush;
    struct k8s *k8s;
    struct flue_loop *loop;
    struct k8s_cache cache;
    struct k8s_processes processes;
    struct held *first, **last;
};

struct k8s {
    const struct k8s_config *config;
    struct k8s_shared *shared;
    uint64_t wanted;
    struct k8s_peers relays, senders;
    struct flue_metrics *metrics;
    const char *id;
    struct flue_loops *loops;
    struct k8s_loop *per_loop;
    struct flue_metric *results[K8S_RESULTS], *unready, *held_gauge;
    _Atomic int64_t held_bytes;
    _Atomic int64_t held_count;
    _Atomic bool stopping;
};

/* ---- one resource ---------------------------------------------------------------------------- */

static enum flue_code set_address(struct k8s_loop *l, struct flue_batch *batch,
                                  struct flue_error *error)
{
    struct flue_bytes address = batch->origin->peer_address;
    struct flue_payload *payload = batch->payload;
    const struct flue_attribute item = {FLUE_BYTES("k8s.pod.ip"),
                                        {.type = FLUE_VALUE_STRING, .text = address}};
    struct flue_attribute_set set;
    struct flue_block *block;

    if (!address.size || payload->ops->resource_count(payload) != 1 ||
        k8s_peers_have(&l->k8s->relays, address))
        return FLUE_OK;
    enum flue_code code = flue_attribute_block(flue_otlp_attribute_set, &l->cache.arena, &item, 1,
                                               &set, &block, error);
    flue_arena_reset(&l->cache.arena);
    if (code)
        return code;
    code = payload->ops->attributes_set(payload, 0, &set, FLUE_SET_INSERT, block, error);
    flue_block_unref(block);
    return code;
}

/* In a sidecar everything is of one pod, unless it says otherwise or came from elsewhere. */
static enum k8s_result match_own(struct k8s_context *c, size_t resource,
                                 const struct flue_kube_record **record, int *container)
{
    const struct flue_bytes peer = c->origin->peer_address;
    struct k8s_downward_reader *reader = c->own;

    if (peer.size && !flue_bytes_starts_with(peer, FLUE_BYTES("127.")) &&
        !flue_bytes_is(peer, "::1") && !flue_bytes_equal(peer, k8s_downward_address(reader)))
        return K8S_RELAYED;
    return k8s_associate_with(c, resource, flue_kube_find_uid(c->store, k8s_downward_uid(reader)),
                              record, container);
}

/* Between flue_kube_enter and flue_kube_leave. */
static enum flue_code set_attributes(struct k8s_loop *l, struct k8s_context *c,
                                     struct flue_payload *payload, size_t resource, bool *wait,
                                     struct flue_error *error)
{
    struct k8s *k8s = l->k8s;
    const struct flue_kube_record *record;
    const struct k8s_cached *cached = NULL;
    int container;
    enum flue_code code = FLUE_OK;

    enum k8s_result result = c->own ? match_own(c, resource, &record, &container)
                                    : k8s_associate(c, resource, &record, &container);
    if (result == K8S_MATCHED) {
        cached =
            k8s_attributes(&l->cache, c->store, k8s->config, k8s->wanted, record, container, error);
        if (!cached)
            code = error->code;
    }
    *wait = result == K8S_WAIT;
    if (*wait || code)
        return code;
    flue_metric_add(k8s->results[result], 1);
    if (!cached || !cached->block)
        return FLUE_OK;
    return payload->ops->attributes_set(payload, resource, &cached->set,
                                        k8s->config->overwrite ? FLUE_SET_UPSERT : FLUE_SET_INSERT,
                                        cached->block, error);
}

/* ---- one batch ------------------------------------------------------------------------------- */

/* True: it must wait until h->due_ns. */
static bool decide(struct k8s_loop *l, struct held *h, struct flue_error *error)
{
    struct k8s *k8s = l->k8s;
    int64_t now = (int64_t)flue_monotonic_ns();
    bool ready = k8s_shared_ready(k8s->shared);
    bool final = now >= h->last_ns || (!ready && now >= h->ready_ns) ||
                 atomic_load_explicit(&k8s->stopping, memory_order_relaxed);
    struct flue_payload *payload = h->batch->payload;
    struct k8s_context context = {
        .config = k8s->config,
        .store = k8s->shared->store,
        .relays = &k8s->relays,
        .senders = k8s->config->host_processes ? &k8s->senders : NULL,
        .processes = &l->processes,
        .own = k8s->shared->downward,
        .payload = payload,
        .origin = h->batch->origin,
        .resources = payload->ops->resource_count(payload),
        .final = final,
    };

    if (k8s->config->passthrough) {
        set_address(l, h->batch, error);
        return false;
    }
    if (!ready) {
        if (!final) {
            h->due_ns = now + (int64_t)HELD_LOOK_NS;
            return true;
        }
        flue_metric_add(k8s->unready, (int64_t)context.resources);
    }
    bool wait = false;
    flue_kube_enter(flue_kube_store_epochs(context.store), l->loop->index);
    while (h->resource < context.resources &&
           !set_attributes(l, &context, payload, h->resource, &wait, error) && !wait)
        h->resource++;
    flue_kube_leave(flue_kube_store_epochs(context.store), l->loop->index);
    if (wait) {
        int64_t left = context.wait_ns - (int64_t)flue_wall_ns();
        h->due_ns = now + (left > 0 ? left : 0);
    }
    return wait;
}

static void give_on(struct held *h, const struct flue_error *error)
{
    if (error->code) {
        flue_batch_unref(h->batch);
        flue_delivery_refuse(h->delivery, error);
    } else {
        flue_stage_next(h->stage, h->batch, h->delivery);
    }
}

static void arm(struct k8s_loop *l)
{
    int64_t due = INT64_MAX;

    for (const struct held *h = l->first; h; h = h->next) {
        int64_t at = h->due_ns < h->last_ns ? h->due_ns : h->last_ns;
        due = at < due ? at : due;
    }
    uint64_t soonest = flue_monotonic_ns() + HELD_LOOK_NS;
    if (l->first)
        flue_timer_arm(l->loop, &l->timer, (uint64_t)due > soonest ? (uint64_t)due : soonest);
    else
        flue_timer_disarm(l->loop, &l->timer);
}

static void look_at_held(struct k8s_loop *l)
{
    int64_t now = (int64_t)flue_monotonic_ns();
    bool stopping = atomic_load(&l->k8s->stopping);
    struct held **at = &l->first, *done = NULL, **done_last = &done;

    while (*at) {
        struct held *h = *at;
        if (!stopping && h->due_ns > now && h->last_ns > now) {
            at = &h->next;
            continue;
        }
        h->error = (struct flue_error){.code = FLUE_OK};
        if (decide(l, h, &h->error)) {
            at = &h->next;
            continue;
        }
        *at = h->next;
        h->next = NULL;
        *done_last = h;
        done_last = &h->next;
    }
    l->last = at;
    /* Giving on may push more batches here: the list is whole again by now. */
    while (done) {
        struct held *h = done;
        struct flue_delivery *delivery = h->delivery;
        done = h->next;
        atomic_fetch_sub(&l->k8s->held_bytes, (int64_t)h->batch->counts.bytes);
        flue_metric_set(l->k8s->held_gauge, atomic_load(&l->k8s->held_bytes));
        give_on(h, &h->error);
        flue_delivery_release(delivery);
        free(h);
        atomic_fetch_sub(&l->k8s->held_count, 1);
    }
    arm(l);
}

static void fire(struct flue_timer *timer)
{
    look_at_held((struct k8s_loop *)(void *)timer);
}

static bool hold(struct k8s_loop *l, const struct held *what)
{
    struct k8s *k8s = l->k8s;
    int64_t bytes = (int64_t)what->batch->counts.bytes;

    if (atomic_load(&k8s->stopping) ||
        atomic_load(&k8s->held_bytes) + bytes > k8s->config->hold_size ||
        atomic_load(&k8s->held_count) >= HELD_MAX)
        return false;
    struct held *h = malloc(sizeof *h);
    if (!h)
        return false;
    *h = *what;
    h->next = NULL;
    *l->last = h;
    l->last = &h->next;
    atomic_fetch_add(&k8s->held_bytes, bytes);
    atomic_fetch_add(&k8s->held_count, 1);
    flue_metric_set(k8s->held_gauge, atomic_load(&k8s->held_bytes));
    flue_delivery_hold(h->delivery);
    arm(l);
    return true;
}

static void k8s_push(struct flue_stage *stage, struct flue_batch *batch,
                     struct flue_delivery *delivery)
{
    struct k8s *k8s = flue_stage_instance(stage);
    struct flue_loop *loop = flue_delivery_loop(delivery);
    struct k8s_loop *l = &k8s->per_loop[loop->index];
    struct held h = {.stage = stage, .delivery = delivery};
    int64_t now = (int64_t)flue_monotonic_ns();
    int64_t patience = k8s->config->address_settle * 2 + PROBE_NS;

    h.error.code = FLUE_OK;
    h.batch = flue_batch_writable(batch, &h.error);
    if (!h.batch) {
        flue_delivery_refuse(delivery, &h.error);
        return;
    }
    h.ready_ns = now + k8s->config->wait_for_metadata_timeout;
    h.last_ns = now + patience +
                (k8s_shared_ready(k8s->shared) ? 0 : k8s->config->wait_for_metadata_timeout);
    uint64_t deadline = flue_delivery_deadline(delivery);
    if (deadline && (int64_t)deadline - SPARE_NS < h.last_ns)
        h.last_ns = (int64_t)deadline - SPARE_NS;
    if (decide(l, &h, &h.error)) {
        if (hold(l, &h))
            return;
        h.last_ns = 0; /* no room: what is known now decides */
        decide(l, &h, &h.error);
    }
    give_on(&h, &h.error);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void flush(struct flue_task *task)
{
    struct k8s_loop *l =
        (struct k8s_loop *)(void *)((char *)task - offsetof(struct k8s_loop, flush));
    look_at_held(l);
    atomic_fetch_sub(&l->k8s->held_count, 1);
}

static void k8s_stop(void *instance, uint64_t deadline_ns)
{
    struct k8s *k8s = instance;

    atomic_store(&k8s->stopping, true);
    if (k8s->shared->downward)
        k8s_downward_stop(k8s->shared->downward);
    for (unsigned i = 0; i < k8s->loops->count; i++) {
        struct k8s_loop *l = &k8s->per_loop[i];
        atomic_fetch_add(&k8s->held_count, 1); /* the task itself */
        l->flush.run = flush;
        flue_loop_post(l->loop, &l->flush);
    }
}

static bool k8s_stopped(void *instance)
{
    struct k8s *k8s = instance;
    return atomic_load(&k8s->held_count) == 0 &&
           (!k8s->shared->downward || k8s_downward_stopped(k8s->shared->downward));
}

static void k8s_destroy(void *instance)
{
    struct k8s *k8s = instance;

    for (unsigned i = 0; k8s->per_loop && i < k8s->loops->count; i++) {
        struct k8s_loop *l = &k8s->per_loop[i];
        while (l->first) { /* the deadline of stopping has passed */
            struct held *h = l->first;
            l->first = h->next;
            flue_batch_unref(h->batch);
            free(h);
        }
        k8s_cache_destroy(&l->cache);
        k8s_processes_destroy(&l->processes);
    }
    free(k8s->per_loop);
    k8s_shared_drop(k8s->shared);
    free(k8s);
}

static void make_metrics(struct k8s *k8s, const struct flue_create *create)
{
    for (unsigned i = 0; i < K8S_RESULTS; i++) {
        const struct flue_label labels[] = {{"processor", create->id},
                                            {"pipeline", create->pipeline},
                                            {"result", k8s_result_names[i]},
                                            {NULL, NULL}};
        k8s->results[i] =
            flue_metric(create->metrics, FLUE_COUNTER, "processor_k8sattributes_resources",
                        "resources, by what was found for them", labels);
    }
    const struct flue_label labels[] = {
        {"processor", create->id}, {"pipeline", create->pipeline}, {NULL, NULL}};
    k8s->unready =
        flue_metric(create->metrics, FLUE_COUNTER, "processor_k8sattributes_unready_resources",
                    "resources decided before everything was listed", labels);
    k8s->held_gauge = flue_metric(create->metrics, FLUE_GAUGE, "processor_k8sattributes_held_bytes",
                                  "batches that wait", labels);
}

static enum flue_code k8s_create(const struct flue_create *create, void **instance,
                                 struct flue_error *error)
{
    const struct k8s_config *config = create->config;
    struct k8s *k8s = calloc(1, sizeof *k8s);
    bool good = k8s != NULL;

    if (good) {
        k8s->config = config;
        k8s->wanted = k8s_wanted(config);
        k8s->metrics = create->metrics;
        k8s->id = create->id;
        k8s->loops = create->loops;
        k8s->per_loop = calloc(create->loops->count, sizeof *k8s->per_loop);
        good = k8s->per_loop && k8s_peers_read(&config->relays, create->arena, &k8s->relays) &&
               (!config->host_processes ||
                k8s_peers_read(&config->host_processes->senders, create->arena, &k8s->senders));
    }
    for (unsigned i = 0; good && i < create->loops->count; i++) {
        struct k8s_loop *l = &k8s->per_loop[i];
        l->timer.fire = fire;
        l->k8s = k8s;
        l->loop = create->loops->items[i];
        l->last = &l->first;
        k8s_processes_init(&l->processes,
                           config->host_processes ? config->host_processes->proc : "/proc");
        good = k8s_cache_init(&l->cache);
    }
    enum flue_code code = good ? k8s_shared_get(create, &k8s->shared, error)
                               : flue_fail(error, FLUE_NO_MEMORY, "no memory for k8sattributes");
    if (code) {
        if (k8s)
            k8s_destroy(k8s);
        return code;
    }
    make_metrics(k8s, create);
    *instance = k8s;
    return FLUE_OK;
}

static enum flue_code k8s_start(void *instance, struct flue_error *error)
{
    struct k8s *k8s = instance;
    const struct k8s_config *config = k8s->config;
    uint64_t until = flue_monotonic_ns() + (uint64_t)config->wait_for_metadata_timeout;
    enum flue_code code = k8s_shared_start(k8s->shared, k8s->id, k8s->metrics, k8s->loops, error);

    while (!code && config->wait_for_metadata && !k8s_shared_ready(k8s->shared)) {
        if (flue_monotonic_ns() >= until)
            return flue_fail(error, FLUE_TIMEOUT,
                             "wait_for_metadata: not everything was listed within "
                             "wait_for_metadata_timeout");
        usleep(20000);
    }
    return code;
}

const struct flue_component flue_processor_k8sattributes = {
    .kind = FLUE_PROCESSOR,
    .name = "k8sattributes",
    .alias = "k8s_attributes",
    .signals = FLUE_PROFILES | FLUE_TRACES,
    .stability = FLUE_BETA,
    .summary = "adds the pod, container, workload and node that a profile comes from",
    .config_size = sizeof(struct k8s_config),
    .fields = k8s_fields,
    .check = k8s_check,
    .create = k8s_create,
    .start = k8s_start,
    .push = k8s_push,
    .stop = k8s_stop,
    .stopped = k8s_stopped,
    .destroy = k8s_destroy,
};
