/* scalar.c: booleans, numbers, durations, sizes, strings, names and endpoints. */
#include "config/scalar.h"

#include <math.h>
#include <stdio.h>

#include "collector/base/clock.h"

#define SHOWN 96 /* bytes of a wrong value that a message repeats */

bool flue_field_is_scalar(enum flue_field_type type)
{
    switch (type) {
    case FLUE_FIELD_BOOL:
    case FLUE_FIELD_INT:
    case FLUE_FIELD_SIZE:
    case FLUE_FIELD_FLOAT:
    case FLUE_FIELD_DURATION:
    case FLUE_FIELD_STRING:
    case FLUE_FIELD_SECRET:
    case FLUE_FIELD_ENUM:
    case FLUE_FIELD_ENDPOINT:
    case FLUE_FIELD_VALUE:
        return true;
    default:
        return false;
    }
}

/* What stands there, for a message: "the string \"x\"", "a map". */
static const char *describe(const struct flue_node *node, char *out, size_t size)
{
    char shown[SHOWN];
    if (node->type == FLUE_NODE_MAP || node->type == FLUE_NODE_LIST)
        snprintf(out, size, "%s", flue_node_type_name(node->type));
    else
        snprintf(out, size, node->type == FLUE_NODE_STRING ? "the string \"%s\"" : "%s",
                 flue_printable(flue_bytes_of(node->text), shown, sizeof shown));
    return out;
}

const char *flue_bind_text(struct flue_check *check, struct flue_node *node, const char *path,
                           struct flue_position at, bool secret)
{
    char what[SHOWN + 32];
    node->secret = secret;
    node->as_text = true;
    if (node->type == FLUE_NODE_STRING || node->expanded)
        return node->text;
    if (node->type == FLUE_NODE_MAP || node->type == FLUE_NODE_LIST)
        flue_mistake_at(check, at, "%s: must be a string, not %s", path,
                        flue_node_type_name(node->type));
    else if (secret)
        flue_mistake_at(check, at, "%s: must be a string: put it in quotes", path);
    else
        flue_mistake_at(check, at, "%s: must be a string: write \"%s\" in quotes", path,
                        describe(node, what, sizeof what));
    return NULL;
}

const char *flue_bound_text(const struct flue_field *field, int64_t value, char *out, size_t size)
{
    static const struct {
        int64_t factor;
        const char *name;
    } units[] = {{INT64_C(1) << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}};
    if (field->type == FLUE_FIELD_DURATION) {
        char text[32];
        flue_format_duration(value, text);
        snprintf(out, size, "%s", text);
        return out;
    }
    if (field->type == FLUE_FIELD_SIZE)
        for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
            if (value && value % units[i].factor == 0) {
                snprintf(out, size, "%lld %s", (long long)(value / units[i].factor), units[i].name);
                return out;
            }
    const char *unit = field->type == FLUE_FIELD_SIZE ? "bytes" : field->unit;
    snprintf(out, size, "%lld%s%s", (long long)value, unit ? " " : "", unit ? unit : "");
    return out;
}

static bool bounded(struct flue_check *check, const struct flue_field *field, int64_t value,
                    const char *path, struct flue_position at)
{
    char is[64], bound[64];
    if (field->minimum == 0 && field->maximum == 0)
        return true;
    if (value < field->minimum)
        flue_mistake_at(check, at, "%s: %s is below the minimum of %s", path,
                        flue_bound_text(field, value, is, sizeof is),
                        flue_bound_text(field, field->minimum, bound, sizeof bound));
    else if (value > field->maximum)
        flue_mistake_at(check, at, "%s: %s is above the maximum of %s", path,
                        flue_bound_text(field, value, is, sizeof is),
                        flue_bound_text(field, field->maximum, bound, sizeof bound));
    else
        return true;
    return false;
}

static bool wrong(struct flue_check *check, const struct flue_node *node, const char *path,
                  struct flue_position at, const char *must)
{
    char what[SHOWN + 32];
    flue_mistake_at(check, at, "%s: must be %s, not %s", path, must,
                    describe(node, what, sizeof what));
    return false;
}

static bool bind_int(struct flue_check *check, const struct flue_field *field,
                     const struct flue_node *node, const char *path, struct flue_position at,
                     int64_t *out)
{
    int64_t value;
    if (node->type == FLUE_NODE_INT)
        value = node->integer;
    else if (node->type == FLUE_NODE_FLOAT && node->number == floor(node->number) &&
             fabs(node->number) < 9e15)
        value = (int64_t)node->number;
    else
        return wrong(check, node, path, at, "a whole number");
    if (!bounded(check, field, value, path, at))
        return false;
    *out = value;
    return true;
}

static bool bind_size(struct flue_check *check, const struct flue_field *field,
                      const struct flue_node *node, const char *path, struct flue_position at,
                      int64_t *out)
{
    static const struct {
        const char *name;
        uint64_t factor;
    } units[] = {{"KiB", 1u << 10}, {"MiB", 1u << 20}, {"GiB", 1u << 30},  {"kB", 1000},
                 {"KB", 1000},      {"MB", 1000000},   {"GB", 1000000000}, {"B", 1}};
    static const char must[] = "a size in bytes (1048576, \"1MiB\")";
    if (node->type == FLUE_NODE_INT || node->type == FLUE_NODE_FLOAT)
        return bind_int(check, field, node, path, at, out);
    if (node->type != FLUE_NODE_STRING)
        return wrong(check, node, path, at, must);
    struct flue_bytes text = flue_bytes_of(node->text);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        struct flue_bytes unit = flue_bytes_of(units[i].name);
        uint64_t number;
        if (!flue_bytes_ends_with(text, unit))
            continue;
        struct flue_bytes digits = flue_bytes_trim(flue_bytes_first(text, text.size - unit.size));
        if (!flue_parse_u64(digits, &number) || number > (uint64_t)INT64_MAX / units[i].factor)
            break;
        *out = (int64_t)(number * units[i].factor);
        return bounded(check, field, *out, path, at);
    }
    return wrong(check, node, path, at, must);
}

static bool bind_float(struct flue_check *check, const struct flue_field *field,
                       const struct flue_node *node, const char *path, struct flue_position at,
                       double *out)
{
    double value;
    if (node->type == FLUE_NODE_FLOAT)
        value = node->number;
    else if (node->type == FLUE_NODE_INT)
        value = (double)node->integer;
    else
        return wrong(check, node, path, at, "a number");
    if ((field->minimum || field->maximum) &&
        !(value >= (double)field->minimum && value <= (double)field->maximum)) {
        flue_mistake_at(check, at, "%s: %g is not within %lld to %lld", path, value,
                        (long long)field->minimum, (long long)field->maximum);
        return false;
    }
    *out = value;
    return true;
}

static bool bind_duration(struct flue_check *check, const struct flue_field *field,
                          const struct flue_node *node, const char *path, struct flue_position at,
                          int64_t *out)
{
    int64_t value = 0;
    if (node->type == FLUE_NODE_INT && node->integer != 0) {
        flue_mistake_at(check, at, "%s: %s has no unit: write \"%ss\" for seconds, or ms, m, h",
                        path, node->text, node->text);
        return false;
    }
    if (node->type == FLUE_NODE_STRING ? !flue_parse_duration(flue_bytes_of(node->text), &value)
                                       : node->type != FLUE_NODE_INT)
        return wrong(check, node, path, at, "a duration (\"300ms\", \"1m30s\", \"1.5h\")");
    if (!bounded(check, field, value, path, at))
        return false;
    *out = value;
    return true;
}

static bool bind_enum(struct flue_check *check, const struct flue_field *field,
                      struct flue_node *node, const char *path, struct flue_position at, int *out)
{
    const char *text = flue_bind_text(check, node, path, at, false);
    if (!text)
        return false;
    struct flue_nearest nearest = {.word = text};
    for (int i = 0; field->choices[i]; i++) {
        if (strcmp(field->choices[i], text) == 0) {
            *out = i;
            return true;
        }
        flue_nearest_offer(&nearest, field->choices[i]);
    }
    struct flue_buffer list;
    char shown[SHOWN];
    flue_buffer_init(&list, 4096);
    for (int i = 0; field->choices[i]; i++)
        flue_buffer_printf(&list, "%s%s", i ? ", " : "",
                           *field->choices[i] ? field->choices[i] : "\"\"");
    flue_mistake_at(check, at, "%s: \"%s\" is not one of %s%s", path,
                    flue_printable(flue_bytes_of(text), shown, sizeof shown),
                    list.data ? list.data : "", flue_nearest_hint(&nearest, check->arena));
    flue_buffer_destroy(&list);
    return false;
}

/* The shape only: names are looked up when it is used. NULL: fine. */
static const char *endpoint_problem(struct flue_bytes text)
{
    uint64_t port;
    if (text.size == 0)
        return "is empty";
    if (text.data[0] == '@' || flue_bytes_find(text, '/') != SIZE_MAX)
        return NULL; /* a socket's path, or an URL */
    size_t colon = SIZE_MAX;
    struct flue_bytes host = text;
    if (text.data[0] == '[') {
        size_t close = flue_bytes_find(text, ']');
        if (close == SIZE_MAX)
            return "has no \"]\" behind the IPv6 address";
        host = flue_bytes_first(text, close + 1);
        if (close + 1 < text.size && text.data[close + 1] == ':')
            colon = close + 1;
    } else {
        colon = flue_bytes_find(text, ':');
        if (colon != SIZE_MAX && flue_bytes_find(flue_bytes_from(text, colon + 1), ':') != SIZE_MAX)
            return "is an IPv6 address without brackets";
        host = flue_bytes_first(text, colon == SIZE_MAX ? text.size : colon);
    }
    if (colon == SIZE_MAX)
        return "has no port";
    if (!flue_parse_u64(flue_bytes_from(text, colon + 1), &port) || port > 65535)
        return "has a port that is not a number from 0 to 65535";
    for (size_t i = 0; i < host.size; i++)
        if (host.data[i] <= ' ' || host.data[i] == 0x7f)
            return "has a blank or control character in it";
    return NULL;
}

static bool bind_endpoint(struct flue_check *check, struct flue_node *node, const char *path,
                          struct flue_position at, const char **out)
{
    const char *text = flue_bind_text(check, node, path, at, false);
    const char *problem = text ? endpoint_problem(flue_bytes_of(text)) : NULL;
    char shown[SHOWN];
    if (problem)
        flue_mistake_at(check, at,
                        "%s: \"%s\" %s: write host:port (\"localhost:4317\", \"[::1]:4317\", "
                        "\":4317\" for all addresses)",
                        path, flue_printable(flue_bytes_of(text), shown, sizeof shown), problem);
    if (!text || problem)
        return false;
    *out = text;
    return true;
}

static bool bind_value(struct flue_check *check, struct flue_node *node, const char *path,
                       struct flue_position at, struct flue_value *out)
{
    switch (node->type) {
    case FLUE_NODE_BOOL:
        *out = (struct flue_value){.type = FLUE_VALUE_BOOL, .boolean = node->boolean};
        return true;
    case FLUE_NODE_INT:
        *out = (struct flue_value){.type = FLUE_VALUE_INT, .integer = node->integer};
        return true;
    case FLUE_NODE_FLOAT:
        *out = (struct flue_value){.type = FLUE_VALUE_DOUBLE, .number = node->number};
        return true;
    case FLUE_NODE_STRING:
        *out = (struct flue_value){.type = FLUE_VALUE_STRING, .text = flue_bytes_of(node->text)};
        return true;
    default:
        return wrong(check, node, path, at, "a string, number or boolean");
    }
}

bool flue_bind_scalar(struct flue_check *check, const struct flue_field *field,
                      struct flue_node *node, const char *path, struct flue_position at, void *out)
{
    switch (field->type) {
    case FLUE_FIELD_BOOL:
        if (node->type != FLUE_NODE_BOOL)
            return wrong(check, node, path, at, "true or false");
        *(bool *)out = node->boolean;
        return true;
    case FLUE_FIELD_INT:
        return bind_int(check, field, node, path, at, out);
    case FLUE_FIELD_SIZE:
        return bind_size(check, field, node, path, at, out);
    case FLUE_FIELD_FLOAT:
        return bind_float(check, field, node, path, at, out);
    case FLUE_FIELD_DURATION:
        return bind_duration(check, field, node, path, at, out);
    case FLUE_FIELD_STRING:
    case FLUE_FIELD_SECRET: {
        const char *text = flue_bind_text(check, node, path, at, field->type == FLUE_FIELD_SECRET);
        *(const char **)out = text;
        return text != NULL;
    }
    case FLUE_FIELD_ENUM:
        return bind_enum(check, field, node, path, at, out);
    case FLUE_FIELD_ENDPOINT:
        return bind_endpoint(check, node, path, at, out);
    case FLUE_FIELD_VALUE:
        return bind_value(check, node, path, at, out);
    default:
        return wrong(check, node, path, at, "a scalar");
    }
}
