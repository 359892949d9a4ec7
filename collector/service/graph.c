/* graph.c: from parts to instances, consumers and pipelines. pipeline/graph.h says the order. */
#include "collector/service/inside.h"
#include "collector/storage/storage.h"

/* Where several pipelines share the budget, one may have so much of it before its own new data is
 * refused; what is above is left to the others. */
#define SOFT_SHARE_ALONE   80 /* percent of the hard limit */
#define SOFT_SHARE_SEVERAL 50

static void *find_extension(const struct flue_create *create, const char *id)
{
    struct flue_service *service = create->service;
    const struct flue_part_list *extensions = &service->configuration->extensions;
    for (size_t i = 0; i < extensions->count; i++) {
        const struct flue_part *part = extensions->items[i];
        if (strcmp(part->id, id) == 0)
            return service->running[part - service->configuration->parts].instance;
    }
    return NULL;
}

static struct flue_create create_for(struct flue_service *service, const struct flue_part *part)
{
    return (struct flue_create){
        .id = part->id,
        .config = part->config,
        .kind = part->kind,
        .signals = (enum flue_signal)part->signals,
        .loops = service->loops,
        .metrics = service->metrics,
        .arena = &service->arena,
        .servers = part->kind == FLUE_EXTENSION ? service->admin : service->servers,
        .budget = &service->budget,
        .extension = find_extension,
        .service = service,
    };
}

static enum flue_code make_instance(struct flue_running *running, struct flue_error *error)
{
    enum flue_code code =
        running->part->component->create(&running->create, &running->instance, error);
    return code ? flue_fail_prefix(error, "%s", running->part->path) : FLUE_OK;
}

/* The extension that sending_queue.storage names, NULL without one; checked with the configuration.
 */
static const struct flue_part *storage_of(const struct flue_service *service,
                                          const struct flue_part *part)
{
    const struct flue_part_list *extensions = &service->configuration->extensions;
    const struct flue_queue_config *queue = part->settings ? &part->settings->sending_queue : NULL;
    for (size_t i = 0; queue && queue->enabled && queue->storage && i < extensions->count; i++)
        if (strcmp(extensions->items[i]->id, queue->storage) == 0)
            return extensions->items[i];
    return NULL;
}

/* Beside the log, in its own folder. */
static const char *dead_letters_of(struct flue_service *service, const struct flue_part *storage)
{
    const struct flue_field *field = storage->component->fields;
    while (field->name && strcmp(field->name, "directory") != 0)
        field++;
    if (!field->name)
        return NULL;
    const char *directory = *(const char *const *)((const char *)storage->config + field->offset);
    return directory ? flue_arena_printf(&service->arena, "%s/dead-letter", directory) : NULL;
}

static enum flue_code make_exporter(struct flue_service *service, struct flue_running *running,
                                    struct flue_error *error)
{
    const struct flue_part *storage = storage_of(service, running->part);
    struct flue_storage *log = storage ? find_extension(&running->create, storage->id) : NULL;
    if (log) {
        enum flue_code opened =
            flue_storage_queue_open(log, running->part->id, &running->create.storage, error);
        if (opened)
            return flue_fail_prefix(error, "%s", running->part->path);
    }
    enum flue_code code = make_instance(running, error);
    if (code)
        return code;
    struct flue_exporter_spec spec = {
        .component = running->part->component,
        .instance = running->instance,
        .id = running->part->id,
        .settings = running->part->settings,
        .signals = running->part->signals,
        .loops = service->loops,
        .metrics = service->metrics,
        .storage = log,
        .log = running->create.storage,
        .dead_letters = log ? dead_letters_of(service, storage) : NULL,
    };
    return flue_exporter_new(&spec, &running->exporter, error);
}

static struct flue_running *running_of(struct flue_service *service, const struct flue_part *part)
{
    return &service->running[part - service->configuration->parts];
}

/* One processor instance; its create struct lives in the arena as long as it. */
static enum flue_code make_stage(struct flue_service *service,
                                 const struct flue_pipeline_plan *plan,
                                 struct flue_account *account, const struct flue_part *part,
                                 struct flue_stage_spec *out, struct flue_error *error)
{
    struct flue_create *create = flue_arena_zalloc(&service->arena, 1, sizeof *create);
    if (!create)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for %s", part->path);
    *create = create_for(service, part);
    create->account = account;
    create->pipeline = plan->id;
    *out = (struct flue_stage_spec){.component = part->component, .id = part->id};
    enum flue_code code = part->component->create(create, &out->instance, error);
    return code ? flue_fail_prefix(error, "%s in %s", part->path, plan->id) : FLUE_OK;
}

static enum flue_code make_pipeline(struct flue_service *service, size_t index,
                                    struct flue_error *error)
{
    const struct flue_pipeline_plan *plan = &service->configuration->pipelines[index];
    struct flue_account *account = &service->accounts[index];
    size_t stage_count = plan->processors.count, exporter_count = plan->exporters.count, made = 0;
    struct flue_stage_spec *stages =
        flue_arena_zalloc(&service->arena, stage_count + 1, sizeof *stages);
    struct flue_exporter **exporters =
        flue_arena_zalloc(&service->arena, exporter_count, sizeof(void *));
    if (!stages || !exporters)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for %s", plan->id);
    enum flue_code code = FLUE_OK;
    while (!code && made < stage_count) {
        code =
            make_stage(service, plan, account, plan->processors.items[made], &stages[made], error);
        made += !code;
    }
    if (code) {
        while (made-- > 0)
            flue_component_destroy(stages[made].component, stages[made].instance);
        return code;
    }
    for (size_t i = 0; i < exporter_count; i++)
        exporters[i] = running_of(service, plan->exporters.items[i])->exporter;
    struct flue_pipeline_spec spec = {
        .id = plan->id,
        .signal = plan->signal,
        .stages = stages,
        .stage_count = stage_count,
        .exporters = exporters,
        .exporter_count = exporter_count,
        .account = account,
        .loops = service->loops,
        .metrics = service->metrics,
    };
    return flue_pipeline_new(&spec, &service->pipelines[index], error);
}

/* All pipelines of one signal that name this receiver or connector; NULL where none does. */
static enum flue_code make_consumer(struct flue_service *service, struct flue_running *running,
                                    enum flue_signal signal, struct flue_consumer **out,
                                    struct flue_error *error)
{
    const struct flue_configuration *c = service->configuration;
    struct flue_pipeline **named =
        flue_arena_zalloc(&service->arena, c->pipeline_count, sizeof(void *));
    size_t count = 0;
    for (size_t i = 0; named && i < c->pipeline_count; i++)
        for (size_t j = 0; j < c->pipelines[i].receivers.count; j++)
            if (c->pipelines[i].receivers.items[j] == running->part &&
                c->pipelines[i].signal == signal)
                named[count++] = service->pipelines[i];
    if (named && !count)
        return FLUE_OK;
    *out = named ? flue_consumer_new(named, count) : NULL;
    return *out ? FLUE_OK
                : flue_fail(error, FLUE_NO_MEMORY, "no memory for %s", running->part->path);
}

/* Exporters of pipelines, whose instance has a consumer. */
static enum flue_code make_connectors(struct flue_service *service, struct flue_error *error)
{
    const struct flue_configuration *c = service->configuration;
    enum flue_code code = FLUE_OK;
    for (size_t i = 0; i < c->part_count && !code; i++) {
        const struct flue_part *part = &c->parts[i];
        struct flue_running *running = &service->running[i];
        if (part->kind != FLUE_CONNECTOR || !part->in_use)
            continue;
        running->part = part;
        running->create = create_for(service, part);
        code = make_consumer(service, running, part->component->gives, &running->metrics, error);
        running->create.metrics_out = running->metrics;
        if (!code)
            code = make_exporter(service, running, error);
    }
    return code;
}

static enum flue_code make_pipelines_of(struct flue_service *service, bool metrics,
                                        struct flue_error *error)
{
    const struct flue_configuration *c = service->configuration;
    enum flue_code code = FLUE_OK;
    for (size_t i = 0; i < c->pipeline_count && !code; i++)
        if ((c->pipelines[i].signal == FLUE_METRICS) == metrics)
            code = make_pipeline(service, i, error);
    return code;
}

static enum flue_code make_pipelines(struct flue_service *service, struct flue_error *error)
{
    const struct flue_configuration *c = service->configuration;
    int64_t hard = atomic_load(&service->budget.hard);
    int64_t share = c->pipeline_count == 1 ? SOFT_SHARE_ALONE : SOFT_SHARE_SEVERAL;
    service->accounts =
        flue_arena_zalloc(&service->arena, c->pipeline_count, sizeof *service->accounts);
    service->pipelines = flue_arena_zalloc(&service->arena, c->pipeline_count, sizeof(void *));
    if (!service->accounts || !service->pipelines)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the pipelines");
    for (size_t i = 0; i < c->pipeline_count; i++)
        flue_account_init(&service->accounts[i], &service->budget, c->pipelines[i].id,
                          hard / 100 * share);
    /* Connectors stand between: what they push into is there first, then what exports to them. */
    enum flue_code code = make_pipelines_of(service, true, error);
    if (!code)
        code = make_connectors(service, error);
    return code ? code : make_pipelines_of(service, false, error);
}

static enum flue_code make_receivers(struct flue_service *service, struct flue_error *error)
{
    const struct flue_configuration *c = service->configuration;
    for (size_t i = 0; i < c->part_count; i++) {
        const struct flue_part *part = &c->parts[i];
        struct flue_running *running = &service->running[i];
        if (part->kind != FLUE_RECEIVER || !part->in_use)
            continue;
        running->part = part;
        running->create = create_for(service, part);
        enum flue_code code =
            make_consumer(service, running, FLUE_PROFILES, &running->profiles, error);
        if (!code)
            code = make_consumer(service, running, FLUE_TRACES, &running->traces, error);
        running->create.profiles = running->profiles;
        running->create.traces = running->traces;
        if (!code)
            code = make_instance(running, error);
        if (code)
            return code;
    }
    return FLUE_OK;
}

/* In the order of service.extensions, which matters where one asks for another. */
static enum flue_code make_extensions(struct flue_service *service, struct flue_error *error)
{
    const struct flue_part_list *extensions = &service->configuration->extensions;
    for (size_t i = 0; i < extensions->count; i++) {
        struct flue_running *running = running_of(service, extensions->items[i]);
        running->part = extensions->items[i];
        running->create = create_for(service, running->part);
        enum flue_code code = make_instance(running, error);
        if (code)
            return code;
    }
    return FLUE_OK;
}

static enum flue_code make_exporters(struct flue_service *service, struct flue_error *error)
{
    const struct flue_configuration *c = service->configuration;
    for (size_t i = 0; i < c->part_count; i++) {
        const struct flue_part *part = &c->parts[i];
        struct flue_running *running = &service->running[i];
        if (part->kind != FLUE_EXPORTER || !part->in_use)
            continue;
        running->part = part;
        running->create = create_for(service, part);
        enum flue_code code = make_exporter(service, running, error);
        if (code)
            return code;
    }
    return FLUE_OK;
}

enum flue_code flue_graph_make(struct flue_service *service, struct flue_error *error)
{
    const struct flue_configuration *c = service->configuration;
    service->running =
        flue_arena_zalloc(&service->arena, c->part_count + 1, sizeof *service->running);
    if (!service->running)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the components");
    enum flue_code code = make_extensions(service, error);
    if (!code)
        code = make_exporters(service, error);
    if (!code)
        code = make_pipelines(service, error);
    return code ? code : make_receivers(service, error);
}

static void destroy_instances(struct flue_service *service, enum flue_kind kind)
{
    for (size_t i = service->configuration->part_count; i-- > 0;) {
        struct flue_running *running = &service->running[i];
        if (!running->part || running->part->kind != kind)
            continue;
        if (kind == FLUE_EXPORTER || kind == FLUE_CONNECTOR)
            flue_exporter_destroy(running->exporter);
        else if (running->instance)
            flue_component_destroy(running->part->component, running->instance);
        running->instance = NULL;
        running->exporter = NULL;
    }
}

void flue_graph_destroy(struct flue_service *service)
{
    const struct flue_configuration *c = service->configuration;
    if (!service->running)
        return;
    destroy_instances(service, FLUE_RECEIVER);
    destroy_instances(service, FLUE_CONNECTOR);
    for (size_t i = 0; i < c->part_count; i++) {
        flue_consumer_destroy(service->running[i].metrics);
        flue_consumer_destroy(service->running[i].profiles);
        flue_consumer_destroy(service->running[i].traces);
    }
    for (size_t i = 0; service->pipelines && i < c->pipeline_count; i++)
        flue_pipeline_destroy(service->pipelines[i]);
    destroy_instances(service, FLUE_EXPORTER);
    destroy_instances(service, FLUE_EXTENSION);
}
