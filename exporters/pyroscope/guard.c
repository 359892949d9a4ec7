/* guard.c: see guard.h. */
#include "exporters/pyroscope/guard.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/hash.h"
#include "collector/base/log.h"

#define BITS  131072u
#define WORDS (BITS / 64)

struct watched {
    _Atomic(char *) name; /* NULL: free; written once */
    size_t name_size;
    _Atomic uint64_t *bits;
    _Atomic uint64_t set;               /* bits */
    _Atomic uint64_t began_ns;          /* of the window, wall clock */
    _Atomic uint64_t from_ns, until_ns; /* guarded for what was received within; 0: never */
    struct flue_metric *left_out, *values;
};

struct flue_guard {
    struct flue_guard_config config;
    char *exporter;
    struct flue_metrics *metrics;
    bool exact;
    uint64_t full; /* bits that are set where the limit is passed */
    pthread_mutex_t lock;
    _Atomic size_t count;
    _Atomic uint64_t generation, guarded_until_ns;
    struct watched labels[FLUE_GUARD_LABELS];
};

struct flue_guard *flue_guard_new(const struct flue_guard_config *config, const char *exporter,
                                  struct flue_metrics *metrics, bool exact)
{
    struct flue_guard *guard = calloc(1, sizeof *guard);

    if (!guard)
        return NULL;
    guard->config = *config;
    guard->metrics = metrics;
    guard->exact = exact;
    guard->exporter = strdup(exporter);
    /* limit = -m ln(1 - b/m), solved for b: what as many values leave on average. */
    guard->full = (uint64_t)((double)BITS * -expm1(-((double)config->limit + 0.5) / (double)BITS));
    pthread_mutex_init(&guard->lock, NULL);
    if (!guard->exporter) {
        flue_guard_destroy(guard);
        return NULL;
    }
    return guard;
}

void flue_guard_destroy(struct flue_guard *guard)
{
    if (!guard)
        return;
    for (size_t i = 0; i < atomic_load(&guard->count); i++) {
        free(atomic_load(&guard->labels[i].name));
        free(guard->labels[i].bits);
    }
    pthread_mutex_destroy(&guard->lock);
    free(guard->exporter);
    free(guard);
}

static struct watched *find(struct flue_guard *guard, struct flue_bytes label)
{
    size_t count = atomic_load_explicit(&guard->count, memory_order_acquire);

    for (size_t i = 0; i < count; i++) {
        struct watched *w = &guard->labels[i];
        if (w->name_size == label.size &&
            memcmp(atomic_load_explicit(&w->name, memory_order_relaxed), label.data, label.size) ==
                0)
            return w;
    }
    return NULL;
}

static struct watched *watch(struct flue_guard *guard, struct flue_bytes label)
{
    struct watched *w;
    char *name;

    pthread_mutex_lock(&guard->lock);
    w = find(guard, label);
    if (!w && atomic_load(&guard->count) < FLUE_GUARD_LABELS) {
        w = &guard->labels[atomic_load(&guard->count)];
        name = malloc(label.size + 1);
        w->bits = calloc(WORDS, sizeof *w->bits);
        if (name && w->bits) {
            char shown[128];
            memcpy(name, label.data, label.size);
            name[label.size] = 0;
            flue_printable(label, shown, sizeof shown);
            const struct flue_label labels[] = {
                {"exporter", guard->exporter}, {"label", shown}, {NULL, NULL}};
            w->left_out = flue_metric(guard->metrics, FLUE_COUNTER, "pyroscope_labels_guarded",
                                      "series whose label was left out or replaced, since it has "
                                      "too many values",
                                      labels);
            w->values = flue_metric(guard->metrics, FLUE_GAUGE, "pyroscope_label_values",
                                    "values of a label in the present window, estimated", labels);
            w->name_size = label.size;
            atomic_store(&w->began_ns, flue_wall_ns());
            atomic_store(&w->name, name);
            atomic_fetch_add_explicit(&guard->count, 1, memory_order_release);
        } else {
            free(name);
            free(w->bits);
            w->bits = NULL;
            w = NULL;
        }
    }
    pthread_mutex_unlock(&guard->lock);
    return w;
}

bool flue_guard_holds(struct flue_guard *guard, struct flue_bytes label, uint64_t received_ns)
{
    struct watched *w;

    if (!flue_guard_active(guard))
        return false;
    w = find(guard, label);
    if (!w || received_ns < atomic_load(&w->from_ns) || received_ns >= atomic_load(&w->until_ns))
        return false;
    flue_metric_add(w->left_out, 1);
    return true;
}

/* Two loops that begin a window at once both clear it: values of the very first moment may be
 * forgotten, which a guard can bear. */
static void window_next(struct flue_guard *guard, struct watched *w, uint64_t now)
{
    uint64_t began = atomic_load(&w->began_ns);

    if (now - began < (uint64_t)guard->config.window && now >= began)
        return;
    if (!atomic_compare_exchange_strong(&w->began_ns, &began, now))
        return;
    for (size_t i = 0; i < WORDS; i++)
        atomic_store_explicit(&w->bits[i], 0, memory_order_relaxed);
    atomic_store(&w->set, 0);
    atomic_fetch_add(&guard->generation, 1);
}

static void guard_from(struct flue_guard *guard, struct watched *w,
                       const struct flue_guard_span *span)
{
    uint64_t last = atomic_load(&guard->guarded_until_ns);

    atomic_store(&w->from_ns, span->from_ns);
    atomic_store(&w->until_ns, span->until_ns);
    while (last < span->until_ns &&
           !atomic_compare_exchange_weak(&guard->guarded_until_ns, &last, span->until_ns))
        ;
    atomic_fetch_add(&guard->generation, 1);
}

bool flue_guard_count(struct flue_guard *guard, struct flue_bytes label, struct flue_bytes value,
                      uint64_t received_ns)
{
    struct watched *w;
    uint64_t now, bit, hash, set, until;
    struct flue_guard_span span;

    if (guard->config.limit == 0)
        return false;
    w = find(guard, label);
    if (!w && !(w = watch(guard, label)))
        return false;
    now = flue_wall_ns();
    window_next(guard, w, now);
    hash = flue_hash(value) % BITS;
    bit = (uint64_t)1 << (hash % 64);
    if (atomic_load_explicit(&w->bits[hash / 64], memory_order_relaxed) & bit ||
        atomic_fetch_or(&w->bits[hash / 64], bit) & bit)
        return false;
    set = atomic_fetch_add(&w->set, 1) + 1;
    flue_metric_set(w->values, (int64_t)(-(double)BITS * log1p(-(double)set / (BITS + 1.0)) + 0.5));
    until = atomic_load(&w->until_ns);
    if (set <= guard->full || now < until)
        return false;
    span.from_ns = guard->exact || received_ns > now ? now : received_ns;
    span.until_ns = now + (uint64_t)guard->config.window;
    guard_from(guard, w, &span);
    flue_log(FLUE_WARN, guard->exporter,
             "a label has too many values and is left out for a window; see labels.cardinality",
             FLUE_B("label", label), FLUE_I("limit", guard->config.limit), FLUE_LOG_END);
    return true;
}

uint64_t flue_guard_generation(struct flue_guard *guard, uint64_t received_ns)
{
    uint64_t generation = atomic_load_explicit(&guard->generation, memory_order_acquire);
    size_t count = flue_guard_active(guard) ? atomic_load(&guard->count) : 0;

    for (size_t i = 0; i < count; i++) {
        const struct watched *w = &guard->labels[i];
        if (received_ns >= atomic_load(&w->from_ns) && received_ns < atomic_load(&w->until_ns))
            generation = flue_hash_join(generation, i);
    }
    return generation;
}

bool flue_guard_active(const struct flue_guard *guard)
{
    return atomic_load_explicit(&((struct flue_guard *)guard)->guarded_until_ns,
                                memory_order_acquire) != 0;
}

bool flue_guard_span_of(struct flue_guard *guard, struct flue_bytes label,
                        struct flue_guard_span *out)
{
    struct watched *w = find(guard, label);

    if (!w)
        return false;
    *out = (struct flue_guard_span){atomic_load(&w->from_ns), atomic_load(&w->until_ns)};
    return out->until_ns != 0;
}

bool flue_guard_restore(struct flue_guard *guard, struct flue_bytes label,
                        const struct flue_guard_span *span)
{
    struct watched *w = find(guard, label);

    if (!w && !(w = watch(guard, label)))
        return false;
    guard_from(guard, w, span);
    return true;
}
