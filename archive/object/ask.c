/* ask.c: see ask.h. The state is an allocation of its own: a client must not be destroyed from
 * within its own done, so that is posted, and the asker may be gone by then. */
#include "archive/object/ask.h"
#include "collector/base/clock.h"

#include <stdlib.h>

struct object_ask_state {
    struct object_ask *ask; /* NULL: given up */
    struct flue_loop *loop;
    struct flue_client *client;
    struct flue_slices body;
    struct flue_task task;
    struct flue_timer timer;
    unsigned tried;
    bool posted;
};

static void attempt(struct object_ask_state *state);

static struct object_ask_state *of_task(struct flue_task *task)
{
    return (struct object_ask_state *)(void *)((char *)task -
                                               offsetof(struct object_ask_state, task));
}

static void release(struct object_ask_state *state)
{
    flue_timer_disarm(state->loop, &state->timer);
    struct flue_client *client = state->client;
    state->client = NULL;
    flue_client_destroy(client);
    if (!state->posted)
        free(state);
}

static void on_task(struct flue_task *task)
{
    struct object_ask_state *state = of_task(task);
    struct object_ask *ask = state->ask;
    state->posted = false;
    state->ask = NULL;
    if (ask) { /* it could not even begin */
        ask->state = NULL;
        ask->done(ask);
    }
    release(state);
}

static void finish(struct object_ask_state *state)
{
    state->posted = true;
    state->task.run = on_task;
    flue_loop_post(state->loop, &state->task);
}

static void on_timer(struct flue_timer *timer)
{
    struct object_ask_state *state =
        (struct object_ask_state *)(void *)((char *)timer -
                                            offsetof(struct object_ask_state, timer));
    attempt(state);
}

static void on_done(struct flue_call *call)
{
    struct object_ask_state *state = call->user;
    struct object_ask *ask = state->ask;
    if (!ask)
        return;
    ask->error = call->error;
    ask->status = call->status;
    bool again = call->error.code
                     ? call->error.code == FLUE_UNAVAILABLE || call->error.code == FLUE_TIMEOUT
                     : call->status >= 500 || call->status == 429 || call->status == 408;
    ask->response = call->response;
    if (!again && !call->error.code && ask->again)
        again = ask->again(ask);
    if (again && state->tried < ask->tries) {
        flue_timer_arm(state->loop, &state->timer,
                       flue_monotonic_ns() + (uint64_t)ask->wait_ms * 1000000);
        return;
    }
    /* done is called from here, while the answer is there; only the client's end is posted. */
    ask->state = NULL;
    state->ask = NULL;
    finish(state);
    ask->done(ask);
}

static void attempt(struct object_ask_state *state)
{
    struct object_ask *ask = state->ask;
    ask->call = (struct flue_call){
        .client = state->client,
        .method = flue_bytes_of(ask->method),
        .path = ask->path.size ? ask->path : FLUE_BYTES("/"),
        .headers = ask->fields,
        .header_count = ask->field_count,
        .body = ask->body.size || strcmp(ask->method, "GET") != 0 ? &state->body : NULL,
        .deadline_ns = flue_monotonic_ns() + (uint64_t)ask->timeout_ms * 1000000,
        .done = on_done,
        .user = state};
    state->tried++;
    flue_call_send(&ask->call);
}

static void on_starved(struct flue_timer *timer)
{
    struct object_ask *ask =
        (struct object_ask *)(void *)((char *)timer - offsetof(struct object_ask, starved));
    ask->done(ask);
}

void object_ask(struct object_ask *ask)
{
    struct object_ask_state *state = calloc(1, sizeof *state);
    struct flue_client_config config = {.endpoint = ask->endpoint,
                                        .tls_by_scheme = true,
                                        .protocol = FLUE_CLIENT_HTTP1,
                                        .pick_first = true,
                                        .max_connections = 1,
                                        .response_limit = 256 * 1024};
    memset(&ask->error, 0, sizeof ask->error);
    ask->status = 0;
    ask->response = (struct flue_bytes){0};
    ask->state = state;
    if (!state) {
        flue_fail(&ask->error, FLUE_NO_MEMORY, "no memory for a request");
        ask->starved.fire = on_starved;
        flue_timer_arm(ask->loop, &ask->starved, flue_monotonic_ns());
        return;
    }
    if (ask->tls)
        config.tls = *ask->tls;
    state->ask = ask;
    state->loop = ask->loop;
    state->timer.fire = on_timer;
    state->body = (struct flue_slices){
        .items = &ask->body, .count = ask->body.size > 0, .room = 1, .total = ask->body.size};
    if (flue_client_new(ask->loop, &config, NULL, &state->client, &ask->error)) {
        finish(state);
        return;
    }
    attempt(state);
}

void object_ask_stop(struct object_ask *ask)
{
    struct object_ask_state *state = ask->state;
    if (ask->loop)
        flue_timer_disarm(ask->loop, &ask->starved);
    if (!state)
        return;
    ask->state = NULL;
    state->ask = NULL;
    if (state->posted)
        return; /* on_task frees it */
    release(state);
}

void object_ask_field(struct object_ask *ask, const char *name, struct flue_bytes value)
{
    if (ask->field_count < OBJECT_ASK_FIELDS)
        ask->fields[ask->field_count++] =
            (struct flue_header){.name = flue_bytes_of(name), .value = value};
}
