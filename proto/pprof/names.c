/* names.c: see names.h. */
#include "proto/pprof/names.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "collector/base/base64.h"
#include "collector/base/buffer.h"
#include "proto/wire/reader.h"

#define MAX_DEPTH 32
#define MAX_TEXT  (64u * 1024)

struct pair {
    struct flue_bytes label, attribute;
};

#define PAIR(label, attribute)                                                                     \
    {                                                                                              \
        FLUE_BYTES_INIT(label), FLUE_BYTES_INIT(attribute)                                         \
    }

/* Sorted by label, for both searches: an attribute is turned into its label by the general rule,
 * which gives the label of its pair. */
static const struct pair pairs[] = {
    PAIR("cdn_network", "cdn.network"),
    PAIR("cdn_pop", "cdn.pop"),
    PAIR("cdn_region", "cdn.region"),
    PAIR("cdn_tier", "cdn.tier"),
    PAIR("cloud_account_id", "cloud.account.id"),
    PAIR("cloud_availability_zone", "cloud.availability_zone"),
    PAIR("cloud_platform", "cloud.platform"),
    PAIR("cloud_provider", "cloud.provider"),
    PAIR("cloud_region", "cloud.region"),
    PAIR("cloud_resource_id", "cloud.resource_id"),
    PAIR("container_id", "container.id"),
    PAIR("container_image_id", "container.image.id"),
    PAIR("container_image_name", "container.image.name"),
    PAIR("container_image_tags", "container.image.tags"),
    PAIR("container_name", "container.name"),
    PAIR("container_runtime", "container.runtime"),
    PAIR("deployment_environment", "deployment.environment"),
    PAIR("deployment_environment_name", "deployment.environment.name"),
    PAIR("host_arch", "host.arch"),
    PAIR("host_id", "host.id"),
    PAIR("host_image_id", "host.image.id"),
    PAIR("host_image_name", "host.image.name"),
    PAIR("host_ip", "host.ip"),
    PAIR("host_name", "host.name"),
    PAIR("host_type", "host.type"),
    PAIR("k8s_cluster_name", "k8s.cluster.name"),
    PAIR("k8s_cluster_uid", "k8s.cluster.uid"),
    PAIR("k8s_container_name", "k8s.container.name"),
    PAIR("k8s_container_restart_count", "k8s.container.restart_count"),
    PAIR("k8s_cronjob_name", "k8s.cronjob.name"),
    PAIR("k8s_cronjob_uid", "k8s.cronjob.uid"),
    PAIR("k8s_daemonset_name", "k8s.daemonset.name"),
    PAIR("k8s_daemonset_uid", "k8s.daemonset.uid"),
    PAIR("k8s_deployment_name", "k8s.deployment.name"),
    PAIR("k8s_deployment_uid", "k8s.deployment.uid"),
    PAIR("k8s_job_name", "k8s.job.name"),
    PAIR("k8s_job_uid", "k8s.job.uid"),
    PAIR("k8s_namespace_name", "k8s.namespace.name"),
    PAIR("k8s_node_name", "k8s.node.name"),
    PAIR("k8s_node_uid", "k8s.node.uid"),
    PAIR("k8s_pod_ip", "k8s.pod.ip"),
    PAIR("k8s_pod_name", "k8s.pod.name"),
    PAIR("k8s_pod_start_time", "k8s.pod.start_time"),
    PAIR("k8s_pod_uid", "k8s.pod.uid"),
    PAIR("k8s_replicaset_name", "k8s.replicaset.name"),
    PAIR("k8s_replicaset_uid", "k8s.replicaset.uid"),
    PAIR("k8s_statefulset_name", "k8s.statefulset.name"),
    PAIR("k8s_statefulset_uid", "k8s.statefulset.uid"),
    PAIR("os_description", "os.description"),
    PAIR("os_name", "os.name"),
    PAIR("os_type", "os.type"),
    PAIR("os_version", "os.version"),
    PAIR("otel_scope_name", "otel.scope.name"),
    PAIR("otel_scope_version", "otel.scope.version"),
    PAIR("process_command", "process.command"),
    PAIR("process_command_args", "process.command_args"),
    PAIR("process_command_line", "process.command_line"),
    PAIR("process_executable_build_id_gnu", "process.executable.build_id.gnu"),
    PAIR("process_executable_build_id_htlhash", "process.executable.build_id.htlhash"),
    PAIR("process_executable_name", "process.executable.name"),
    PAIR("process_executable_path", "process.executable.path"),
    PAIR("process_owner", "process.owner"),
    PAIR("process_parent_pid", "process.parent_pid"),
    PAIR("process_pid", "process.pid"),
    PAIR("process_runtime_description", "process.runtime.description"),
    PAIR("process_runtime_name", "process.runtime.name"),
    PAIR("process_runtime_version", "process.runtime.version"),
    PAIR("service_instance_id", "service.instance.id"),
    PAIR("service_name", "service.name"),
    PAIR("service_namespace", "service.namespace"),
    PAIR("service_version", "service.version"),
    PAIR("telemetry_distro_name", "telemetry.distro.name"),
    PAIR("telemetry_distro_version", "telemetry.distro.version"),
    PAIR("telemetry_sdk_language", "telemetry.sdk.language"),
    PAIR("telemetry_sdk_name", "telemetry.sdk.name"),
    PAIR("telemetry_sdk_version", "telemetry.sdk.version"),
};

static const struct pair *pair_of(struct flue_bytes label)
{
    size_t low = 0, high = sizeof pairs / sizeof pairs[0];
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = flue_bytes_compare(label, pairs[middle].label);
        if (order == 0)
            return &pairs[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

struct flue_bytes flue_label_attribute(struct flue_bytes label)
{
    const struct pair *pair = pair_of(label);
    return pair ? pair->attribute : label;
}

static bool is_label_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

size_t flue_attribute_label_write(struct flue_bytes attribute, uint8_t *out)
{
    size_t n = 0;
    if (attribute.size > 0 && is_digit(attribute.data[0]))
        out[n++] = '_';
    for (size_t i = 0; i < attribute.size; i++) {
        uint8_t c = is_label_byte(attribute.data[i]) ? attribute.data[i] : '_';
        if (n != 1 || out[0] != '_' || c != '_')
            out[n++] = c;
    }
    return n;
}

struct flue_bytes flue_attribute_label(struct flue_bytes attribute, struct flue_arena *arena)
{
    bool legal = attribute.size == 0 || !is_digit(attribute.data[0]);
    for (size_t i = 0; i < attribute.size && legal; i++)
        legal = is_label_byte(attribute.data[i]);
    if (legal)
        return attribute;
    uint8_t buffer[64];
    if (attribute.size < sizeof buffer) {
        size_t size = flue_attribute_label_write(attribute, buffer);
        const struct pair *pair = pair_of(flue_bytes(buffer, size));
        if (pair)
            return pair->label;
    }
    uint8_t *out = arena ? flue_arena_alloc(arena, attribute.size + 1) : NULL;
    if (!out)
        return flue_bytes(NULL, 0);
    return flue_bytes(out, flue_attribute_label_write(attribute, out));
}

/* ---- values --------------------------------------------------------------------------------- */

static void number_text(double number, char *out, size_t size)
{
    /* The shortest of the two usual precisions that reads back as the same number. */
    snprintf(out, size, "%.15g", number);
    if (strtod(out, NULL) != number)
        snprintf(out, size, "%.17g", number);
}

static bool any_value_text(struct flue_bytes encoded, struct flue_buffer *out, unsigned depth,
                           bool top);

static bool base64_text(struct flue_bytes bytes, struct flue_buffer *out, bool quoted)
{
    size_t size = (bytes.size + 2) / 3 * 4;
    char *text = size <= MAX_TEXT ? malloc(size + 1) : NULL;
    if (!text)
        return false;
    flue_base64_encode(bytes, text);
    if (quoted)
        flue_buffer_byte(out, '"');
    flue_buffer_add(out, flue_bytes(text, size));
    if (quoted)
        flue_buffer_byte(out, '"');
    free(text);
    return true;
}

static bool list_text(struct flue_bytes encoded, struct flue_buffer *out, unsigned depth, bool map,
                      bool top)
{
    struct flue_reader r = flue_reader(encoded);
    struct flue_field_value f;
    size_t count = 0;
    while (flue_read_field(&r, &f))
        count += f.number == 1 && f.type == FLUE_LEN;
    if (!flue_reader_done(&r))
        return false;
    bool alone = top && !map && count == 1;
    bool first = true;
    if (!alone)
        flue_buffer_byte(out, map ? '{' : '[');
    r = flue_reader(encoded);
    while (flue_read_field(&r, &f)) {
        if (f.number != 1 || f.type != FLUE_LEN)
            continue;
        if (!first)
            flue_buffer_byte(out, ',');
        first = false;
        if (!map) {
            if (!any_value_text(f.bytes, out, depth + 1, alone))
                return false;
            continue;
        }
        struct flue_reader entry = flue_reader(f.bytes);
        struct flue_field_value part;
        struct flue_bytes key = {0}, value = {0};
        while (flue_read_field(&entry, &part)) {
            if (part.type != FLUE_LEN)
                continue;
            if (part.number == 1)
                key = part.bytes;
            else if (part.number == 2)
                value = part.bytes;
        }
        if (!flue_reader_done(&entry))
            return false;
        flue_buffer_json(out, key);
        flue_buffer_byte(out, ':');
        if (!any_value_text(value, out, depth + 1, false))
            return false;
    }
    if (!alone)
        flue_buffer_byte(out, map ? '}' : ']');
    return true;
}

/* `top`: the value is the whole label, so strings stand without quotes. */
static bool any_value_text(struct flue_bytes encoded, struct flue_buffer *out, unsigned depth,
                           bool top)
{
    struct flue_reader r = flue_reader(encoded);
    struct flue_field_value f;
    char text[40];
    if (depth > MAX_DEPTH)
        return false;
    if (encoded.size == 0) {
        flue_buffer_text(out, top ? "" : "null");
        return true;
    }
    if (!flue_read_field(&r, &f))
        return false;
    switch (f.number << 3 | f.type) {
    case 1 << 3 | FLUE_LEN:
        if (top)
            flue_buffer_add(out, f.bytes);
        else
            flue_buffer_json(out, f.bytes);
        return true;
    case 2 << 3 | FLUE_VARINT:
        flue_buffer_text(out, f.varint ? "true" : "false");
        return true;
    case 3 << 3 | FLUE_VARINT:
        flue_buffer_printf(out, "%" PRId64, (int64_t)f.varint);
        return true;
    case 4 << 3 | FLUE_FIXED64: {
        double number;
        memcpy(&number, &f.varint, sizeof number);
        number_text(number, text, sizeof text);
        flue_buffer_text(out, !top && !isfinite(number) ? "null" : text);
        return true;
    }
    case 5 << 3 | FLUE_LEN:
        return list_text(f.bytes, out, depth, false, top);
    case 6 << 3 | FLUE_LEN:
        return list_text(f.bytes, out, depth, true, top);
    case 7 << 3 | FLUE_LEN:
        return base64_text(f.bytes, out, !top);
    default:
        return false;
    }
}

struct flue_bytes flue_label_text(const struct flue_value *value, struct flue_arena *arena)
{
    char text[40];
    struct flue_buffer buffer;
    struct flue_bytes result = {0};
    switch (value->type) {
    case FLUE_VALUE_STRING:
        return value->text.data ? value->text : FLUE_BYTES("");
    case FLUE_VALUE_EMPTY:
        return FLUE_BYTES("");
    case FLUE_VALUE_BOOL:
        return value->boolean ? FLUE_BYTES("true") : FLUE_BYTES("false");
    case FLUE_VALUE_INT:
        snprintf(text, sizeof text, "%" PRId64, value->integer);
        return flue_arena_copy(arena, flue_bytes_of(text));
    case FLUE_VALUE_DOUBLE:
        number_text(value->number, text, sizeof text);
        return flue_arena_copy(arena, flue_bytes_of(text));
    case FLUE_VALUE_BYTES:
    case FLUE_VALUE_COMPLEX:
        break;
    }
    flue_buffer_init(&buffer, MAX_TEXT);
    bool good = value->type == FLUE_VALUE_BYTES ? base64_text(value->text, &buffer, false)
                                                : any_value_text(value->text, &buffer, 0, true);
    if (good && !buffer.failed)
        result = buffer.size ? flue_arena_copy(arena, flue_buffer_bytes(&buffer)) : FLUE_BYTES("");
    flue_buffer_destroy(&buffer);
    return result;
}
