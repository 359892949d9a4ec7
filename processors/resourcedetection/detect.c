/* detect.c: what detectors have in common: values, questions, jobs. See detect.h. */
#include "processors/resourcedetection/detect.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>

#include "collector/base/clock.h"
#include "collector/pipeline/actions.h"

#define ARENA_MAX (512u << 10)
#define TRY_LEAST 1000u /* ms */
#define DETECTOR(NAME, BEGIN, MEMBER)                                                              \
    {                                                                                              \
        .name = NAME, .begin = BEGIN, .config = offsetof(struct rd_config, MEMBER),                \
        .has_config = true                                                                         \
    }
#define LIMITED(NAME, BEGIN, MEMBER)                                                               \
    {                                                                                              \
        .name = NAME, .begin = BEGIN, .config = offsetof(struct rd_config, MEMBER),                \
        .has_config = true, .limits = offsetof(struct rd_config, MEMBER)                           \
    }

static const struct rd_detector detectors[] = {
    {.name = "env", .begin = rd_env_begin},
    DETECTOR("system", rd_system_begin, system),
    DETECTOR("docker", rd_docker_begin, docker),
    LIMITED("ec2", rd_ec2_begin, ec2),
    LIMITED("eks", rd_eks_begin, eks),
    DETECTOR("gcp", rd_gcp_begin, gcp),
    DETECTOR("azure", rd_azure_begin, azure),
    DETECTOR("aks", rd_aks_begin, aks),
    DETECTOR("kubernetes_node", rd_node_begin, kubernetes_node),
    DETECTOR("k8s_api", rd_node_begin, k8s_api),
    DETECTOR("k8snode", rd_node_begin, k8snode),
    DETECTOR("consul", rd_consul_begin, consul),
};

const struct rd_detector *rd_detector_named(const char *name)
{
    for (size_t i = 0; i < sizeof detectors / sizeof *detectors; i++)
        if (strcmp(detectors[i].name, name) == 0)
            return &detectors[i];
    return NULL;
}

/* ---- values ---------------------------------------------------------------------------------- */

bool rd_wants(const struct rd_run *run, enum rd_name name)
{
    return !run->attributes || run->attributes->on[name];
}

void rd_put_named(struct rd_run *run, struct flue_bytes key, struct flue_bytes value)
{
    if (key.size == 0 || key.size > 256 || value.size == 0 || value.size > RD_VALUE_MAX ||
        !flue_utf8_valid(key) || !flue_utf8_valid(value) || run->count == RD_ITEMS)
        return;
    for (size_t i = 0; i < run->count; i++)
        if (flue_bytes_equal(run->items[i].key, key))
            return;
    struct flue_bytes k = flue_arena_copy(&run->arena, key),
                      v = flue_arena_copy(&run->arena, value);
    if (k.data && v.data)
        run->items[run->count++] =
            (struct flue_attribute){k, {.type = FLUE_VALUE_STRING, .text = v}};
}

void rd_put(struct rd_run *run, enum rd_name name, struct flue_bytes value)
{
    if (rd_wants(run, name))
        rd_put_named(run, flue_bytes_of(rd_names[name]), value);
}

void rd_put_json(struct rd_run *run, enum rd_name name, json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    if (json_is_string(value))
        rd_put(run, name, flue_bytes(json_string_value(value), json_string_length(value)));
}

void rd_put_items(struct rd_run *run, const struct flue_attribute *items, size_t count)
{
    for (size_t i = 0; i < count && run->count < RD_ITEMS; i++) {
        struct flue_attribute copy = items[i];
        copy.key = flue_arena_copy(&run->arena, copy.key);
        copy.value.text = flue_arena_copy(&run->arena, copy.value.text);
        if (copy.key.data && (copy.value.text.data || items[i].value.text.size == 0))
            run->items[run->count++] = copy;
    }
}

const char *rd_environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* ---- questions ------------------------------------------------------------------------------- */

static void answered(struct object_ask *ask)
{
    struct rd_run *run = ask->user;
    run->next(run);
}

void rd_field(struct rd_run *run, const char *name, const char *value)
{
    object_ask_field(&run->ask, name, flue_bytes_of(value));
}

void rd_ask(struct rd_run *run, const char *method, const char *path,
            void (*next)(struct rd_run *run))
{
    uint64_t now = flue_monotonic_ns();
    uint64_t left = run->deadline_ns > now ? (run->deadline_ns - now) / 1000000 : 0;
    uint64_t whole = (uint64_t)run->config->timeout / 1000000;
    /* A metadata service behind a short hop limit looks like silence: leave time to ask again. */
    uint64_t limit = whole && run->config->retry.max_elapsed_time > 0 ? whole : whole / 2;
    if (limit < TRY_LEAST)
        limit = TRY_LEAST;
    const char *copy = flue_arena_string(&run->arena, flue_bytes_of(path));
    if (!copy) {
        rd_failed(run, "no memory for a question");
        return;
    }
    run->next = next;
    run->ask.loop = run->loop;
    run->ask.endpoint = run->endpoint;
    run->ask.method = method;
    run->ask.path = flue_bytes_of(copy);
    run->ask.tls = &run->tls;
    run->ask.timeout_ms = (unsigned)(left < limit ? (left ? left : 1) : limit);
    run->ask.tries = 1;
    run->ask.done = answered;
    run->ask.user = run;
    object_ask(&run->ask);
}

void rd_get(struct rd_run *run, const char *path, void (*next)(struct rd_run *run))
{
    rd_ask(run, "GET", path, next);
}

unsigned rd_status(const struct rd_run *run)
{
    return run->ask.error.code ? 0 : run->ask.status;
}

struct flue_bytes rd_line(const struct rd_run *run)
{
    struct flue_bytes text = run->ask.response;
    while (text.size && text.data[text.size - 1] <= ' ')
        text.size--;
    while (text.size && text.data[0] <= ' ')
        text = flue_bytes_from(text, 1);
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] < ' ' || text.data[i] == 0x7f)
            return flue_bytes("", 0);
    return text;
}

json_t *rd_object(const struct rd_run *run)
{
    json_t *root =
        json_loadb((const char *)run->ask.response.data, run->ask.response.size, 0, NULL);
    if (json_is_object(root))
        return root;
    json_decref(root);
    return NULL;
}

void rd_unexpected(struct rd_run *run)
{
    if (run->ask.error.code)
        rd_failed(run, "%s%.*s: %s", run->endpoint, FLUE_PRI(run->ask.path), run->ask.error.text);
    else
        rd_failed(run, "%s%.*s: HTTP status %u, or an answer that cannot be read", run->endpoint,
                  FLUE_PRI(run->ask.path), run->ask.status);
}

/* ---- jobs ------------------------------------------------------------------------------------ */

void rd_job_free(struct rd_job *job)
{
    if (job->access)
        flue_kube_access_close(job->access);
    flue_arena_destroy(&job->arena);
    free(job);
}

static void job_work(struct flue_job *base)
{
    struct rd_job *job = (struct rd_job *)(void *)((char *)base - offsetof(struct rd_job, job));
    job->work(job);
}

static void job_done(struct flue_job *base)
{
    struct rd_job *job = (struct rd_job *)(void *)((char *)base - offsetof(struct rd_job, job));
    struct rd_run *run = job->run;
    if (run) {
        run->job = NULL;
        job->then(run, job);
    }
    rd_job_free(job);
}

struct rd_job *rd_job_new(struct rd_run *run)
{
    struct rd_job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    job->run = run;
    job->job.work = job_work;
    job->job.done = job_done;
    flue_arena_init(&job->arena, ARENA_MAX, 0);
    if (run->attributes)
        job->attributes = *run->attributes;
    return job;
}

void rd_job_submit(struct rd_run *run, struct rd_job *job)
{
    run->job = job;
    flue_pool_submit(run->loop, &job->job);
}

/* ---- patterns -------------------------------------------------------------------------------- */

static enum flue_code compile(const char *pattern, regex_t *out, struct flue_error *error)
{
    struct flue_pattern translated;
    char why[128];
    enum flue_code code = flue_pattern_translate(pattern, &translated, error);
    if (code != FLUE_OK)
        return code;
    int failure = regcomp(out, translated.text,
                          REG_EXTENDED | REG_NOSUB | (translated.ignore_case ? REG_ICASE : 0));
    if (failure == 0)
        return FLUE_OK;
    regerror(failure, out, why, sizeof why);
    return flue_fail(error, FLUE_INVALID, "\"%.128s\": %s", pattern, why);
}

enum flue_code rd_pattern_check(const char *pattern, struct flue_error *error)
{
    regex_t compiled;
    enum flue_code code = compile(pattern, &compiled, error);
    if (code == FLUE_OK)
        regfree(&compiled);
    return code;
}

bool rd_matches(const struct flue_list *patterns, const char *name)
{
    bool found = false;
    for (size_t i = 0; i < patterns->count && !found; i++) {
        struct flue_error error;
        regex_t compiled;
        if (compile(((const char *const *)patterns->items)[i], &compiled, &error) != FLUE_OK)
            continue;
        found = regexec(&compiled, name, 0, NULL, 0) == 0;
        regfree(&compiled);
    }
    return found;
}
