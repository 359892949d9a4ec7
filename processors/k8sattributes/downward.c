/* downward.c: see downward.h. */
#include "processors/k8sattributes/downward.h"
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "kubernetes/access.h"
#include "kubernetes/workload.h"

#define FILE_MAX_BYTES (1u << 20)

struct k8s_downward_reader {
    struct flue_timer timer;
    struct flue_job job;
    const struct k8s_downward *config;
    struct flue_kube_store *store;
    struct flue_loop *loop;
    struct flue_kube_object object;
    struct flue_arena arena; /* of the files last read */
    char uid[128], address[64], container[256], name[256], namespace[128], node[256];
    _Atomic bool busy, stopping;
};

/* kubelet writes strconv.Quote: \" \\ \n \t \r \xNN \uNNNN ... */
static struct flue_bytes unquote(struct flue_bytes text, struct flue_arena *arena)
{
    uint8_t *out = flue_arena_alloc(arena, text.size + 1);
    size_t used = 0;

    for (size_t i = 0; out && i < text.size; i++) {
        if (text.data[i] != '\\' || i + 1 >= text.size) {
            out[used++] = text.data[i];
            continue;
        }
        uint8_t c = text.data[++i];
        unsigned digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
        uint32_t value = 0;
        if (!digits) {
            static const char from[] = "abfnrtv", to[] = "\a\b\f\n\r\t\v";
            const char *at = memchr(from, c, sizeof from - 1);
            out[used++] = at ? (uint8_t)to[at - from] : c;
            continue;
        }
        for (unsigned d = 0; d < digits && i + 1 < text.size; d++) {
            uint8_t h = text.data[++i];
            value = value << 4 | (uint32_t)(h <= '9' ? h - '0' : (h | 32) - 'a' + 10);
        }
        if (c == 'x' || value < 0x80) {
            out[used++] = (uint8_t)value;
        } else if (value < 0x800) {
            out[used++] = (uint8_t)(0xc0 | value >> 6);
            out[used++] = (uint8_t)(0x80 | (value & 0x3f));
        } else if (value < 0x10000) {
            out[used++] = (uint8_t)(0xe0 | value >> 12);
            out[used++] = (uint8_t)(0x80 | (value >> 6 & 0x3f));
            out[used++] = (uint8_t)(0x80 | (value & 0x3f));
        } else {
            out[used++] = (uint8_t)(0xf0 | (value >> 18 & 7));
            out[used++] = (uint8_t)(0x80 | (value >> 12 & 0x3f));
            out[used++] = (uint8_t)(0x80 | (value >> 6 & 0x3f));
            out[used++] = (uint8_t)(0x80 | (value & 0x3f));
        }
    }
    struct flue_bytes result = flue_bytes(out, used);
    return out && flue_utf8_valid(result) ? result : flue_bytes(NULL, 0);
}

unsigned k8s_downward_pairs(struct flue_bytes text, struct flue_arena *arena,
                            struct flue_kube_pair *out, unsigned room)
{
    unsigned count = 0;

    while (text.size && count < room) {
        size_t end = flue_bytes_find(text, '\n');
        struct flue_bytes line = flue_bytes_first(text, end == SIZE_MAX ? text.size : end);
        text = flue_bytes_from(text, line.size + 1);
        size_t equals = flue_bytes_find(line, '=');
        if (equals == SIZE_MAX || equals == 0 || line.size < equals + 3 ||
            line.data[equals + 1] != '"' || line.data[line.size - 1] != '"')
            continue;
        struct flue_bytes value = flue_bytes(line.data + equals + 2, line.size - equals - 3);
        out[count++] =
            (struct flue_kube_pair){flue_bytes_first(line, equals), unquote(value, arena)};
    }
    return count;
}

static void variable(const char *name, char *out, size_t size)
{
    const char *value = name ? getenv(name) : NULL;
    snprintf(out, size, "%s", value ? value : "");
}

static struct flue_bytes read_file(struct k8s_downward_reader *reader, const char *name)
{
    struct flue_error error;
    struct flue_bytes text = {NULL, 0};
    char path[512];

    snprintf(path, sizeof path, "%s/%s", reader->config->directory, name);
    if (flue_kube_file_read(&reader->arena, path, FILE_MAX_BYTES, &text, &error) != FLUE_OK)
        return flue_bytes(NULL, 0);
    return text;
}

static void from_file(struct k8s_downward_reader *reader, const char *name, char *out, size_t size)
{
    struct flue_bytes text = out[0] ? flue_bytes(NULL, 0) : read_file(reader, name);
    while (text.size && text.data[text.size - 1] == '\n')
        text.size--;
    if (text.size && text.size < size) {
        memcpy(out, text.data, text.size);
        out[text.size] = 0;
    }
}

/* "name" without "-" and what follows its last dash; empty if there is none. */
static struct flue_bytes before_dash(struct flue_bytes name)
{
    for (size_t i = name.size; i-- > 1;)
        if (name.data[i] == '-')
            return flue_bytes_first(name, i);
    return flue_bytes(NULL, 0);
}

static void derive_owner(struct flue_kube_object *object)
{
    struct flue_bytes stem = before_dash(object->name);
    struct flue_bytes hash =
        flue_kube_pair_find(object->labels, object->label_count, "pod-template-hash");
    struct flue_bytes job =
        flue_kube_pair_find(object->labels, object->label_count, "batch.kubernetes.io/job-name");
    struct flue_bytes index =
        flue_kube_pair_find(object->labels, object->label_count, "apps.kubernetes.io/pod-index");

    if (flue_kube_deployment_name(stem, hash).size) {
        object->owner_kind = FLUE_BYTES("ReplicaSet");
        object->owner_name = stem;
    } else if (job.size) {
        object->owner_kind = FLUE_BYTES("Job");
        object->owner_name = job;
    } else if (index.size && flue_bytes_ends_with(object->name, index) && stem.size &&
               stem.size + 1 + index.size == object->name.size) {
        object->owner_kind = FLUE_BYTES("StatefulSet");
        object->owner_name = stem;
    }
}

static void read_all(struct k8s_downward_reader *reader)
{
    struct flue_kube_object *object = &reader->object;

    flue_arena_reset(&reader->arena);
    memset(object, 0, sizeof *object);
    from_file(reader, "name", reader->name, sizeof reader->name);
    from_file(reader, "namespace", reader->namespace, sizeof reader->namespace);
    from_file(reader, "uid", reader->uid, sizeof reader->uid);
    object->name = flue_bytes_of(reader->name);
    object->namespace = flue_bytes_of(reader->namespace);
    object->uid = flue_bytes_of(reader->uid);
    object->node_name = flue_bytes_of(reader->node);
    if (reader->address[0])
        object->addresses[object->address_count++] = flue_bytes_of(reader->address);
    if (reader->container[0]) {
        object->containers[0].name = flue_bytes_of(reader->container);
        object->container_count = 1;
    }
    object->label_count = k8s_downward_pairs(read_file(reader, "labels"), &reader->arena,
                                             object->labels, FLUE_KUBE_MAX_LABELS);
    object->annotation_count = k8s_downward_pairs(read_file(reader, "annotations"), &reader->arena,
                                                  object->annotations, FLUE_KUBE_MAX_LABELS);
    derive_owner(object);
    flue_kube_store_put(reader->store, FLUE_KUBE_POD, object, false);
    flue_kube_store_tick(reader->store);
}

static struct k8s_downward_reader *of_job(struct flue_job *job)
{
    return (struct k8s_downward_reader *)(void *)((char *)job -
                                                  offsetof(struct k8s_downward_reader, job));
}

static void work(struct flue_job *job)
{
    read_all(of_job(job));
}

static void done(struct flue_job *job)
{
    struct k8s_downward_reader *reader = of_job(job);
    if (!atomic_load(&reader->stopping))
        flue_timer_arm(reader->loop, &reader->timer,
                       flue_monotonic_ns() + (uint64_t)reader->config->interval);
    atomic_store(&reader->busy, false);
}

static void fire(struct flue_timer *timer)
{
    struct k8s_downward_reader *reader = (struct k8s_downward_reader *)(void *)timer;

    atomic_store(&reader->busy, true);
    reader->job = (struct flue_job){.loop = reader->loop, .work = work, .done = done};
    flue_pool_submit(reader->loop, &reader->job);
}

static void arm(struct flue_loop *loop, void *arg)
{
    struct k8s_downward_reader *reader = arg;
    flue_timer_arm(loop, &reader->timer, flue_monotonic_ns() + (uint64_t)reader->config->interval);
}

enum flue_code k8s_downward_start(const struct k8s_downward *config, struct flue_kube_store *store,
                                  struct flue_loop *loop, struct k8s_downward_reader **out,
                                  struct flue_error *error)
{
    struct k8s_downward_reader *reader = calloc(1, sizeof *reader);

    if (!reader)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for downward_api");
    reader->timer.fire = fire;
    reader->config = config;
    reader->store = store;
    reader->loop = loop;
    flue_arena_init(&reader->arena, 8 * FILE_MAX_BYTES, 0);
    variable(config->pod_name, reader->name, sizeof reader->name);
    variable(config->pod_uid, reader->uid, sizeof reader->uid);
    variable(config->pod_ip, reader->address, sizeof reader->address);
    variable(config->namespace, reader->namespace, sizeof reader->namespace);
    variable(config->node_name, reader->node, sizeof reader->node);
    variable(config->container_name, reader->container, sizeof reader->container);
    read_all(reader);
    if (!reader->name[0] || !reader->uid[0]) {
        bool name = !reader->name[0];
        k8s_downward_destroy(reader);
        return flue_fail(error, FLUE_INVALID,
                         "downward_api: the pod's %s is neither in the variable %.60s nor in "
                         "%.200s/%s",
                         name ? "name" : "uid", name ? config->pod_name : config->pod_uid,
                         config->directory, name ? "name" : "uid");
    }
    flue_loop_call(loop, arm, reader);
    *out = reader;
    return FLUE_OK;
}

static void disarm(struct flue_loop *loop, void *arg)
{
    struct k8s_downward_reader *reader = arg;
    flue_timer_disarm(loop, &reader->timer);
}

void k8s_downward_stop(struct k8s_downward_reader *reader)
{
    atomic_store(&reader->stopping, true);
    flue_loop_call(reader->loop, disarm, reader);
}

bool k8s_downward_stopped(const struct k8s_downward_reader *reader)
{
    return !atomic_load(&((struct k8s_downward_reader *)(uintptr_t)reader)->busy);
}

void k8s_downward_destroy(struct k8s_downward_reader *reader)
{
    if (!reader)
        return;
    flue_arena_destroy(&reader->arena);
    free(reader);
}

struct flue_bytes k8s_downward_uid(const struct k8s_downward_reader *reader)
{
    return flue_bytes_of(reader->uid);
}
struct flue_bytes k8s_downward_address(const struct k8s_downward_reader *reader)
{
    return flue_bytes_of(reader->address);
}
