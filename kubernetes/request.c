/* request.c: the requests of a list or watch, and how they travel. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include "collector/base/clock.h"
#include "kubernetes/reflector.h"

#define SECOND UINT64_C(1000000000)

static const struct {
    const char *root, *group;
} kinds[FLUE_KUBE_KINDS] = {
    [FLUE_KUBE_POD] = {"/api/v1", ""},
    [FLUE_KUBE_NAMESPACE] = {"/api/v1", ""},
    [FLUE_KUBE_NODE] = {"/api/v1", ""},
    [FLUE_KUBE_REPLICASET] = {"/apis/apps/v1", "apps"},
    [FLUE_KUBE_DEPLOYMENT] = {"/apis/apps/v1", "apps"},
    [FLUE_KUBE_STATEFULSET] = {"/apis/apps/v1", "apps"},
    [FLUE_KUBE_DAEMONSET] = {"/apis/apps/v1", "apps"},
    [FLUE_KUBE_JOB] = {"/apis/batch/v1", "batch"},
    [FLUE_KUBE_CRONJOB] = {"/apis/batch/v1", "batch"},
};

const char *flue_kube_group(enum flue_kube_kind kind)
{
    return kinds[kind].group;
}

/* Where a dead peer would otherwise be noticed after two hours. */
static int on_socket(void *arg, curl_socket_t socket, curlsocktype purpose)
{
    int idle = 15, every = 5, times = 3, on = 1;
    unsigned user_ms = 30000;

    if (purpose == CURLSOCKTYPE_IPCXN) {
        (void)setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        (void)setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
        (void)setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
        (void)setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof times);
        (void)setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, sizeof user_ms);
    }
    return CURL_SOCKOPT_OK;
}

static void add_query(struct flue_kube_reflector *r, struct flue_buffer *url, const char *name,
                      const char *value)
{
    char *escaped = curl_easy_escape(r->easy, value, 0);
    bool first = !strchr(url->data ? url->data : "", '?');

    if (escaped)
        flue_buffer_printf(url, "%c%s=%s", first ? '?' : '&', name, escaped);
    else
        url->failed = true;
    curl_free(escaped);
}

static void add_server(const struct flue_kube_access *access, struct flue_buffer *url)
{
    if (access->server_name) { /* the name goes into the URL, the address into connect_to */
        const char *host = strstr(access->server, "://") + 3;
        const char *end = host + strcspn(host, "/");
        const char *port = host[0] == '[' ? strstr(host, "]:") : strchr(host, ':');
        if (host[0] == '[' && port)
            port++;
        if (port && port > end)
            port = NULL;
        flue_buffer_printf(url, "https://%s%.*s%s", access->server_name,
                           port ? (int)(end - port) : 0, port ? port : "", end);
    } else {
        flue_buffer_text(url, access->server);
    }
}

static void add_target(struct flue_kube_reflector *r, struct flue_buffer *url)
{
    enum flue_kube_kind kind = r->spec.kind;

    add_server(r->watcher->access, url);
    flue_buffer_text(url, kinds[kind].root);
    if (r->spec.namespace && kind != FLUE_KUBE_NODE && kind != FLUE_KUBE_NAMESPACE) {
        char *escaped = curl_easy_escape(r->easy, r->spec.namespace, 0);
        flue_buffer_printf(url, "/namespaces/%s", escaped ? escaped : "");
        curl_free(escaped);
    }
    flue_buffer_printf(url, "/%s", flue_kube_kind_name(kind));
    if (r->spec.field_selector)
        add_query(r, url, "fieldSelector", r->spec.field_selector);
    if (r->spec.label_selector)
        add_query(r, url, "labelSelector", r->spec.label_selector);
}

static long add_step(struct flue_kube_reflector *r, struct flue_buffer *url)
{
    char seconds[32];
    long timeout = 300 + (long)(flue_random_u64() % 301);

    snprintf(seconds, sizeof seconds, "%ld", timeout);
    if (r->step == FLUE_KUBE_STEP_LIST) {
        if (r->more[0])
            add_query(r, url, "continue", r->more);
        else if (!r->from_etcd)
            add_query(r, url, "resourceVersion", "0");
        if (!r->no_pages)
            add_query(r, url, "limit", "500");
        return 0;
    }
    add_query(r, url, "watch", "1");
    add_query(r, url, "allowWatchBookmarks", "true");
    add_query(r, url, "timeoutSeconds", seconds);
    if (r->step == FLUE_KUBE_STEP_WATCHLIST) {
        add_query(r, url, "sendInitialEvents", "true");
        add_query(r, url, "resourceVersionMatch", "NotOlderThan");
    } else {
        add_query(r, url, "resourceVersion", r->version);
    }
    return timeout + 30;
}

static bool add_header(struct flue_kube_reflector *r, const char *line)
{
    struct curl_slist *headers = curl_slist_append(r->headers, line);
    if (headers)
        r->headers = headers;
    return headers != NULL;
}

/* No Accept-Encoding: a compressed watch is many gzip members, of which libcurl reads one. */
static bool set_headers(struct flue_kube_reflector *r, struct flue_error *error)
{
    static const char partial[] = "as=PartialObjectMetadata";
    const char *list = r->step == FLUE_KUBE_STEP_LIST ? "List" : "";
    char line[512];
    struct {
        char text[FLUE_KUBE_MAX_TOKEN + 32];
    } *token = malloc(sizeof *token);
    bool good = token != NULL;

    curl_slist_free_all(r->headers);
    r->headers = NULL;
    if (r->spec.kind == FLUE_KUBE_POD)
        snprintf(line, sizeof line, "Accept: %sapplication/json",
                 r->json_only ? "" : "application/vnd.kubernetes.protobuf,");
    else
        snprintf(line, sizeof line,
                 "Accept: %s%s%s%sapplication/json;%s%s;g=meta.k8s.io;v=v1,"
                 "application/json",
                 r->json_only ? "" : "application/vnd.kubernetes.protobuf;",
                 r->json_only ? "" : partial, r->json_only ? "" : list,
                 r->json_only ? "" : ";g=meta.k8s.io;v=v1,", partial, list);
    good = good && add_header(r, line);
    if (good) {
        static const char head[] = "Authorization: Bearer ";
        size_t at = sizeof head - 1;
        memcpy(token->text, head, sizeof head);
        if (flue_kube_access_token(r->watcher->access, r->refused_token, token->text + at,
                                   sizeof token->text - at, error))
            good = false;
        else if (token->text[at])
            good = add_header(r, token->text);
        r->refused_token = false;
        explicit_bzero(token->text, sizeof token->text);
    } else {
        flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
    }
    free(token);
    return good;
}

static void set_blob(CURL *easy, CURLoption option, const void *data, size_t size)
{
    struct curl_blob blob = {(void *)(uintptr_t)data, size, CURL_BLOB_COPY};
    curl_easy_setopt(easy, option, &blob);
}

static void set_trust(const struct flue_kube_access *access, CURL *easy)
{
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, access->insecure_skip_verify ? 0L : 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, access->insecure_skip_verify ? 0L : 2L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (access->ca_data.size)
        set_blob(easy, CURLOPT_CAINFO_BLOB, access->ca_data.data, access->ca_data.size);
    else if (access->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, access->ca_file);
    if (access->ca_data.size || access->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    if (access->plugin_cert && access->plugin_key) {
        set_blob(easy, CURLOPT_SSLCERT_BLOB, access->plugin_cert, strlen(access->plugin_cert));
        set_blob(easy, CURLOPT_SSLKEY_BLOB, access->plugin_key, strlen(access->plugin_key));
        return;
    }
    if (access->cert_data.size)
        set_blob(easy, CURLOPT_SSLCERT_BLOB, access->cert_data.data, access->cert_data.size);
    else if (access->cert_file)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, access->cert_file);
    if (access->key_data.size)
        set_blob(easy, CURLOPT_SSLKEY_BLOB, access->key_data.data, access->key_data.size);
    else if (access->key_file)
        curl_easy_setopt(easy, CURLOPT_SSLKEY, access->key_file);
}

static bool make_connect_to(const struct flue_kube_access *access, struct curl_slist **list)
{
    const char *host = strstr(access->server, "://") + 3;
    char line[512];

    if (!access->server_name || *list)
        return true;
    snprintf(line, sizeof line, "::%.*s", (int)strcspn(host, "/"), host);
    *list = curl_slist_append(NULL, line);
    return *list != NULL;
}

/* What all requests have in common. */
static void set_transport(const struct flue_kube_access *access, CURL *easy, const char *url,
                          struct curl_slist *connect_to)
{
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "flue/" FLUE_VERSION);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
    if (connect_to)
        curl_easy_setopt(easy, CURLOPT_CONNECT_TO, connect_to);
    if (access->proxy_url)
        curl_easy_setopt(easy, CURLOPT_PROXY, access->proxy_url);
    set_trust(access, easy);
}

enum flue_code flue_kube_request_begin(struct flue_kube_reflector *r, CURLM *multi,
                                       struct flue_error *error)
{
    struct flue_buffer url;
    CURL *easy = r->easy;

    curl_easy_reset(easy);
    if (!set_headers(r, error))
        return error->code ? error->code : FLUE_NO_MEMORY;
    flue_buffer_init(&url, 32u << 10);
    add_target(r, &url);
    long timeout = add_step(r, &url);
    if (url.failed || !make_connect_to(r->watcher->access, &r->connect_to)) {
        flue_buffer_destroy(&url);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
    }
    set_transport(r->watcher->access, easy, url.data, r->connect_to);
    flue_buffer_destroy(&url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, r->headers);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, r);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, flue_kube_reflector_write);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, timeout); /* of a list: none while bytes come */
    if (r->step == FLUE_KUBE_STEP_LIST) {
        curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, 30L);
    }
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L << 10);

    r->begun = r->json = r->initial_done = r->broken_stream = false;
    r->status = 0;
    r->refusal_size = 0;
    r->event_code = 0;
    r->reason[0] = 0;
    r->started_ns = r->last_data_ns = flue_monotonic_ns();
    r->live_ns = 0;
    if (curl_multi_add_handle(multi, easy) != CURLM_OK)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
    r->open = true;
    return FLUE_OK;
}

static size_t let_go(char *data, size_t size, size_t count, void *arg)
{
    return size * count;
}

/* Everybody may read /version; no token goes with it. Over HTTP/2 it takes the way of the watch. */
enum flue_code flue_kube_probe_begin(struct flue_kube_watcher *watcher, struct flue_error *error)
{
    struct flue_buffer url;
    CURL *easy = watcher->probe;

    curl_easy_reset(easy);
    flue_buffer_init(&url, 32u << 10);
    add_server(watcher->access, &url);
    flue_buffer_text(&url, "/version");
    if (url.failed || !make_connect_to(watcher->access, &watcher->probe_connect_to)) {
        flue_buffer_destroy(&url);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
    }
    set_transport(watcher->access, easy, url.data, watcher->probe_connect_to);
    flue_buffer_destroy(&url);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, let_go);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 10000L);
    if (curl_multi_add_handle(watcher->multi, easy) != CURLM_OK)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
    return FLUE_OK;
}
