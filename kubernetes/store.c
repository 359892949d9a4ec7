/* store.c: records are made, replaced, ended and forgotten. See store.h. */
#include "kubernetes/store.h"
#include <arpa/inet.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/hash.h"
#include "kubernetes/record.h"

#define DEFAULT_LIMIT (size_t)(1u << 30)

enum flue_code flue_kube_store_new(const struct flue_kube_store_spec *spec,
                                   struct flue_kube_store **out, struct flue_error *error)
{
    struct flue_kube_store *store = NULL;

    if (posix_memalign((void **)&store, 64, sizeof *store) != 0)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the store of pods");
    memset(store, 0, sizeof *store);
    store->spec = *spec;
    if (!store->spec.limit)
        store->spec.limit = DEFAULT_LIMIT;
    store->epochs.last = &store->epochs.first;
    atomic_init(&store->epochs.now, 1);
    if (!flue_kube_table_init(&store->table)) {
        free(store);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the store of pods");
    }
    *out = store;
    return FLUE_OK;
}

struct flue_kube_epochs *flue_kube_store_epochs(struct flue_kube_store *store)
{
    return &store->epochs;
}

const struct flue_kube_store_stats *flue_kube_store_stats(const struct flue_kube_store *store)
{
    return &store->stats;
}

void flue_kube_store_set_current(struct flue_kube_store *store, uint64_t until_ns)
{
    atomic_store(&store->current_ns, until_ns);
}

uint64_t flue_kube_store_current(struct flue_kube_store *store)
{
    if (!atomic_load_explicit(&store->asked, memory_order_relaxed))
        atomic_store_explicit(&store->asked, true, memory_order_relaxed);
    return atomic_load(&store->current_ns);
}

bool flue_kube_store_asked(struct flue_kube_store *store)
{
    return atomic_exchange_explicit(&store->asked, false, memory_order_relaxed);
}

/* ---- lists and keys -------------------------------------------------------------------------- */

static void list_add(struct flue_kube_list *list, struct flue_kube_record *record)
{
    record->before = list->last;
    record->after = NULL;
    if (list->last)
        list->last->after = record;
    else
        list->first = record;
    list->last = record;
    list->count++;
}

static void list_take(struct flue_kube_list *list, struct flue_kube_record *record)
{
    if (record->before)
        record->before->after = record->after;
    else
        list->first = record->after;
    if (record->after)
        record->after->before = record->before;
    else
        list->last = record->before;
    list->count--;
}

static struct flue_kube_list *list_of(struct flue_kube_store *store,
                                      const struct flue_kube_record *record)
{
    return record->waits ? &store->waiting : &store->live[record->kind];
}

static void count(struct flue_kube_store *store)
{
    for (unsigned i = 0; i < FLUE_KUBE_KINDS; i++)
        atomic_store_explicit(&store->stats.records[i], store->live[i].count, memory_order_relaxed);
    atomic_store_explicit(&store->stats.waiting, store->waiting.count, memory_order_relaxed);
    atomic_store_explicit(&store->stats.bytes,
                          store->record_bytes + store->strings.bytes +
                              flue_kube_table_bytes(&store->table),
                          memory_order_relaxed);
}

struct flue_bytes flue_kube_object_key(struct flue_bytes namespace, struct flue_bytes name,
                                       char *out)
{
    if (namespace.size + name.size + 1 > FLUE_KUBE_KEY_MAX)
        return flue_bytes(NULL, 0);
    if (namespace.size)
        memcpy(out, namespace.data, namespace.size);
    out[namespace.size] = '/';
    if (name.size)
        memcpy(out + namespace.size + 1, name.data, name.size);
    return flue_bytes(out, namespace.size + 1 + name.size);
}

static _Atomic uint32_t *generation_of(struct flue_kube_store *store, enum flue_kube_kind kind,
                                       struct flue_bytes namespace, struct flue_bytes name)
{
    char key[FLUE_KUBE_KEY_MAX];
    uint64_t hash =
        flue_kube_key_hash(FLUE_KUBE_BY_OBJECT + kind, flue_kube_object_key(namespace, name, key));
    return &store->generations[hash % FLUE_KUBE_GENERATIONS];
}

const _Atomic uint32_t *flue_kube_generation(struct flue_kube_store *store,
                                             enum flue_kube_kind kind, struct flue_bytes namespace,
                                             struct flue_bytes name)
{
    return generation_of(store, kind, namespace, name);
}

static void changed(struct flue_kube_store *store, const struct flue_kube_record *record)
{
    if (record->kind != FLUE_KUBE_POD)
        atomic_fetch_add(
            generation_of(store, record->kind, flue_kube_text(record->namespace),
                          flue_kube_record_text(record, record->name, record->name_size)),
            1);
}

static struct flue_kube_record *known(struct flue_kube_store *store, enum flue_kube_kind kind,
                                      const struct flue_kube_object *object)
{
    char text[FLUE_KUBE_KEY_MAX];
    unsigned type = kind == FLUE_KUBE_POD ? FLUE_KUBE_BY_UID : FLUE_KUBE_BY_OBJECT + kind;
    struct flue_bytes key = kind == FLUE_KUBE_POD
                                ? object->uid
                                : flue_kube_object_key(object->namespace, object->name, text);
    struct flue_kube_walk walk = flue_kube_walk(&store->table, type, key);
    struct flue_kube_entry *entry;

    while ((entry = flue_kube_walk_next(&walk))) {
        struct flue_kube_record *record = flue_kube_record_of(entry);
        /* Not by the hash of a static pod, which is a key of the same type. */
        if (kind != FLUE_KUBE_POD ||
            flue_bytes_equal(flue_kube_record_text(record, record->uid, record->uid_size), key))
            return record;
    }
    return NULL;
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void release_record(struct flue_kube_retired *retired, void *arg)
{
    flue_kube_record_free(arg, (struct flue_kube_record *)(void *)retired);
}

static void unlink_all(struct flue_kube_store *store, struct flue_kube_record *record)
{
    for (unsigned i = 0; i < record->entry_count; i++)
        flue_kube_table_unlink(&store->table, &record->entries[i]);
}

static void discard(struct flue_kube_store *store, struct flue_kube_record *record)
{
    unlink_all(store, record);
    record->retired.release = release_record;
    flue_kube_retire(&store->epochs, &record->retired);
}

static void wait_for_grace(struct flue_kube_store *store, struct flue_kube_record *record)
{
    list_take(list_of(store, record), record);
    record->waits = true;
    record->forget_ns = (int64_t)flue_monotonic_ns() + store->spec.grace_ns;
    list_add(&store->waiting, record);
}

static void end_entry(struct flue_kube_entry *entry, int64_t now)
{
    if (atomic_load_explicit(&entry->ended_ns, memory_order_relaxed) > now)
        atomic_store(&entry->ended_ns, now);
}

static void bury(struct flue_kube_store *store, struct flue_kube_record *record)
{
    int64_t now = (int64_t)flue_wall_ns();

    if (record->gone)
        return;
    record->gone = true;
    for (unsigned i = 0; i < record->entry_count; i++)
        end_entry(&record->entries[i], now);
    if (!record->waits)
        wait_for_grace(store, record);
    changed(store, record);
}

void flue_kube_store_tick(struct flue_kube_store *store)
{
    int64_t now = (int64_t)flue_monotonic_ns();

    while (store->waiting.first && store->waiting.first->forget_ns <= now) {
        struct flue_kube_record *record = store->waiting.first;
        list_take(&store->waiting, record);
        changed(store, record);
        discard(store, record);
    }
    flue_kube_reclaim(&store->epochs, store);
    count(store);
}

void flue_kube_store_begin(struct flue_kube_store *store, enum flue_kube_kind kind)
{
    store->list[kind]++;
}

void flue_kube_store_end(struct flue_kube_store *store, enum flue_kube_kind kind)
{
    struct flue_kube_record *record = store->live[kind].first, *after;

    for (; record; record = after) {
        after = record->after;
        if (record->seen != store->list[kind])
            bury(store, record);
    }
    flue_kube_store_tick(store);
}

void flue_kube_store_delete(struct flue_kube_store *store, enum flue_kube_kind kind,
                            const struct flue_kube_object *object)
{
    struct flue_kube_record *record = known(store, kind, object);

    if (!record || record->gone)
        return;
    /* Of another object that took the name meanwhile, nothing is known to have ended. */
    if (object->uid.size &&
        !flue_bytes_equal(object->uid,
                          flue_kube_record_text(record, record->uid, record->uid_size)))
        return;
    /* The last word on it may hold ids that were not seen before. */
    flue_kube_store_put(store, kind, object, true);
    record = known(store, kind, object);
    if (record)
        bury(store, record);
}

/* ---- replacing ------------------------------------------------------------------------------- */

static const struct flue_kube_entry *same_key(const struct flue_kube_record *record,
                                              const struct flue_kube_entry *entry)
{
    for (unsigned i = 0; i < record->entry_count; i++) {
        const struct flue_kube_entry *e = &record->entries[i];
        if (e->hash == entry->hash && e->type == entry->type &&
            flue_bytes_equal(flue_kube_entry_key(e), flue_kube_entry_key(entry)))
            return e;
    }
    return NULL;
}

/* What ended before stays ended: a finished pod reports its address for hours. */
static void carry_ends(struct flue_kube_record *made, const struct flue_kube_record *old)
{
    for (unsigned i = 0; i < made->entry_count; i++) {
        const struct flue_kube_entry *before = same_key(old, &made->entries[i]);
        int64_t ended =
            before && !old->gone
                ? atomic_load_explicit(&((struct flue_kube_entry *)(uintptr_t)before)->ended_ns,
                                       memory_order_relaxed)
                : INT64_MAX;
        if (made->finished &&
            ended < atomic_load_explicit(&made->entries[i].ended_ns, memory_order_relaxed))
            atomic_store_explicit(&made->entries[i].ended_ns, ended, memory_order_relaxed);
    }
}

/* The old record's keys that the new one does not have stay known for the grace period. */
static void supersede(struct flue_kube_store *store, struct flue_kube_record *old,
                      const struct flue_kube_record *made)
{
    int64_t now = (int64_t)flue_wall_ns();
    bool keeps = false;

    for (unsigned i = 0; i < old->entry_count; i++) {
        struct flue_kube_entry *entry = &old->entries[i];
        if (same_key(made, entry)) {
            flue_kube_table_unlink(&store->table, entry);
        } else if (entry->linked) {
            end_entry(entry, now);
            keeps = true;
        }
    }
    if (keeps) {
        wait_for_grace(store, old);
    } else {
        list_take(list_of(store, old), old);
        discard(store, old);
    }
}

bool flue_kube_store_put(struct flue_kube_store *store, enum flue_kube_kind kind,
                         const struct flue_kube_object *object, bool change)
{
    if (!object->name.size || (kind == FLUE_KUBE_POD && !object->uid.size))
        return false;
    struct flue_kube_record *old = known(store, kind, object);
    if (old && old->gone && change)
        return true;
    struct flue_kube_record *made = flue_kube_record_make(store, kind, object);
    if (made && store->record_bytes + store->strings.bytes > store->spec.limit && !old) {
        flue_kube_record_free(store, made);
        made = NULL;
    }
    if (!made ||
        !flue_kube_table_reserve(&store->table, made->entry_count, &store->epochs, store)) {
        if (made)
            flue_kube_record_free(store, made);
        if (old)
            old->seen = store->list[kind];
        atomic_fetch_add_explicit(&store->stats.left_out, 1, memory_order_relaxed);
        return false;
    }
    if (old)
        carry_ends(made, old);
    if (old && !old->gone && flue_kube_record_same(old, made)) {
        old->seen = store->list[kind];
        flue_kube_record_free(store, made);
        return true;
    }
    made->serial = ++store->serial;
    made->seen = store->list[kind];
    /* The new one first: a reader finds the old one or the new one, never neither. */
    for (unsigned i = 0; i < made->entry_count; i++)
        flue_kube_table_link(&store->table, &made->entries[i]);
    list_add(&store->live[kind], made);
    if (old)
        supersede(store, old, made);
    changed(store, made);
    return true;
}

void flue_kube_store_destroy(struct flue_kube_store *store)
{
    if (!store)
        return;
    for (unsigned i = 0; i <= FLUE_KUBE_KINDS; i++) {
        struct flue_kube_list *list = i < FLUE_KUBE_KINDS ? &store->live[i] : &store->waiting;
        while (list->first) {
            struct flue_kube_record *record = list->first;
            list_take(list, record);
            discard(store, record);
        }
    }
    flue_kube_reclaim(&store->epochs, store);
    flue_kube_table_destroy(&store->table);
    flue_kube_strings_destroy(&store->strings);
    free(store->draft);
    free(store);
}

/* ---- looking up ------------------------------------------------------------------------------ */

static bool lives(const struct flue_kube_entry *entry)
{
    return atomic_load(&((struct flue_kube_entry *)(uintptr_t)entry)->ended_ns) == INT64_MAX;
}

const struct flue_kube_record *flue_kube_find_container(struct flue_kube_store *store,
                                                        struct flue_bytes id, int *container)
{
    /* It is of one pod: where two records have it, one is replacing the other. */
    struct flue_kube_walk walk = flue_kube_walk(&store->table, FLUE_KUBE_BY_CONTAINER, id);
    const struct flue_kube_entry *entry = flue_kube_walk_next(&walk);
    if (!entry)
        return NULL;
    *container = entry->container;
    return flue_kube_record_of(entry);
}

static bool same_pod(const struct flue_kube_record *a, const struct flue_kube_record *b)
{
    return flue_bytes_equal(flue_kube_record_text(a, a->uid, a->uid_size),
                            flue_kube_record_text(b, b->uid, b->uid_size));
}

const struct flue_kube_record *flue_kube_find_uid(struct flue_kube_store *store,
                                                  struct flue_bytes uid)
{
    struct flue_kube_walk walk = flue_kube_walk(&store->table, FLUE_KUBE_BY_UID, uid);
    const struct flue_kube_entry *entry, *best = NULL;

    while ((entry = flue_kube_walk_next(&walk))) {
        if (!best) {
            best = entry;
            continue;
        }
        const struct flue_kube_record *a = flue_kube_record_of(best),
                                      *b = flue_kube_record_of(entry);
        bool old = lives(best), new = lives(entry);
        if (!same_pod(a, b) && old && new)
            return NULL;
        if (old == new ? b->serial > a->serial : new)
            best = entry;
    }
    return best ? flue_kube_record_of(best) : NULL;
}

const struct flue_kube_record *flue_kube_find_object(struct flue_kube_store *store,
                                                     enum flue_kube_kind kind,
                                                     struct flue_bytes namespace,
                                                     struct flue_bytes name)
{
    char text[FLUE_KUBE_KEY_MAX];
    struct flue_kube_walk walk = flue_kube_walk(&store->table, FLUE_KUBE_BY_OBJECT + kind,
                                                flue_kube_object_key(namespace, name, text));
    const struct flue_kube_record *best = NULL;
    const struct flue_kube_entry *entry;

    while ((entry = flue_kube_walk_next(&walk)))
        if (!best || flue_kube_record_of(entry)->serial > best->serial)
            best = flue_kube_record_of(entry);
    return best;
}

unsigned flue_kube_address(struct flue_bytes text, uint8_t out[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char terminated[64];

    if (text.size >= sizeof terminated || !text.size)
        return 0;
    memcpy(terminated, text.data, text.size);
    terminated[text.size] = 0;
    if (inet_pton(AF_INET, terminated, out) == 1)
        return 4;
    if (inet_pton(AF_INET6, terminated, out) != 1)
        return 0;
    if (memcmp(out, mapped, sizeof mapped) == 0) {
        memmove(out, out + 12, 4);
        return 4;
    }
    return 16;
}

/* Who had the key over all of [from, until], if nobody else can have had it near that time. */
static enum flue_kube_owner find_in_time(struct flue_kube_store *store, unsigned type,
                                         struct flue_bytes key, int64_t from_ns, int64_t until_ns,
                                         const struct flue_kube_record **out)
{
    struct flue_kube_walk walk = flue_kube_walk(&store->table, type, key);
    const struct flue_kube_record *found = NULL;
    int64_t apart = store->spec.apart_ns, ended = 0;
    struct flue_kube_entry *entry;

    while ((entry = flue_kube_walk_next(&walk))) {
        const struct flue_kube_record *record = flue_kube_record_of(entry);
        int64_t end = atomic_load(&entry->ended_ns);
        if (record->start_ns - apart > until_ns || end < from_ns - apart)
            continue;
        if (found && !same_pod(found, record))
            return FLUE_KUBE_DOUBT;
        /* While a record replaces another of the same pod, both are found. */
        if (!found || record->serial > found->serial) {
            found = record;
            ended = end;
        }
    }
    if (!found || found->start_ns > until_ns || ended < from_ns)
        return FLUE_KUBE_NOBODY;
    if (found->start_ns > from_ns || ended < until_ns || found->ending_ns <= from_ns)
        return FLUE_KUBE_DOUBT;
    *out = found;
    return FLUE_KUBE_ONE;
}

enum flue_kube_owner flue_kube_find_address(struct flue_kube_store *store,
                                            struct flue_bytes address, int64_t from_ns,
                                            int64_t until_ns, const struct flue_kube_record **out)
{
    uint8_t binary[16];
    unsigned size = flue_kube_address(address, binary);

    return size ? find_in_time(store, FLUE_KUBE_BY_ADDRESS, flue_bytes(binary, size), from_ns,
                               until_ns, out)
                : FLUE_KUBE_NOBODY;
}

enum flue_kube_owner flue_kube_find_name(struct flue_kube_store *store, struct flue_bytes namespace,
                                         struct flue_bytes name, int64_t from_ns, int64_t until_ns,
                                         const struct flue_kube_record **out)
{
    char text[FLUE_KUBE_KEY_MAX];
    return find_in_time(store, FLUE_KUBE_BY_NAME, flue_kube_object_key(namespace, name, text),
                        from_ns, until_ns, out);
}
