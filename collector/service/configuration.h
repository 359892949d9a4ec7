/* configuration.h: a whole configuration, loaded, bound and checked, before anything is made of it.
 *
 * Immutable once loaded; lives as long as the service that was built from it. Main thread.
 * Source of facts: the OpenTelemetry Collector's service configuration.
 */
#ifndef FLUE_SERVICE_CONFIGURATION_H
#define FLUE_SERVICE_CONFIGURATION_H

#include "collector/pipeline/settings.h"
#include "collector/service/components.h"
#include "collector/service/settings.h"
#include "config/load.h"

#define FLUE_CONFIGURATION_BUDGET ((size_t)256 << 20) /* bytes, whatever the file says */

/* One component as the file configures it. */
struct flue_part {
    enum flue_kind kind;
    const struct flue_component *component;
    const char *id;   /* "pyroscope/media" */
    const char *path; /* "exporters.pyroscope/media", for messages */
    struct flue_position at;
    struct flue_node *node;
    void *config;                            /* bound by the component's table */
    struct flue_exporter_settings *settings; /* EXPORTER with a queue, else NULL */
    struct flue_exporter_fields engine_fields;
    unsigned signals; /* of the pipelines that name it, or'ed; 0: nobody does */
    bool in_use;      /* also: an extension that service.extensions names */
    bool fed, feeds;  /* CONNECTOR: some pipeline exports to it; receives from it */
};

struct flue_part_list {
    struct flue_part **items;
    size_t count;
};

struct flue_pipeline_plan {
    const char *id; /* "profiles/team-a" */
    enum flue_signal signal;
    struct flue_position at;
    struct flue_part_list receivers, processors, exporters;
};

struct flue_configuration {
    struct flue_arena arena;
    struct flue_check check; /* every mistake and warning */
    struct flue_tree tree;
    struct flue_node *root; /* merged and expanded; NULL when a source could not be read */
    struct flue_part *parts;
    size_t part_count;
    struct flue_pipeline_plan *pipelines;
    size_t pipeline_count;
    struct flue_part_list extensions; /* in the order of service.extensions */
    struct flue_service_settings service;
};

/* `*out` is made whatever stands in the files (read out->check.mistakes), unless memory is out. */
enum flue_code flue_configuration_load(const struct flue_sources *sources,
                                       const struct flue_component *const *components,
                                       struct flue_configuration **out, struct flue_error *error);
void flue_configuration_destroy(struct flue_configuration *configuration); /* NULL: fine */

/* The second half (pipelines.c): service.pipelines and service.extensions to parts. */
void flue_configuration_pipelines(struct flue_configuration *configuration,
                                  struct flue_node *service);

#endif
