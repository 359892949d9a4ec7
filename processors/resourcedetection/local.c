/* local.c: env and system: what this process and this host know themselves.
 *
 * Sources: OpenTelemetry specification, "Specifying resource information via an environment
 * variable"; semantic conventions, host and os; proc(5), os-release(5), machine-id(5). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "processors/resourcedetection/detect.h"
#include "proto/wire/writer.h"

#define ADDRESSES_MAX 64u
#define FILE_MAX      16384u

/* ---- env ------------------------------------------------------------------------------------- */

static int hex(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static struct flue_bytes trim(struct flue_bytes text)
{
    while (text.size && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = flue_bytes_from(text, 1);
    while (text.size && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t'))
        text.size--;
    return text;
}

static struct flue_bytes unescape(struct flue_arena *arena, struct flue_bytes text)
{
    uint8_t *out = flue_arena_alloc(arena, text.size + 1);
    size_t size = 0;
    if (!out)
        return flue_bytes("", 0);
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '%' && i + 2 < text.size && hex(text.data[i + 1]) >= 0 &&
            hex(text.data[i + 2]) >= 0) {
            out[size++] = (uint8_t)(hex(text.data[i + 1]) * 16 + hex(text.data[i + 2]));
            i += 2;
        } else {
            out[size++] = text.data[i];
        }
    }
    return flue_bytes(out, size);
}

void rd_env_begin(struct rd_run *run)
{
    const char *text = rd_environment("OTEL_RESOURCE_ATTRIBUTES");
    if (!text)
        text = rd_environment("OTEL_RESOURCE"); /* its older name */
    if (!text) {
        rd_absent(run, "OTEL_RESOURCE_ATTRIBUTES is not set");
        return;
    }
    struct flue_bytes rest = trim(flue_bytes_of(text));
    while (rest.size) {
        size_t end = flue_bytes_find(rest, ',');
        struct flue_bytes pair = end == SIZE_MAX ? rest : flue_bytes_first(rest, end);
        rest = end == SIZE_MAX ? flue_bytes("", 0) : flue_bytes_from(rest, end + 1);
        pair = trim(pair);
        size_t equals = flue_bytes_find(pair, '=');
        if (pair.size == 0)
            continue; /* a comma too many */
        if (equals == SIZE_MAX || equals == 0) {
            /* As the specification wants: a variable that is wrong is wrong as a whole. */
            run->count = 0;
            rd_absent(run, "OTEL_RESOURCE_ATTRIBUTES is not key=value,key=value");
            return;
        }
        rd_put_named(run, unescape(&run->arena, trim(flue_bytes_first(pair, equals))),
                     unescape(&run->arena, trim(flue_bytes_from(pair, equals + 1))));
    }
    rd_found(run);
}

/* ---- system ---------------------------------------------------------------------------------- */

static void add_value(struct rd_job *job, enum rd_name name, struct flue_value value)
{
    if (job->attributes.on[name] && job->count < RD_COUNT)
        job->items[job->count++] = (struct flue_attribute){flue_bytes_of(rd_names[name]), value};
}

static void add(struct rd_job *job, enum rd_name name, const char *text)
{
    struct flue_bytes copy = flue_arena_copy(&job->arena, trim(flue_bytes_of(text)));
    if (copy.size && copy.size <= RD_VALUE_MAX && flue_utf8_valid(copy))
        add_value(job, name, (struct flue_value){.type = FLUE_VALUE_STRING, .text = copy});
}

/* AnyValue { 5 array { 1 values { 1 string } ... } } */
static void add_array(struct rd_job *job, enum rd_name name, char (*texts)[64], size_t count)
{
    size_t array = 0;
    for (size_t i = 0; i < count; i++)
        array += flue_len_field_size(1, flue_len_field_size(1, strlen(texts[i])));
    uint8_t *bytes = flue_arena_alloc(&job->arena, flue_len_field_size(5, array)), *at = bytes;
    if (count == 0 || !bytes)
        return;
    at = flue_write_len_head(at, 5, array);
    for (size_t i = 0; i < count; i++) {
        struct flue_bytes text = flue_bytes_of(texts[i]);
        at = flue_write_len_head(at, 1, flue_len_field_size(1, text.size));
        at = flue_write_len_field(at, 1, text);
    }
    add_value(job, name,
              (struct flue_value){.type = FLUE_VALUE_COMPLEX,
                                  .text = flue_bytes(bytes, (size_t)(at - bytes))});
}

static size_t read_file(const char *path, char *out, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t size = 0;
    ssize_t got = 1;
    while (fd >= 0 && got > 0 && size < room - 1) {
        got = read(fd, out + size, room - 1 - size);
        if (got > 0)
            size += (size_t)got;
    }
    if (fd >= 0)
        close(fd);
    out[size] = 0;
    return size;
}

static bool full_name(const char *host, bool need_dots, char *out, size_t room)
{
    struct addrinfo hints = {.ai_flags = AI_CANONNAME, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, NULL, &hints, &found) != 0)
        return false;
    bool good = found->ai_canonname && *found->ai_canonname &&
                (!need_dots || strchr(found->ai_canonname, '.'));
    if (good)
        snprintf(out, room, "%s", found->ai_canonname);
    freeaddrinfo(found);
    return good;
}

static bool reverse_name(const char *host, char *out, size_t room)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    bool good = false;
    if (getaddrinfo(host, NULL, &hints, &found) != 0)
        return false;
    for (struct addrinfo *at = found; at && !good; at = at->ai_next)
        good = getnameinfo(at->ai_addr, at->ai_addrlen, out, (socklen_t)room, NULL, 0,
                           NI_NAMEREQD) == 0;
    freeaddrinfo(found);
    return good;
}

/* A name ends without a dot, whatever DNS says. */
static bool host_name(enum rd_hostname_source source, char *out, size_t room)
{
    char host[256];
    bool good = false;
    if (gethostname(host, sizeof host) != 0)
        return false;
    host[sizeof host - 1] = 0;
    switch (source) {
    case RD_HOST_OS:
        snprintf(out, room, "%s", host);
        good = *host != 0;
        break;
    case RD_HOST_DNS:
        good = full_name(host, true, out, room) || reverse_name(host, out, room);
        break;
    case RD_HOST_CNAME:
        good = full_name(host, false, out, room);
        break;
    case RD_HOST_LOOKUP:
        good = reverse_name(host, out, room);
        break;
    case RD_HOST_NONE:
        break;
    }
    size_t size = good ? strlen(out) : 0;
    if (size && out[size - 1] == '.')
        out[--size] = 0;
    return size > 0;
}

static const char *architecture(const char *machine)
{
    static const char *const names[][2] = {
        {"x86_64", "amd64"}, {"aarch64", "arm64"}, {"i686", "x86"},     {"i386", "x86"},
        {"armv7l", "arm32"}, {"ppc64le", "ppc64"}, {"ppc64", "ppc64"}, {"s390x", "s390x"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(machine, names[i][0]) == 0)
            return names[i][1];
    return machine;
}

static void add_addresses(struct rd_job *job)
{
    struct ifaddrs *all = NULL;
    char(*ips)[64] = flue_arena_zalloc(&job->arena, ADDRESSES_MAX, sizeof *ips);
    char(*macs)[64] = flue_arena_zalloc(&job->arena, ADDRESSES_MAX, sizeof *macs);
    size_t ip_count = 0, mac_count = 0;
    if (!ips || !macs || getifaddrs(&all) != 0)
        return;
    for (struct ifaddrs *at = all; at; at = at->ifa_next) {
        if (!at->ifa_addr || !(at->ifa_flags & IFF_UP) || (at->ifa_flags & IFF_LOOPBACK))
            continue;
        int family = at->ifa_addr->sa_family;
        const void *address =
            family == AF_INET
                ? (const void *)&((const struct sockaddr_in *)(const void *)at->ifa_addr)->sin_addr
                : (const void *)&((const struct sockaddr_in6 *)(const void *)at->ifa_addr)
                      ->sin6_addr;
        if ((family == AF_INET || family == AF_INET6) && ip_count < ADDRESSES_MAX &&
            inet_ntop(family, address, ips[ip_count], sizeof ips[0]))
            ip_count++;
        if (family == AF_PACKET && mac_count < ADDRESSES_MAX) {
            const struct sockaddr_ll *link = (const void *)at->ifa_addr;
            const uint8_t *m = link->sll_addr;
            if (link->sll_halen == 6)
                snprintf(macs[mac_count++], sizeof macs[0], "%02X-%02X-%02X-%02X-%02X-%02X", m[0],
                         m[1], m[2], m[3], m[4], m[5]);
        }
    }
    freeifaddrs(all);
    add_array(job, RD_HOST_IP, ips, ip_count);
    add_array(job, RD_HOST_MAC, macs, mac_count);
}

/* "key<tab>: value" of the first processor. */
static const char *cpu_fact(char *text, const char *key, char *out, size_t room)
{
    size_t size = strlen(key);
    out[0] = 0;
    for (char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL) {
        if (strncmp(line, key, size) != 0 || (line[size] != '\t' && line[size] != ' ' &&
                                              line[size] != ':'))
            continue;
        const char *colon = memchr(line, ':', strcspn(line, "\n"));
        if (colon && (size_t)(colon - line) <= size + 2) {
            snprintf(out, room, "%.*s", (int)strcspn(colon + 1, "\n"), colon + 1);
            return out;
        }
    }
    return out;
}

static void add_cpu(struct rd_job *job)
{
    static const struct {
        enum rd_name name;
        const char *key;
    } facts[] = {{RD_CPU_VENDOR, "vendor_id"},
                 {RD_CPU_FAMILY, "cpu family"},
                 {RD_CPU_MODEL, "model"},
                 {RD_CPU_MODEL_NAME, "model name"},
                 {RD_CPU_STEPPING, "stepping"}};
    char *text = flue_arena_alloc(&job->arena, FILE_MAX), value[256];
    if (!text || read_file("/proc/cpuinfo", text, FILE_MAX) == 0)
        return;
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        add(job, facts[i].name, cpu_fact(text, facts[i].key, value, sizeof value));
    if (*cpu_fact(text, "cache size", value, sizeof value)) { /* "512 KB" */
        long kilobytes = strtol(value, NULL, 10);
        if (kilobytes > 0)
            add_value(job, RD_CPU_CACHE,
                      (struct flue_value){.type = FLUE_VALUE_INT, .integer = kilobytes});
    }
}

static void add_description(struct rd_job *job, const struct utsname *uname)
{
    char *text = flue_arena_alloc(&job->arena, FILE_MAX), line[1024];
    int size = 0;
    const char *pretty = text && read_file("/etc/os-release", text, FILE_MAX)
                             ? strstr(text, "PRETTY_NAME=")
                             : NULL;
    if (pretty) {
        pretty += sizeof "PRETTY_NAME=" - 1;
        pretty += *pretty == '"';
        size = (int)strcspn(pretty, "\"\n");
    }
    snprintf(line, sizeof line, "%.*s%s%s %s %s %s", size, size ? pretty : "", size ? " - " : "",
             uname->sysname, uname->release, uname->version, uname->machine);
    add(job, RD_OS_DESCRIPTION, line);
}

static void look(struct rd_job *job)
{
    char name[NI_MAXHOST] = "", id[128];
    struct utsname uname_data;
    for (size_t i = 0; i < job->source_count && !*name; i++)
        if (!host_name(job->sources[i], name, sizeof name))
            *name = 0;
    if (!*name) {
        (void)flue_fail(&job->error, FLUE_UNAVAILABLE, "no source knows the host's name");
        return;
    }
    add(job, RD_HOST_NAME, name);
    add(job, RD_OS_TYPE, "linux");
    if (uname(&uname_data) == 0) {
        add(job, RD_HOST_ARCH, architecture(uname_data.machine));
        if (job->attributes.on[RD_OS_DESCRIPTION])
            add_description(job, &uname_data);
    }
    if (job->attributes.on[RD_HOST_ID] && (read_file("/etc/machine-id", id, sizeof id) ||
                                           read_file("/var/lib/dbus/machine-id", id, sizeof id))) {
        id[strcspn(id, "\n")] = 0;
        add(job, RD_HOST_ID, id);
    }
    if (job->attributes.on[RD_HOST_IP] || job->attributes.on[RD_HOST_MAC])
        add_addresses(job);
    add_cpu(job);
}

static void looked(struct rd_run *run, struct rd_job *job)
{
    if (job->error.code) {
        rd_failed(run, "%s", job->error.text);
        return;
    }
    rd_put_items(run, job->items, job->count);
    rd_found(run);
}

static struct rd_job *system_job(struct rd_run *run)
{
    const struct flue_list *sources = &run->config->system.hostname_sources;
    struct rd_job *job = rd_job_new(run);
    if (!job) {
        rd_failed(run, "no memory to look at the system");
        return NULL;
    }
    for (size_t i = 0; i < sources->count && i < 8; i++)
        job->sources[job->source_count++] =
            rd_hostname_source(((const char *const *)sources->items)[i]);
    job->work = look;
    job->then = looked;
    return job;
}

void rd_system_begin(struct rd_run *run)
{
    struct rd_job *job = system_job(run);
    if (job)
        rd_job_submit(run, job);
}

bool rd_system_is_quick(const struct rd_config *config)
{
    const struct flue_list *sources = &config->system.hostname_sources;
    return sources->count &&
           rd_hostname_source(((const char *const *)sources->items)[0]) == RD_HOST_OS;
}

void rd_system_now(struct rd_run *run)
{
    struct rd_job *job = system_job(run);
    if (!job)
        return;
    look(job);
    looked(run, job);
    rd_job_free(job);
}
