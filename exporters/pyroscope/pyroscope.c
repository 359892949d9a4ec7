/* pyroscope.c: profiles to a Pyroscope server by push.v1.PusherService/Push.
 *
 * The component: what lives as long as it and what every loop has. An item becomes parts in
 * parcel.c, parts become requests in sender.c. Configuration: settings.h.
 */
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/component.h"
#include "collector/net/client_keys.h"
#include "collector/storage/storage.h"
#include "exporters/pyroscope/sender.h"

#define RESPONSE_LIMIT (64u << 10)
#define FIRST_PLACES   128                 /* of a replica, before its latency is known */
#define LABEL_NOTE     ((uint64_t)1 << 63) /* numbers of notes that are no records */
#define KEPT_NOTES     65536

struct note { /* of an item that a former process left */
    uint64_t record;
    struct flue_bytes text;
};

struct pyroscope {
    const struct flue_pyroscope_config *config;
    struct flue_loops *loops;
    struct flue_metrics *metrics;
    struct flue_arena *arena;
    struct flue_auth *authenticator;
    struct flue_tls *tls;
    struct flue_push_sender *senders;
    struct flue_push_target target;
    struct flue_parcel_options options;
    struct flue_moments *moments;
    struct flue_guard *guard;
    struct note *notes; /* by record; read only once the loops run */
    size_t note_count, note_room;
    struct flue_arena note_arena;
};

static enum flue_code no_memory(const char *id, struct flue_error *error)
{
    return flue_fail(error, FLUE_NO_MEMORY, "no memory for exporter %s", id);
}

static enum flue_code make_headers(struct pyroscope *p, struct flue_arena *arena,
                                   struct flue_error *error)
{
    static const struct flue_header own[] = {
        {FLUE_BYTES("content-type"), FLUE_BYTES("application/proto")},
        {FLUE_BYTES("connect-protocol-version"), FLUE_BYTES("1")}};
    struct flue_push_target *t = &p->target;
    enum flue_code code = flue_client_headers(&p->config->headers, own, sizeof own / sizeof *own,
                                              arena, &t->headers, &t->header_count, error);

    t->tenant_header = t->header_count;
    for (size_t i = 0; !code && i < t->header_count; i++)
        if (flue_bytes_is(t->headers[i].name, "x-scope-orgid"))
            t->tenant_header = i;
    return code;
}

static void make_metrics(struct flue_push_target *t, const struct flue_create *create)
{
    const struct flue_label labels[] = {{"exporter", create->id}, {NULL, NULL}};
    const struct {
        struct flue_metric **metric;
        const char *name, *help;
    } all[] = {
        {&t->pushes, "pyroscope_pushes", "push requests sent, one profile each, attempts included"},
        {&t->trimmed, "pyroscope_labels_trimmed",
         "labels, and labels and stacks of samples, left out or cut, since the server would refuse "
         "them"},
        {&t->split, "pyroscope_profiles_split",
         "profiles that came from cutting ones that are over the server's limits"},
        {&t->paced, "pyroscope_paced", "times that an item waited for its tenant's rate"},
        {&t->failovers, "pyroscope_failovers", "requests given to another replica"},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *all[i].metric =
            flue_metric(create->metrics, FLUE_COUNTER, all[i].name, all[i].help, labels);
}

static enum flue_code make_parcel(struct flue_push_sender *sender, struct flue_parcel *parcel,
                                  struct flue_error *error);
static void note_times(struct flue_push_sender *sender, struct flue_parcel *parcel);

static enum flue_code pyroscope_create(const struct flue_create *create, void **instance,
                                       struct flue_error *error)
{
    const struct flue_pyroscope_config *config = create->config;
    struct pyroscope *p = flue_arena_zalloc(create->arena, 1, sizeof *p);
    struct flue_bytes *keep;
    enum flue_code code;

    if (!p)
        return no_memory(create->id, error);
    *instance = p;
    p->config = config;
    p->loops = create->loops;
    p->metrics = create->metrics;
    flue_arena_init(&p->note_arena, 256u << 20, 0);
    p->senders = flue_arena_zalloc(create->arena, create->loops->count, sizeof *p->senders);
    keep = flue_arena_zalloc(create->arena, config->sample_attributes.count + 1, sizeof *keep);
    /* Large, and untouched until something is sent: not of the arena, which would clear them. */
    p->moments = calloc(1, sizeof *p->moments);
    p->target.pace = flue_pace_new(&config->pacing);
    p->guard = flue_guard_new(&config->labels.cardinality, create->id, create->metrics,
                              create->storage != NULL);
    if (!p->senders || !keep || !p->moments || !p->target.pace || !p->guard)
        return no_memory(create->id, error);
    for (size_t i = 0; i < config->sample_attributes.count; i++)
        keep[i] = flue_bytes_of(((const char *const *)config->sample_attributes.items)[i]);
    p->options = (struct flue_parcel_options){
        .config = config,
        .keep_attributes = keep,
        .keep_count = config->sample_attributes.count,
        .moments = p->moments,
        .guard = p->guard,
        .pace = p->target.pace,
    };
    p->target.config = config;
    p->target.id = create->id;
    p->target.storage = create->storage;
    p->target.make = make_parcel;
    p->target.note = note_times;
    p->target.endpoint_count = flue_push_endpoints(config, p->target.endpoints);
    flue_push_level(config->level, &p->target.level);
    make_metrics(&p->target, create);
    code = flue_client_auth_find(create, config->auth, &p->authenticator, error);
    return code ? code : make_headers(p, create->arena, error);
}

/* ---- notes of a former process -------------------------------------------------------------- */

/* A label's note: its span, 8 and 8 bytes as this machine has them, then its name. */
static bool take_note(void *arg, uint64_t number, struct flue_bytes text)
{
    struct pyroscope *p = arg;
    struct flue_guard_span span;
    struct note note = {.record = number};

    if (number & LABEL_NOTE) {
        if (text.size > sizeof span) {
            memcpy(&span, text.data, sizeof span);
            flue_guard_restore(p->guard, flue_bytes_from(text, sizeof span), &span);
        }
        return true;
    }
    note.text = flue_arena_copy(&p->note_arena, text);
    return note.text.data && p->note_count < KEPT_NOTES &&
           FLUE_ARENA_PUSH(&p->note_arena, p->notes, p->note_count, p->note_room, note);
}

static struct flue_bytes note_of(const struct pyroscope *p, uint64_t record)
{
    size_t from = 0, to = p->note_count;

    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (p->notes[middle].record == record)
            return p->notes[middle].text;
        if (p->notes[middle].record < record)
            from = middle + 1;
        else
            to = middle;
    }
    return flue_bytes(NULL, 0);
}

struct writing {
    struct flue_storage_note note;
    struct flue_push_sender *sender;
    struct flue_parcel *parcel; /* NULL: of a label */
    uint8_t text[];
};

static void label_noted(struct flue_storage_note *note, enum flue_code code,
                        const struct flue_error *error)
{
    (void)code; /* the storage says what is wrong with it; the guard works all the same */
    (void)error;
    free(note->user);
}

/* The number is the same in every process: FNV-1a of the name. */
static uint64_t label_number(struct flue_bytes label)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < label.size; i++)
        hash = (hash ^ label.data[i]) * 0x100000001b3u;
    return hash | LABEL_NOTE;
}

static struct pyroscope *component_of(const struct flue_push_sender *sender)
{
    return (struct pyroscope *)(void *)((char *)(uintptr_t)sender->target -
                                        offsetof(struct pyroscope, target));
}

static void tripped(void *arg, struct flue_bytes label)
{
    struct flue_push_sender *sender = arg;
    const struct flue_push_target *target = sender->target;
    struct pyroscope *p = component_of(sender);
    struct flue_guard_span span;
    struct writing *w;

    if (!target->storage || !flue_guard_span_of(p->guard, label, &span))
        return;
    w = malloc(sizeof *w + sizeof span + label.size);
    if (!w)
        return;
    memcpy(w->text, &span, sizeof span);
    memcpy(w->text + sizeof span, label.data, label.size);
    w->note = (struct flue_storage_note){.queue = target->storage,
                                         .number = label_number(label),
                                         .text = flue_bytes(w->text, sizeof span + label.size),
                                         .loop = sender->loop,
                                         .done = label_noted,
                                         .user = w};
    flue_storage_note_put(&w->note);
}

static void times_noted(struct flue_storage_note *note, enum flue_code code,
                        const struct flue_error *error)
{
    struct writing *w = note->user;
    struct flue_parcel *parcel = w->parcel;
    struct flue_push_sender *sender = w->sender;
    struct flue_error failed = error ? *error : (struct flue_error){.code = code};

    free(w);
    parcel->note_pending = code != FLUE_OK;
    parcel->noted = code == FLUE_OK;
    if (code || parcel->cancelled) {
        if (!code)
            flue_fail(&failed, FLUE_CANCELLED, "given up before it was sent");
        flue_fail_prefix(&failed, "the times of an item could not be noted");
        failed.code = code ? FLUE_UNAVAILABLE : FLUE_CANCELLED;
        flue_send_fail(parcel->send, &failed);
        return;
    }
    flue_push_attempt(sender, parcel);
}

static void note_times(struct flue_push_sender *sender, struct flue_parcel *parcel)
{
    struct writing *w = malloc(sizeof *w);
    struct flue_error error = {0};

    if (!w) {
        no_memory(sender->target->id, &error);
        flue_send_fail(parcel->send, &error);
        return;
    }
    w->sender = sender;
    w->parcel = parcel;
    w->note = (struct flue_storage_note){.queue = sender->target->storage,
                                         .number = parcel->record,
                                         .text = parcel->note,
                                         .loop = sender->loop,
                                         .done = times_noted,
                                         .user = w};
    flue_storage_note_put(&w->note);
}

static enum flue_code make_parcel(struct flue_push_sender *sender, struct flue_parcel *parcel,
                                  struct flue_error *error)
{
    struct pyroscope *p = component_of(sender);
    struct flue_parcel_options options = p->options;
    enum flue_code code;

    options.cache = &sender->cache;
    options.tripped = tripped;
    options.arg = sender;
    if (parcel->record)
        options.note = note_of(p, parcel->record);
    code = flue_parcel_make(parcel, &options, error);
    if (code)
        return code;
    flue_metric_add(p->target.trimmed, (int64_t)parcel->trimmed);
    flue_metric_add(p->target.split, (int64_t)parcel->split);
    return FLUE_OK;
}

/* ---- life ----------------------------------------------------------------------------------- */

static enum flue_code start_target(struct pyroscope *p, struct flue_error *error)
{
    struct flue_push_target *t = &p->target;
    bool tls = false;

    for (size_t i = 0; i < t->endpoint_count; i++) {
        struct flue_flow_config flow = {
            .exporter = t->id,
            .endpoint = t->endpoint_count > 1 ? t->endpoints[i] : NULL,
            .min = p->config->max_concurrency < 8 ? (unsigned)p->config->max_concurrency : 8,
            .max = (unsigned)p->config->max_concurrency,
            .initial = p->config->max_concurrency < FIRST_PLACES
                           ? (unsigned)p->config->max_concurrency
                           : FIRST_PLACES,
            .circuit = t->endpoint_count > 1, /* of one, the engine's */
            .loops = p->loops,
            .metrics = p->metrics,
        };
        tls = tls || strncmp(t->endpoints[i], "https://", 8) == 0;
        t->flows[i] = flue_flow_new(&flow);
        if (!t->flows[i])
            return no_memory(t->id, error);
    }
    return tls ? flue_tls_client_new(&p->config->tls, "h2,http/1.1", &p->tls, error) : FLUE_OK;
}

static enum flue_code start_sender(struct pyroscope *p, struct flue_push_sender *sender,
                                   struct flue_error *error)
{
    enum flue_code code =
        flue_push_auth_init(&sender->auth, p->config, p->target.id, sender->loop, error);

    for (size_t i = 0; !code && i < p->target.endpoint_count; i++) {
        struct flue_client_config client = {
            .endpoint = p->target.endpoints[i],
            .tls = p->config->tls,
            .protocol = FLUE_CLIENT_PROBE,
            .tls_by_scheme = true,
            .auth = p->authenticator,
            .proxy_url = p->config->proxy_url,
            .idle_timeout = 90ll * 1000000000,
            .response_limit = RESPONSE_LIMIT,
        };
        code = flue_client_new(sender->loop, &client, p->tls, &sender->clients[i], error);
    }
    return code;
}

static enum flue_code pyroscope_start(void *instance, struct flue_error *error)
{
    struct pyroscope *p = instance;
    enum flue_code code = start_target(p, error);

    if (!code && p->target.storage)
        flue_storage_notes(p->target.storage, take_note, p);
    for (unsigned i = 0; !code && i < p->loops->count; i++) {
        flue_push_sender_init(&p->senders[i], &p->target, p->loops->items[i]);
        code = start_sender(p, &p->senders[i], error);
    }
    return code;
}

static void pyroscope_destroy(void *instance)
{
    struct pyroscope *p = instance;

    for (unsigned i = 0; p->senders && i < p->loops->count; i++) {
        struct flue_push_sender *sender = &p->senders[i];
        for (size_t k = 0; k < FLUE_PUSH_REPLICAS; k++)
            if (sender->clients[k])
                flue_client_destroy(sender->clients[k]);
        flue_push_sender_destroy(sender);
    }
    for (size_t i = 0; i < p->target.endpoint_count; i++)
        flue_flow_destroy(p->target.flows[i]);
    if (p->tls)
        flue_tls_destroy(p->tls);
    flue_guard_destroy(p->guard);
    flue_pace_free(p->target.pace);
    free(p->moments);
    flue_arena_destroy(&p->note_arena);
}

static void pyroscope_send(void *instance, struct flue_send *send)
{
    struct pyroscope *p = instance;
    struct flue_push_sender *sender = &p->senders[send->loop->index];
    struct flue_parcel *parcel = send->state;
    struct flue_error error = {0};
    uint64_t now = flue_monotonic_ns();

    if (!parcel) {
        parcel = flue_parcel_new(send);
        if (!parcel) {
            no_memory(p->target.id, &error);
            flue_send_fail(send, &error);
            return;
        }
        send->state = parcel;
        send->free_state = flue_parcel_free;
    }
    parcel->send = send;
    parcel->timeout_ns = send->deadline_ns > now ? send->deadline_ns - now : send->deadline_ns != 0;
    flue_push_attempt(sender, parcel);
}

const struct flue_component flue_exporter_pyroscope = {
    .kind = FLUE_EXPORTER,
    .name = "pyroscope",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "profiles to a Pyroscope server, by push.v1",
    .config_size = sizeof(struct flue_pyroscope_config),
    .fields = flue_pyroscope_fields,
    .timeout_def = 10ll * 1000000000,
    .check = flue_pyroscope_check,
    .create = pyroscope_create,
    .start = pyroscope_start,
    .send = pyroscope_send,
    .destroy = pyroscope_destroy,
};
