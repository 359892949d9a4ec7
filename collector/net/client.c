/* client.c: calls from send to done, and which transport and connection takes them.
 *
 * A call waits in `pending` until flue_client_schedule, once per turn of the loop (uv_prepare,
 * right before the loop sleeps), finds a place for it: an HTTP/2 connection with a free stream, or
 * libcurl. */
#include "collector/net/client_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "collector/net/auth.h"

#define SPARE_STATES 256
#define SPARE_BYTES  4096 /* a spare state keeps no larger buffer */

/* ---- lists ---------------------------------------------------------------------------------- */

void flue_client_list_append(struct client_list *list, struct client_state *state)
{
    state->list = list;
    state->next = NULL;
    state->previous = list->last;
    if (list->last)
        list->last->next = state;
    else
        list->first = state;
    list->last = state;
}

static void list_prepend(struct client_list *list, struct client_state *state)
{
    state->list = list;
    state->previous = NULL;
    state->next = list->first;
    if (list->first)
        list->first->previous = state;
    else
        list->last = state;
    list->first = state;
}

void flue_client_list_remove(struct client_state *state)
{
    struct client_list *list = state->list;
    if (!list)
        return;
    if (state->previous)
        state->previous->next = state->next;
    else
        list->first = state->next;
    if (state->next)
        state->next->previous = state->previous;
    else
        list->last = state->previous;
    state->list = NULL;
    state->next = state->previous = NULL;
    if (state->place == CLIENT_PENDING)
        state->client->pending_count--;
}

/* ---- states --------------------------------------------------------------------------------- */

static void on_deadline(struct flue_timer *timer)
{
    struct client_state *state =
        (struct client_state *)(void *)((char *)timer - offsetof(struct client_state, deadline));
    struct flue_client *client = state->client;
    switch (state->place) {
    case CLIENT_FINISHED:
        return;
    case CLIENT_PENDING:
        if (client->last_error.code)
            flue_client_finish(state, FLUE_TIMEOUT,
                               "deadline passed before \"%s\" could be reached: %s",
                               client->target.label, client->last_error.text);
        else
            flue_client_finish(state, FLUE_TIMEOUT,
                               "deadline passed while waiting for a connection to "
                               "\"%s\"",
                               client->target.label);
        break;
    case CLIENT_STREAM:
        flue_client_finish(state, FLUE_TIMEOUT, "deadline passed, no complete answer from %s",
                           state->connection->address->text);
        break;
    case CLIENT_HTTP1:
        flue_client_finish(state, FLUE_TIMEOUT, "deadline passed, no complete answer from \"%s\"",
                           client->target.label);
        break;
    }
    flue_client_run_finished(client);
}

static struct client_state *state_new(struct flue_client *client)
{
    struct client_state *state = client->spare;
    if (state) {
        client->spare = state->next;
        client->spare_count--;
        state->next = NULL;
        return state;
    }
    state = calloc(1, sizeof *state);
    if (!state)
        return NULL;
    state->client = client;
    state->deadline.fire = on_deadline;
    flue_buffer_init(&state->body, client->config.response_limit);
    return state;
}

static void state_free(struct client_state *state)
{
    flue_block_unref(state->credentials);
    flue_buffer_destroy(&state->body);
    free(state->head);
    free(state->fields);
    free(state);
}

static void state_recycle(struct client_state *state)
{
    struct flue_client *client = state->client;
    if (client->closing || client->spare_count >= SPARE_STATES || state->head_room > SPARE_BYTES) {
        state_free(state);
        return;
    }
    flue_client_response_reset(state);
    flue_block_unref(state->credentials);
    state->credentials = NULL;
    if (state->body.capacity > SPARE_BYTES) {
        flue_buffer_destroy(&state->body);
        flue_buffer_init(&state->body, client->config.response_limit);
    }
    state->call = NULL;
    state->resends = 0;
    state->sent = false;
    state->previous = NULL;
    state->next = client->spare;
    client->spare = state;
    client->spare_count++;
}

/* ---- the response as it comes in ------------------------------------------------------------ */

void flue_client_response_reset(struct client_state *state)
{
    state->status = 0;
    state->head_done = false;
    state->head_size = 0;
    state->field_count = 0;
    state->trailer_from = 0;
    flue_buffer_clear(&state->body);
}

static bool head_reserve(struct client_state *state, size_t more)
{
    size_t need = state->head_size + more;
    if (need <= state->head_room)
        return true;
    size_t room = state->head_room ? state->head_room * 2 : 512;
    while (room < need)
        room *= 2;
    char *head = malloc(room);
    if (!head)
        return false;
    if (state->head_size)
        memcpy(head, state->head, state->head_size);
    for (size_t i = 0; i < state->field_count; i++) {
        struct flue_header *field = &state->fields[i];
        field->name.data = (uint8_t *)head + ((const char *)field->name.data - state->head);
        field->value.data = (uint8_t *)head + ((const char *)field->value.data - state->head);
    }
    free(state->head);
    state->head = head;
    state->head_room = room;
    return true;
}

bool flue_client_response_field(struct client_state *state, struct flue_bytes name,
                                struct flue_bytes value)
{
    if (state->field_count >= CLIENT_MAX_FIELDS ||
        name.size + value.size > CLIENT_MAX_HEAD - state->head_size) {
        flue_client_finish(state, FLUE_INVALID, "response headers over %u fields or %u bytes",
                           CLIENT_MAX_FIELDS, CLIENT_MAX_HEAD);
        return false;
    }
    bool room = state->field_count < state->field_room;
    if (!room) {
        size_t wanted = state->field_room ? state->field_room * 2 : 16;
        struct flue_header *fields = realloc(state->fields, wanted * sizeof *fields);
        if (fields) {
            state->fields = fields;
            state->field_room = wanted;
            room = true;
        }
    }
    if (!room || !head_reserve(state, name.size + value.size + 2)) {
        flue_client_finish(state, FLUE_NO_MEMORY, "no memory for a response's headers");
        return false;
    }
    uint8_t *at = (uint8_t *)state->head + state->head_size;
    struct flue_header *field = &state->fields[state->field_count++];
    field->name = flue_bytes(at, name.size);
    if (name.size)
        memcpy(at, name.data, name.size);
    at += name.size;
    *at++ = 0;
    field->value = flue_bytes(at, value.size);
    if (value.size)
        memcpy(at, value.data, value.size);
    at[value.size] = 0;
    state->head_size += name.size + value.size + 2;
    return true;
}

bool flue_client_response_body(struct client_state *state, const uint8_t *data, size_t size)
{
    if (size > state->body.maximum - state->body.size) {
        flue_client_finish(state, FLUE_INVALID, "response over %zu bytes", state->body.maximum);
        return false;
    }
    flue_buffer_add(&state->body, flue_bytes(data, size));
    if (state->body.failed) {
        flue_client_finish(state, FLUE_NO_MEMORY, "no memory for a response");
        return false;
    }
    return true;
}

/* ---- ends ----------------------------------------------------------------------------------- */

static void leave(struct client_state *state)
{
    if (state->place == CLIENT_STREAM) {
        if (flue_client_http2_was_sent(state))
            state->sent = true;
        flue_client_http2_abandon(state);
    } else if (state->place == CLIENT_HTTP1) {
        flue_client_http1_abandon(state);
    }
    flue_client_list_remove(state);
}

void flue_client_finish(struct client_state *state, enum flue_code code, const char *format, ...)
{
    struct flue_call *call = state->call;
    struct flue_client *client = state->client;
    if (state->place == CLIENT_FINISHED)
        return;
    call->error.code = code;
    call->error.retry_after_ms = 0;
    call->error.text[0] = 0;
    if (code) {
        va_list args;
        va_start(args, format);
        vsnprintf(call->error.text, sizeof call->error.text, format, args);
        va_end(args);
    }
    leave(state);
    flue_timer_disarm(client->loop, &state->deadline);
    state->place = CLIENT_FINISHED;
    flue_client_list_append(&client->finished, state);
}

bool flue_client_requeue(struct client_state *state)
{
    struct flue_client *client = state->client;
    if (client->closing || state->place == CLIENT_FINISHED || state->resends >= CLIENT_MAX_RESENDS)
        return false;
    state->resends++;
    leave(state);
    state->sent = false;
    flue_client_response_reset(state);
    state->place = CLIENT_PENDING;
    list_prepend(&client->pending, state);
    client->pending_count++;
    client->scheduled = true;
    return true;
}

void flue_client_run_finished(struct flue_client *client)
{
    struct client_state *state;
    while (client->refused) {
        struct flue_call *call = client->refused;
        client->refused = call->transport;
        call->transport = NULL;
        call->done(call);
    }
    while ((state = client->finished.first)) {
        struct flue_call *call = state->call;
        flue_client_list_remove(state);
        bool complete = call->error.code == FLUE_OK;
        call->sent = state->sent;
        call->status = state->status;
        call->response_headers = state->fields;
        call->response_header_count = complete ? state->trailer_from : 0;
        call->trailers = state->fields ? state->fields + state->trailer_from : NULL;
        call->trailer_count = complete ? state->field_count - state->trailer_from : 0;
        call->response = complete ? flue_buffer_bytes(&state->body) : flue_bytes(NULL, 0);
        call->transport = NULL;
        client->call_count--;
        call->done(call);
        state_recycle(state);
    }
}

bool flue_client_credentials(struct client_state *state, struct flue_header *out)
{
    struct flue_auth *auth = state->client->config.auth;
    struct flue_error error = {.code = FLUE_UNAVAILABLE};
    *out = (struct flue_header){0};
    if (!auth)
        return true;
    flue_block_unref(state->credentials);
    state->credentials = auth->credentials(auth, &error);
    if (!state->credentials) {
        flue_client_finish(state, error.code, "%s", error.text);
        return false;
    }
    *out = (struct flue_header){flue_bytes_of(auth->header), flue_block_bytes(state->credentials)};
    return true;
}

/* ---- scheduling ----------------------------------------------------------------------------- */

static void fail_pending(struct flue_client *client)
{
    struct client_state *state;
    while ((state = client->pending.first))
        flue_client_finish(state,
                           client->last_error.code ? client->last_error.code : FLUE_UNAVAILABLE,
                           "%s", client->last_error.text);
}

static unsigned connection_maximum(const struct flue_client *client)
{
    int64_t maximum = client->config.max_connections;
    return maximum > 0 && maximum < CLIENT_MAX_CONNECTIONS ? (unsigned)maximum
                                                           : CLIENT_MAX_CONNECTIONS;
}

static bool takes_calls(const struct client_connection *connection)
{
    return connection->stage == CONNECTION_READY && !connection->broken;
}

/* The one with the fewest calls; of several, the one that has waited longest for its turn. */
static struct client_connection *pick_connection(struct flue_client *client)
{
    struct client_connection *best = NULL;
    for (struct client_connection *c = client->connections; c; c = c->next)
        if (takes_calls(c) && c->streams < c->limit &&
            (!best || c->streams < best->streams ||
             (c->streams == best->streams && c->picked < best->picked)))
            best = c;
    if (best)
        best->picked = ++client->picks;
    return best;
}

static bool may_speak_http2(const struct flue_client *client, const struct client_address *address,
                            uint64_t now)
{
    return client->config.protocol != FLUE_CLIENT_PROBE || address->speaks != CLIENT_SPEAKS_HTTP1 ||
           address->probe_at_ns <= now;
}

/* The address for the next connection: not left alone, fewest connections, in turn. */
static struct client_address *pick_address(struct flue_client *client, uint64_t now, bool http2)
{
    struct client_address *best = NULL;
    for (unsigned i = 0; i < client->address_count; i++) {
        unsigned at =
            client->config.pick_first ? i : (client->next_address + i) % client->address_count;
        struct client_address *address = client->addresses[at];
        if (address->retry_at_ns > now || (http2 && !may_speak_http2(client, address, now)))
            continue;
        if (client->config.pick_first)
            return address;
        if (!best || (http2 && address->connections < best->connections))
            best = address;
    }
    client->next_address++;
    return best;
}

static unsigned live_connections(const struct flue_client *client, unsigned *load)
{
    unsigned live = 0;
    for (const struct client_connection *c = client->connections; c; c = c->next) {
        if (c->stage < CONNECTION_DRAINING && !c->broken) {
            live++;
            *load += c->streams;
        }
    }
    return live;
}

/* Opens what the calls need: one connection to every address that may be tried, so that all have
 * their turn whether or not a call waits, and as many more as the peer's stream limit demands.
 * Returns how many connections can or may soon take calls. */
static unsigned open_connections(struct flue_client *client, uint64_t now)
{
    unsigned load = client->pending_count, maximum = connection_maximum(client);
    unsigned live = live_connections(client, &load);
    unsigned limit = client->peer_limit ? client->peer_limit : CLIENT_MAX_STREAMS;
    unsigned wanted = (load + limit - 1) / limit;
    if (!client->config.pick_first && load)
        for (unsigned i = 0; i < client->address_count && live < maximum; i++) {
            struct client_address *address = client->addresses[i];
            if (!address->connections && address->retry_at_ns <= now &&
                may_speak_http2(client, address, now) &&
                flue_client_connection_open(client, address))
                live++;
        }
    while (live < (wanted < maximum ? wanted : maximum)) {
        struct client_address *address = pick_address(client, now, true);
        if (!address)
            break;
        if (flue_client_connection_open(client, address))
            live++;
    }
    return live;
}

static bool http1_known(const struct flue_client *client)
{
    bool found = false;
    for (unsigned i = 0; i < client->address_count; i++) {
        if (client->addresses[i]->speaks == CLIENT_SPEAKS_HTTP2)
            return false;
        found |= client->addresses[i]->speaks == CLIENT_SPEAKS_HTTP1;
    }
    return found;
}

static void schedule_http1(struct flue_client *client, uint64_t now)
{
    struct client_state *state;
    while ((state = client->pending.first)) {
        struct client_address *address = NULL;
        if (!client->config.proxy_url) {
            address = pick_address(client, now, false);
            if (!address) {
                if (!client->config.wait_for_ready)
                    fail_pending(client);
                return;
            }
        }
        flue_client_http1_start(state, address);
    }
}

/* Waiting calls are looked at again when the first address may be tried. */
static void arm_retry(struct flue_client *client)
{
    uint64_t due = client->resolve_at_ns;
    for (unsigned i = 0; i < client->address_count; i++)
        if (i == 0 || client->addresses[i]->retry_at_ns < due)
            due = client->addresses[i]->retry_at_ns;
    flue_timer_arm(client->loop, &client->retry, due ? due : 1);
}

static void on_retry(struct flue_timer *timer)
{
    struct flue_client *client =
        (struct flue_client *)(void *)((char *)timer - offsetof(struct flue_client, retry));
    client->scheduled = true;
}

void flue_client_schedule(struct flue_client *client)
{
    struct client_connection *connection;
    bool failed = false;
    client->scheduled = false;
    while (client->pending.first && (connection = pick_connection(client)))
        flue_client_http2_submit(connection, client->pending.first);
    /* Without a call that waits there may still be an address that has no connection. */
    if (client->closing ||
        (!client->pending.first && (client->http1_only || client->config.pick_first)))
        return;
    if (!(client->http1_only && client->config.proxy_url) &&
        !flue_client_addresses_ready(client, &failed)) {
        if (failed && client->config.wait_for_ready)
            arm_retry(client);
        else if (failed)
            fail_pending(client);
        return;
    }
    uint64_t now = flue_monotonic_ns();
    if (client->http1_only) {
        schedule_http1(client, now);
    } else {
        unsigned live = open_connections(client, now);
        if (http1_known(client))
            schedule_http1(client, now);
        else if (live == 0 && !client->config.wait_for_ready)
            fail_pending(client);
    }
    if (client->pending.first && client->config.wait_for_ready)
        arm_retry(client);
}

static void on_prepare(uv_prepare_t *handle)
{
    struct flue_client *client = handle->data;
    bool answered = false;
    /* Each step may give work to the ones before it; a bound, so that other clients get their turn.
     */
    for (unsigned turn = 0; turn < 8; turn++) {
        flue_client_http1_turn(client);
        answered |= client->finished.first || client->refused;
        flue_client_run_finished(client);
        if (client->closing)
            return;
        if (client->scheduled)
            flue_client_schedule(client);
        flue_client_http1_turn(client);
        while (client->dirty) {
            struct client_connection *connection = client->dirty;
            client->dirty = connection->dirty_next;
            connection->dirty = false;
            flue_client_connection_flush(connection);
        }
        if (!client->finished.first && !client->refused && !client->scheduled) {
            /* Whoever was called may have something to say on a connection whose turn to be flushed
             * in this round of the loop is over: no sleep before it has another. */
            if (answered)
                flue_timer_arm(client->loop, &client->retry, 1);
            return;
        }
    }
    /* Do not sleep on what is left: a timer that is due. */
    flue_timer_arm(client->loop, &client->retry, 1);
}

/* ---- calls ---------------------------------------------------------------------------------- */

static bool token_ok(struct flue_bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] <= ' ' || text.data[i] >= 0x7f)
            return false;
    return text.size > 0;
}

static const char *request_mistake(const struct flue_call *call)
{
    if (!token_ok(call->method))
        return "method";
    if (!token_ok(call->path) || call->path.data[0] != '/')
        return "path (it must begin with / and be escaped)";
    if (call->header_count > CLIENT_MAX_HEADERS)
        return "number of headers (at most 64)";
    for (size_t i = 0; i < call->header_count; i++)
        if (!token_ok(call->headers[i].name) || !flue_client_field_ok(call->headers[i].value))
            return "header (a control character in it)";
    return NULL;
}

void flue_call_send(struct flue_call *call)
{
    struct flue_client *client = call->client;
    struct client_state *state = state_new(client);
    memset(&call->error, 0, sizeof call->error);
    if (!state) {
        flue_fail(&call->error, FLUE_NO_MEMORY, "no memory for a call");
        call->transport = client->refused;
        client->refused = call;
        client->scheduled = true;
        return;
    }
    state->call = call;
    call->transport = state;
    state->place = CLIENT_PENDING;
    client->call_count++;
    client->pending_count++;
    flue_client_list_append(&client->pending, state);
    client->scheduled = true;
    const char *mistake = request_mistake(call);
    if (client->closing)
        flue_client_finish(state, FLUE_CANCELLED, "the client is being closed");
    else if (mistake)
        flue_client_finish(state, FLUE_INVALID, "request cannot be sent: bad %s", mistake);
    else if (call->deadline_ns)
        flue_timer_arm(client->loop, &state->deadline, call->deadline_ns);
}

void flue_call_cancel(struct flue_call *call)
{
    if (call->transport && !call->error.code)
        flue_client_finish(call->transport, FLUE_CANCELLED, "cancelled");
}

/* ---- the client ----------------------------------------------------------------------------- */

static char *copy_text(const char *text)
{
    return text && *text ? strdup(text) : NULL;
}

static void client_free(struct flue_client *client)
{
    while (client->spare) {
        struct client_state *state = client->spare;
        client->spare = state->next;
        state_free(state);
    }
    flue_client_target_free(&client->target);
    if (client->callbacks)
        nghttp2_session_callbacks_del(client->callbacks);
    if (client->own_tls)
        flue_tls_destroy(client->tls);
    free((char *)client->config.proxy_url);
    free((char *)client->config.authority);
    free(client);
}

void flue_client_handle_closed(struct flue_client *client)
{
    if (--client->handles == 0)
        client_free(client);
}

static void on_prepare_closed(uv_handle_t *handle)
{
    flue_client_handle_closed(handle->data);
}

bool flue_client_uses_tls(const struct flue_client_config *config)
{
    const char *endpoint = config->endpoint ? config->endpoint : "";
    if (strncmp(endpoint, "https://", 8) == 0)
        return true;
    if (config->tls_by_scheme)
        return false;
    bool authority = (config->tls.common.ca_file && *config->tls.common.ca_file) ||
                     (config->tls.common.ca_pem && *config->tls.common.ca_pem);
    return !config->tls.insecure || authority;
}

enum flue_code flue_client_new(struct flue_loop *loop, const struct flue_client_config *config,
                               struct flue_tls *tls, struct flue_client **out,
                               struct flue_error *error)
{
    struct flue_client *client = calloc(1, sizeof *client);
    enum flue_code code;
    if (!client)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a client");
    client->loop = loop;
    client->config = *config;
    client->config.endpoint = NULL; /* target has it */
    client->config.proxy_url = copy_text(config->proxy_url);
    client->config.authority = copy_text(config->authority);
    if (!client->config.response_limit)
        client->config.response_limit = CLIENT_RESPONSE_LIMIT;
    if (client->config.keepalive_time > 0 && client->config.keepalive_timeout <= 0)
        client->config.keepalive_timeout = (int64_t)(10 * CLIENT_SECOND);
    client->http1_only = config->protocol == FLUE_CLIENT_HTTP1 ||
                         (config->protocol == FLUE_CLIENT_PROBE && client->config.proxy_url);
    client->retry.fire = on_retry;
    client->use_tls = flue_client_uses_tls(config);
    client->tls = tls;
    code = flue_client_target_parse(config, &client->target, error);
    if (!code && client->use_tls && !tls) {
        code = flue_tls_client_new(&config->tls, NULL, &client->tls, error);
        client->own_tls = code == FLUE_OK;
    }
    if (!code && !client->http1_only)
        code = flue_client_http2_callbacks(&client->callbacks, error);
    if (code) {
        client_free(client);
        return code;
    }
    uv_prepare_init(&loop->uv, &client->prepare);
    client->prepare.data = client;
    client->handles = 1;
    uv_prepare_start(&client->prepare, on_prepare);
    *out = client;
    return FLUE_OK;
}

void flue_client_destroy(struct flue_client *client)
{
    if (!client || client->closing)
        return;
    client->closing = true;
    while (client->pending.first)
        flue_client_finish(client->pending.first, FLUE_CANCELLED, "the client was closed");
    while (client->http1_calls.first)
        flue_client_finish(client->http1_calls.first, FLUE_CANCELLED, "the client was closed");
    for (struct client_connection *c = client->connections; c; c = c->next)
        while (c->calls.first)
            flue_client_finish(c->calls.first, FLUE_CANCELLED, "the client was closed");
    flue_client_run_finished(client);
    while (client->connections)
        flue_client_connection_close(client->connections);
    if (client->http1)
        flue_client_http1_destroy(client->http1);
    client->http1 = NULL;
    flue_client_addresses_free(client);
    flue_timer_disarm(client->loop, &client->retry);
    uv_prepare_stop(&client->prepare);
    uv_close((uv_handle_t *)&client->prepare, on_prepare_closed);
}

void flue_client_stats(const struct flue_client *client, struct flue_client_stats *out)
{
    memset(out, 0, sizeof *out);
    out->calls = client->call_count;
    out->waiting = client->pending_count;
    out->connected = client->connected;
    for (const struct client_connection *c = client->connections; c; c = c->next)
        out->connections += c->stage == CONNECTION_READY;
}
