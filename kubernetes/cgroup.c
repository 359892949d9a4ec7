/* cgroup.c: see cgroup.h. */
#include "kubernetes/cgroup.h"

static bool is_hex(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}
static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool all(struct flue_bytes b, bool (*is)(uint8_t))
{
    for (size_t i = 0; i < b.size; i++)
        if (!is(b.data[i]))
            return false;
    return b.size != 0;
}

/* Groups of hex digits with a separator between them: 8-4-4-4-12. */
static bool grouped(struct flue_bytes b, const unsigned *sizes, unsigned count, uint8_t separator)
{
    size_t at = 0;

    for (unsigned g = 0; g < count; g++) {
        if (g && (at >= b.size || b.data[at++] != separator))
            return false;
        for (unsigned i = 0; i < sizes[g]; i++)
            if (at >= b.size || !is_hex(b.data[at++]))
                return false;
    }
    return at == b.size;
}
static const unsigned uuid_groups[] = {8, 4, 4, 4, 12}, garden_groups[] = {4, 4, 4, 4, 4};

/* "pod" and a uid, with what kubelet's slices put around it. */
static bool pod_of(struct flue_bytes component, char *out)
{
    static const struct flue_bytes end = FLUE_BYTES_INIT(".slice");
    if (flue_bytes_ends_with(component, end))
        component.size -= end.size;
    for (size_t i = 0; i + 3 < component.size; i++) {
        if (memcmp(component.data + i, "pod", 3) != 0 ||
            (i && component.data[i - 1] != '-' && component.data[i - 1] != ':'))
            continue;
        struct flue_bytes uid = flue_bytes_from(component, i + 3);
        if (!grouped(uid, uuid_groups, 5, '-') && !grouped(uid, uuid_groups, 5, '_') &&
            !(uid.size == 32 && all(uid, is_hex)))
            continue;
        for (size_t k = 0; k < uid.size; k++)
            out[k] = uid.data[k] == '_' ? '-' : (char)uid.data[k];
        out[uid.size] = 0;
        return true;
    }
    return false;
}

/* 64 hex; 32 hex, "-" and digits (Fargate). */
static bool is_id(struct flue_bytes id)
{
    if (id.size == 64)
        return all(id, is_hex);
    return id.size > 33 && id.size < 64 && id.data[32] == '-' &&
           all(flue_bytes_first(id, 32), is_hex) && all(flue_bytes_from(id, 33), is_digit);
}

/* The id at the end of a component: alone, or behind a prefix and "-" or ":". */
static bool container_of(struct flue_bytes component, char *out)
{
    static const struct flue_bytes end = FLUE_BYTES_INIT(".scope"),
                                   monitor = FLUE_BYTES_INIT("conmon");
    if (flue_bytes_ends_with(component, end))
        component.size -= end.size;
    for (size_t i = 0; i < component.size; i++) {
        if (i && component.data[i - 1] != '-' && component.data[i - 1] != ':')
            continue;
        struct flue_bytes id = flue_bytes_from(component, i);
        if (!is_id(id))
            continue;
        if (i && flue_bytes_ends_with(flue_bytes_first(component, i - 1), monitor))
            return false;
        memcpy(out, id.data, id.size);
        out[id.size] = 0;
        return true;
    }
    return false;
}

bool flue_kube_cgroup_path(struct flue_bytes path, struct flue_kube_cgroup *out)
{
    char pod[sizeof out->pod] = "", container[80];
    bool garden = false;

    memset(out, 0, sizeof *out);
    while (path.size) {
        size_t slash = flue_bytes_find(path, '/');
        struct flue_bytes component = flue_bytes_first(path, slash == SIZE_MAX ? path.size : slash);
        path = flue_bytes_from(path, component.size + 1);
        if (container_of(component, container)) {
            memcpy(out->container, container, sizeof container);
            /* "kubepods-...-pod<uid>.slice:cri-containerd:<id>" has both in one. */
            size_t colon = flue_bytes_find(component, ':');
            if (colon != SIZE_MAX)
                pod_of(flue_bytes_first(component, colon), pod);
            memcpy(out->pod, pod, sizeof pod);
        } else if (garden && component.size < sizeof out->container &&
                   (grouped(component, uuid_groups, 5, '-') ||
                    grouped(component, garden_groups, 5, '-'))) {
            memcpy(out->container, component.data, component.size);
            out->container[component.size] = 0;
        } else if (pod_of(component, pod) && !out->container[0]) {
            memcpy(out->pod, pod, sizeof pod);
        }
        garden = flue_bytes_is(component, "garden");
    }
    return out->container[0] || out->pod[0];
}

bool flue_kube_cgroup_file(struct flue_bytes text, struct flue_kube_cgroup *out)
{
    struct flue_kube_cgroup last = {.container = ""};
    bool systemd_says = false;

    while (text.size) {
        size_t end = flue_bytes_find(text, '\n');
        struct flue_bytes line = flue_bytes_first(text, end == SIZE_MAX ? text.size : end);
        text = flue_bytes_from(text, line.size + 1);
        size_t first = flue_bytes_find(line, ':');
        if (first == SIZE_MAX)
            continue;
        struct flue_bytes controllers = flue_bytes_from(line, first + 1);
        size_t second = flue_bytes_find(controllers, ':');
        if (second == SIZE_MAX ||
            !flue_kube_cgroup_path(flue_bytes_from(controllers, second + 1), out))
            continue;
        if (!flue_bytes_is(flue_bytes_first(controllers, second), "name=systemd"))
            return true;
        last = *out;
        systemd_says = true;
    }
    *out = last;
    return systemd_says;
}
