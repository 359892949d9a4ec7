/* cut.c: see cut.h. */
#include "kubernetes/cut.h"
#include <jansson.h>
#include <stdlib.h>
#include "proto/wire/reader.h"

void flue_kube_cut_init(struct flue_kube_cut *cut, enum flue_kube_form form,
                        flue_kube_cut_sink sink, void *arg)
{
    *cut = (struct flue_kube_cut){.form = form, .sink = sink, .arg = arg};
}

void flue_kube_cut_destroy(struct flue_kube_cut *cut)
{
    free(cut->data);
    cut->data = NULL;
    cut->size = cut->room = 0;
}

static enum flue_code broken(struct flue_error *error, const char *what)
{
    return flue_fail(error, FLUE_INVALID, "the API's answer is broken: %s", what);
}

static enum flue_code hold(struct flue_kube_cut *cut, struct flue_bytes piece,
                           struct flue_error *error)
{
    if (piece.size > cut->room - cut->size) {
        size_t room = cut->room ? cut->room : 16384;
        while (room - cut->size < piece.size)
            room *= 2;
        uint8_t *data = realloc(cut->data, room);
        if (!data)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for an object of the API");
        cut->data = data;
        cut->room = room;
    }
    if (piece.size)
        memcpy(cut->data + cut->size, piece.data, piece.size);
    cut->size += piece.size;
    return FLUE_OK;
}

/* Drops the first bytes; memory that a large object took is given back. */
static void consume(struct flue_kube_cut *cut, size_t count)
{
    cut->size -= count;
    if (cut->size)
        memmove(cut->data, cut->data + count, cut->size);
    if (cut->size == 0 && cut->room > (256u << 10)) {
        free(cut->data);
        cut->data = NULL;
        cut->room = 0;
    }
}

/* ---- protobuf -------------------------------------------------------------------------------- */

bool flue_kube_unknown(struct flue_bytes bytes, struct flue_bytes *raw)
{
    struct flue_field_value f;

    *raw = flue_bytes(NULL, 0);
    if (bytes.size < 4 || memcmp(bytes.data, "k8s", 4) != 0)
        return false;
    struct flue_reader r = flue_reader(flue_bytes_from(bytes, 4));
    while (flue_read_field(&r, &f))
        if (f.number == 2 && f.type == FLUE_LEN)
            *raw = f.bytes;
    return flue_reader_done(&r);
}

static bool event_of(struct flue_bytes type, enum flue_kube_event *out)
{
    static const char *const names[] = {"", "ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"};
    for (unsigned i = FLUE_KUBE_ADDED; i <= FLUE_KUBE_ERROR; i++)
        if (flue_bytes_is(type, names[i])) {
            *out = (enum flue_kube_event)i;
            return true;
        }
    return false;
}

static enum flue_code frame(struct flue_kube_cut *cut, struct flue_bytes bytes,
                            struct flue_error *error)
{
    struct flue_bytes type = {NULL, 0}, envelope = {NULL, 0}, object;
    struct flue_reader r = flue_reader(bytes);
    struct flue_field_value f, g;
    enum flue_kube_event event;

    while (flue_read_field(&r, &f)) {
        if (f.number == 1 && f.type == FLUE_LEN) {
            type = f.bytes;
        } else if (f.number == 2 && f.type == FLUE_LEN) {
            struct flue_reader extension = flue_reader(f.bytes);
            while (flue_read_field(&extension, &g))
                if (g.number == 1 && g.type == FLUE_LEN)
                    envelope = g.bytes;
            if (!flue_reader_done(&extension))
                return broken(error, "the object of an event");
        }
    }
    if (!flue_reader_done(&r) || !flue_kube_unknown(envelope, &object))
        return broken(error, "an event's frame");
    if (!event_of(type, &event)) /* of a later version */
        return FLUE_OK;
    return cut->sink(cut->arg, event, object) ? FLUE_OK : FLUE_CANCELLED;
}

/* Each takes what it can from the front of `in`; *used 0: more must come. */
static enum flue_code take_frame(struct flue_kube_cut *cut, struct flue_bytes in, size_t *used,
                                 struct flue_error *error)
{
    if (in.size < 4)
        return FLUE_OK;
    size_t size =
        (size_t)in.data[0] << 24 | (size_t)in.data[1] << 16 | (size_t)in.data[2] << 8 | in.data[3];
    if (size > FLUE_KUBE_MAX_OBJECT) {
        cut->skip = size;
        cut->skipped++;
        *used = 4;
        return FLUE_OK;
    }
    if (in.size - 4 < size)
        return FLUE_OK;
    *used = 4 + size;
    return frame(cut, flue_bytes(in.data + 4, size), error);
}

/* A field whose length is there but whose content may be not: false, more must come. */
static bool field_head(struct flue_bytes in, uint32_t *number, uint64_t *size, size_t *head,
                       bool *bad)
{
    struct flue_reader r = flue_reader(in);
    uint64_t tag;

    if (!flue_read_varint(&r, &tag) || !flue_read_varint(&r, size)) {
        *bad = in.size >= 20;
        return false;
    }
    *bad = (tag & 7) != FLUE_LEN && (tag & 7) != FLUE_VARINT;
    *number = (uint32_t)(tag >> 3);
    if ((tag & 7) == FLUE_VARINT)
        *size = 0;
    *head = (size_t)(r.at - in.data);
    return !*bad;
}

static enum flue_code take_list(struct flue_kube_cut *cut, struct flue_bytes in, size_t *used,
                                struct flue_error *error)
{
    uint32_t number;
    uint64_t size;
    size_t head;
    bool bad = false;

    if (cut->stage == 0) {
        if (in.size < 4)
            return FLUE_OK;
        if (memcmp(in.data, "k8s", 4) != 0)
            return broken(error, "a list that does not begin with the magic of protobuf");
        cut->stage = 1;
        *used = 4;
        return FLUE_OK;
    }
    if (!field_head(in, &number, &size, &head, &bad))
        return bad ? broken(error, "a field of a list") : FLUE_OK;
    if (cut->stage == 1) {
        if (number == 2) { /* raw: enter it */
            cut->stage = 2;
            cut->left = size;
            *used = head;
        } else if (size > 4096) {
            return broken(error, "the envelope of a list");
        } else if (in.size - head >= size) {
            *used = head + (size_t)size;
        }
        if (cut->stage == 2 && !cut->left)
            cut->stage = 1;
        return FLUE_OK;
    }
    if (head + size > cut->left)
        return broken(error, "an item that is longer than its list");
    if (size > FLUE_KUBE_MAX_OBJECT) {
        cut->skip = size;
        cut->skipped++;
        *used = head;
    } else if (in.size - head >= size) {
        *used = head + (size_t)size;
    } else {
        return FLUE_OK;
    }
    cut->left -= head + size;
    if (!cut->left)
        cut->stage = 1;
    if (cut->skip || (number != 1 && number != 2))
        return FLUE_OK;
    return cut->sink(cut->arg, number == 1 ? FLUE_KUBE_LIST_META : FLUE_KUBE_LISTED,
                     flue_bytes(in.data + head, (size_t)size))
               ? FLUE_OK
               : FLUE_CANCELLED;
}

static enum flue_code feed_protobuf(struct flue_kube_cut *cut, struct flue_bytes piece,
                                    struct flue_error *error)
{
    enum flue_code code = FLUE_OK;

    while (piece.size || cut->size) {
        if (cut->skip) {
            size_t step = cut->skip < piece.size ? (size_t)cut->skip : piece.size;
            piece = flue_bytes_from(piece, step);
            cut->skip -= step;
            if (cut->skip)
                return FLUE_OK;
            continue;
        }
        /* Whole objects are taken where they arrived; only what is cut off is copied. */
        bool held = cut->size != 0;
        if (held) {
            code = hold(cut, piece, error);
            if (code)
                return code;
            piece = flue_bytes(NULL, 0);
        }
        struct flue_bytes in = held ? flue_bytes(cut->data, cut->size) : piece;
        size_t total = 0;
        while (in.size && !code && !cut->skip) {
            size_t used = 0;
            code = cut->form == FLUE_KUBE_PROTOBUF_WATCH ? take_frame(cut, in, &used, error)
                                                         : take_list(cut, in, &used, error);
            if (!used)
                break;
            in = flue_bytes_from(in, used);
            total += used;
        }
        if (code)
            return code;
        if (cut->skip) {
            size_t step = cut->skip < in.size ? (size_t)cut->skip : in.size;
            cut->skip -= step;
            total += step;
            in = flue_bytes_from(in, step);
        }
        if (held) {
            consume(cut, total);
            if (!total || !cut->size || cut->skip)
                return FLUE_OK;
            continue;
        }
        if (!total || cut->skip)
            return in.size ? hold(cut, in, error) : FLUE_OK;
        piece = in;
    }
    return FLUE_OK;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static enum flue_code event_json(struct flue_kube_cut *cut, struct flue_bytes json,
                                 struct flue_error *error)
{
    /* {"type":"ADDED","object":{...}}: the server writes just this, so no tree is made for it. */
    static const char head[] = "{\"type\":\"", middle[] = "\",\"object\":";
    struct flue_bytes rest = flue_bytes_from(json, sizeof head - 1);
    size_t quote = flue_bytes_find(rest, '"');
    enum flue_kube_event event;

    if (!flue_bytes_starts_with(json, FLUE_BYTES("{\"type\":\"")) || quote == SIZE_MAX ||
        !flue_bytes_starts_with(flue_bytes_from(rest, quote), FLUE_BYTES("\",\"object\":")))
        return broken(error, "an event that is not {\"type\": ..., \"object\": ...}");
    if (!event_of(flue_bytes_first(rest, quote), &event))
        return FLUE_OK;
    rest = flue_bytes_from(rest, quote + sizeof middle - 1);
    if (!rest.size)
        return broken(error, "an event without an object");
    return cut->sink(cut->arg, event, flue_bytes_first(rest, rest.size - 1)) ? FLUE_OK
                                                                             : FLUE_CANCELLED;
}

/* A value at depth `floor` has ended at `end`. */
static enum flue_code value_ends(struct flue_kube_cut *cut, size_t end, struct flue_error *error)
{
    struct flue_bytes value = flue_bytes(cut->data + cut->start, end - cut->start);

    if (cut->form == FLUE_KUBE_JSON_WATCH)
        return event_json(cut, value, error);
    return cut->sink(cut->arg, cut->in_items ? FLUE_KUBE_LISTED : FLUE_KUBE_LIST_META, value)
               ? FLUE_OK
               : FLUE_CANCELLED;
}

/* The depth at which an object is wanted: of a watch the document itself, of a list its metadata
 * and the elements of its items. */
static bool wanted_here(const struct flue_kube_cut *cut)
{
    if (cut->form == FLUE_KUBE_JSON_WATCH)
        return cut->depth == 0;
    return (cut->depth == 1 && strcmp(cut->key, "metadata") == 0) ||
           (cut->depth == 2 && cut->in_items);
}

static void remember_key(struct flue_kube_cut *cut, size_t end)
{
    size_t size = end - cut->start;
    if (size < sizeof cut->key) {
        memcpy(cut->key, cut->data + cut->start, size);
        cut->key[size] = 0;
    } else {
        cut->key[0] = 0;
    }
}

/* `taking` is whether data[start..] is an object that will be handed on. */
static enum flue_code scan_json(struct flue_kube_cut *cut, bool *taking, unsigned *floor,
                                struct flue_error *error)
{
    size_t kept = 0; /* everything before it may be dropped */

    for (size_t i = cut->scanned; i < cut->size; i++) {
        uint8_t c = cut->data[i];
        if (cut->text) {
            if (cut->escape)
                cut->escape = false;
            else if (c == '\\')
                cut->escape = true;
            else if (c == '"') {
                cut->text = false;
                if (!*taking && cut->depth == 1)
                    remember_key(cut, i);
            }
        } else if (c == '"') {
            cut->text = true;
            if (!*taking)
                cut->start = i + 1;
        } else if (c == '{' || c == '[') {
            if (!*taking && c == '{' && wanted_here(cut)) {
                *taking = true;
                *floor = cut->depth;
                cut->start = i;
            }
            if (!*taking && c == '[' && cut->depth == 1 && strcmp(cut->key, "items") == 0)
                cut->in_items = true;
            if (++cut->depth > 64)
                return broken(error, "JSON nested over 64 deep");
        } else if (c == '}' || c == ']') {
            if (!cut->depth--)
                return broken(error, "JSON that closes more than it opens");
            if (*taking && cut->depth == *floor) {
                enum flue_code code = cut->oversize ? FLUE_OK : value_ends(cut, i + 1, error);
                *taking = cut->oversize = false;
                cut->start = i + 1;
                cut->key[0] = 0;
                if (code)
                    return code;
            } else if (!*taking && cut->depth == 1) {
                cut->in_items = false;
            }
        } else if (cut->depth == 0 && c != '\n' && c != '\r' && c != ' ' && c != '\t') {
            return broken(error, "JSON that does not begin with an object");
        }
    }
    kept = *taking || cut->text ? cut->start : cut->size;
    if (cut->size - kept > FLUE_KUBE_MAX_OBJECT) { /* scanned on, not held */
        if (*taking && !cut->oversize)
            cut->skipped++;
        cut->oversize = *taking;
        kept = cut->size;
    }
    consume(cut, kept);
    cut->start = cut->start > kept ? cut->start - kept : 0;
    cut->scanned = cut->size;
    return FLUE_OK;
}

static enum flue_code feed_json(struct flue_kube_cut *cut, struct flue_bytes piece,
                                struct flue_error *error)
{
    /* stage: bit 0 taking, the rest the depth it began at. */
    bool taking = cut->stage & 1;
    unsigned floor = cut->stage >> 1;
    enum flue_code code = hold(cut, piece, error);

    if (!code)
        code = scan_json(cut, &taking, &floor, error);
    cut->stage = floor << 1 | taking;
    return code;
}

enum flue_code flue_kube_cut_feed(struct flue_kube_cut *cut, struct flue_bytes piece,
                                  struct flue_error *error)
{
    if (!piece.size)
        return FLUE_OK;
    return cut->form == FLUE_KUBE_PROTOBUF_LIST || cut->form == FLUE_KUBE_PROTOBUF_WATCH
               ? feed_protobuf(cut, piece, error)
               : feed_json(cut, piece, error);
}

bool flue_kube_cut_complete(const struct flue_kube_cut *cut)
{
    switch (cut->form) {
    case FLUE_KUBE_PROTOBUF_LIST:
        return cut->stage == 1 && !cut->size && !cut->skip;
    case FLUE_KUBE_PROTOBUF_WATCH:
        return !cut->size && !cut->skip;
    default:
        return cut->depth == 0 && !cut->text;
    }
}

bool flue_kube_list_meta_read(struct flue_bytes bytes, bool json, struct flue_kube_list_meta *out)
{
    memset(out, 0, sizeof *out);
    if (json) {
        json_error_t unused;
        json_t *root = json_loadb((const char *)bytes.data, bytes.size, 0, &unused);
        if (!json_is_object(root)) {
            json_decref(root);
            return false;
        }
        out->tree = root;
        out->resource_version =
            flue_bytes_of(json_string_value(json_object_get(root, "resourceVersion")));
        out->more = flue_bytes_of(json_string_value(json_object_get(root, "continue")));
        return true;
    }
    struct flue_reader r = flue_reader(bytes);
    struct flue_field_value f;
    while (flue_read_field(&r, &f)) {
        if (f.number == 2 && f.type == FLUE_LEN)
            out->resource_version = f.bytes;
        else if (f.number == 3 && f.type == FLUE_LEN)
            out->more = f.bytes;
    }
    return flue_reader_done(&r);
}

void flue_kube_list_meta_done(struct flue_kube_list_meta *meta)
{
    json_decref(meta->tree);
    meta->tree = NULL;
}
