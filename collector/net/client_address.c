/* client_address.c: what an endpoint says, and the addresses behind its name.
 *
 * Names are resolved on the pool (getaddrinfo blocks), at most once a second, and again before a
 * connection is made after one was lost. An address keeps what is known of it (failures, whether it
 * speaks HTTP/2) as long as the name still means it. */
#include "collector/net/client_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

#define RESOLVE_EVERY (1 * CLIENT_SECOND)
#define BACKOFF_FIRST (CLIENT_SECOND / 5)
#define BACKOFF_MOST  (5 * CLIENT_SECOND)

struct client_resolve {
    struct flue_job job;
    struct flue_client *client; /* NULL: it was closed meanwhile */
    char *host, *port;
    struct addrinfo *found;
    int result, saved_errno;
};

/* ---- endpoints ------------------------------------------------------------------------------ */

static bool skip_prefix(const char **text, const char *prefix)
{
    size_t size = strlen(prefix);
    if (strncmp(*text, prefix, size) != 0)
        return false;
    *text += size;
    return true;
}

struct flue_bytes flue_client_endpoint_path(const char *endpoint)
{
    const char *at = endpoint;
    if (!skip_prefix(&at, "http://") && !skip_prefix(&at, "https://"))
        return flue_bytes(NULL, 0);
    at += strcspn(at, "/?#");
    return flue_bytes(at, strcspn(at, "#"));
}

struct parts {
    bool local, http, https;
    struct flue_bytes host, port; /* host is the path when local */
    struct flue_bytes authority;
};

static enum flue_code split_endpoint(const char *endpoint, bool url, struct parts *out,
                                     struct flue_error *error)
{
    const char *at = endpoint ? endpoint : "";
    memset(out, 0, sizeof *out);
    if (!*at)
        return flue_fail(error, FLUE_INVALID, "the endpoint is empty: write %s",
                         url ? "http://host:port or https://host:port" : "host:port");
    for (const char *c = at; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f)
            return flue_fail(error, FLUE_INVALID,
                             "a blank or control character in the endpoint at position %zu",
                             (size_t)(c - at) + 1);
    if (skip_prefix(&at, "unix:")) {
        if (at[0] == '/' && at[1] == '/')
            at += 2;
        if (strlen(at) >= sizeof((struct sockaddr_un *)0)->sun_path || !*at)
            return flue_fail(error, FLUE_INVALID,
                             "the path of a Unix socket has 1 to %zu bytes, this one %zu",
                             sizeof((struct sockaddr_un *)0)->sun_path - 1, strlen(at));
        out->local = true;
        out->host = flue_bytes_of(at);
        out->authority = FLUE_BYTES("localhost");
        return FLUE_OK;
    }
    if (skip_prefix(&at, "https://"))
        out->https = true;
    else if (skip_prefix(&at, "http://"))
        out->http = true;
    else if (url)
        return flue_fail(error, FLUE_INVALID,
                         "\"%.200s\" is not a URL: it must begin with http://, https:// or unix://",
                         endpoint);
    else if (!skip_prefix(&at, "dns:///") && !skip_prefix(&at, "passthrough:///") &&
             strstr(at, "://"))
        return flue_fail(
            error, FLUE_INVALID,
            "\"%.200s\": of the schemes dns:///, passthrough:///, unix://, http:// and "
            "https:// none is this one",
            endpoint);
    struct flue_bytes authority = flue_bytes(at, strcspn(at, "/?#"));
    if (flue_bytes_find(authority, '@') != SIZE_MAX)
        return flue_fail(error, FLUE_INVALID,
                         "user and password do not belong into the endpoint: use headers or auth");
    if (!out->http && !out->https && at[authority.size])
        return flue_fail(error, FLUE_INVALID,
                         "\"%.200s\": without http:// or https:// an endpoint has no path",
                         endpoint);
    struct flue_bytes rest = authority;
    if (authority.size && authority.data[0] == '[') {
        size_t end = flue_bytes_find(authority, ']');
        if (end == SIZE_MAX)
            return flue_fail(error, FLUE_INVALID, "\"%.200s\": [ without ]", endpoint);
        out->host = flue_bytes(authority.data + 1, end - 1);
        rest = flue_bytes_from(authority, end + 1);
        if (rest.size && rest.data[0] != ':')
            return flue_fail(error, FLUE_INVALID, "\"%.200s\": after ] comes :port", endpoint);
    } else {
        size_t end = flue_bytes_find(authority, ':');
        out->host = flue_bytes_first(authority, end);
        rest = end == SIZE_MAX ? flue_bytes(NULL, 0) : flue_bytes_from(authority, end);
    }
    if (rest.size) {
        uint64_t port;
        out->port = flue_bytes_from(rest, 1);
        if (!flue_parse_u64(out->port, &port) || port == 0 || port > 65535)
            return flue_fail(error, FLUE_INVALID,
                             "\"%.200s\": the port is a number from 1 to 65535 (an IPv6 address "
                             "stands in [ ])",
                             endpoint);
    } else {
        out->port = out->http ? FLUE_BYTES("80") : FLUE_BYTES("443");
    }
    if (out->host.size == 0 && (out->http || out->https))
        return flue_fail(error, FLUE_INVALID, "\"%.200s\" has no host", endpoint);
    if (out->host.size == 0)
        out->host = FLUE_BYTES("localhost");
    if (out->host.size > 253)
        return flue_fail(error, FLUE_INVALID, "the endpoint's host has %zu bytes, limit 253",
                         out->host.size);
    out->authority = authority;
    return FLUE_OK;
}

enum flue_code flue_client_endpoint_check(const char *endpoint, bool url, struct flue_error *error)
{
    struct parts parts;
    return split_endpoint(endpoint, url, &parts, error);
}

bool flue_client_endpoint_is_local(const char *endpoint)
{
    struct parts parts;
    struct flue_error error;
    struct in_addr four;
    char host[64];
    if (split_endpoint(endpoint, false, &parts, &error))
        return false;
    if (parts.local || flue_bytes_is(parts.host, "localhost") || flue_bytes_is(parts.host, "::1"))
        return true;
    snprintf(host, sizeof host, "%.*s", FLUE_PRI(parts.host));
    return inet_pton(AF_INET, host, &four) == 1 && ntohl(four.s_addr) >> 24 == 127;
}

static char *copy(struct flue_bytes b)
{
    return strndup((const char *)b.data, b.size);
}

enum flue_code flue_client_target_parse(const struct flue_client_config *config,
                                        struct client_target *target, struct flue_error *error)
{
    struct parts parts;
    enum flue_code code = split_endpoint(config->endpoint, config->tls_by_scheme, &parts, error);
    if (code)
        return code;
    const char *name = config->tls.server_name_override;
    bool named = name && *name;
    target->local = parts.local;
    target->scheme_https = parts.https;
    target->host = copy(parts.host);
    target->port = parts.local ? strdup("0") : copy(parts.port);
    target->server_name = named         ? strdup(name)
                          : parts.local ? strdup("localhost")
                                        : copy(parts.host);
    if (config->authority && *config->authority)
        target->authority = strdup(config->authority);
    else if (named && config->protocol == FLUE_CLIENT_HTTP2)
        target->authority = strdup(name); /* as gRPC's libraries do */
    else if (parts.authority.size && parts.authority.data[0] == ':') {
        if (asprintf(&target->authority, "localhost%.*s", FLUE_PRI(parts.authority)) < 0)
            target->authority = NULL;
    } else
        target->authority = copy(parts.authority);
    if (parts.local)
        target->label = copy(parts.host);
    else if (asprintf(&target->label,
                      memchr(parts.host.data, ':', parts.host.size) ? "[%.*s]:%.*s" : "%.*s:%.*s",
                      FLUE_PRI(parts.host), FLUE_PRI(parts.port)) < 0)
        target->label = NULL;
    if (!target->host || !target->port || !target->server_name || !target->authority ||
        !target->label)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a client");
    for (const char *c = target->authority; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f)
            return flue_fail(error, FLUE_INVALID, "a blank or control character in the authority");
    return FLUE_OK;
}

void flue_client_target_free(struct client_target *target)
{
    free(target->host);
    free(target->port);
    free(target->authority);
    free(target->server_name);
    free(target->label);
}

bool flue_client_is_ip(const char *host)
{
    struct in6_addr ip;
    return inet_pton(AF_INET, host, &ip) == 1 || inet_pton(AF_INET6, host, &ip) == 1;
}

/* ---- one address ---------------------------------------------------------------------------- */

void flue_client_address_unref(struct client_address *address)
{
    if (address && --address->refs == 0)
        free(address);
}

/* The n-th failure in a row: 0.2 s * 1.6^n up to 5 s, of which a fifth more or less by chance, so
 * that a thousand clients do not come back together. */
static uint64_t backoff_ns(unsigned failures)
{
    double wait = (double)BACKOFF_FIRST;
    for (unsigned i = 1; i < failures && wait < (double)BACKOFF_MOST; i++)
        wait *= 1.6;
    if (wait > (double)BACKOFF_MOST)
        wait = (double)BACKOFF_MOST;
    double chance = (double)(flue_random_u64() >> 11) / (double)(UINT64_C(1) << 53);
    return (uint64_t)(wait * (0.8 + 0.4 * chance));
}

void flue_client_address_failed(struct flue_client *client, struct client_address *address)
{
    address->failures++;
    address->retry_at_ns = flue_monotonic_ns() + backoff_ns(address->failures);
    client->stale = true;
}

void flue_client_address_works(struct client_address *address)
{
    address->failures = 0;
    address->retry_at_ns = 0;
}

static struct client_address *address_new(const struct sockaddr *from, socklen_t size)
{
    struct client_address *address = calloc(1, sizeof *address);
    if (!address || size > sizeof address->storage) {
        free(address);
        return NULL;
    }
    address->refs = 1;
    memcpy(&address->storage, from, size);
    address->size = size;
    char host[INET6_ADDRSTRLEN] = "?";
    if (from->sa_family == AF_UNIX) {
        const struct sockaddr_un *local = (const struct sockaddr_un *)(const void *)from;
        snprintf(address->text, sizeof address->text, "%s", local->sun_path);
    } else if (from->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)from;
        inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
        snprintf(address->text, sizeof address->text, "%s:%u", host, ntohs(four->sin_port));
    } else {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)from;
        inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
        snprintf(address->text, sizeof address->text, "[%s]:%u", host, ntohs(six->sin6_port));
    }
    return address;
}

/* ---- resolving ------------------------------------------------------------------------------ */

/* Replaces the list by what was found, keeping the entries that are still meant. */
static void take_addresses(struct flue_client *client, const struct addrinfo *found)
{
    struct client_address *fresh[CLIENT_MAX_ADDRESSES];
    unsigned count = 0;
    for (const struct addrinfo *f = found; f && count < CLIENT_MAX_ADDRESSES; f = f->ai_next) {
        struct client_address *address = NULL;
        bool twice = false;
        if (f->ai_family != AF_INET && f->ai_family != AF_INET6)
            continue;
        for (unsigned i = 0; i < count; i++)
            twice |= fresh[i]->size == f->ai_addrlen &&
                     memcmp(&fresh[i]->storage, f->ai_addr, f->ai_addrlen) == 0;
        if (twice)
            continue;
        for (unsigned i = 0; i < client->address_count && !address; i++) {
            struct client_address *old = client->addresses[i];
            if (old->size == f->ai_addrlen && memcmp(&old->storage, f->ai_addr, old->size) == 0) {
                address = old;
                address->refs++;
            }
        }
        if (!address)
            address = address_new(f->ai_addr, f->ai_addrlen);
        if (address)
            fresh[count++] = address;
    }
    if (count == 0)
        return;
    for (unsigned i = 0; i < client->address_count; i++)
        client->addresses[i]->gone = true;
    for (unsigned i = 0; i < count; i++)
        fresh[i]->gone = false;
    for (unsigned i = 0; i < client->address_count; i++)
        flue_client_address_unref(client->addresses[i]);
    memcpy(client->addresses, fresh, count * sizeof fresh[0]);
    client->address_count = count;
}

static void resolve_work(struct flue_job *job)
{
    struct client_resolve *resolve = (struct client_resolve *)(void *)job;
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    resolve->result = getaddrinfo(resolve->host, resolve->port, &hints, &resolve->found);
    resolve->saved_errno = errno;
}

static void resolve_free(struct client_resolve *resolve)
{
    if (resolve->found)
        freeaddrinfo(resolve->found);
    free(resolve->host);
    free(resolve->port);
    free(resolve);
}

static void resolve_done(struct flue_job *job)
{
    struct client_resolve *resolve = (struct client_resolve *)(void *)job;
    struct flue_client *client = resolve->client;
    if (client) {
        uint64_t now = flue_monotonic_ns();
        client->resolve = NULL;
        client->resolved_ns = now;
        if (resolve->result == 0) {
            client->stale = false;
            client->resolve_failures = 0;
            client->resolve_at_ns = 0;
            take_addresses(client, resolve->found);
            for (struct client_connection *c = client->connections; c; c = c->next)
                if (c->address->gone && c->stage == CONNECTION_READY) {
                    c->stage = CONNECTION_DRAINING;
                    flue_client_connection_dirty(c);
                }
        } else {
            client->resolve_failures++;
            client->resolve_at_ns = now + backoff_ns(client->resolve_failures);
            if (client->address_count == 0)
                flue_fail(&client->last_error, FLUE_UNAVAILABLE, "\"%s\" cannot be resolved: %s",
                          client->target.host,
                          resolve->result == EAI_SYSTEM ? strerror(resolve->saved_errno)
                                                        : gai_strerror(resolve->result));
            else
                client->stale = false; /* the old ones, until a connection is lost again */
        }
        client->scheduled = true;
    }
    resolve_free(resolve);
}

static void resolve_begin(struct flue_client *client)
{
    struct client_resolve *resolve = calloc(1, sizeof *resolve);
    if (resolve) {
        resolve->host = strdup(client->target.host);
        resolve->port = strdup(client->target.port);
    }
    if (!resolve || !resolve->host || !resolve->port) {
        if (resolve)
            resolve_free(resolve);
        client->resolve_failures++;
        client->resolve_at_ns = flue_monotonic_ns() + backoff_ns(client->resolve_failures);
        flue_fail(&client->last_error, FLUE_UNAVAILABLE, "no memory to resolve \"%s\"",
                  client->target.host);
        return;
    }
    resolve->client = client;
    resolve->job.work = resolve_work;
    resolve->job.done = resolve_done;
    resolve->job.loop = client->loop;
    client->resolve = resolve;
    flue_pool_submit(client->loop, &resolve->job);
}

/* Unix sockets and numeric hosts need no resolver. */
static bool take_fixed(struct flue_client *client)
{
    if (client->target.local) {
        struct sockaddr_un local = {.sun_family = AF_UNIX};
        snprintf(local.sun_path, sizeof local.sun_path, "%s", client->target.host);
        client->addresses[0] = address_new((struct sockaddr *)&local, sizeof local);
        client->address_count = client->addresses[0] != NULL;
        return client->address_count > 0;
    }
    if (!flue_client_is_ip(client->target.host))
        return false;
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    struct addrinfo *found = NULL;
    if (getaddrinfo(client->target.host, client->target.port, &hints, &found) == 0)
        take_addresses(client, found);
    if (found)
        freeaddrinfo(found);
    return client->address_count > 0;
}

bool flue_client_addresses_ready(struct flue_client *client, bool *failed)
{
    *failed = false;
    if (client->fixed)
        return true;
    if (client->address_count == 0 && take_fixed(client)) {
        client->fixed = true;
        return true;
    }
    if (client->resolve)
        return false;
    uint64_t now = flue_monotonic_ns();
    if (client->address_count > 0 && (!client->stale || now - client->resolved_ns < RESOLVE_EVERY))
        return true;
    if (client->resolve_at_ns > now) {
        *failed = client->address_count == 0;
        return !*failed;
    }
    resolve_begin(client);
    if (!client->resolve) {
        *failed = client->address_count == 0;
        return !*failed;
    }
    return false;
}

void flue_client_addresses_free(struct flue_client *client)
{
    if (client->resolve)
        client->resolve->client = NULL;
    client->resolve = NULL;
    for (unsigned i = 0; i < client->address_count; i++)
        flue_client_address_unref(client->addresses[i]);
    client->address_count = 0;
}
