/* upload.c: a body in parts: up to four at a time, each tried again by itself a few times, then one
 * commit; whatever fails for good aborts the upload, so that nothing of it is ever visible. */
#include "archive/object/store.h"

#define AT_ONCE 4u
#define TRIES   3u

static void on_part(struct object_call *call);

static struct flue_bytes slice_part(struct flue_bytes b, size_t *skip, size_t *left)
{
    size_t off = *skip < b.size ? *skip : b.size;
    *skip -= off;
    b = flue_bytes_first(flue_bytes_from(b, off), *left);
    *left -= b.size;
    return b;
}

/* The slices of one part: borrowed, no bytes are copied. */
static bool cut(struct object_op *op, unsigned part, struct flue_slices *out)
{
    const struct flue_slices *body = op->request->body;
    struct object_upload *upload = op->upload;
    size_t skip = (size_t)part * upload->part_size, left = upload->part_size;
    for (size_t i = 0; i < body->count && left; i++) {
        struct flue_bytes b = slice_part(body->items[i], &skip, &left);
        if (b.size && !flue_slices_add(out, &op->arena, b))
            return false;
    }
    return true;
}

static void send_part(struct object_op *op, unsigned part)
{
    struct object_upload *upload = op->upload;
    struct object_call *call = object_call_new(op->store, op, "PUT", op->request->key, on_part);
    if (!call) {
        upload->failed = true;
        return;
    }
    upload->running++;
    upload->tries[part]++;
    call->part = part;
    call->body = &upload->bodies[part];
    call->digests = upload->digests;
    upload->driver->part(op, call, part);
    object_call_start(call);
}

static void more(struct object_op *op)
{
    struct object_upload *upload = op->upload;
    while (!upload->failed && upload->running < AT_ONCE && upload->next < upload->parts)
        send_part(op, upload->next++);
    if (upload->running)
        return;
    if (upload->failed) {
        upload->driver->abort(op);
        object_op_finish(op);
    } else if (upload->stored == upload->parts) {
        upload->driver->commit(op);
    }
}

void object_upload_fail(struct object_op *op)
{
    op->upload->failed = true;
    for (struct object_call *call = op->store->calls; call; call = call->next)
        if (call->op == op)
            object_call_cancel(call);
    more(op);
}

static void on_part(struct object_call *call)
{
    struct object_op *op = call->op;
    struct object_upload *upload = op->upload;
    unsigned part = call->part;
    bool retry = flue_code_facts(call->error.code)->retryable && !call->cancelled;
    upload->running--;
    if (upload->failed) {
        more(op);
    } else if (call->error.code && retry && upload->tries[part] < TRIES) {
        send_part(op, part);
    } else if (call->error.code) {
        object_op_take(op, call);
        flue_fail_prefix(&op->request->error, "part %u of %u", part + 1, upload->parts);
        object_upload_fail(op);
    } else if (!upload->driver->stored(op, call, part)) {
        object_upload_fail(op);
    } else {
        upload->stored++;
        more(op);
    }
}

void object_upload_begun(struct object_op *op)
{
    op->upload->begun = true;
    more(op);
}

void object_upload_start(struct object_op *op, const struct object_upload_driver *driver,
                         unsigned most_parts, unsigned digests)
{
    size_t total = op->request->body->total, size = OBJECT_PART;
    struct object_upload *upload = flue_arena_zalloc(&op->arena, 1, sizeof *upload);
    while (total / size + 1 > most_parts)
        size *= 2;
    size_t parts = (total + size - 1) / size;
    if (upload) {
        *upload = (struct object_upload){
            .driver = driver, .parts = (unsigned)parts, .part_size = size, .digests = digests};
        upload->bodies = flue_arena_zalloc(&op->arena, parts, sizeof *upload->bodies);
        upload->etags = flue_arena_zalloc(&op->arena, parts, sizeof *upload->etags);
        upload->tries = flue_arena_zalloc(&op->arena, parts, 1);
    }
    if (!upload || !upload->bodies || !upload->etags || !upload->tries) {
        object_op_fail(op, FLUE_NO_MEMORY, "no memory for an upload of %zu parts", parts);
        return;
    }
    op->upload = upload;
    for (unsigned i = 0; i < parts; i++)
        if (!cut(op, i, &upload->bodies[i])) {
            object_op_fail(op, FLUE_NO_MEMORY, "no memory for an upload of %zu parts", parts);
            return;
        }
    if (driver->begin)
        driver->begin(op);
    else
        object_upload_begun(op);
}
