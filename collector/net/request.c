#include "collector/net/request.h"

#include <inttypes.h>
#include <stdlib.h>

#include "collector/base/clock.h"
#include "collector/net/auth.h"
#include "collector/net/status.h"

#define SPARE_MAX            256u
#define ARENA_FLOOR          ((size_t)1 << 20)
#define ARENA_PER_BYTE       8u
#define FIRST_CAPACITY       (16u * 1024)
#define GRPC_PREFIX          5u
#define NEAR_END             (256u * 1024)
#define STALL_CHECK_NS       (10ull * 1000 * 1000)
#define STALL_AT_MOST_NS     (1000ull * 1000 * 1000)
#define RESPONSE_HEADERS_MAX 64u

/* ---- life ----------------------------------------------------------------------------------- */

struct flue_exchange *flue_exchange_new(struct flue_connection *connection,
                                        enum flue_protocol protocol)
{
    struct flue_loop_server *server = connection->server;
    struct flue_exchange *exchange = server->spare;
    struct flue_arena arena;
    if (exchange) {
        server->spare = exchange->next;
        server->spare_count--;
        arena = exchange->request.arena;
        arena.budget = ARENA_FLOOR;
    } else {
        exchange = malloc(sizeof *exchange);
        if (!exchange)
            return NULL;
        flue_arena_init(&arena, ARENA_FLOOR, 0);
    }
    memset(exchange, 0, sizeof *exchange);
    exchange->server = server;
    exchange->listener = connection->listener;
    exchange->connection = connection;
    memcpy(exchange->peer, connection->peer, sizeof exchange->peer);
    exchange->request = (struct flue_request){.loop = connection->loop,
                                              .config = &connection->listener->config,
                                              .protocol = protocol,
                                              .tls = connection->ssl != NULL,
                                              .peer = exchange->peer,
                                              .content_length = -1,
                                              .arena = arena};
    exchange->link = &connection->exchanges;
    exchange->next = connection->exchanges;
    if (exchange->next)
        exchange->next->link = &exchange->next;
    connection->exchanges = exchange;
    atomic_fetch_add_explicit(&server->set->requests, 1, memory_order_relaxed);
    if (connection->tls_subject)
        exchange->request.tls_subject =
            flue_arena_string(&exchange->request.arena, flue_bytes_of(connection->tls_subject));
    return exchange;
}

static void exchange_free(struct flue_exchange *exchange)
{
    struct flue_loop_server *server = exchange->server;
    flue_exchange_guard_drop(exchange);
    flue_block_unref(exchange->request.body);
    flue_block_unref(exchange->answer);
    if (server->spare_count >= SPARE_MAX || server->closing) {
        flue_arena_destroy(&exchange->request.arena);
        free(exchange);
        return;
    }
    flue_arena_reset(&exchange->request.arena);
    exchange->next = server->spare;
    server->spare = exchange;
    server->spare_count++;
}

static void unstall(struct flue_exchange *exchange)
{
    struct flue_exchange **at = &exchange->server->stalled;
    if (!exchange->stalled)
        return;
    exchange->stalled = false;
    while (*at != exchange)
        at = &(*at)->next_stalled;
    *at = exchange->next_stalled;
}

/* The answer is given (or nobody waits for one): the body no longer counts as in flight. */
static void settle(struct flue_exchange *exchange)
{
    exchange->answered = true;
    atomic_fetch_sub_explicit(&exchange->request.loop->bytes_in_flight, (int64_t)exchange->received,
                              memory_order_relaxed);
    atomic_fetch_sub_explicit(&exchange->server->set->requests, 1, memory_order_relaxed);
    flue_block_unref(exchange->request.body);
    exchange->request.body = NULL;
}

void flue_exchange_close(struct flue_exchange *exchange)
{
    *exchange->link = exchange->next;
    if (exchange->next)
        exchange->next->link = exchange->link;
    unstall(exchange);
    exchange->connection = NULL;
    if (exchange->verify) {
        flue_exchange_guard_drop(exchange);
        if (!exchange->answered)
            settle(exchange);
    }
    /* Who never saw the whole request and did not ask to be told need not answer it. */
    if (!exchange->answered && exchange->request.gone)
        exchange->request.gone(&exchange->request);
    else if (!exchange->answered && !exchange->complete)
        settle(exchange);
    exchange->closed = true;
    if (exchange->answered)
        exchange_free(exchange);
}

/* ---- headers -------------------------------------------------------------------------------- */

bool flue_exchange_header(struct flue_exchange *exchange, struct flue_bytes name,
                          struct flue_bytes value)
{
    exchange->header_bytes += name.size + value.size + 32;
    if (exchange->headers_too_large || exchange->header_bytes > FLUE_HEADER_LIST_MAX)
        return exchange->headers_too_large = true, false;
    struct flue_header header = {flue_arena_copy(&exchange->request.arena, name),
                                 flue_arena_copy(&exchange->request.arena, value)};
    if (!header.name.data || !header.value.data ||
        !FLUE_ARENA_PUSH(&exchange->request.arena, exchange->headers,
                         exchange->request.header_count, exchange->header_room, header))
        return exchange->headers_too_large = true, false;
    exchange->request.headers = exchange->headers;
    return true;
}

bool flue_exchange_target(struct flue_exchange *exchange, struct flue_bytes method,
                          struct flue_bytes target, struct flue_bytes authority)
{
    struct flue_request *request = &exchange->request;
    request->method = flue_arena_copy(&request->arena, method);
    request->authority = flue_arena_copy(&request->arena, authority);
    struct flue_bytes copy = flue_arena_copy(&request->arena, target);
    if (!request->method.data || !copy.data)
        return false;
    size_t mark = flue_bytes_find(copy, '?');
    request->path = flue_bytes_first(copy, mark);
    request->query = mark == SIZE_MAX ? flue_bytes(NULL, 0) : flue_bytes_from(copy, mark + 1);
    return true;
}

struct flue_bytes flue_request_header(const struct flue_request *request, const char *name)
{
    struct flue_bytes wanted = flue_bytes_of(name);
    for (size_t i = 0; i < request->header_count; i++)
        if (flue_bytes_equal(request->headers[i].name, wanted))
            return request->headers[i].value;
    return flue_bytes(NULL, 0);
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "%" that no two hex digits follow stands for itself. */
static struct flue_bytes decode(struct flue_arena *arena, struct flue_bytes text)
{
    uint8_t *out = flue_arena_alloc(arena, text.size + 1);
    size_t size = 0;
    if (!out)
        return flue_bytes(NULL, 0);
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c == '+') {
            c = ' ';
        } else if (c == '%' && i + 2 < text.size && hex_digit(text.data[i + 1]) >= 0 &&
                   hex_digit(text.data[i + 2]) >= 0) {
            c = (uint8_t)(hex_digit(text.data[i + 1]) << 4 | hex_digit(text.data[i + 2]));
            i += 2;
        }
        out[size++] = c;
    }
    out[size] = 0;
    return flue_bytes(out, size);
}

struct flue_bytes flue_request_query(struct flue_request *request, const char *name)
{
    struct flue_bytes rest = request->query;
    while (rest.size) {
        struct flue_bytes pair = flue_bytes_first(rest, flue_bytes_find(rest, '&'));
        rest = flue_bytes_from(rest, pair.size + 1);
        size_t equals = flue_bytes_find(pair, '=');
        struct flue_bytes key = decode(&request->arena, flue_bytes_first(pair, equals));
        if (key.data && flue_bytes_is(key, name))
            return decode(&request->arena, equals == SIZE_MAX ? flue_bytes(key.data, 0)
                                                              : flue_bytes_from(pair, equals + 1));
    }
    return flue_bytes(NULL, 0);
}

/* "100m": at most eight digits and a unit of H M S m u n (gRPC over HTTP/2, Requests). */
static uint64_t grpc_timeout_ns(struct flue_bytes value)
{
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = {{'H', 3600000000000}, {'M', 60000000000}, {'S', 1000000000},
                 {'m', 1000000},       {'u', 1000},        {'n', 1}};
    uint64_t number;
    if (value.size < 2 || value.size > 9 ||
        !flue_parse_u64(flue_bytes_first(value, value.size - 1), &number))
        return UINT64_MAX;
    if (value.data[value.size - 1] == 'H' && number > 1000000)
        return UINT64_MAX; /* a century: none, and no overflow below */
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (value.data[value.size - 1] == units[i].unit)
            return number * units[i].ns;
    return UINT64_MAX;
}

static void set_deadline(struct flue_exchange *exchange)
{
    struct flue_request *request = &exchange->request;
    uint64_t timeout = UINT64_MAX, ms;
    struct flue_bytes value = flue_request_header(request, "grpc-timeout");
    if (value.data) {
        timeout = grpc_timeout_ns(value);
    } else {
        value = flue_request_header(request, "connect-timeout-ms");
        if (value.data && value.size <= 10 && flue_parse_u64(value, &ms))
            timeout = ms * 1000000;
    }
    if (timeout != UINT64_MAX)
        request->deadline_ns = request->received_ns + timeout;
}

/* ---- routing -------------------------------------------------------------------------------- */

static void refuse_with(struct flue_exchange *exchange, enum flue_code code, const char *text)
{
    struct flue_error error;
    flue_fail(&error, code, "%s", text);
    flue_exchange_refuse(exchange, &error);
}

void flue_exchange_refuse(struct flue_exchange *exchange, const struct flue_error *error)
{
    if (exchange->answered)
        return;
    if (exchange->route && exchange->route->refuse)
        exchange->route->refuse(&exchange->request, exchange->route->arg, error);
    else
        flue_status_refuse(&exchange->request, error);
}

/* The route of path and method; *path_known when another method has the path. */
static const struct flue_route *find_route(const struct flue_exchange *exchange,
                                           const struct flue_route **same_path)
{
    const struct flue_listener *listener = exchange->listener;
    for (size_t i = 0; i < listener->route_count; i++) {
        const struct flue_route *route = listener->routes[i];
        if (!flue_bytes_is(exchange->request.path, route->path))
            continue;
        if (flue_bytes_is(exchange->request.method, route->method))
            return route;
        if (!*same_path)
            *same_path = route;
    }
    return NULL;
}

static bool origin_matches(const char *pattern, struct flue_bytes origin)
{
    const char *star = strchr(pattern, '*');
    size_t before = star ? (size_t)(star - pattern) : strlen(pattern);
    if (!star)
        return flue_bytes_equal_nocase(flue_bytes_of(pattern), origin);
    struct flue_bytes prefix = flue_bytes(pattern, before), suffix = flue_bytes_of(star + 1);
    return origin.size >= prefix.size + suffix.size &&
           flue_bytes_equal_nocase(flue_bytes_first(origin, prefix.size), prefix) &&
           flue_bytes_equal_nocase(flue_bytes_from(origin, origin.size - suffix.size), suffix);
}

/* The Origin header where it is an allowed one, else NULL data. */
static struct flue_bytes allowed_origin(const struct flue_request *request)
{
    const struct flue_cors_config *cors = request->config->cors;
    struct flue_bytes origin = flue_request_header(request, "origin");
    for (size_t i = 0; cors && origin.size && i < cors->allowed_origins.count; i++)
        if (origin_matches(((const char *const *)cors->allowed_origins.items)[i], origin))
            return origin;
    return flue_bytes(NULL, 0);
}

static struct flue_bytes joined(struct flue_arena *arena, const struct flue_list *list)
{
    const char *text = "";
    for (size_t i = 0; i < list->count && text; i++)
        text = flue_arena_printf(arena, "%s%s%s", text, i ? ", " : "",
                                 ((const char *const *)list->items)[i]);
    return flue_bytes_of(text);
}

static bool preflight(struct flue_exchange *exchange)
{
    struct flue_request *request = &exchange->request;
    const struct flue_cors_config *cors = request->config->cors;
    if (!cors || !flue_bytes_is(request->method, "OPTIONS") ||
        !flue_request_header(request, "access-control-request-method").data)
        return false;
    struct flue_header headers[4];
    size_t count = 0;
    if (allowed_origin(request).data) {
        headers[count++] = (struct flue_header){FLUE_BYTES("access-control-allow-methods"),
                                                FLUE_BYTES("GET, POST, PUT, DELETE, HEAD")};
        /* As the Collector: without a list, what the browser's own default needs. */
        struct flue_bytes allow = joined(&request->arena, &cors->allowed_headers);
        if (cors->allowed_headers.count == 0)
            allow = FLUE_BYTES("Accept, Content-Type, X-Requested-With");
        else if (flue_bytes_is(allow, "*"))
            allow = flue_request_header(request, "access-control-request-headers");
        if (allow.size)
            headers[count++] =
                (struct flue_header){FLUE_BYTES("access-control-allow-headers"), allow};
        if (cors->max_age > 0) {
            const char *age = flue_arena_printf(&request->arena, "%" PRId64, cors->max_age);
            headers[count++] =
                (struct flue_header){FLUE_BYTES("access-control-max-age"), flue_bytes_of(age)};
        }
    }
    const struct flue_response response = {
        .status = 204, .headers = headers, .header_count = count};
    flue_respond(request, &response);
    return true;
}

static bool parse_content_length(struct flue_exchange *exchange)
{
    uint64_t length;
    struct flue_bytes value = flue_request_header(&exchange->request, "content-length");
    if (!value.data)
        return true;
    if (value.size > 18 || !flue_parse_u64(value, &length))
        return false;
    exchange->request.content_length = (int64_t)length;
    return true;
}

static void too_large(struct flue_exchange *exchange, uint64_t size, const char *at_least);

static void give_to_route(struct flue_exchange *exchange)
{
    struct flue_request *request = &exchange->request;
    if (exchange->route->head) {
        exchange->route->head(request, exchange->route->arg);
        if (!exchange->admitted && !exchange->answered)
            refuse_with(exchange, FLUE_INTERNAL, "the request was neither admitted nor answered");
    } else {
        flue_request_admit(request, NULL, (size_t)request->config->max_request_body_size);
    }
}

void flue_exchange_head(struct flue_exchange *exchange)
{
    struct flue_request *request = &exchange->request;
    request->received_ns = exchange->progress_ns = flue_monotonic_ns();
    const struct flue_route *same_path = NULL;
    struct flue_bytes type = flue_request_header(request, "content-type");
    exchange->grpc = flue_bytes_starts_with(type, FLUE_BYTES("application/grpc"));
    exchange->route = find_route(exchange, &same_path);
    set_deadline(exchange);
    if (exchange->headers_too_large) {
        struct flue_error error;
        flue_fail(&error, FLUE_HEADERS_TOO_LARGE,
                  "the headers are over the limit of %u bytes (32 are added for each line)",
                  FLUE_HEADER_LIST_MAX);
        flue_exchange_refuse(exchange, &error);
    } else if (exchange->bad_header || !parse_content_length(exchange)) {
        refuse_with(exchange, FLUE_INVALID, "the headers are malformed");
    } else if (preflight(exchange)) {
        return;
    } else if (!exchange->route && same_path) {
        exchange->route = same_path;
        char method[48];
        struct flue_error error;
        flue_fail(&error, FLUE_BAD_METHOD, "method %s is not served on %s, use %s",
                  flue_printable(request->method, method, sizeof method), same_path->path,
                  same_path->method);
        flue_exchange_refuse(exchange, &error);
    } else if (!exchange->route) {
        char path[128];
        struct flue_error error;
        flue_fail(&error, FLUE_NOT_FOUND, "nothing is served on %s",
                  flue_printable(request->path, path, sizeof path));
        flue_exchange_refuse(exchange, &error);
    } else if (exchange->server->draining) {
        refuse_with(exchange, FLUE_SHUTTING_DOWN, "shutting down; send to another instance");
    } else if (!exchange->listener->auth || flue_exchange_guard(exchange)) {
        give_to_route(exchange);
    }
}

/* What was received before anybody knew who sent it gets the limit and the account of its route. */
static void continue_body(struct flue_exchange *exchange)
{
    struct flue_block *body = exchange->request.body;
    struct flue_error error;
    give_to_route(exchange);
    if (exchange->answered)
        return;
    if (exchange->received > exchange->limit) {
        too_large(exchange, exchange->received - (exchange->grpc ? GRPC_PREFIX : 0), "at least ");
        return;
    }
    if (body) {
        flue_block_recharge(body, exchange->account);
        if (!flue_block_charge(body)) {
            flue_fail(&error, FLUE_OVERLOADED,
                      "memory: the hard limit is reached while a body comes in; send again later");
            flue_exchange_refuse(exchange, &error);
            return;
        }
    }
    if (exchange->complete_later)
        flue_exchange_complete(exchange);
}

void flue_exchange_verified(struct flue_exchange *exchange, bool may,
                            const struct flue_error *error)
{
    struct flue_connection *connection = exchange->connection;
    bool stalled = exchange->stalled;
    unstall(exchange);
    if (exchange->answered)
        return;
    if (may)
        continue_body(exchange);
    else
        flue_exchange_refuse(exchange, error);
    if (stalled)
        connection->ops->resume(connection, exchange);
    flue_connection_dirty(connection);
}

/* ---- the body ------------------------------------------------------------------------------- */

static void too_large(struct flue_exchange *exchange, uint64_t size, const char *at_least)
{
    struct flue_error error;
    flue_fail(&error, FLUE_TOO_LARGE, "the body has %s%" PRIu64 " bytes, the limit is %zu (%s)",
              at_least, size, exchange->grpc ? exchange->limit - GRPC_PREFIX : exchange->limit,
              exchange->request.config->max_recv_msg_size_mib ? "max_recv_msg_size_mib"
                                                              : "max_request_body_size");
    flue_exchange_refuse(exchange, &error);
}

bool flue_request_admit(struct flue_request *request, struct flue_account *account, size_t limit)
{
    struct flue_exchange *exchange = flue_exchange_of(request);
    size_t own = (size_t)request->config->max_request_body_size;
    size_t expected = request->content_length > 0 ? (size_t)request->content_length : 0;
    struct flue_error error;
    if (limit == 0 || (own && own < limit))
        limit = own;
    exchange->account = account;
    exchange->limit = limit + (exchange->grpc ? GRPC_PREFIX : 0);
    if (expected > exchange->limit) {
        too_large(exchange, expected - (exchange->grpc ? GRPC_PREFIX : 0), "");
        return false;
    }
    if (account && flue_account_admit(account, expected, &error)) {
        flue_exchange_refuse(exchange, &error);
        return false;
    }
    exchange->admitted = true;
    return true;
}

/* gRPC says in its first five bytes how much will come: believed up to the limit. False: answered.
 */
static bool check_prefix(struct flue_exchange *exchange, const uint8_t *prefix, size_t *expected)
{
    uint32_t size = (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 |
                    (uint32_t)prefix[3] << 8 | prefix[4];
    exchange->prefix_checked = true;
    if (size > exchange->limit - GRPC_PREFIX) {
        too_large(exchange, size, "");
        return false;
    }
    *expected = (size_t)size + GRPC_PREFIX;
    return true;
}

/* Makes room for `more` bytes. False: answered. */
static bool make_room(struct flue_exchange *exchange, size_t more, size_t expected)
{
    struct flue_block *body = exchange->request.body;
    struct flue_error error;
    if (exchange->received + more > exchange->limit) {
        too_large(exchange, exchange->received + more - (exchange->grpc ? GRPC_PREFIX : 0),
                  "at least ");
        return false;
    }
    if (!body) {
        size_t capacity = more > FIRST_CAPACITY ? more : FIRST_CAPACITY;
        if (exchange->request.content_length >= 0)
            expected = (size_t)exchange->request.content_length;
        if (expected)
            capacity = expected > more ? expected : more;
        if (capacity > exchange->limit)
            capacity = exchange->limit;
        body = exchange->request.body = flue_block_new(exchange->account, capacity);
        if (body)
            return true;
        refuse_with(exchange, FLUE_NO_MEMORY, "no memory for the body; send again later");
        return false;
    }
    if (expected > body->size + more)
        more = expected - body->size;
    if (flue_block_reserve(body, more, exchange->limit, &error)) {
        flue_exchange_refuse(exchange, &error);
        return false;
    }
    return true;
}

static bool ready_for(struct flue_exchange *exchange, size_t more, struct flue_bytes piece)
{
    size_t expected = 0;
    if (exchange->answered)
        return false;
    if (exchange->grpc && !exchange->prefix_checked && exchange->received + piece.size >= 5) {
        uint8_t prefix[GRPC_PREFIX];
        size_t had = exchange->received;
        if (had)
            memcpy(prefix, exchange->request.body->data, had);
        memcpy(prefix + had, piece.data, GRPC_PREFIX - had);
        if (!check_prefix(exchange, prefix, &expected))
            return false;
    }
    return make_room(exchange, more, expected);
}

void flue_exchange_received(struct flue_exchange *exchange, size_t size)
{
    struct flue_block *body = exchange->request.body;
    if (exchange->answered)
        return;
    body->size += size;
    exchange->received += size;
    exchange->progress_ns = flue_monotonic_ns();
    atomic_fetch_add_explicit(&exchange->request.loop->bytes_in_flight, (int64_t)size,
                              memory_order_relaxed);
    if (!flue_block_charge(body)) {
        struct flue_error error;
        flue_fail(&error, FLUE_OVERLOADED,
                  "memory: the hard limit is reached while a body comes in; send again later");
        flue_exchange_refuse(exchange, &error);
    }
}

void flue_exchange_body(struct flue_exchange *exchange, struct flue_bytes piece)
{
    if (piece.size == 0 || !ready_for(exchange, piece.size, piece))
        return;
    memcpy(exchange->request.body->data + exchange->request.body->size, piece.data, piece.size);
    flue_exchange_received(exchange, piece.size);
}

uint8_t *flue_exchange_room(struct flue_exchange *exchange, size_t want, size_t *room)
{
    struct flue_block *body = exchange->request.body;
    /* The first bytes always come the other way: they may hold a length to be checked. */
    if (!body || exchange->answered || (exchange->grpc && !exchange->prefix_checked))
        return NULL;
    if (body->capacity == body->size && !ready_for(exchange, want, flue_bytes(NULL, 0)))
        return NULL;
    if (exchange->received + want > exchange->limit)
        return NULL;
    *room = body->capacity - body->size < want ? body->capacity - body->size : want;
    return body->data + body->size;
}

void flue_exchange_complete(struct flue_exchange *exchange)
{
    struct flue_request *request = &exchange->request;
    if (exchange->answered || exchange->complete)
        return;
    if (exchange->verify) {
        exchange->complete_later = true;
        return;
    }
    unstall(exchange);
    if (!request->body)
        request->body = flue_block_new(exchange->account, 0);
    if (!request->body) {
        refuse_with(exchange, FLUE_NO_MEMORY, "no memory for the body; send again later");
        return;
    }
    flue_block_finish(request->body);
    if (request->body->size > ARENA_FLOOR / ARENA_PER_BYTE)
        request->arena.budget = ARENA_FLOOR + ARENA_PER_BYTE * request->body->size;
    exchange->complete = true;
    if (exchange->route->body)
        exchange->route->body(request, exchange->route->arg);
    else
        refuse_with(exchange, FLUE_INTERNAL, "nobody takes the body");
}

/* ---- back-pressure -------------------------------------------------------------------------- */

static bool over_share(const struct flue_exchange *exchange)
{
    struct flue_account *account = exchange->account;
    int64_t soft = account ? atomic_load_explicit(&account->soft, memory_order_relaxed) : 0;
    return soft > 0 && atomic_load_explicit(&account->used, memory_order_relaxed) > soft;
}

static struct flue_loop_server *of_stall_timer(struct flue_timer *timer)
{
    return (struct flue_loop_server *)(void *)((char *)timer -
                                               offsetof(struct flue_loop_server, stall_timer));
}

/* A second is the longest that a body waits at a time: bodies that wait for each other's memory
 * would else wait for ever. The hard limit stands behind this. */
static void look_at_stalled(struct flue_timer *timer)
{
    struct flue_loop_server *server = of_stall_timer(timer);
    uint64_t now = flue_monotonic_ns();
    struct flue_exchange *next;
    for (struct flue_exchange *exchange = server->stalled; exchange; exchange = next) {
        next = exchange->next_stalled;
        if (exchange->verify ||
            (over_share(exchange) && now - exchange->stalled_ns < STALL_AT_MOST_NS))
            continue;
        unstall(exchange);
        exchange->connection->ops->resume(exchange->connection, exchange);
        flue_connection_dirty(exchange->connection);
    }
    if (server->stalled)
        flue_timer_arm(server->loop, timer, now + STALL_CHECK_NS);
}

bool flue_exchange_stall(struct flue_exchange *exchange)
{
    if (exchange->stalled)
        return true;
    struct flue_block *body = exchange->request.body;
    if (exchange->answered || exchange->complete)
        return false;
    if (!exchange->verify && (!over_share(exchange) ||
                              (body && body->capacity - body->size < NEAR_END)))
        return false;
    struct flue_loop_server *server = exchange->server;
    exchange->stalled = true;
    exchange->stalled_ns = flue_monotonic_ns();
    exchange->next_stalled = server->stalled;
    server->stalled = exchange;
    server->stall_timer.fire = look_at_stalled;
    if (!server->stall_timer.due_ns)
        flue_timer_arm(server->loop, &server->stall_timer, exchange->stalled_ns + STALL_CHECK_NS);
    return true;
}

/* ---- the answer ----------------------------------------------------------------------------- */

static bool push(struct flue_header *headers, size_t *count, struct flue_bytes name,
                 struct flue_bytes value)
{
    if (*count == RESPONSE_HEADERS_MAX)
        return false;
    headers[(*count)++] = (struct flue_header){name, value};
    return true;
}

static void add_listener_headers(struct flue_exchange *exchange, struct flue_header *headers,
                                 size_t *count)
{
    struct flue_request *request = &exchange->request;
    const struct flue_server_config *config = request->config;
    for (size_t i = 0; i < config->response_headers.count; i++) {
        const struct flue_map_entry *entry = &config->response_headers.items[i];
        push(headers, count, flue_bytes_of(entry->key), flue_bytes_of(entry->value));
    }
    struct flue_bytes origin = allowed_origin(request);
    if (origin.data) {
        push(headers, count, FLUE_BYTES("access-control-allow-origin"), origin);
        push(headers, count, FLUE_BYTES("access-control-allow-credentials"), FLUE_BYTES("true"));
        push(headers, count, FLUE_BYTES("vary"), FLUE_BYTES("Origin"));
        if (config->cors->exposed_headers.count)
            push(headers, count, FLUE_BYTES("access-control-expose-headers"),
                 joined(&request->arena, &config->cors->exposed_headers));
    }
}

static struct flue_bytes allowed_methods(struct flue_exchange *exchange)
{
    const struct flue_listener *listener = exchange->listener;
    const char *text = "";
    for (size_t i = 0; i < listener->route_count && text; i++)
        if (flue_bytes_is(exchange->request.path, listener->routes[i]->path))
            text = flue_arena_printf(&exchange->request.arena, "%s%s%s", text, *text ? ", " : "",
                                     listener->routes[i]->method);
    return flue_bytes_of(text);
}

void flue_respond(struct flue_request *request, const struct flue_response *response)
{
    struct flue_exchange *exchange = flue_exchange_of(request);
    if (exchange->answered)
        return;
    exchange->status = response->status;
    flue_listener_count(exchange->listener, response->status);
    struct flue_connection *connection = exchange->connection;
    if (connection) {
        struct flue_header headers[RESPONSE_HEADERS_MAX];
        size_t count = 0;
        for (size_t i = 0; i < response->header_count; i++)
            push(headers, &count, response->headers[i].name, response->headers[i].value);
        add_listener_headers(exchange, headers, &count);
        if (response->status == 401 && exchange->listener->auth)
            push(headers, &count, FLUE_BYTES("www-authenticate"),
                 flue_bytes_of(exchange->listener->auth->challenge));
        if (response->status == 405)
            push(headers, &count, FLUE_BYTES("allow"), allowed_methods(exchange));
        char length[20];
        if (response->trailer_count == 0 && response->status != 204 && response->status != 304) {
            push(headers, &count, FLUE_BYTES("content-length"),
                 flue_decimal(length, response->body.size));
        }
        unstall(exchange);
        connection->ops->respond(connection, exchange, response->status, headers, count, response);
        flue_connection_dirty(connection);
    }
    settle(exchange);
    if (exchange->closed)
        exchange_free(exchange);
}
