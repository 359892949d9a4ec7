/* s3_requests.c: put (whole or in parts), get, list, delete of the S3 store.
 *
 * Source: Amazon S3 API reference: PutObject, CreateMultipartUpload, UploadPart,
 * CompleteMultipartUpload, AbortMultipartUpload, GetObject, ListObjectsV2, DeleteObject. */
#include "archive/object/s3_inside.h"
#include "archive/object/xml.h"

#include <stdio.h>

static struct object_s3 *of_op(struct object_op *op)
{
    return (struct object_s3 *)op->store;
}

static unsigned digests_of(const struct object_s3 *s3)
{
    static const unsigned also[] = {0, FLUE_DIGEST_MD5, FLUE_DIGEST_CRC32C, FLUE_DIGEST_CRC64NVME};
    unsigned which = also[s3->config->checksum];
    return s3->https && s3->config->checksum >= FLUE_S3_CRC32C ? which : which | FLUE_DIGEST_SHA256;
}

/* What belongs to the object, not to its bytes. */
static void object_fields(struct object_s3 *s3, struct object_call *call)
{
    const struct flue_s3_config *config = s3->config;
    const struct flue_object_request *request = call->op->request;
    object_call_field(call, "content-type",
                      request->content_type ? request->content_type : "application/octet-stream");
    object_call_field(call, "content-encoding", request->content_encoding);
    if (config->acl && strcmp(config->acl, "private") != 0)
        object_call_field(call, "x-amz-acl", config->acl);
    if (config->storage_class && strcmp(config->storage_class, "STANDARD") != 0)
        object_call_field(call, "x-amz-storage-class", config->storage_class);
    object_call_field(call, "x-amz-server-side-encryption", config->server_side_encryption);
    object_call_field(call, "x-amz-server-side-encryption-aws-kms-key-id", config->sse_kms_key_id);
}

static void condition(struct object_s3 *s3, struct object_call *call)
{
    const char *endpoint = s3->config->endpoint ? s3->config->endpoint : "";
    if (call->op->request->create != FLUE_OBJECT_CREATE)
        return;
    if (s3->no_condition)
        call->probe = S3_PROBE_EXISTS;
    else if (strstr(endpoint, ".aliyuncs.com"))
        object_call_field(call, "x-oss-forbid-overwrite", "true");
    else if (strstr(endpoint, ".myqcloud.com"))
        object_call_field(call, "x-cos-forbid-overwrite", "true");
    else
        object_call_field(call, "if-none-match", "*");
}

/* ---- parts ---------------------------------------------------------------------------------- */

/* Text of one element of an answer that is well-formed to its end; empty: it is not. */
static struct flue_bytes element(struct object_call *call, const char *root, const char *name)
{
    struct flue_xml xml;
    struct flue_bytes found = {0};
    enum flue_xml_event event;
    flue_xml_init(&xml, call->http.response, &call->arena);
    while ((event = flue_xml_next(&xml)) < FLUE_XML_END)
        if (event == FLUE_XML_CLOSE && xml.depth == 1 && flue_xml_closed(&xml, root, name))
            found = xml.text;
    return event == FLUE_XML_END ? found : (struct flue_bytes){0};
}

static void on_created(struct object_call *call)
{
    struct object_op *op = call->op;
    struct flue_bytes id = {0};
    object_op_take(op, call);
    if (!call->error.code) {
        id = element(call, "InitiateMultipartUploadResult", "UploadId");
        if (id.size == 0 || id.size > 4096)
            flue_fail(&op->request->error, FLUE_UNAVAILABLE,
                      "%s: the answer to CreateMultipartUpload has no UploadId", op->store->label);
    }
    if (!op->request->error.code) {
        op->upload->id = flue_arena_copy(&op->arena, id);
        if (!op->upload->id.data)
            flue_fail(&op->request->error, FLUE_NO_MEMORY, "no memory for an upload");
    }
    if (op->request->error.code)
        object_op_finish(op);
    else
        object_upload_begun(op);
}

static void create(struct object_op *op)
{
    struct object_call *call = object_call_new(op->store, op, "POST", op->request->key, on_created);
    if (!call)
        return;
    object_call_query(call, "uploads", (struct flue_bytes){0});
    object_fields(of_op(op), call);
    call->digests = FLUE_DIGEST_SHA256;
    object_call_start(call);
}

static void part(struct object_op *op, struct object_call *call, unsigned number)
{
    char *text = flue_arena_printf(&call->arena, "%u", number + 1);
    object_call_query(call, "partNumber", flue_bytes_of(text));
    object_call_query(call, "uploadId", op->upload->id);
}

static bool stored(struct object_op *op, struct object_call *call, unsigned number)
{
    struct flue_bytes etag = flue_call_header(&call->http, "etag");
    char *out = op->upload->etags[number];
    if (etag.size == 0 || etag.size >= sizeof op->upload->etags[0]) {
        flue_fail(&op->request->error, FLUE_UNAVAILABLE, "%s: the answer to part %u has no ETag",
                  op->store->label, number + 1);
        return false;
    }
    memcpy(out, etag.data, etag.size);
    out[etag.size] = 0;
    return true;
}

/* The op waits for it: who closes the store then leaves no parts that cost money there. */
static void abort_upload(struct object_op *op)
{
    if (op->upload->id.size == 0)
        return;
    struct object_call *call = object_call_new(op->store, op, "DELETE", op->request->key, NULL);
    if (!call)
        return;
    call->cleaning = true;
    call->digests = FLUE_DIGEST_SHA256;
    object_call_query(call, "uploadId", op->upload->id);
    object_call_start(call);
}

/* A 200 may come with blanks for minutes and then hold an error. */
static void on_completed(struct object_call *call)
{
    struct object_op *op = call->op;
    object_op_take(op, call);
    if (!call->error.code && element(call, "CompleteMultipartUploadResult", "ETag").size == 0) {
        struct flue_bytes code = element(call, "Error", "Code");
        flue_fail(&op->request->error, FLUE_UNAVAILABLE,
                  "%s: CompleteMultipartUpload was answered 200 with %s%s", op->store->label,
                  code.size ? "error " : "a broken document", object_printable(call, code));
    }
    if (op->request->error.code)
        abort_upload(op);
    object_op_finish(op);
}

static void commit(struct object_op *op)
{
    struct object_upload *upload = op->upload;
    struct object_call *call =
        object_call_new(op->store, op, "POST", op->request->key, on_completed);
    struct flue_buffer text;
    if (!call)
        return;
    flue_buffer_init(&text, 4 * 1024 * 1024);
    flue_buffer_text(&text, "<CompleteMultipartUpload "
                            "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (unsigned i = 0; i < upload->parts; i++) {
        flue_buffer_text(&text, "<Part><ETag>");
        flue_xml_escape(&text, flue_bytes_of(upload->etags[i]));
        flue_buffer_printf(&text, "</ETag><PartNumber>%u</PartNumber></Part>", i + 1);
    }
    flue_buffer_text(&text, "</CompleteMultipartUpload>");
    object_call_text(call, &text);
    call->digests = digests_of(of_op(op)) | FLUE_DIGEST_SHA256;
    object_call_field(call, "content-type", "application/xml");
    object_call_query(call, "uploadId", upload->id);
    condition(of_op(op), call);
    object_call_start(call);
}

static const struct object_upload_driver parts = {
    .begin = create, .part = part, .stored = stored, .commit = commit, .abort = abort_upload};

/* ---- one request each ----------------------------------------------------------------------- */

static void put(struct object_op *op)
{
    struct object_s3 *s3 = of_op(op);
    if (op->request->body && op->request->body->total > OBJECT_SINGLE) {
        object_upload_start(op, &parts, 10000, digests_of(s3));
        return;
    }
    struct object_call *call =
        object_call_new(op->store, op, "PUT", op->request->key, object_op_answered);
    if (!call)
        return;
    call->body = op->request->body;
    call->digests = digests_of(s3) | (call->body ? 0 : FLUE_DIGEST_SHA256);
    call->sha256 = call->body ? op->request->sha256 : NULL;
    object_fields(s3, call);
    condition(s3, call);
    object_call_start(call);
}

static bool checksum_wrong(struct object_call *call, struct flue_bytes data)
{
    static const struct {
        const char *name;
        unsigned which;
    } known[] = {{"x-amz-checksum-crc64nvme", FLUE_DIGEST_CRC64NVME},
                 {"x-amz-checksum-crc32c", FLUE_DIGEST_CRC32C},
                 {"x-amz-checksum-crc32", FLUE_DIGEST_CRC32},
                 {"x-amz-checksum-sha256", FLUE_DIGEST_SHA256},
                 {"x-amz-checksum-sha1", FLUE_DIGEST_SHA1}};
    if (flue_bytes_is(flue_call_header(&call->http, "x-amz-checksum-type"), "COMPOSITE"))
        return false;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct flue_bytes said = flue_call_header(&call->http, known[i].name);
        if (said.size && flue_bytes_find(said, '-') == SIZE_MAX) /* "…-3": of three parts */
            return object_digest_differs(data, known[i].which, said);
    }
    return false;
}

static void on_got(struct object_call *call)
{
    object_op_got(call, checksum_wrong);
}

static void get(struct object_op *op)
{
    struct object_call *call = object_call_new(op->store, op, "GET", op->request->key, on_got);
    char range[64];
    if (!call)
        return;
    object_range(op->request, range);
    object_call_field(call, "range", range);
    if (!range[0] && of_op(op)->config->checksum != FLUE_S3_NONE)
        object_call_field(call, "x-amz-checksum-mode", "ENABLED");
    call->digests = FLUE_DIGEST_SHA256;
    object_call_start(call);
}

/* encoding-type=url: as in a form, a blank is "+". */
static bool unescape_key(struct flue_bytes *key, struct flue_arena *arena)
{
    struct flue_bytes text = flue_arena_copy(arena, *key);
    for (size_t i = 0; text.data && i < text.size; i++)
        if (text.data[i] == '+')
            ((uint8_t *)(uintptr_t)text.data)[i] = ' ';
    return text.data && flue_url_unescape(text, arena, key);
}

static void on_listed(struct object_call *call)
{
    struct object_op *op = call->op;
    struct flue_object_listed *items = NULL, item = {0};
    size_t count = 0, room = 0;
    struct flue_xml xml;
    enum flue_xml_event event = FLUE_XML_BAD;
    bool truncated = false, good = true, finished = false, escaped = false;
    object_op_take(op, call);
    if (call->error.code) {
        object_op_finish(op);
        return;
    }
    flue_xml_init(&xml, call->http.response, &op->arena);
    while (good && (event = flue_xml_next(&xml)) < FLUE_XML_END) {
        if (event == FLUE_XML_OPEN)
            continue;
        if (flue_xml_closed(&xml, "Contents", "Key") ||
            flue_xml_closed(&xml, "CommonPrefixes", "Prefix")) {
            item.folder = flue_bytes_is(xml.name, "Prefix");
            item.key = xml.text;
        } else if (flue_xml_closed(&xml, "ListBucketResult", "EncodingType")) {
            escaped = flue_bytes_is(xml.text, "url");
        } else if (flue_xml_closed(&xml, "Contents", "Size")) {
            good = flue_parse_u64(flue_bytes_trim(xml.text), &item.size);
        } else if (flue_xml_closed(&xml, "Contents", "LastModified")) {
            uint64_t seconds;
            if (object_iso_date(flue_bytes_trim(xml.text), &seconds))
                item.modified = (int64_t)seconds;
        } else if (flue_xml_closed(&xml, "ListBucketResult", "Contents") ||
                   flue_xml_closed(&xml, "ListBucketResult", "CommonPrefixes")) {
            good = FLUE_ARENA_PUSH(&op->arena, items, count, room, item);
            item = (struct flue_object_listed){0};
        } else if (flue_xml_closed(&xml, "ListBucketResult", "IsTruncated")) {
            truncated = flue_bytes_is(xml.text, "true");
        } else if (xml.depth == 0) {
            finished = flue_bytes_is(xml.name, "ListBucketResult");
        }
    }
    for (size_t i = 0; good && escaped && i < count; i++)
        good = unescape_key(&items[i].key, &op->arena);
    if (!good || event != FLUE_XML_END || !finished)
        flue_fail(&op->request->error, FLUE_UNAVAILABLE, "%s: the list cannot be read: %s",
                  op->store->label, xml.wrong ? xml.wrong : "not what was asked for");
    object_sort_listed(items, count);
    object_op_listed(op, items, count, truncated);
    object_op_finish(op);
}

static void list(struct object_op *op)
{
    const struct flue_object_request *request = op->request;
    struct object_call *call =
        object_call_new(op->store, op, "GET", (struct flue_bytes){0}, on_listed);
    if (!call)
        return;
    object_call_query(call, "list-type", FLUE_BYTES("2"));
    object_call_query(call, "encoding-type", FLUE_BYTES("url"));
    object_call_query(call, "prefix", request->key);
    if (request->start_after.size)
        object_call_query(call, "start-after", request->start_after);
    if (request->delimiter)
        object_call_query(call, "delimiter", flue_bytes(&request->delimiter, 1));
    if (request->limit) {
        unsigned limit = request->limit < 1000 ? request->limit : 1000;
        object_call_query(call, "max-keys",
                          flue_bytes_of(flue_arena_printf(&call->arena, "%u", limit)));
    }
    call->digests = FLUE_DIGEST_SHA256;
    object_call_start(call);
}

static void delete (struct object_op *op)
{
    struct object_call *call =
        object_call_new(op->store, op, "DELETE", op->request->key, object_op_answered);
    if (!call)
        return;
    call->digests = FLUE_DIGEST_SHA256;
    object_call_start(call);
}

void object_s3_begin(struct object_op *op)
{
    static void (*const begin[OBJECT_KINDS])(struct object_op * op) = {put, get, list, delete};
    begin[op->kind](op);
}
