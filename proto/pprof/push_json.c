/* push_json.c: push.v1.PushRequest as JSON, turned into protobuf so that one reader judges both.
 *
 * protobuf's JSON mapping as connect-go reads it: camelCase or the schema's names, unknown keys
 * ignored, null is absent, bytes in base64. */
#include <inttypes.h>
#include <stdio.h>

#include "collector/base/base64.h"
#include "proto/pprof/pprof.h"
#include "proto/wire/json_budget.h"
#include "proto/wire/writer.h"

struct writing {
    struct flue_block *out;
    size_t maximum;
    struct flue_error *error;
};

static json_t *member(json_t *object, const char *name, const char *other)
{
    json_t *value = json_object_get(object, name);
    if (!value)
        value = json_object_get(object, other);
    return json_is_null(value) ? NULL : value;
}

static struct flue_bytes text_of(json_t *value)
{
    return flue_bytes(json_string_value(value), json_string_length(value));
}

/* Absent is an empty list; *list NULL then. */
static enum flue_code list_of(struct writing *w, json_t *object, const char *name,
                              const char *where, json_t **list)
{
    *list = member(object, name, name);
    if (*list && !json_is_array(*list))
        return flue_fail(w->error, FLUE_INVALID, "PushRequest.%s%s: must be a list", where, name);
    return FLUE_OK;
}

static enum flue_code put(struct writing *w, struct flue_bytes bytes)
{
    return flue_block_append(w->out, bytes, w->maximum, w->error);
}

static enum flue_code put_head(struct writing *w, uint32_t number, size_t size)
{
    uint8_t head[20];
    return put(w, flue_bytes(head, (size_t)(flue_write_len_head(head, number, size) - head)));
}

static enum flue_code label_of(struct writing *w, json_t *label, size_t series, size_t row)
{
    json_t *name = member(label, "name", "name"), *value = member(label, "value", "value");
    if (!json_is_object(label) || (name && !json_is_string(name)) ||
        (value && !json_is_string(value)))
        return flue_fail(w->error, FLUE_INVALID,
                         "PushRequest.series[%zu].labels[%zu]: must be {\"name\": string, "
                         "\"value\": string}",
                         series, row);
    struct flue_bytes n = text_of(name), v = text_of(value);
    enum flue_code code =
        put_head(w, 1, flue_len_field_size(1, n.size) + flue_len_field_size(2, v.size));
    if (code == FLUE_OK)
        code = put_head(w, 1, n.size);
    if (code == FLUE_OK)
        code = put(w, n);
    if (code == FLUE_OK)
        code = put_head(w, 2, v.size);
    return code == FLUE_OK ? put(w, v) : code;
}

static enum flue_code sample_of(struct writing *w, json_t *sample, size_t series, size_t row)
{
    json_t *profile = member(sample, "rawProfile", "raw_profile");
    json_t *id = member(sample, "ID", "ID");
    if (!json_is_object(sample) || (profile && !json_is_string(profile)) ||
        (id && !json_is_string(id)))
        return flue_fail(w->error, FLUE_INVALID,
                         "PushRequest.series[%zu].samples[%zu]: must be {\"rawProfile\": base64, "
                         "\"ID\": string}",
                         series, row);
    struct flue_bytes text = text_of(profile), i = text_of(id);
    /* The decoded size is known but for the padding: decode behind room for the heads, then move.
     */
    enum flue_code code =
        flue_block_reserve(w->out, flue_base64_room(text.size) + 40, w->maximum, w->error);
    if (code != FLUE_OK)
        return code;
    uint8_t *at = w->out->data + w->out->size, *decoded = at + 40;
    size_t size;
    if (!flue_base64_decode(text, decoded, &size))
        return flue_fail(w->error, FLUE_INVALID,
                         "PushRequest.series[%zu].samples[%zu].rawProfile: is not base64", series,
                         row);
    size_t id_size = i.size ? flue_len_field_size(2, i.size) : 0;
    at = flue_write_len_head(at, 2, flue_len_field_size(1, size) + id_size);
    at = flue_write_len_head(at, 1, size);
    memmove(at, decoded, size);
    w->out->size = (size_t)(at + size - w->out->data);
    if (i.size == 0)
        return FLUE_OK;
    code = put_head(w, 2, i.size);
    return code == FLUE_OK ? put(w, i) : code;
}

static enum flue_code series_of(struct writing *w, json_t *series, size_t row)
{
    char where[40];
    json_t *labels = NULL, *samples = NULL, *item;
    size_t i;
    snprintf(where, sizeof where, "series[%zu].", row);
    if (!json_is_object(series))
        return flue_fail(w->error, FLUE_INVALID, "PushRequest.series[%zu]: must be an object", row);
    enum flue_code code = list_of(w, series, "labels", where, &labels);
    if (code == FLUE_OK)
        code = list_of(w, series, "samples", where, &samples);
    json_array_foreach(labels, i, item) if (code == FLUE_OK) code = label_of(w, item, row, i);
    json_array_foreach(samples, i, item) if (code == FLUE_OK) code = sample_of(w, item, row, i);
    return code;
}

static enum flue_code request_of(struct writing *w, json_t *root)
{
    json_t *list = NULL, *item;
    size_t row;
    uint8_t head[20];
    if (!json_is_object(root))
        return flue_fail(w->error, FLUE_INVALID, "PushRequest: must be a JSON object");
    enum flue_code code = list_of(w, root, "series", "", &list);
    json_array_foreach(list, row, item)
    {
        if (code != FLUE_OK)
            break;
        /* The length of a series is known when it is written: leave room, then close the gap. */
        size_t start = w->out->size;
        memset(head, 0, sizeof head);
        code = put(w, flue_bytes(head, sizeof head));
        if (code == FLUE_OK)
            code = series_of(w, item, row);
        if (code != FLUE_OK)
            break;
        size_t size = w->out->size - start - sizeof head;
        uint8_t *at = w->out->data + start;
        uint8_t *end = flue_write_len_head(at, 1, size);
        memmove(end, at + sizeof head, size);
        w->out->size = (size_t)(end + size - w->out->data);
    }
    return code;
}

enum flue_code flue_push_json_read(struct flue_bytes json, size_t budget,
                                   struct flue_account *account, struct flue_block **body,
                                   struct flue_error *error)
{
    struct flue_json_budget scope;
    json_t *root;
    *body = NULL;
    flue_json_begin(&scope, budget);
    enum flue_code code = flue_json_parse(&scope, json, &root, error);
    if (code == FLUE_OK) {
        struct writing w = {
            .out = flue_block_new(account, json.size), .maximum = budget, .error = error};
        if (!w.out) {
            code = flue_fail(error, FLUE_NO_MEMORY, "no memory for a PushRequest of %zu bytes",
                             json.size);
        } else if ((code = request_of(&w, root)) != FLUE_OK) {
            flue_block_unref(w.out);
        } else {
            flue_block_finish(w.out);
            *body = w.out;
        }
    }
    json_decref(root);
    flue_json_end(&scope);
    return code;
}
