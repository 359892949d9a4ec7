/* rules.c: see rules.h. */
#include "processors/k8sattributes/rules.h"
#include <regex.h>
#include <stdlib.h>
#include "collector/pipeline/actions.h"
#include "kubernetes/workload.h"

#define OTEL    "resource.opentelemetry.io/"
#define IGNORE  "opentelemetry.io/k8s-processor/ignore"
#define GROUPS  10
#define KEY_MAX 512

struct rule {
    const struct k8s_extract_rule *config;
    regex_t regex;
    bool compiled;
    struct flue_pattern *pattern; /* for names of groups */
};

struct k8s_rules {
    const struct k8s_config *config;
    uint64_t wanted;
    struct rule *labels, *annotations;
    size_t label_count, annotation_count;
    regex_t *exclude;
    size_t exclude_count;
};

static bool compile(const char *text, bool whole, struct flue_pattern *pattern, regex_t *out)
{
    char anchored[sizeof pattern->text + 8];
    struct flue_error error;

    if (flue_pattern_translate(text, pattern, &error) != FLUE_OK)
        return false;
    snprintf(anchored, sizeof anchored, whole ? "^(%s)$" : "%s", pattern->text);
    return regcomp(out, anchored, REG_EXTENDED | (pattern->ignore_case ? REG_ICASE : 0)) == 0;
}

static struct rule *compile_list(const struct flue_list *list, size_t *count)
{
    const struct k8s_extract_rule *configs = list->items;
    struct rule *rules = calloc(list->count + 1, sizeof *rules);

    *count = rules ? list->count : 0;
    for (size_t i = 0; rules && i < list->count; i++) {
        rules[i].config = &configs[i];
        if (!configs[i].key_regex)
            continue;
        rules[i].pattern = malloc(sizeof *rules[i].pattern);
        rules[i].compiled = rules[i].pattern &&
                            compile(configs[i].key_regex, true, rules[i].pattern, &rules[i].regex);
    }
    return rules;
}

static void free_list(struct rule *rules, size_t count)
{
    for (size_t i = 0; rules && i < count; i++) {
        if (rules[i].compiled)
            regfree(&rules[i].regex);
        free(rules[i].pattern);
    }
    free(rules);
}

enum flue_code k8s_rules_new(const struct k8s_config *config, struct k8s_rules **out,
                             struct flue_error *error)
{
    const struct k8s_exclude_pod *pods = config->exclude.pods.items;
    struct k8s_rules *rules = calloc(1, sizeof *rules);
    struct flue_pattern *pattern = malloc(sizeof *pattern);
    bool good = rules && pattern;

    if (good) {
        rules->config = config;
        rules->wanted = k8s_wanted(config);
        rules->labels = compile_list(&config->extract.labels, &rules->label_count);
        rules->annotations = compile_list(&config->extract.annotations, &rules->annotation_count);
        rules->exclude = calloc(config->exclude.pods.count + 1, sizeof *rules->exclude);
        good = rules->labels && rules->annotations && rules->exclude;
    }
    for (size_t i = 0; good && i < config->exclude.pods.count; i++) {
        good = compile(pods[i].name, false, pattern, &rules->exclude[i]);
        rules->exclude_count += good;
    }
    for (size_t i = 0; good && i < rules->label_count; i++)
        good = !rules->labels[i].config->key_regex || rules->labels[i].compiled;
    for (size_t i = 0; good && i < rules->annotation_count; i++)
        good = !rules->annotations[i].config->key_regex || rules->annotations[i].compiled;
    free(pattern);
    if (!good) {
        k8s_rules_destroy(rules);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the rules");
    }
    *out = rules;
    return FLUE_OK;
}

void k8s_rules_destroy(struct k8s_rules *rules)
{
    if (!rules)
        return;
    free_list(rules->labels, rules->label_count);
    free_list(rules->annotations, rules->annotation_count);
    for (size_t i = 0; i < rules->exclude_count; i++)
        regfree(&rules->exclude[i]);
    free(rules->exclude);
    free(rules);
}

/* ---- one object ------------------------------------------------------------------------------ */

static void emit(struct flue_kube_extract *out, struct flue_bytes name, struct flue_bytes value)
{
    if (!name.size || !value.size)
        return;
    for (unsigned i = 0; i < out->count; i++) /* the first rule that names an attribute, wins */
        if (flue_bytes_equal(out->pairs[i].key, name))
            return;
    if (out->count < FLUE_KUBE_MAX_EXTRACTED)
        out->pairs[out->count++] = (struct flue_kube_pair){name, value};
}

static bool add(struct flue_kube_extract *out, struct flue_bytes text)
{
    if (text.size > sizeof out->scratch - out->scratch_used)
        return false;
    if (text.size)
        memcpy(out->scratch + out->scratch_used, text.data, text.size);
    out->scratch_used += text.size;
    return true;
}

static struct flue_bytes join(struct flue_kube_extract *out, const struct flue_bytes *parts,
                              size_t count)
{
    size_t start = out->scratch_used;

    for (size_t i = 0; i < count; i++)
        if (!add(out, parts[i])) {
            out->scratch_used = start;
            return flue_bytes(NULL, 0);
        }
    return flue_bytes(out->scratch + start, out->scratch_used - start);
}

/* tag_name with $1, ${1} and ${name}; groups of the pattern itself begin at 2. */
static struct flue_bytes expand(const struct rule *rule, struct flue_bytes key,
                                const regmatch_t *groups, struct flue_kube_extract *out)
{
    size_t start = out->scratch_used;
    bool good = true;

    for (const char *at = rule->config->tag_name; *at && good;) {
        if (*at != '$') {
            size_t run = strcspn(at, "$");
            good = add(out, flue_bytes(at, run));
            at += run;
            continue;
        }
        bool braced = at[1] == '{';
        const char *name = at + 1 + braced;
        size_t size = braced ? strcspn(name, "}") : strspn(name, "0123456789");
        unsigned group = 0;
        uint64_t number;
        if (!size) {
            good = add(out, FLUE_BYTES("$"));
            at++;
            continue;
        }
        if (flue_parse_u64(flue_bytes(name, size), &number)) {
            group = number ? (unsigned)(number < 99 ? number : 99) + 1 : 1;
        } else {
            for (unsigned g = 1; g <= rule->pattern->groups; g++)
                if (strlen(rule->pattern->names[g]) == size &&
                    memcmp(rule->pattern->names[g], name, size) == 0)
                    group = g + 1;
        }
        if (group && group < GROUPS && groups[group].rm_so >= 0)
            good = add(out, flue_bytes(key.data + groups[group].rm_so,
                                       (size_t)(groups[group].rm_eo - groups[group].rm_so)));
        at = name + size + (braced && name[size] == '}');
    }
    if (!good) {
        out->scratch_used = start;
        return flue_bytes(NULL, 0);
    }
    return flue_bytes(out->scratch + start, out->scratch_used - start);
}

static void apply(const struct rule *rule, enum k8s_from from, const char *what,
                  const struct flue_kube_pair *pair, struct flue_kube_extract *out)
{
    static const char *const froms[] = {"pod",         "namespace", "node", "deployment",
                                        "statefulset", "daemonset", "job"};
    const struct k8s_extract_rule *config = rule->config;
    regmatch_t groups[GROUPS];
    char key[KEY_MAX];

    if ((enum k8s_from)config->from != from)
        return;
    if (config->key && !flue_bytes_is(pair->key, config->key))
        return;
    if (config->key_regex) {
        if (pair->key.size >= sizeof key)
            return;
        memcpy(key, pair->key.data, pair->key.size);
        key[pair->key.size] = 0;
        if (regexec(&rule->regex, key, GROUPS, groups, 0) != 0)
            return;
    }
    if (config->tag_name && *config->tag_name) {
        emit(out,
             config->key_regex ? expand(rule, pair->key, groups, out)
                               : flue_bytes_of(config->tag_name),
             pair->value);
        return;
    }
    const struct flue_bytes parts[] = {FLUE_BYTES("k8s."), flue_bytes_of(froms[from]),
                                       FLUE_BYTES("."),    flue_bytes_of(what),
                                       FLUE_BYTES("."),    pair->key};
    emit(out, join(out, parts, sizeof parts / sizeof parts[0]), pair->value);
}

static struct flue_bytes label(const struct flue_kube_object *object, const char *key)
{
    return flue_kube_pair_find(object->labels, object->label_count, key);
}
static struct flue_bytes annotation(const struct flue_kube_object *object, const char *key)
{
    return flue_kube_pair_find(object->annotations, object->annotation_count, key);
}

static struct flue_bytes first(struct flue_bytes a, struct flue_bytes b)
{
    return a.size ? a : b;
}

/* The convention's order: annotation, labels, the workload, the pod. */
static struct flue_bytes service_name(const struct flue_kube_object *object)
{
    struct flue_bytes name = annotation(object, OTEL "service.name");
    name = first(name, label(object, "app.kubernetes.io/instance"));
    name = first(name, label(object, "app.kubernetes.io/name"));
    if (flue_bytes_is(object->owner_kind, "ReplicaSet"))
        name = first(name, flue_kube_deployment_name(object->owner_name,
                                                     label(object, "pod-template-hash")));
    if (flue_bytes_is(object->owner_kind, "Job"))
        name = first(name, flue_kube_cronjob_name(object->owner_name));
    return first(first(name, object->owner_name), object->name);
}

static void extract_services(const struct k8s_rules *rules, const struct flue_kube_object *object,
                             struct flue_kube_extract *out)
{
    struct flue_bytes namespace = annotation(object, OTEL "service.namespace");
    struct flue_bytes version = annotation(object, OTEL "service.version");

    if (rules->wanted >> K8S_SERVICE_NAME & 1)
        emit(out, FLUE_BYTES("service.name"), service_name(object));
    if (rules->wanted >> K8S_SERVICE_NAMESPACE & 1)
        emit(out, FLUE_BYTES("service.namespace"), first(namespace, object->namespace));
    if (rules->wanted >> K8S_SERVICE_VERSION & 1)
        emit(out, FLUE_BYTES("service.version"),
             first(version, label(object, "app.kubernetes.io/version")));
    if (rules->wanted >> K8S_SERVICE_INSTANCE & 1)
        emit(out, FLUE_BYTES("service.instance.id"),
             annotation(object, OTEL "service.instance.id"));
}

static bool excluded(const struct k8s_rules *rules, const struct flue_kube_object *object)
{
    char name[KEY_MAX];

    if (flue_bytes_is(annotation(object, IGNORE), "true"))
        return true;
    if (object->name.size >= sizeof name)
        return false;
    memcpy(name, object->name.data, object->name.size);
    name[object->name.size] = 0;
    for (size_t i = 0; i < rules->exclude_count; i++)
        if (regexec(&rules->exclude[i], name, 0, NULL, 0) == 0)
            return true;
    return false;
}

static bool from_of(enum flue_kube_kind kind, enum k8s_from *out)
{
    static const struct {
        enum flue_kube_kind kind;
        enum k8s_from from;
    } pairs[] = {{FLUE_KUBE_POD, K8S_FROM_POD},
                 {FLUE_KUBE_NAMESPACE, K8S_FROM_NAMESPACE},
                 {FLUE_KUBE_NODE, K8S_FROM_NODE},
                 {FLUE_KUBE_DEPLOYMENT, K8S_FROM_DEPLOYMENT},
                 {FLUE_KUBE_STATEFULSET, K8S_FROM_STATEFULSET},
                 {FLUE_KUBE_DAEMONSET, K8S_FROM_DAEMONSET},
                 {FLUE_KUBE_JOB, K8S_FROM_JOB}};
    for (unsigned i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (pairs[i].kind == kind) {
            *out = pairs[i].from;
            return true;
        }
    return false;
}

void k8s_rules_extract(void *arg, enum flue_kube_kind kind, const struct flue_kube_object *object,
                       struct flue_kube_extract *out)
{
    const struct k8s_rules *rules = arg;
    static const struct flue_bytes otel = FLUE_BYTES_INIT(OTEL);
    enum k8s_from from;

    if (!from_of(kind, &from))
        return;
    if (kind == FLUE_KUBE_POD) {
        out->ignored = excluded(rules, object);
        extract_services(rules, object, out);
    }
    for (size_t r = 0; r < rules->label_count; r++)
        for (unsigned i = 0; i < object->label_count; i++)
            apply(&rules->labels[r], from, "labels", &object->labels[i], out);
    for (size_t r = 0; r < rules->annotation_count; r++)
        for (unsigned i = 0; i < object->annotation_count; i++)
            apply(&rules->annotations[r], from, "annotations", &object->annotations[i], out);
    for (unsigned i = 0; kind == FLUE_KUBE_POD && rules->config->extract.otel_annotations &&
                         i < object->annotation_count;
         i++)
        if (flue_bytes_starts_with(object->annotations[i].key, otel))
            emit(out, flue_bytes_from(object->annotations[i].key, otel.size),
                 object->annotations[i].value);
}
