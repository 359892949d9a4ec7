/* record.c: a record made from an object: one allocation, and strings that others share. */
#include "kubernetes/record.h"
#include <stdlib.h>
#include "collector/base/clock.h"
#include "kubernetes/workload.h"

#define SECOND      INT64_C(1000000000)
#define MAX_ENTRIES 255

_Static_assert(FLUE_KUBE_MAX_CONTAINERS - 1 <= INT8_MAX, "an entry's container is one byte");
_Static_assert(sizeof(struct flue_kube_record) + MAX_ENTRIES * sizeof(struct flue_kube_entry) <=
                   UINT16_MAX,
               "an entry's way to its record is two bytes");

/* What goes into the record's text, with the keys among it. */
struct draft {
    struct flue_kube_store *store;
    char text[UINT16_MAX];
    size_t used;
    struct flue_kube_entry entries[MAX_ENTRIES];
    unsigned count;
    bool full, starved;
};

static uint16_t add_text(struct draft *draft, struct flue_bytes text)
{
    if (text.size > sizeof draft->text - draft->used) {
        draft->full = true;
        return 0;
    }
    size_t at = draft->used;
    if (text.size)
        memcpy(draft->text + at, text.data, text.size);
    draft->used += text.size;
    return (uint16_t)at;
}

static void add_key(struct draft *draft, unsigned type, uint16_t at, size_t size, int container,
                    int64_t ended)
{
    if (!size || size > UINT8_MAX || draft->count == MAX_ENTRIES)
        return;
    struct flue_bytes key = flue_bytes(draft->text + at, size);
    uint64_t hash = flue_kube_key_hash(type, key);
    for (unsigned i = 0; i < draft->count; i++)
        if (draft->entries[i].hash == hash && draft->entries[i].type == type)
            return; /* state and lastState may name one id twice */
    struct flue_kube_entry *entry = &draft->entries[draft->count++];
    *entry = (struct flue_kube_entry){.hash = hash,
                                      .key = at,
                                      .key_size = (uint8_t)size,
                                      .type = (uint8_t)type,
                                      .container = (int8_t)container};
    atomic_init(&entry->ended_ns, ended);
}

static struct flue_kube_string *intern(struct draft *draft, struct flue_bytes text)
{
    if (text.size > 65535)
        text.size = 65535;
    return flue_kube_string_get(&draft->store->strings, text, &draft->starved);
}

/* Any number can come over the wire; the store reckons with sums of two. */
static int64_t nanoseconds(int64_t seconds)
{
    const int64_t most = INT64_MAX / 4 / SECOND;
    return (seconds < 0 ? 0 : seconds > most ? most : seconds) * SECOND;
}

/* Succeeded and Failed pods keep their address in the API while another has it. They made their
 * last profile before their last container finished. */
static int64_t end_of(const struct flue_kube_object *object, bool *finished)
{
    int64_t last = 0;

    *finished = flue_bytes_is(object->phase, "Succeeded") || flue_bytes_is(object->phase, "Failed");
    if (!*finished)
        return INT64_MAX;
    for (unsigned i = 0; i < object->container_count; i++)
        if (object->containers[i].finished_s > last)
            last = object->containers[i].finished_s;
    return last ? nanoseconds(last) + SECOND : (int64_t)flue_wall_ns();
}

static void add_pod(struct draft *draft, const struct flue_kube_object *object,
                    struct flue_kube_record *head, struct flue_kube_container *containers)
{
    int64_t ended = end_of(object, &head->finished);
    uint8_t address[16];

    head->start_ns = nanoseconds(object->start_s ? object->start_s : object->created_s);
    head->ending_ns = INT64_MAX;
    if (object->deletion_s)
        head->ending_ns = nanoseconds(object->deletion_s) - nanoseconds(object->deletion_grace_s);
    add_key(draft, FLUE_KUBE_BY_UID, head->uid, head->uid_size, -1, INT64_MAX);
    /* Of a static pod the API has the mirror, which only its kubelet may make. */
    struct flue_bytes hash = flue_kube_pair_find(object->annotations, object->annotation_count,
                                                 "kubernetes.io/config.mirror");
    if (hash.size == 32)
        add_key(draft, FLUE_KUBE_BY_UID, add_text(draft, hash), hash.size, -1, INT64_MAX);
    for (unsigned i = 0; !object->host_network && i < object->address_count; i++) {
        unsigned size = flue_kube_address(object->addresses[i], address);
        if (size)
            add_key(draft, FLUE_KUBE_BY_ADDRESS, add_text(draft, flue_bytes(address, size)), size,
                    -1, ended);
    }
    if (draft->store->spec.index_names) {
        char key[FLUE_KUBE_KEY_MAX];
        struct flue_bytes name = flue_kube_object_key(object->namespace, object->name, key);
        add_key(draft, FLUE_KUBE_BY_NAME, add_text(draft, name), name.size, -1, INT64_MAX);
    }
    for (unsigned i = 0; i < object->container_count; i++) {
        const struct flue_kube_container_view *from = &object->containers[i];
        struct flue_kube_container *to = &containers[i];
        *to = (struct flue_kube_container){.name = intern(draft, from->name),
                                           .image = intern(draft, from->image),
                                           .image_id = intern(draft, from->image_id),
                                           .restart_count =
                                               (int32_t)(from->restart_count & INT32_MAX)};
        for (unsigned k = 0; k < 3; k++) {
            if (!from->ids[k].size || from->ids[k].size > UINT8_MAX)
                continue;
            uint16_t at = add_text(draft, from->ids[k]);
            if (!to->id_size) {
                to->id = at;
                to->id_size = (uint16_t)from->ids[k].size;
            }
            add_key(draft, FLUE_KUBE_BY_CONTAINER, at, from->ids[k].size, (int)i, INT64_MAX);
        }
    }
    if (object->address_count) {
        head->address = add_text(draft, object->addresses[0]);
        head->address_size = (uint16_t)object->addresses[0].size;
    }
}

struct flue_kube_record *flue_kube_record_make(struct flue_kube_store *store,
                                               enum flue_kube_kind kind,
                                               const struct flue_kube_object *object)
{
    struct draft *draft = store->draft;
    struct flue_kube_record head = {.kind = kind, .ending_ns = INT64_MAX};
    struct flue_kube_container containers[FLUE_KUBE_MAX_CONTAINERS];
    struct flue_kube_extract *extract = &store->extract;

    if (!draft && !(draft = store->draft = malloc(sizeof *draft))) /* too large for a stack */
        return NULL;
    draft->store = store;
    draft->used = draft->count = 0;
    draft->full = draft->starved = false;
    extract->count = 0;
    extract->scratch_used = 0;
    extract->ignored = false;
    if (store->spec.extract)
        store->spec.extract(store->spec.arg, kind, object, extract);

    head.ignored = extract->ignored;
    head.name = add_text(draft, object->name);
    head.name_size = (uint16_t)object->name.size;
    head.uid = add_text(draft, object->uid);
    head.uid_size = (uint16_t)object->uid.size;
    if (kind == FLUE_KUBE_POD) {
        head.container_count = (uint16_t)object->container_count;
        add_pod(draft, object, &head, containers);
    } else {
        char key[FLUE_KUBE_KEY_MAX];
        struct flue_bytes name = flue_kube_object_key(object->namespace, object->name, key);
        add_key(draft, FLUE_KUBE_BY_OBJECT + kind, add_text(draft, name), name.size, -1, INT64_MAX);
    }
    head.namespace = intern(draft, object->namespace);
    head.node = intern(draft, object->node_name);
    head.hostname = intern(draft, object->hostname);
    head.owner_kind = intern(draft, object->owner_kind);
    head.owner_name = intern(draft, object->owner_name);
    head.owner_uid = intern(draft, object->owner_uid);
    if (kind == FLUE_KUBE_POD && flue_bytes_is(object->owner_kind, "ReplicaSet"))
        head.deployment = intern(
            draft, flue_kube_deployment_name(
                       object->owner_name, flue_kube_pair_find(object->labels, object->label_count,
                                                               "pod-template-hash")));

    size_t at_containers = (sizeof head + draft->count * sizeof(struct flue_kube_entry) + 7) & ~7u;
    size_t at_extracted = at_containers + head.container_count * sizeof *containers;
    size_t at_text = at_extracted + extract->count * sizeof(struct flue_kube_extracted);
    char *memory = draft->full || draft->starved ? NULL : malloc(at_text + draft->used + 1);
    struct flue_kube_record *record = (struct flue_kube_record *)(void *)memory;
    if (!memory) {
        /* Its strings must go again: a record on the stack will do for that. */
        head.containers = containers;
        flue_kube_record_drop_strings(store, &head);
        return NULL;
    }
    *record = head;
    record->size = (uint32_t)(at_text + draft->used + 1);
    record->entry_count = (uint8_t)draft->count;
    record->entries = (struct flue_kube_entry *)(void *)(memory + sizeof head);
    record->containers = (struct flue_kube_container *)(void *)(memory + at_containers);
    record->extracted = (struct flue_kube_extracted *)(void *)(memory + at_extracted);
    record->text = memory + at_text;
    memcpy(record->entries, draft->entries, draft->count * sizeof *record->entries);
    for (unsigned i = 0; i < draft->count; i++)
        record->entries[i].record = (uint16_t)((char *)&record->entries[i] - memory);
    if (head.container_count)
        memcpy(record->containers, containers, head.container_count * sizeof *containers);
    memcpy(record->text, draft->text, draft->used);
    record->text[draft->used] = 0;
    for (unsigned i = 0; i < extract->count; i++) {
        struct flue_kube_extracted *to = &record->extracted[record->extracted_count++];
        to->name = intern(draft, extract->pairs[i].key);
        to->value = intern(draft, extract->pairs[i].value);
    }
    store->record_bytes += record->size;
    if (draft->starved) {
        flue_kube_record_free(store, record);
        return NULL;
    }
    return record;
}

void flue_kube_record_drop_strings(struct flue_kube_store *store,
                                   const struct flue_kube_record *record)
{
    struct flue_kube_string *const own[] = {
        record->namespace,  record->node,      record->hostname,  record->owner_kind,
        record->owner_name, record->owner_uid, record->deployment};

    for (unsigned i = 0; i < sizeof own / sizeof own[0]; i++)
        flue_kube_string_drop(&store->strings, own[i]);
    for (unsigned i = 0; i < record->container_count; i++) {
        flue_kube_string_drop(&store->strings, record->containers[i].name);
        flue_kube_string_drop(&store->strings, record->containers[i].image);
        flue_kube_string_drop(&store->strings, record->containers[i].image_id);
    }
    for (unsigned i = 0; i < record->extracted_count; i++) {
        flue_kube_string_drop(&store->strings, record->extracted[i].name);
        flue_kube_string_drop(&store->strings, record->extracted[i].value);
    }
}

void flue_kube_record_free(struct flue_kube_store *store, struct flue_kube_record *record)
{
    flue_kube_record_drop_strings(store, record);
    store->record_bytes -= record->size;
    free(record);
}

/* Strings are shared, so equal ones are the same one. */
bool flue_kube_record_same(const struct flue_kube_record *a, const struct flue_kube_record *b)
{
    if (a->size != b->size || a->ignored != b->ignored || a->finished != b->finished ||
        a->entry_count != b->entry_count || a->container_count != b->container_count ||
        a->extracted_count != b->extracted_count || a->start_ns != b->start_ns ||
        a->ending_ns != b->ending_ns || a->namespace != b->namespace || a->node != b->node ||
        a->hostname != b->hostname || a->owner_kind != b->owner_kind ||
        a->owner_name != b->owner_name || a->owner_uid != b->owner_uid ||
        a->deployment != b->deployment || a->address != b->address ||
        a->address_size != b->address_size ||
        memcmp(a->text, b->text, a->size - (size_t)(a->text - (const char *)a)) != 0)
        return false;
    for (unsigned i = 0; i < a->entry_count; i++)
        if (a->entries[i].hash != b->entries[i].hash ||
            atomic_load_explicit(&a->entries[i].ended_ns, memory_order_relaxed) !=
                atomic_load_explicit(&b->entries[i].ended_ns, memory_order_relaxed))
            return false;
    for (unsigned i = 0; i < a->container_count; i++) {
        const struct flue_kube_container *x = &a->containers[i], *y = &b->containers[i];
        if (x->name != y->name || x->image != y->image || x->image_id != y->image_id ||
            x->restart_count != y->restart_count || x->id != y->id || x->id_size != y->id_size)
            return false;
    }
    for (unsigned i = 0; i < a->extracted_count; i++)
        if (a->extracted[i].name != b->extracted[i].name ||
            a->extracted[i].value != b->extracted[i].value)
            return false;
    return true;
}
