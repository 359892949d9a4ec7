/* client_sender.h: an exporter that sends one item of its queue as one POST.
 *
 * What such exporters share: a client per loop, the message made and compressed once (on the pool
 * where it is large) and kept for every attempt, a message over the limit given back to be cut, an
 * attempt given up while it is compressed or on its way. What they differ in are the functions of
 * struct flue_client_sender. All but start and destroy on the loop of the send.
 */
#ifndef FLUE_NET_CLIENT_SENDER_H
#define FLUE_NET_CLIENT_SENDER_H

#include "collector/net/client.h"
#include "collector/net/client_body.h"
#include "collector/pipeline/exporter.h"

/* One item, over all its attempts: send->state. An exporter that keeps more embeds it first. */
struct flue_client_item {
    struct flue_client_sender *sender;
    struct flue_send *send;
    struct flue_payload *payload; /* in the sender's form */
    struct flue_arena arena;      /* of the message, until it is made anew */
    struct flue_call call;
    /* its own */
    struct flue_client_body body;
    bool encoded;   /* the body is ready for every attempt */
    bool encoding;  /* on the pool */
    bool cancelled; /* this attempt */
};

struct flue_client_message {
    struct flue_slices slices;
    bool too_large;     /* it was given up while it was made: there are no slices */
    uint64_t split_max; /* encoded bytes of a part when it is too large; 0: max_request_size */
};

struct flue_client_sender {
    const char *id; /* the exporter's, for the log */
    struct flue_loops *loops;
    struct flue_bytes path; /* unless `request` gives the call one */
    const struct flue_header *headers;
    size_t header_count;
    enum flue_coding coding;
    int level;
    bool grpc;                 /* the message has its five bytes before it */
    uint64_t max_request_size; /* bytes before compression */
    size_t item_size;          /* of what embeds struct flue_client_item; zeroed */
    enum flue_form form;
    /* flue_convert (proto/ stands beside net/, so net/ does not name it). */
    enum flue_code (*convert)(struct flue_payload *payload, enum flue_form form,
                              struct flue_account *account, struct flue_payload **out,
                              struct flue_error *error);
    /* The message of item->payload, in item->arena; NULL: the payload's slices. */
    enum flue_code (*encode)(struct flue_client_item *item, struct flue_client_message *message,
                             struct flue_error *error);
    /* Before every attempt: changes the call, which has path and headers already. May be NULL. */
    void (*request)(struct flue_client_item *item);
    /* The call is over, verdict->kind is FLUE_SENT. Other than FLUE_OK: verdict->error, by which
     * the item is sent again or dropped. */
    enum flue_code (*answered)(struct flue_client_item *item, struct flue_verdict *verdict);
    void (*free)(struct flue_client_item *item); /* what `encode` keeps; may be NULL */
    /* its own */
    struct flue_tls *tls;
    struct flue_client *clients[64]; /* by loop */
};

/* In the component's start. `alpn` as for flue_tls_client_new. After a failure destroy. */
enum flue_code flue_client_sender_start(struct flue_client_sender *sender,
                                        const struct flue_client_config *client, const char *alpn,
                                        struct flue_error *error);
void flue_client_sender_destroy(struct flue_client_sender *sender);

/* The component's send. */
void flue_client_sender_send(struct flue_client_sender *sender, struct flue_send *send);

/* In answered: the next hop took the item but for so many profiles, or only `said` something. It is
 * logged and counted, and never sent again (OTLP specification 1.11). */
void flue_client_item_partial(const struct flue_client_item *item, uint64_t profiles,
                              const char *said, struct flue_verdict *verdict);

#endif
