/* detect.h: one detector: asks one place what this machine is.
 *
 * A run belongs to loop 0. begin() (and what follows from it: answers, jobs of the pool) ends in
 * exactly one rd_found, rd_absent or rd_failed; the session (resourcedetection.c) repeats what
 * failed, with back-off, and gives up at its deadline. Attributes are put into the attempt's arena
 * as they become known and count only if the attempt ends in rd_found.
 * No text of an error holds a token: they travel in headers only, and those are never printed.
 */
#ifndef PROCESSORS_RESOURCEDETECTION_DETECT_H
#define PROCESSORS_RESOURCEDETECTION_DETECT_H

#include <jansson.h>

#include "archive/object/ask.h"
#include "kubernetes/access.h"
#include "processors/resourcedetection/config.h"

#define RD_ITEMS     128u
#define RD_VALUE_MAX 4096u

struct rd;
struct rd_run;
struct rd_tags;

struct rd_detector {
    const char *name;
    void (*begin)(struct rd_run *run);
    uint32_t config; /* offset of its block, which begins with struct rd_switches */
    bool has_config;
    uint32_t limits; /* offset of a struct rd_aws_config with max_attempts, or 0 */
};
/* NULL: not one of ours. */
const struct rd_detector *rd_detector_named(const char *name);

/* What blocks (DNS, files, exec plugins): an allocation of its own, which outlives its run where
 * that is gone before the pool is done. `work` touches nothing else. */
struct rd_job {
    struct flue_job job;
    struct rd_run *run; /* NULL: nobody waits */
    void (*work)(struct rd_job *job);
    void (*then)(struct rd_run *run, struct rd_job *job);
    struct flue_arena arena;
    struct flue_attribute items[RD_COUNT];
    size_t count;
    struct flue_error error; /* code 0: fine */
    struct rd_switches attributes;
    enum rd_hostname_source sources[8];
    size_t source_count;
    enum rd_auth auth;
    const char *context, *path; /* in its arena */
    struct flue_kube_access *access;
    struct flue_bytes text;
};

struct rd_run {
    struct rd *rd;
    const struct rd_detector *detector;
    const struct rd_config *config;
    const struct rd_switches *attributes; /* NULL: everything */
    struct flue_loop *loop;

    /* the attempt */
    struct flue_arena arena;
    struct flue_attribute items[RD_ITEMS];
    size_t count;
    struct object_ask ask;
    void (*next)(struct rd_run *run);
    struct flue_tls_client_config tls;
    const char *endpoint, *token;
    size_t step;
    void *state; /* the detector's own, in the arena */
    struct flue_kube_access *access;
    struct rd_job *job;
    struct rd_tags *tags; /* until the next attempt */

    /* the session */
    uint64_t deadline_ns;
    unsigned tries;
    bool settled, reported;
    struct flue_timer again;
    struct flue_error error;

    /* what is in use: copied, in an arena of its own */
    struct flue_arena kept_arena;
    struct flue_attribute *kept;
    size_t kept_count;
    struct flue_metric *failures;
};

/* ---- what a detector calls ------------------------------------------------------------------- */

bool rd_wants(const struct rd_run *run, enum rd_name name);
/* Copied. Empty values, text that is not UTF-8 and what is longer than RD_VALUE_MAX are left out.
 */
void rd_put(struct rd_run *run, enum rd_name name, struct flue_bytes value);
void rd_put_json(struct rd_run *run, enum rd_name name, json_t *object, const char *key);
void rd_put_named(struct rd_run *run, struct flue_bytes key, struct flue_bytes value);
/* The values are those of a pool's job. */
void rd_put_items(struct rd_run *run, const struct flue_attribute *items, size_t count);

/* Headers for the next rd_get; `value` lives until then. */
void rd_field(struct rd_run *run, const char *name, const char *value);
/* Asks run->endpoint; then next(run), where rd_status and rd_body tell. `path` is copied. */
void rd_get(struct rd_run *run, const char *path, void (*next)(struct rd_run *run));
void rd_ask(struct rd_run *run, const char *method, const char *path,
            void (*next)(struct rd_run *run));
/* 0: no answer. */
unsigned rd_status(const struct rd_run *run);
/* The answer as one line of text, blanks around it removed. */
struct flue_bytes rd_line(const struct rd_run *run);
/* The answer as a JSON object, the caller's; NULL: it is none. */
json_t *rd_object(const struct rd_run *run);
/* The attempt fails because of this answer. */
void rd_unexpected(struct rd_run *run);

/* NULL without memory. rd_job_submit: `then` follows on the loop (unless the run is gone). */
struct rd_job *rd_job_new(struct rd_run *run);
void rd_job_submit(struct rd_run *run, struct rd_job *job);
void rd_job_free(struct rd_job *job);

void rd_found(struct rd_run *run);
/* Certainly not here: no second try. */
void rd_absent(struct rd_run *run, const char *why);
void rd_failed(struct rd_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* An environment variable that is set and not empty, else NULL. */
const char *rd_environment(const char *name);
/* Does a name match one of the patterns (Go's, anywhere in it)? */
bool rd_matches(const struct flue_list *patterns, const char *name);
enum flue_code rd_pattern_check(const char *pattern, struct flue_error *error);

/* ---- detectors ------------------------------------------------------------------------------- */

void rd_env_begin(struct rd_run *run);
void rd_system_begin(struct rd_run *run);
/* Can `system` be asked without waiting for DNS? */
bool rd_system_is_quick(const struct rd_config *config);
void rd_system_now(struct rd_run *run);
void rd_docker_begin(struct rd_run *run);
void rd_ec2_begin(struct rd_run *run);
/* The instance's tags by the EC2 API, each to `take`, then rd_found, with or without them. The
 * strings live as long as the attempt. */
void rd_tags_begin(struct rd_run *run, const char *region, const char *instance,
                   void (*take)(struct rd_run *run, const char *key, struct flue_bytes value));
void rd_tags_end(struct rd_run *run);
void rd_eks_begin(struct rd_run *run);
void rd_gcp_begin(struct rd_run *run);
void rd_azure_begin(struct rd_run *run);
void rd_aks_begin(struct rd_run *run);
void rd_node_begin(struct rd_run *run);
void rd_consul_begin(struct rd_run *run);
/* Where the API server is and who we are, by `auth`: run->endpoint, tls and token, then next. */
void rd_cluster(struct rd_run *run, enum rd_auth auth, const char *context,
                void (*next)(struct rd_run *run));

#endif
