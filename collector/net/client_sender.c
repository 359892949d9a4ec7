/* client_sender.c: see client_sender.h. */
#include "collector/net/client_sender.h"

#include <stdlib.h>

#include "collector/base/log.h"

#define ARENA_MOST ((size_t)256 << 20) /* of a request's list of slices */

/* ---- life ----------------------------------------------------------------------------------- */

enum flue_code flue_client_sender_start(struct flue_client_sender *sender,
                                        const struct flue_client_config *client, const char *alpn,
                                        struct flue_error *error)
{
    enum flue_code code = FLUE_OK;
    if (flue_client_uses_tls(client))
        code = flue_tls_client_new(&client->tls, alpn, &sender->tls, error);
    for (unsigned i = 0; !code && i < sender->loops->count; i++)
        code = flue_client_new(sender->loops->items[i], client, sender->tls, &sender->clients[i],
                               error);
    return code;
}

void flue_client_sender_destroy(struct flue_client_sender *sender)
{
    for (unsigned i = 0; i < sender->loops->count; i++)
        flue_client_destroy(sender->clients[i]);
    flue_tls_destroy(sender->tls);
}

/* ---- answers -------------------------------------------------------------------------------- */

/* Of what the item counts: its profiles are known, the rest in proportion. */
static struct flue_counts share(const struct flue_counts *whole, uint64_t profiles)
{
    if (profiles >= whole->profiles)
        return profiles ? *whole : (struct flue_counts){0};
    double part = (double)profiles / (double)whole->profiles;
    return (struct flue_counts){profiles, (uint64_t)((double)whole->samples * part),
                                (uint64_t)((double)whole->bytes * part)};
}

void flue_client_item_partial(const struct flue_client_item *item, uint64_t profiles,
                              const char *said, struct flue_verdict *verdict)
{
    char printable[300];
    if (!profiles && !said[0])
        return;
    verdict->rejected = share(&item->send->batch->counts, profiles);
    flue_log(FLUE_WARN, "exporter", "partial success", FLUE_S("exporter", item->sender->id),
             FLUE_U("dropped_profiles", profiles),
             FLUE_S("message", flue_printable(flue_bytes_of(said), printable, sizeof printable)),
             FLUE_LOG_END);
}

static void answered(struct flue_call *call)
{
    struct flue_client_item *item = call->user;
    struct flue_verdict verdict = {.kind = FLUE_SENT};
    if (item->sender->answered(item, &verdict))
        flue_send_fail(item->send, &verdict.error);
    else
        flue_send_done(item->send, &verdict);
}

/* ---- attempts ------------------------------------------------------------------------------- */

static void call_out(struct flue_client_item *item)
{
    struct flue_client_sender *sender = item->sender;
    item->call = (struct flue_call){
        .client = sender->clients[item->send->loop->index],
        .method = FLUE_BYTES("POST"),
        .path = sender->path,
        .headers = sender->headers,
        .header_count = sender->header_count,
        .body = &item->body.slices,
        .deadline_ns = item->send->deadline_ns,
        .done = answered,
        .user = item,
    };
    if (sender->request)
        sender->request(item);
    flue_call_send(&item->call);
}

static void body_ready(struct flue_client_body *body)
{
    struct flue_client_item *item = body->user;
    struct flue_error error = body->error;
    item->encoding = false;
    item->encoded = !error.code;
    if (error.code)
        flue_fail_prefix(&error, "compression");
    else if (item->cancelled)
        flue_fail(&error, FLUE_CANCELLED, "cancelled");
    if (error.code)
        flue_send_fail(item->send, &error);
    else
        call_out(item);
}

static void cancel(struct flue_send *send)
{
    struct flue_client_item *item = send->state;
    item->cancelled = true;
    if (!item->encoding)
        flue_call_cancel(&item->call);
}

/* ---- the message ---------------------------------------------------------------------------- */

static void free_item(void *state)
{
    struct flue_client_item *item = state;
    if (item->sender->free)
        item->sender->free(item);
    flue_client_body_free(&item->body);
    flue_payload_unref(item->payload);
    flue_arena_destroy(&item->arena);
    free(item);
}

static struct flue_client_item *item_of(struct flue_client_sender *sender, struct flue_send *send)
{
    struct flue_client_item *item = send->state;
    if (item || !(item = calloc(1, sender->item_size)))
        return item;
    item->sender = sender;
    item->send = send;
    flue_arena_init(&item->arena, ARENA_MOST, 0);
    send->state = item;
    send->free_state = free_item;
    return item;
}

static enum flue_code make_message(struct flue_client_item *item,
                                   struct flue_client_message *message, struct flue_error *error)
{
    struct flue_client_sender *sender = item->sender;
    const struct flue_batch *batch = item->send->batch;
    flue_arena_reset(&item->arena);
    if (!item->payload) {
        enum flue_code code =
            sender->convert(batch->payload, sender->form, batch->account, &item->payload, error);
        if (code) {
            item->payload = NULL;
            return code;
        }
    }
    if (sender->encode)
        return sender->encode(item, message, error);
    return item->payload->ops->slices(item->payload, &item->arena, &message->slices, error);
}

static void give_back(struct flue_client_item *item, const struct flue_client_message *message)
{
    uint64_t limit = item->sender->max_request_size;
    struct flue_verdict verdict = {.kind = FLUE_SPLIT,
                                   .split_max = message->split_max ? message->split_max : limit,
                                   .split_by_bytes = true};
    flue_fail(&verdict.error, FLUE_TOO_LARGE,
              "%zu bytes of profiles are a request over max_request_size %llu",
              item->payload->ops->encoded_size(item->payload), (unsigned long long)limit);
    if (item->send->batch->counts.samples <= 1) /* cannot be cut */
        verdict.kind = FLUE_DROP;
    flue_send_done(item->send, &verdict);
}

void flue_client_sender_send(struct flue_client_sender *sender, struct flue_send *send)
{
    struct flue_client_item *item = item_of(sender, send);
    struct flue_client_message message = {.too_large = false};
    struct flue_error error = {0};
    if (!item) {
        flue_fail(&error, FLUE_NO_MEMORY, "no memory for a request");
        flue_send_fail(send, &error);
        return;
    }
    item->cancelled = false;
    if (item->encoded) {
        send->cancel = cancel;
        call_out(item);
        return;
    }
    if (make_message(item, &message, &error)) {
        flue_send_fail(send, &error);
        return;
    }
    if (message.too_large || message.slices.total > sender->max_request_size) {
        give_back(item, &message);
        return;
    }
    item->encoding = true;
    send->cancel = cancel;
    item->body.ready = body_ready;
    item->body.user = item;
    flue_client_body_make(&item->body, send->loop, &item->arena, &message.slices, sender->coding,
                          sender->level, sender->grpc);
}
