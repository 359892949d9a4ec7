/* client_http1.c: HTTP/1.1 by libcurl's multi interface on the loop.
 *
 * libcurl keeps the connections; names are resolved by client_address.c and given to it as
 * CONNECT_TO, so that both transports try addresses alike. TLS settings are copied from the one
 * context of net/tls into libcurl's. Handles are used again; what a request needs beside them
 * (header lines, URL) is built in one buffer of the handle. */
#include "collector/net/client_internal.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_CONNECTIONS 256
#define SPARE_REQUESTS  64
#define EXTRA_LINES     9

struct http1_socket {
    uv_poll_t poll;
    struct flue_client *client;
    curl_socket_t fd;
};

struct http1_request {
    CURL *easy;
    struct client_state *state; /* NULL: given up */
    struct http1_request *next;
    struct client_address *address;
    struct flue_buffer text; /* header lines, URL, each with its NUL */
    struct curl_slist lines[CLIENT_MAX_HEADERS + EXTRA_LINES];
    struct curl_slist connect_to;
    char failure[CURL_ERROR_SIZE];
};

struct client_http1 {
    struct flue_client *client;
    CURLM *multi;
    struct flue_timer timer;
    bool kick;       /* libcurl wants to run at once */
    unsigned inside; /* within libcurl: no handle may be removed */
    struct http1_request *spare;
    unsigned spare_count;
};

/* ---- what libcurl asks of the loop ---------------------------------------------------------- */

static void take_results(struct client_http1 *http1);

static void action(struct client_http1 *http1, curl_socket_t fd, int flags)
{
    int running;
    http1->inside++;
    curl_multi_socket_action(http1->multi, fd, flags, &running);
    http1->inside--;
    take_results(http1);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct http1_socket *sock = poll->data;
    struct flue_client *client = sock->client;
    int flags = (events & UV_READABLE ? CURL_CSELECT_IN : 0) |
                (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0) | (status < 0 ? CURL_CSELECT_ERR : 0);
    if (!client->http1)
        return;
    action(client->http1, sock->fd, flags);
    flue_client_run_finished(client);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct http1_socket *sock = handle->data;
    struct flue_client *client = sock->client;
    free(sock);
    flue_client_handle_closed(client);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *pointer)
{
    struct client_http1 *http1 = user;
    struct http1_socket *sock = pointer;
    if (what == CURL_POLL_REMOVE) {
        if (sock) {
            curl_multi_assign(http1->multi, fd, NULL);
            uv_poll_stop(&sock->poll);
            uv_close((uv_handle_t *)&sock->poll, on_poll_closed);
        }
        return 0;
    }
    if (!sock) {
        sock = calloc(1, sizeof *sock);
        if (!sock || uv_poll_init_socket(&http1->client->loop->uv, &sock->poll, fd) != 0) {
            free(sock);
            return -1;
        }
        sock->client = http1->client;
        sock->fd = fd;
        sock->poll.data = sock;
        http1->client->handles++;
        curl_multi_assign(http1->multi, fd, sock);
    }
    uv_poll_start(&sock->poll,
                  (what & CURL_POLL_IN ? UV_READABLE : 0) |
                      (what & CURL_POLL_OUT ? UV_WRITABLE : 0),
                  on_poll);
    return 0;
}

static int on_timeout(CURLM *multi, long timeout_ms, void *user)
{
    struct client_http1 *http1 = user;
    http1->kick = timeout_ms == 0;
    if (timeout_ms > 0)
        flue_timer_arm(http1->client->loop, &http1->timer,
                       flue_monotonic_ns() + (uint64_t)timeout_ms * 1000000);
    else
        flue_timer_disarm(http1->client->loop, &http1->timer);
    return 0;
}

static void on_timer(struct flue_timer *timer)
{
    struct client_http1 *http1 =
        (struct client_http1 *)(void *)((char *)timer - offsetof(struct client_http1, timer));
    struct flue_client *client = http1->client;
    action(http1, CURL_SOCKET_TIMEOUT, 0);
    flue_client_run_finished(client);
}

void flue_client_http1_turn(struct flue_client *client)
{
    struct client_http1 *http1 = client->http1;
    for (unsigned turn = 0; http1 && http1->kick && turn < 4; turn++) {
        http1->kick = false;
        action(http1, CURL_SOCKET_TIMEOUT, 0);
    }
    if (http1 && http1->kick)
        flue_timer_arm(client->loop, &http1->timer, 1);
}

/* ---- bodies and headers --------------------------------------------------------------------- */

static size_t on_read(char *out, size_t unit, size_t count, void *user)
{
    struct http1_request *request = user;
    struct client_state *state = request->state;
    size_t room = unit * count, taken = 0;
    if (!state)
        return CURL_READFUNC_ABORT;
    const struct flue_slices *body = state->call->body;
    state->sent = true;
    while (body && taken < room && state->slice < body->count) {
        struct flue_bytes slice = body->items[state->slice];
        size_t part = slice.size - state->offset;
        if (part > room - taken)
            part = room - taken;
        if (part)
            memcpy(out + taken, slice.data + state->offset, part);
        taken += part;
        state->offset += part;
        if (state->offset == slice.size) {
            state->slice++;
            state->offset = 0;
        }
    }
    return taken;
}

/* libcurl begins again when a kept connection turns out to be dead. */
static int on_seek(void *user, curl_off_t offset, int origin)
{
    struct http1_request *request = user;
    if (!request->state || offset != 0 || origin != SEEK_SET)
        return CURL_SEEKFUNC_CANTSEEK;
    request->state->slice = request->state->offset = 0;
    return CURL_SEEKFUNC_OK;
}

static size_t on_write(char *data, size_t unit, size_t count, void *user)
{
    struct http1_request *request = user;
    if (!request->state ||
        !flue_client_response_body(request->state, (uint8_t *)data, unit * count))
        return 0;
    return unit * count;
}

static size_t on_header(char *data, size_t unit, size_t count, void *user)
{
    struct http1_request *request = user;
    struct client_state *state = request->state;
    size_t size = unit * count;
    struct flue_bytes line = flue_bytes(data, size);
    if (!state)
        return 0;
    while (line.size && (line.data[line.size - 1] == '\n' || line.data[line.size - 1] == '\r'))
        line.size--;
    if (line.size == 0) {
        if (!state->head_done && state->status >= 200) {
            state->head_done = true;
            state->trailer_from = state->field_count;
        }
        return size;
    }
    if (!state->head_done && flue_bytes_starts_with(line, FLUE_BYTES("HTTP/"))) {
        uint64_t status = 0;
        size_t blank = flue_bytes_find(line, ' ');
        flue_client_response_reset(state);
        if (blank != SIZE_MAX)
            flue_parse_u64(flue_bytes_first(flue_bytes_from(line, blank + 1), 3), &status);
        state->status = (unsigned)status;
        return size;
    }
    size_t colon = flue_bytes_find(line, ':');
    if (colon == SIZE_MAX || colon == 0)
        return size;
    struct flue_bytes name = flue_bytes_first(line, colon);
    struct flue_bytes value = flue_bytes_trim(flue_bytes_from(line, colon + 1));
    if (!flue_client_response_field(state, name, value))
        return 0;
    struct flue_header *field = &state->fields[state->field_count - 1];
    for (size_t i = 0; i < field->name.size; i++) {
        uint8_t *c = (uint8_t *)field->name.data + i;
        if (*c >= 'A' && *c <= 'Z')
            *c |= 0x20;
    }
    return size;
}

/* ---- TLS ------------------------------------------------------------------------------------ */

/* libcurl's own context gets what ours has: authorities, certificate, versions, ciphers. */
static CURLcode on_ssl_context(CURL *easy, void *context, void *user)
{
    SSL_CTX *theirs = context, *ours = flue_tls_context(((struct flue_client *)user)->tls);
    char names[4096];
    size_t used = 0;
    bool good = true;
    SSL_CTX_set1_cert_store(theirs, SSL_CTX_get_cert_store(ours));
    SSL_CTX_set_min_proto_version(theirs, (int)SSL_CTX_get_min_proto_version(ours));
    SSL_CTX_set_max_proto_version(theirs, (int)SSL_CTX_get_max_proto_version(ours));
    STACK_OF(SSL_CIPHER) *ciphers = SSL_CTX_get_ciphers(ours);
    for (int i = 0; i < sk_SSL_CIPHER_num(ciphers); i++) {
        const char *name = SSL_CIPHER_get_name(sk_SSL_CIPHER_value(ciphers, i));
        if (strncmp(name, "TLS_", 4) == 0 || used + strlen(name) + 2 > sizeof names)
            continue; /* TLS 1.3's are always on */
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ":" : "", name);
    }
    if (used)
        good = SSL_CTX_set_cipher_list(theirs, names) == 1;
    X509 *certificate = SSL_CTX_get0_certificate(ours);
    if (good && certificate) {
        STACK_OF(X509) *chain = NULL;
        SSL_CTX_get0_chain_certs(ours, &chain);
        good = SSL_CTX_use_certificate(theirs, certificate) == 1 &&
               SSL_CTX_use_PrivateKey(theirs, SSL_CTX_get0_privatekey(ours)) == 1 &&
               (!chain || SSL_CTX_set1_chain(theirs, chain) == 1);
    }
    SSL_CTX_free(ours);
    return good ? CURLE_OK : CURLE_SSL_CERTPROBLEM;
}

/* ---- requests ------------------------------------------------------------------------------- */

static void request_free(struct http1_request *request)
{
    curl_easy_cleanup(request->easy);
    flue_buffer_destroy(&request->text);
    free(request);
}

static struct http1_request *request_new(struct client_http1 *http1)
{
    struct flue_client *client = http1->client;
    const struct flue_client_config *config = &client->config;
    struct http1_request *request = http1->spare;
    if (request) {
        http1->spare = request->next;
        http1->spare_count--;
        return request;
    }
    request = calloc(1, sizeof *request);
    CURL *easy = request ? curl_easy_init() : NULL;
    if (!easy) {
        free(request);
        return NULL;
    }
    request->easy = easy;
    flue_buffer_init(&request->text, 256 * 1024);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_PROXY, config->proxy_url ? config->proxy_url : "");
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(CLIENT_CONNECT_TIMEOUT / 1000000));
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->failure);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(easy, CURLOPT_READDATA, request);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, request);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 64L * 1024);
    if (config->idle_timeout > 0)
        curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN,
                         (long)((config->idle_timeout + 999999999) / 1000000000));
    if (config->disable_keep_alives)
        curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    if (client->target.local)
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, client->target.host);
    if (client->use_tls) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
        curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_ssl_context);
        curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, client);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, config->tls.insecure_skip_verify ? 0L : 1L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, config->tls.insecure_skip_verify ? 0L : 2L);
    }
    return request;
}

/* The handle is off the multi. */
static void request_recycle(struct client_http1 *http1, struct http1_request *request)
{
    flue_client_address_unref(request->address);
    request->address = NULL;
    request->state = NULL;
    if (http1->spare_count >= SPARE_REQUESTS) {
        request_free(request);
        return;
    }
    request->next = http1->spare;
    http1->spare = request;
    http1->spare_count++;
}

/* Lines are put down as offsets while the buffer may move. */
static void add_line(struct http1_request *request, size_t *count, struct flue_bytes name,
                     const char *separator, struct flue_bytes value)
{
    struct flue_buffer *text = &request->text;
    request->lines[(*count)++].data = (char *)(uintptr_t)text->size;
    flue_buffer_add(text, name);
    flue_buffer_text(text, separator);
    flue_buffer_add(text, value);
    flue_buffer_byte(text, 0);
}

static bool build(struct http1_request *request, const struct client_state *state,
                  const struct flue_header *credentials)
{
    const struct flue_client *client = state->client;
    const struct client_target *target = &client->target;
    const struct flue_call *call = state->call;
    struct flue_buffer *text = &request->text;
    struct flue_bytes none = flue_bytes(NULL, 0), host = flue_bytes_of(target->authority);
    bool agent = false, accept = false, type = false;
    size_t count = 0;
    flue_buffer_clear(text);
    for (size_t i = 0; i < call->header_count; i++) {
        struct flue_bytes name = call->headers[i].name, value = call->headers[i].value;
        if (flue_bytes_is(name, "host")) {
            host = value;
            continue;
        }
        if (flue_bytes_is(name, "content-length") || flue_bytes_is(name, "transfer-encoding") ||
            (credentials->name.size && flue_bytes_equal(name, credentials->name)))
            continue;
        agent |= flue_bytes_is(name, "user-agent");
        accept |= flue_bytes_is(name, "accept");
        type |= flue_bytes_is(name, "content-type");
        add_line(request, &count, name, value.size ? ": " : ";", value);
    }
    if (credentials->name.size)
        add_line(request, &count, credentials->name, ": ", credentials->value);
    add_line(request, &count, FLUE_BYTES("host"), ": ", host);
    add_line(request, &count, FLUE_BYTES("expect"), ":", none); /* or it waits for 100-continue */
    if (!agent)
        add_line(request, &count, FLUE_BYTES("user-agent"), ": ", FLUE_BYTES("flue/" FLUE_VERSION));
    if (!accept)
        add_line(request, &count, FLUE_BYTES("accept"), ":", none);
    if (!type)
        add_line(request, &count, FLUE_BYTES("content-type"), ":", none);
    if (client->config.disable_keep_alives)
        add_line(request, &count, FLUE_BYTES("connection"), ": ", FLUE_BYTES("close"));
    size_t url = text->size;
    bool six = strchr(target->server_name, ':') != NULL;
    flue_buffer_printf(text, "%s://%s%s%s:%s", client->use_tls ? "https" : "http", six ? "[" : "",
                       target->server_name, six ? "]" : "",
                       target->local ? client->use_tls ? "443" : "80" : target->port);
    flue_buffer_add(text, call->path);
    flue_buffer_byte(text, 0);
    size_t method = text->size;
    flue_buffer_add(text, call->method);
    flue_buffer_byte(text, 0);
    size_t to = text->size;
    if (request->address && !target->local)
        flue_buffer_printf(text, "::%s", request->address->text);
    if (text->failed)
        return false;
    for (size_t i = 0; i < count; i++) {
        request->lines[i].data = text->data + (uintptr_t)request->lines[i].data;
        request->lines[i].next = i + 1 < count ? &request->lines[i + 1] : NULL;
    }
    CURL *easy = request->easy;
    size_t size = 0;
    for (size_t i = 0; call->body && i < call->body->count; i++)
        size += call->body->items[i].size;
    if (flue_bytes_is(call->method, "HEAD")) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (size == 0 && flue_bytes_is(call->method, "GET")) {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    } else {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, NULL);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size);
    }
    request->connect_to = (struct curl_slist){.data = text->data + to};
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, text->data + method);
    curl_easy_setopt(easy, CURLOPT_CONNECT_TO,
                     request->address && !target->local ? &request->connect_to : NULL);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->lines);
    return curl_easy_setopt(easy, CURLOPT_URL, text->data + url) == CURLE_OK;
}

/* ---- the transport -------------------------------------------------------------------------- */

static CURLcode global_result;
static void global_init(void)
{
    global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* With the first call: most clients find HTTP/2, and libcurl is dear. */
static bool make_transport(struct flue_client *client)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct client_http1 *http1 = calloc(1, sizeof *http1);
    long maximum =
        client->config.max_connections > 0 ? (long)client->config.max_connections : MAX_CONNECTIONS;
    pthread_once(&once, global_init);
    if (http1 && global_result == CURLE_OK)
        http1->multi = curl_multi_init();
    if (!http1 || !http1->multi) {
        free(http1);
        return false;
    }
    http1->client = client;
    http1->timer.fire = on_timer;
    curl_multi_setopt(http1->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(http1->multi, CURLMOPT_SOCKETDATA, http1);
    curl_multi_setopt(http1->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
    curl_multi_setopt(http1->multi, CURLMOPT_TIMERDATA, http1);
    curl_multi_setopt(http1->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    curl_multi_setopt(http1->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, maximum);
    curl_multi_setopt(http1->multi, CURLMOPT_MAXCONNECTS, maximum < 100 ? maximum : 100L);
    client->http1 = http1;
    return true;
}

void flue_client_http1_start(struct client_state *state, struct client_address *address)
{
    struct flue_client *client = state->client;
    struct flue_header credentials;
    if (!flue_client_credentials(state, &credentials))
        return;
    bool ready = client->http1 || make_transport(client);
    struct client_http1 *http1 = client->http1;
    struct http1_request *request = ready ? request_new(http1) : NULL;
    if (!request) {
        flue_client_finish(state, FLUE_NO_MEMORY, "no memory for a request");
        return;
    }
    request->address = address;
    if (address)
        address->refs++;
    request->failure[0] = 0;
    state->slice = state->offset = 0;
    if (!build(request, state, &credentials)) {
        request_recycle(http1, request);
        flue_client_finish(state, FLUE_NO_MEMORY, "no memory for a request");
        return;
    }
    flue_client_list_remove(state);
    state->place = CLIENT_HTTP1;
    state->request = request;
    request->state = state;
    flue_client_list_append(&client->http1_calls, state);
    if (curl_multi_add_handle(http1->multi, request->easy) != CURLM_OK)
        flue_client_finish(state, FLUE_NO_MEMORY, "no memory for a request");
}

void flue_client_http1_abandon(struct client_state *state)
{
    struct http1_request *request = state->request;
    struct client_http1 *http1 = state->client->http1;
    state->request = NULL;
    if (!request)
        return;
    request->state = NULL;
    if (http1->inside)
        return; /* its callback fails next, and take_results finds it */
    curl_multi_remove_handle(http1->multi, request->easy);
    request_recycle(http1, request);
}

static bool never_sent(CURLcode code)
{
    return code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST ||
           code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_SSL_CONNECT_ERROR ||
           code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CERTPROBLEM ||
           code == CURLE_SSL_ISSUER_ERROR || code == CURLE_PROXY;
}

static void failed(struct flue_client *client, struct http1_request *request, CURLcode code)
{
    struct client_state *state = request->state;
    struct client_address *address = request->address;
    const char *why = request->failure[0] ? request->failure : curl_easy_strerror(code);
    char text[CURL_ERROR_SIZE];
    curl_off_t connected = 0;
    flue_printable(flue_bytes_of(why), text, sizeof text);
    curl_easy_getinfo(request->easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
    bool unsent = never_sent(code) || (code == CURLE_OPERATION_TIMEDOUT && connected == 0);
    state->sent = state->sent && !unsent;
    if (!unsent) {
        state->sent = true;
        flue_client_finish(state, FLUE_UNAVAILABLE, "request to \"%s\" failed: %s",
                           client->target.label, text);
        return;
    }
    flue_fail(&client->last_error, FLUE_UNAVAILABLE, "cannot connect to \"%s\"%s%s: %s%s",
              client->target.label, address ? " at " : "", address ? address->text : "", text,
              code == CURLE_PEER_FAILED_VERIFICATION
                  ? " (see tls.ca_file, tls.server_name_override)"
                  : "");
    if (address)
        flue_client_address_failed(client, address);
    if (!address || !flue_client_requeue(state))
        flue_client_finish(state, FLUE_UNAVAILABLE, "%s", client->last_error.text);
}

static void take_results(struct client_http1 *http1)
{
    struct flue_client *client = http1->client;
    CURLMsg *message;
    int left;
    if (http1->inside)
        return;
    while ((message = curl_multi_info_read(http1->multi, &left))) {
        struct http1_request *request = NULL;
        CURLcode code = message->data.result;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&request);
        struct client_state *state = request->state;
        if (!state) {
            curl_multi_remove_handle(http1->multi, request->easy);
            request_recycle(http1, request);
        } else if (code == CURLE_OK) {
            if (request->address)
                flue_client_address_works(request->address);
            if (!state->head_done)
                state->trailer_from = state->field_count;
            state->sent = true;
            flue_client_finish(state, FLUE_OK, "%s", "");
        } else {
            failed(client, request, code);
        }
    }
}

void flue_client_http1_destroy(struct client_http1 *http1)
{
    flue_timer_disarm(http1->client->loop, &http1->timer);
    /* Connections are closed here; on_socket takes their polls away. */
    while (http1->spare) {
        struct http1_request *request = http1->spare;
        http1->spare = request->next;
        request_free(request);
    }
    curl_multi_cleanup(http1->multi);
    flue_timer_disarm(http1->client->loop, &http1->timer);
    free(http1);
}
