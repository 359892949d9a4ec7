/* settings.h: what a file says about this exporter. */
#ifndef EXPORTERS_PYROSCOPE_SETTINGS_H
#define EXPORTERS_PYROSCOPE_SETTINGS_H

#include "collector/net/client_keys.h"
#include "exporters/pyroscope/guard.h"

#define FLUE_PUSH_REPLICAS 16
#define FLUE_TENANT_MAX    150 /* bytes; what the server takes */

struct flue_labels_config {
    struct flue_map mapping;   /* attribute to label; an empty label drops the attribute */
    struct flue_list keep;     /* attributes, const char *; empty: all */
    struct flue_list drop;     /* attributes, const char * */
    struct flue_list priority; /* labels, const char * */
    struct flue_guard_config cardinality;
};

/* What the server refuses, or would cut (pyroscope.md §3.1). */
struct flue_push_limits {
    int64_t profile_bytes; /* inflated */
    int64_t profile_samples;
    int64_t label_names; /* of a series, those of a sample among them */
    int64_t label_name_bytes, label_value_bytes;
    int64_t sample_labels; /* of one sample, numeric ones too */
    int64_t stack_depth;
};

enum flue_outside { FLUE_OUTSIDE_SEND, FLUE_OUTSIDE_RESTAMP, FLUE_OUTSIDE_HOLD, FLUE_OUTSIDE_DROP };
struct flue_window_config {
    int64_t older_than, newer_than; /* ns; 0: any */
    int outside;                    /* enum flue_outside */
};

struct flue_pacing_config {
    int64_t rate, burst; /* bytes a second, bytes; rate 0: none until the server says so */
    bool learn;
};

struct flue_tenant_config {
    const char *attribute, *header;
    bool origin;
};

struct flue_basic_auth_config {
    const char *username, *password, *password_file;
};

struct flue_pyroscope_config {
    const char *endpoint;
    struct flue_list endpoints; /* const char * */
    struct flue_tls_client_config tls;
    struct flue_map headers;
    const struct flue_basic_auth_config *basic_auth;
    const char *bearer_token, *bearer_token_file;
    const struct flue_client_auth *auth;
    bool tenant_from_origin;
    const struct flue_tenant_config *tenant_source;
    int compression; /* FLUE_PUSH_GZIP, FLUE_PUSH_PLAIN */
    const char *level;
    struct flue_labels_config labels;
    struct flue_list sample_attributes;
    struct flue_push_limits limits;
    struct flue_window_config window;
    struct flue_pacing_config pacing;
    int64_t max_concurrency;
    const char *proxy_url;
};
enum { FLUE_PUSH_GZIP, FLUE_PUSH_PLAIN };

extern const struct flue_field flue_pyroscope_fields[];
extern const struct flue_field flue_labels_fields[];
void flue_pyroscope_check(const void *config, struct flue_check *check);
/* The level of `level`, for the codec. False: it is none. */
bool flue_push_level(const char *text, int *level);
/* The URLs, in the file's order, at most FLUE_PUSH_REPLICAS. */
size_t flue_push_endpoints(const struct flue_pyroscope_config *config, const char **out);

#endif
