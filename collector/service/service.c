/* service.c: the life of a service. */
#include "collector/service/inside.h"

#include <stdlib.h>
#include <time.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/telemetry/page.h"
#include "collector/telemetry/process.h"

#define POLL_NS        5000000u             /* between two looks while draining */
#define CANCEL_TIME_NS UINT64_C(2000000000) /* for what was cancelled at the deadline to end */

/* "[::1]:8888" for an IPv6 host. */
static const char *page_endpoint(struct flue_arena *arena,
                                 const struct flue_prometheus_settings *page)
{
    bool bare = strchr(page->host, ':') && page->host[0] != '[';
    return flue_arena_printf(arena, bare ? "[%s]:%lld" : "%s:%lld", page->host,
                             (long long)page->port);
}

static enum flue_code add_pages(struct flue_service *service, struct flue_error *error)
{
    const struct flue_telemetry_metrics_settings *metrics =
        &service->configuration->service.telemetry.metrics;
    for (size_t i = 0; metrics->level != FLUE_LEVEL_NONE && i < metrics->readers.count; i++) {
        const struct flue_reader_settings *reader =
            (const struct flue_reader_settings *)metrics->readers.items + i;
        if (!reader->pull || !reader->pull->exporter.prometheus)
            continue;
        const char *endpoint = page_endpoint(&service->arena, reader->pull->exporter.prometheus);
        if (!endpoint)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory for the metrics page");
        enum flue_code code = flue_metrics_page_add(service->admin, &service->arena,
                                                    service->metrics, endpoint, error);
        if (code)
            return flue_fail_prefix(error, "service.telemetry.metrics.readers[%zu]", i);
    }
    return FLUE_OK;
}

static enum flue_code make(struct flue_service *service, struct flue_error *error)
{
    const struct flue_engine_settings *settings = &service->configuration->service.flue;
    enum flue_code code = flue_loops_new((unsigned)settings->loops, &service->loops, error);
    if (code)
        return code;
    int64_t limit = settings->memory.limit_mib << 20;
    flue_budget_init(&service->budget, limit ? limit : flue_budget_default_bytes());
    service->metrics = flue_metrics_new(settings->metrics_prefix);
    if (!service->metrics)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the metrics");
    flue_process_metrics_add(service->metrics);
    service->servers = flue_server_set_new(service->loops, service->metrics, &service->budget);
    service->admin = flue_server_set_new(service->loops, service->metrics, &service->budget);
    if (!service->servers || !service->admin)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the listeners");
    return flue_graph_make(service, error);
}

enum flue_code flue_service_new(const struct flue_configuration *configuration,
                                struct flue_service **out, struct flue_error *error)
{
    struct flue_service *service = calloc(1, sizeof *service);
    if (!service)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the service");
    service->configuration = configuration;
    flue_arena_init(&service->arena, 0, 0);
    enum flue_code code = make(service, error);
    if (code) {
        flue_service_destroy(service);
        return code;
    }
    *out = service;
    return FLUE_OK;
}

/* ---- start ----------------------------------------------------------------------------------- */

static enum flue_code start_instances(struct flue_service *service, enum flue_kind kind,
                                      struct flue_error *error)
{
    for (size_t i = 0; i < service->configuration->part_count; i++) {
        struct flue_running *running = &service->running[i];
        if (!running->part || running->part->kind != kind)
            continue;
        enum flue_code code = FLUE_OK;
        if (kind == FLUE_EXPORTER || kind == FLUE_CONNECTOR)
            code = flue_exporter_start(running->exporter, error);
        else if (running->part->component->start)
            code = running->part->component->start(running->instance, error);
        if (code)
            return flue_fail_prefix(error, "%s", running->part->path);
        running->started = true;
    }
    return FLUE_OK;
}

enum flue_code flue_service_start(struct flue_service *service, struct flue_error *error)
{
    const struct flue_configuration *c = service->configuration;
    enum flue_code code = start_instances(service, FLUE_EXPORTER, error);
    if (!code)
        code = start_instances(service, FLUE_CONNECTOR, error);
    for (size_t i = 0; !code && i < c->pipeline_count; i++)
        code = flue_pipeline_start(service->pipelines[i], error);
    if (!code)
        code = start_instances(service, FLUE_RECEIVER, error);
    if (!code)
        code = start_instances(service, FLUE_EXTENSION, error);
    if (!code)
        code = add_pages(service, error);
    if (!code)
        code = flue_server_set_listen(service->servers, error);
    if (!code)
        code = flue_server_set_listen(service->admin, error);
    if (!code)
        code = flue_loops_run(service->loops, error);
    if (code)
        return code;
    service->loops_running = true;
    atomic_store(&service->status.up_since, flue_wall_ns());
    atomic_store(&service->status.state, FLUE_SERVING);
    flue_log(FLUE_INFO, "service", "ready", FLUE_U("pipelines", c->pipeline_count),
             FLUE_U("loops", service->loops->count),
             FLUE_I("memory_limit_bytes", atomic_load(&service->budget.hard)), FLUE_LOG_END);
    return FLUE_OK;
}

/* ---- stop ------------------------------------------------------------------------------------ */

struct wait {
    struct flue_service *service;
    bool (*hurry)(void *arg);
    void *arg;
    bool hurried;
};

/* Until `ready` or the deadline; false when time ran out. */
static bool wait_until(struct wait *wait, bool (*ready)(struct flue_service *service),
                       uint64_t deadline_ns)
{
    while (!ready(wait->service)) {
        if (!wait->hurried && wait->hurry && wait->hurry(wait->arg))
            wait->hurried = true;
        if (wait->hurried || flue_monotonic_ns() >= deadline_ns)
            return false;
        struct timespec pause = {0, POLL_NS};
        nanosleep(&pause, NULL);
    }
    return true;
}

static void stop_instances(struct flue_service *service, enum flue_kind kind, uint64_t deadline_ns)
{
    for (size_t i = 0; i < service->configuration->part_count; i++) {
        struct flue_running *running = &service->running[i];
        if (running->part && running->part->kind == kind && running->part->component->stop)
            running->part->component->stop(running->instance, deadline_ns);
    }
}

static bool instances_stopped(struct flue_service *service, enum flue_kind kind)
{
    for (size_t i = 0; i < service->configuration->part_count; i++) {
        struct flue_running *running = &service->running[i];
        if (running->part && running->part->kind == kind && running->part->component->stopped &&
            !running->part->component->stopped(running->instance))
            return false;
    }
    return true;
}

static bool receivers_stopped(struct flue_service *service)
{
    return instances_stopped(service, FLUE_RECEIVER) &&
           flue_server_set_open_requests(service->servers) == 0;
}

static bool extensions_stopped(struct flue_service *service)
{
    return instances_stopped(service, FLUE_EXTENSION) &&
           flue_server_set_open_requests(service->admin) == 0;
}

static bool pipelines_stopped(struct flue_service *service)
{
    bool all = true;
    for (size_t i = 0; i < service->configuration->pipeline_count; i++)
        all &= flue_pipeline_stopped(service->pipelines[i]);
    return all;
}

static bool is_connector(const struct flue_running *running)
{
    return running->part && running->part->kind == FLUE_CONNECTOR;
}

static void stop_exporters(struct flue_service *service, bool connectors, uint64_t deadline_ns)
{
    for (size_t i = 0; i < service->configuration->part_count; i++)
        if (service->running[i].exporter && is_connector(&service->running[i]) == connectors)
            flue_exporter_stop(service->running[i].exporter, deadline_ns);
}

static bool connectors_stopped(struct flue_service *service)
{
    bool all = true;
    for (size_t i = 0; i < service->configuration->part_count; i++)
        if (service->running[i].exporter && is_connector(&service->running[i]))
            all &= flue_exporter_stopped(service->running[i].exporter);
    return all;
}

static bool exporters_stopped(struct flue_service *service)
{
    bool all = true;
    for (size_t i = 0; i < service->configuration->part_count; i++)
        if (service->running[i].exporter)
            all &= flue_exporter_stopped(service->running[i].exporter);
    return all;
}

/* For each exporter what was taken and could not be sent any more. */
static uint64_t say_what_was_left(struct flue_service *service)
{
    uint64_t lost = 0;
    for (size_t i = 0; i < service->configuration->part_count; i++) {
        struct flue_exporter_state state;
        if (!service->running[i].exporter)
            continue;
        flue_exporter_state(service->running[i].exporter, &state);
        struct flue_counts left = {
            .profiles = state.lost.profiles + state.queued.profiles + state.in_flight.profiles,
            .samples = state.lost.samples + state.queued.samples + state.in_flight.samples,
            .bytes = state.lost.bytes + state.queued.bytes + state.in_flight.bytes,
        };
        uint64_t items = state.lost_items + state.queued_items + state.in_flight_items;
        const char *id = service->running[i].part->id;
        if (state.durable && left.profiles + left.samples + left.bytes) {
            flue_log(FLUE_INFO, "service", "left in the queue on disk: sent after the next start",
                     FLUE_S("exporter", id), FLUE_U("profiles", left.profiles),
                     FLUE_U("samples", left.samples), FLUE_U("bytes", left.bytes), FLUE_LOG_END);
            continue;
        }
        lost += left.samples;
        if (items || left.samples || left.profiles)
            flue_log(FLUE_ERROR, "service", "given up at shutdown: not sent to this exporter",
                     FLUE_S("exporter", id), FLUE_U("requests", items),
                     FLUE_U("profiles", left.profiles), FLUE_U("samples", left.samples),
                     FLUE_U("bytes", left.bytes), FLUE_LOG_END);
        else
            flue_log(FLUE_INFO, "service", "drained, nothing left", FLUE_S("exporter", id),
                     FLUE_U("sent_samples", state.sent.samples), FLUE_LOG_END);
    }
    return lost;
}

void flue_service_stop(struct flue_service *service, bool (*hurry)(void *arg), void *arg,
                       uint64_t *lost)
{
    struct wait wait = {.service = service, .hurry = hurry, .arg = arg};
    uint64_t now = flue_monotonic_ns();
    uint64_t time = (uint64_t)service->configuration->service.flue.drain_timeout;
    uint64_t deadline = now + time;
    atomic_store(&service->status.state, FLUE_DRAINING);
    flue_log(FLUE_INFO, "service", "draining", FLUE_U("timeout_ms", time / 1000000), FLUE_LOG_END);

    /* A client that never ends its request must not take the time that the queues need. */
    flue_server_set_drain(service->servers);
    stop_instances(service, FLUE_RECEIVER, now + time / 2);
    if (!wait_until(&wait, receivers_stopped, now + time / 2))
        flue_log(FLUE_WARN, "service", "requests are still open",
                 FLUE_U("requests", flue_server_set_open_requests(service->servers)), FLUE_LOG_END);
    for (size_t i = 0; i < service->configuration->pipeline_count; i++)
        flue_pipeline_stop(service->pipelines[i], deadline);
    wait_until(&wait, pipelines_stopped, deadline);
    if (wait.hurried)
        deadline = flue_monotonic_ns();
    stop_exporters(service, true, deadline); /* what they hold goes to the others */
    wait_until(&wait, connectors_stopped, deadline);
    if (wait.hurried)
        deadline = flue_monotonic_ns();
    stop_exporters(service, false, deadline);
    bool in_time = wait_until(&wait, exporters_stopped, deadline);
    if (!in_time && !wait.hurried)
        wait_until(&wait, exporters_stopped, flue_monotonic_ns() + CANCEL_TIME_NS);

    flue_server_set_drain(service->admin);
    stop_instances(service, FLUE_EXTENSION, deadline);
    wait_until(&wait, extensions_stopped, flue_monotonic_ns() + CANCEL_TIME_NS / 4);
    flue_loops_stop(service->loops);
    service->loops_running = false;
    uint64_t left = say_what_was_left(service);
    if (lost)
        *lost = left;
}

void flue_service_destroy(struct flue_service *service)
{
    if (!service)
        return;
    if (service->loops_running)
        flue_loops_stop(service->loops);
    /* What senders still wait for is answered while their listeners and receivers are there. */
    for (size_t i = 0; service->running && i < service->configuration->part_count; i++) {
        flue_exporter_destroy(service->running[i].exporter);
        service->running[i].exporter = NULL;
    }
    /* Open requests still answer to their receivers, so the listeners go first. */
    if (service->servers)
        flue_server_set_destroy(service->servers);
    if (service->admin)
        flue_server_set_destroy(service->admin);
    flue_graph_destroy(service);
    if (service->metrics)
        flue_metrics_destroy(service->metrics);
    if (service->loops)
        flue_loops_destroy(service->loops);
    flue_arena_destroy(&service->arena);
    free(service);
}

const char *flue_service_address(struct flue_service *service, const char *endpoint)
{
    const char *address = flue_server_address(service->servers, endpoint);
    return address ? address : flue_server_address(service->admin, endpoint);
}
