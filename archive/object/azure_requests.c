/* azure_requests.c: put (whole or in blocks), get, list, delete of the Azure store.
 *
 * Source: Azure Storage REST reference. Blocks that are never committed are not visible and vanish
 * after a week: nothing has to be aborted. */
#include "archive/object/azure_inside.h"
#include "archive/object/xml.h"
#include "collector/base/base64.h"

#include <stdio.h>

static unsigned digest_of(struct object_op *op)
{
    return azure_of(op->store)->md5 ? FLUE_DIGEST_MD5 : FLUE_DIGEST_CRC64NVME;
}

/* What belongs to the blob, not to its bytes. */
static void blob_fields(struct object_call *call)
{
    const struct flue_object_request *request = call->op->request;
    object_call_field(call, "x-ms-blob-content-type",
                      request->content_type ? request->content_type : "application/octet-stream");
    object_call_field(call, "x-ms-blob-content-encoding", request->content_encoding);
    object_call_field(call, "x-ms-access-tier", azure_of(call->store)->config->access_tier);
    if (request->create == FLUE_OBJECT_CREATE)
        object_call_field(call, "if-none-match", "*");
}

/* ---- blocks --------------------------------------------------------------------------------- */

#define ID_SIZE 12 /* base64 of 9 bytes */

static void block_id(unsigned number, char *out)
{
    char text[16];
    snprintf(text, sizeof text, "f%08u", number % 100000000);
    flue_base64_encode(flue_bytes(text, 9), out);
    out[ID_SIZE] = 0;
}

static void part(struct object_op *op, struct object_call *call, unsigned number)
{
    char id[ID_SIZE + 4];
    block_id(number, id);
    object_call_query(call, "comp", FLUE_BYTES("block"));
    object_call_query(call, "blockid", flue_arena_copy(&call->arena, flue_bytes_of(id)));
}

static bool stored(struct object_op *op, struct object_call *call, unsigned number)
{
    return true;
}

static void leave(struct object_op *op)
{
}

static void commit(struct object_op *op)
{
    struct object_call *call =
        object_call_new(op->store, op, "PUT", op->request->key, object_op_answered);
    struct flue_buffer text;
    char id[ID_SIZE + 4];
    if (!call)
        return;
    flue_buffer_init(&text, 4 * 1024 * 1024);
    flue_buffer_text(&text, "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    for (unsigned i = 0; i < op->upload->parts; i++) {
        block_id(i, id);
        flue_buffer_printf(&text, "<Latest>%s</Latest>", id);
    }
    flue_buffer_text(&text, "</BlockList>");
    object_call_text(call, &text);
    call->digests = digest_of(op);
    object_call_query(call, "comp", FLUE_BYTES("blocklist"));
    blob_fields(call);
    object_call_start(call);
}

static const struct object_upload_driver blocks = {
    .part = part, .stored = stored, .commit = commit, .abort = leave};

static void put(struct object_op *op)
{
    const struct flue_object_request *request = op->request;
    if (request->body && request->body->total > OBJECT_SINGLE) {
        object_upload_start(op, &blocks, 50000, digest_of(op));
        return;
    }
    struct object_call *call =
        object_call_new(op->store, op, "PUT", request->key, object_op_answered);
    if (!call)
        return;
    call->body = request->body;
    call->digests = digest_of(op);
    object_call_field(call, "x-ms-blob-type", "BlockBlob");
    blob_fields(call);
    object_call_start(call);
}

/* ---- get ------------------------------------------------------------------------------------ */

static bool md5_wrong(struct object_call *call, struct flue_bytes data)
{
    struct flue_bytes said = flue_call_header(&call->http, "content-md5");
    return said.size && object_digest_differs(data, FLUE_DIGEST_MD5, said);
}

static void on_got(struct object_call *call)
{
    object_op_got(call, md5_wrong);
}

static void get_range(struct object_op *op, const char *range)
{
    struct object_call *call = object_call_new(op->store, op, "GET", op->request->key, on_got);
    if (!call)
        return;
    object_call_field(call, "range", range);
    object_call_start(call);
}

/* The end of an object: how long is it? */
static void on_head(struct object_call *call)
{
    struct object_op *op = call->op;
    uint64_t total = 0, size = op->request->size;
    char range[64];
    if (!call->error.code &&
        !flue_parse_u64(flue_call_header(&call->http, "content-length"), &total))
        flue_fail(&call->error, FLUE_UNAVAILABLE, "%s: an answer without Content-Length",
                  op->store->label);
    object_op_take(op, call);
    if (call->error.code || total == 0) {
        if (!call->error.code)
            object_op_data(op, (struct flue_bytes){0});
        object_op_finish(op);
        return;
    }
    snprintf(range, sizeof range, "bytes=%llu-%llu",
             (unsigned long long)(size < total ? total - size : 0), (unsigned long long)total - 1);
    get_range(op, range);
}

static void get(struct object_op *op)
{
    char range[64];
    if (op->request->offset < 0) {
        struct object_call *call =
            object_call_new(op->store, op, "HEAD", op->request->key, on_head);
        if (call)
            object_call_start(call);
        return;
    }
    object_range(op->request, range);
    get_range(op, range);
}

/* ---- list ----------------------------------------------------------------------------------- */

struct listing { /* object_op.own */
    struct flue_object_listed *items;
    size_t count, room, limit;
    struct flue_bytes marker;
};

static void list_page(struct object_op *op, struct listing *listing);

/* Names that XML cannot hold come escaped, and say so. */
static bool take_name(struct flue_bytes text, bool escaped, struct flue_arena *arena,
                      struct flue_bytes *out)
{
    if (escaped)
        return flue_url_unescape(text, arena, out);
    *out = text;
    return true;
}

static bool read_page(struct object_op *op, struct object_call *call, struct listing *listing,
                      const char **wrong)
{
    struct flue_bytes after = op->request->start_after;
    struct flue_object_listed item = {0};
    struct flue_xml xml;
    enum flue_xml_event event = FLUE_XML_BAD;
    bool good = true, escaped = false, finished = false;
    listing->marker = (struct flue_bytes){0};
    flue_xml_init(&xml, call->http.response, &op->arena);
    while (good && (event = flue_xml_next(&xml)) < FLUE_XML_END) {
        if (event == FLUE_XML_OPEN) {
            if (flue_bytes_is(xml.names[xml.depth - 1], "Name"))
                escaped = xml.attributes.size &&
                          memmem(xml.attributes.data, xml.attributes.size, "Encoded=\"true\"", 14);
        } else if (flue_xml_closed(&xml, "Blob", "Name") ||
                   flue_xml_closed(&xml, "BlobPrefix", "Name")) {
            good = take_name(xml.text, escaped, &op->arena, &item.key);
        } else if (flue_xml_closed(&xml, "Properties", "Content-Length")) {
            good = flue_parse_u64(flue_bytes_trim(xml.text), &item.size);
        } else if (flue_xml_closed(&xml, "Properties", "Last-Modified")) {
            uint64_t seconds;
            if (object_http_date(flue_bytes_trim(xml.text), &seconds))
                item.modified = (int64_t)seconds;
        } else if (flue_xml_closed(&xml, "Blobs", "Blob") ||
                   flue_xml_closed(&xml, "Blobs", "BlobPrefix")) {
            item.folder = flue_bytes_is(xml.name, "BlobPrefix");
            if (!after.size || flue_bytes_compare(item.key, after) > 0)
                good = FLUE_ARENA_PUSH(&op->arena, listing->items, listing->count, listing->room,
                                       item);
            item = (struct flue_object_listed){0};
        } else if (flue_xml_closed(&xml, "EnumerationResults", "NextMarker")) {
            listing->marker = xml.text;
        } else if (xml.depth == 0) {
            finished = flue_bytes_is(xml.name, "EnumerationResults");
        }
    }
    *wrong = xml.wrong ? xml.wrong : "not what was asked for";
    return good && event == FLUE_XML_END && finished;
}

static void on_page(struct object_call *call)
{
    struct object_op *op = call->op;
    struct listing *listing = op->own;
    const char *wrong;
    if (!call->error.code && !read_page(op, call, listing, &wrong))
        flue_fail(&call->error, FLUE_UNAVAILABLE, "%s: the list cannot be read: %s",
                  op->store->label, wrong);
    object_op_take(op, call);
    /* `start_after` is not known there: what comes before it is passed over. */
    if (!call->error.code && listing->marker.size &&
        (listing->count == 0 || (op->request->limit && listing->count < listing->limit))) {
        list_page(op, listing);
        return;
    }
    object_sort_listed(listing->items, listing->count);
    bool more = listing->marker.size > 0;
    if (listing->count > listing->limit) {
        listing->count = listing->limit;
        more = true;
    }
    object_op_listed(op, listing->items, listing->count, more);
    object_op_finish(op);
}

static void list_page(struct object_op *op, struct listing *listing)
{
    const struct flue_object_request *request = op->request;
    struct object_call *call =
        object_call_new(op->store, op, "GET", (struct flue_bytes){0}, on_page);
    if (!call)
        return;
    object_call_query(call, "restype", FLUE_BYTES("container"));
    object_call_query(call, "comp", FLUE_BYTES("list"));
    if (request->key.size)
        object_call_query(call, "prefix", request->key);
    if (request->delimiter)
        object_call_query(call, "delimiter", flue_bytes(&request->delimiter, 1));
    if (listing->marker.size)
        object_call_query(call, "marker", listing->marker);
    if (request->limit && !request->start_after.size)
        object_call_query(call, "maxresults",
                          flue_bytes_of(flue_arena_printf(&call->arena, "%zu", listing->limit)));
    object_call_start(call);
}

static void list(struct object_op *op)
{
    struct listing *listing = flue_arena_zalloc(&op->arena, 1, sizeof *listing);
    if (!listing) {
        object_op_fail(op, FLUE_NO_MEMORY, "no memory for a list");
        return;
    }
    listing->limit = op->request->limit && op->request->limit < 5000 ? op->request->limit : 5000;
    op->own = listing;
    list_page(op, listing);
}

static void delete (struct object_op *op)
{
    struct object_call *call =
        object_call_new(op->store, op, "DELETE", op->request->key, object_op_answered);
    if (call)
        object_call_start(call);
}

void object_azure_begin(struct object_op *op)
{
    static void (*const kinds[OBJECT_KINDS])(struct object_op * op) = {put, get, list, delete};
    if (op->kind != OBJECT_LIST && flue_bytes_find(op->request->key, '\\') != SIZE_MAX) {
        object_op_fail(op, FLUE_INVALID, "a key with \"\\\", which Azure takes for \"/\"");
        return;
    }
    kinds[op->kind](op);
}
