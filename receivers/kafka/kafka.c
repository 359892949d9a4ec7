/* kafka.c: profiles from Apache Kafka, as a member of a consumer group.
 *
 * An offset is committed when every pipeline has taken its record; see consumer.h.
 *
 * Keys: opentelemetry-collector-contrib, receiver/kafkareceiver and pkg/kafka/configkafka.
 * Other defaults: message_marking.after and on_permanent_error are true, error_backoff is enabled
 * and has no end.
 */
#include <regex.h>
#include <stdio.h>
#include "collector/base/buffer.h"
#include "receivers/kafka/consumer.h"

#define MS INT64_C(1000000)

struct kafka_topics_config {
    struct flue_list topics, exclude_topics;
    const char *topic, *exclude_topic;
    int encoding;
};
struct kafka_autocommit_config {
    bool enable;
    int64_t interval;
};
struct kafka_marking_config {
    bool after, on_error, on_permanent_error;
};
struct kafka_extraction_config {
    bool extract_headers;
    struct flue_list headers;
};
struct kafka_backoff_config {
    bool enabled;
    int64_t initial_interval, max_interval, max_elapsed_time;
    double multiplier, randomization_factor;
};
struct kafka_switch_config {
    bool enabled;
};
struct kafka_metrics_config {
    struct kafka_switch_config kafka_receiver_records_delay;
};
struct kafka_telemetry_config {
    struct kafka_metrics_config metrics;
};
struct kafka_receiver_config {
    struct flue_kafka_client_config client; /* squashed */
    struct kafka_topics_config profiles;
    const char *group_id, *group_instance_id, *group_rebalance_strategy;
    struct flue_list group_rebalance_strategies;
    int initial_offset;
    int64_t session_timeout, heartbeat_interval;
    int64_t min_fetch_size, max_fetch_size, max_partition_fetch_size, max_fetch_wait;
    struct kafka_autocommit_config autocommit;
    struct kafka_marking_config message_marking;
    struct kafka_extraction_config header_extraction;
    struct kafka_backoff_config error_backoff;
    struct kafka_telemetry_config telemetry;
    int64_t max_in_flight_messages, max_in_flight_bytes, max_prefetch_bytes, revoke_timeout;
};

static const char *const offsets[] = {"latest", "earliest", NULL};

static const struct flue_field profiles_fields[] = {
    FLUE_STRINGS(struct kafka_topics_config, topics, .def = "[otlp_profiles]",
                 .help = "topics to read; one that begins with ^ is a regular expression"),
    FLUE_ENUM(struct kafka_topics_config, encoding, .choices = flue_kafka_encodings,
              .help = "of a record: OTLP, OTLP's JSON, or one pprof profile with labels in headers "
                      "flue.label.NAME"),
    FLUE_STRINGS(struct kafka_topics_config, exclude_topics,
                 .help = "regular expressions of topics not to read; with a regular expression in "
                         "`topics`"),
    FLUE_STRING(struct kafka_topics_config, topic, .help = "deprecated: topics"),
    FLUE_STRING(struct kafka_topics_config, exclude_topic, .help = "deprecated: exclude_topics"),
    FLUE_FIELDS_END};
static const struct flue_field autocommit_fields[] = {
    FLUE_BOOL(struct kafka_autocommit_config, enable, .def = "true",
              .help = "commit every interval; false: as soon as a record is taken"),
    FLUE_DURATION(struct kafka_autocommit_config, interval, .def = "1s", .minimum = MS,
                  .maximum = 86400000 * MS, .help = "between two commits"),
    FLUE_FIELDS_END};
static const struct flue_field marking_fields[] = {
    FLUE_BOOL(struct kafka_marking_config, after, .def = "true",
              .help =
                  "an offset counts when its record was taken; false: when it is begun, and what "
                  "is on its way is lost with the process"),
    FLUE_BOOL(struct kafka_marking_config, on_error, .def = "false",
              .help = "set past a record that was not taken for error_backoff.max_elapsed_time; "
                      "false: its partition waits"),
    FLUE_BOOL(struct kafka_marking_config, on_permanent_error, .def = "true",
              .help = "count, log and set past a record that can never be taken; false: its "
                      "partition waits for ever"),
    FLUE_FIELDS_END};
static const struct flue_field extraction_fields[] = {
    FLUE_BOOL(struct kafka_extraction_config, extract_headers, .def = "false",
              .help = "headers of the record become attributes kafka.header.NAME of its resources"),
    FLUE_STRINGS(struct kafka_extraction_config, headers, .help = "which"), FLUE_FIELDS_END};
static const struct flue_field backoff_fields[] = {
    FLUE_BOOL(struct kafka_backoff_config, enabled, .def = "true",
              .help = "the waits grow; false: always initial_interval"),
    FLUE_DURATION(struct kafka_backoff_config, initial_interval, .def = "1s", .minimum = MS,
                  .maximum = 3600000 * MS, .help = "first wait"),
    FLUE_DURATION(struct kafka_backoff_config, max_interval, .def = "30s", .minimum = MS,
                  .maximum = 3600000 * MS, .help = "longest wait"),
    FLUE_DURATION(struct kafka_backoff_config, max_elapsed_time, .def = "0s", .minimum = 0,
                  .maximum = INT64_MAX, .help = "see message_marking.on_error; 0: no end"),
    FLUE_FLOAT(struct kafka_backoff_config, multiplier, .def = "1.5", .minimum = 1, .maximum = 100,
               .help = "how the wait grows"),
    FLUE_FLOAT(struct kafka_backoff_config, randomization_factor, .def = "0.5", .minimum = 0,
               .maximum = 1, .help = "how far it is spread"),
    FLUE_FIELDS_END};
static const struct flue_field delay_fields[] = {
    FLUE_BOOL(struct kafka_switch_config, enabled, .def = "false",
              .help = "a histogram of the time between writing and reading a record"),
    FLUE_FIELDS_END};
static const struct flue_field metrics_fields[] = {
    FLUE_BLOCK(struct kafka_metrics_config, kafka_receiver_records_delay,
               struct kafka_switch_config, delay_fields, .help = "in seconds"),
    FLUE_FIELDS_END};
static const struct flue_field telemetry_fields[] = {
    FLUE_BLOCK(struct kafka_telemetry_config, metrics, struct kafka_metrics_config, metrics_fields,
               .help = "metrics that are not there by default"),
    FLUE_FIELDS_END};
static const struct flue_field kafka_fields[] = {
    FLUE_SQUASH(struct kafka_receiver_config, client, struct flue_kafka_client_config,
                flue_kafka_client_fields),
    FLUE_BLOCK(struct kafka_receiver_config, profiles, struct kafka_topics_config, profiles_fields,
               .help = "what is read"),
    FLUE_STRING(struct kafka_receiver_config, group_id, .def = "otel-collector",
                .help = "the consumer group: its members share the partitions"),
    FLUE_STRING(struct kafka_receiver_config, group_instance_id,
                .help = "this member's lasting name: it keeps its partitions over a restart"),
    FLUE_STRINGS(struct kafka_receiver_config, group_rebalance_strategies,
                 .help = "in order: cooperative-sticky (without a key), or range and roundrobin; "
                         "librdkafka has no other, and does not mix the two sorts"),
    FLUE_STRING(struct kafka_receiver_config, group_rebalance_strategy,
                .help = "deprecated: group_rebalance_strategies"),
    FLUE_ENUM(struct kafka_receiver_config, initial_offset, .choices = offsets,
              .help = "where a group without a committed offset begins; earliest loses nothing"),
    FLUE_DURATION(struct kafka_receiver_config, session_timeout, .def = "10s", .minimum = MS,
                  .maximum = 3600000 * MS,
                  .help = "a member that is silent for so long loses its partitions"),
    FLUE_DURATION(struct kafka_receiver_config, heartbeat_interval, .def = "3s", .minimum = MS,
                  .maximum = 3600000 * MS, .help = "between signs of life"),
    FLUE_SIZE(struct kafka_receiver_config, min_fetch_size, .def = "1", .minimum = 1,
              .maximum = 100000000, .unit = "bytes", .help = "least of one answer"),
    FLUE_SIZE(struct kafka_receiver_config, max_fetch_size, .def = "1048576", .minimum = 1024,
              .maximum = 2000000000, .unit = "bytes", .help = "most of one answer"),
    FLUE_SIZE(struct kafka_receiver_config, max_partition_fetch_size, .def = "1048576",
              .minimum = 1024, .maximum = 1000000000, .unit = "bytes",
              .help = "most of one partition in it; a larger record comes all the same"),
    FLUE_DURATION(struct kafka_receiver_config, max_fetch_wait, .def = "250ms", .minimum = 0,
                  .maximum = 300000 * MS, .help = "for min_fetch_size"),
    FLUE_BLOCK(struct kafka_receiver_config, autocommit, struct kafka_autocommit_config,
               autocommit_fields, .help = "when offsets are committed"),
    FLUE_BLOCK(struct kafka_receiver_config, message_marking, struct kafka_marking_config,
               marking_fields, .help = "which offsets are committed"),
    FLUE_BLOCK(struct kafka_receiver_config, header_extraction, struct kafka_extraction_config,
               extraction_fields, .help = "headers as attributes"),
    FLUE_BLOCK(struct kafka_receiver_config, error_backoff, struct kafka_backoff_config,
               backoff_fields, .help = "before a record that was not taken is pushed again"),
    FLUE_BLOCK(struct kafka_receiver_config, telemetry, struct kafka_telemetry_config,
               telemetry_fields, .help = "of the receiver"),
    FLUE_INT(struct kafka_receiver_config, max_in_flight_messages, .def = "64", .minimum = 1,
             .maximum = 100000,
             .help =
                 "records of a partition on their way at a time; 1: strictly one after another"),
    FLUE_SIZE(struct kafka_receiver_config, max_in_flight_bytes, .def = "16MiB", .minimum = 1,
              .maximum = (int64_t)1 << 40, .unit = "bytes", .help = "the same in bytes"),
    FLUE_SIZE(struct kafka_receiver_config, max_prefetch_bytes, .def = "16MiB", .minimum = 1024,
              .maximum = (int64_t)1 << 31, .unit = "bytes",
              .help =
                  "read ahead for all partitions, in the library's memory; charged to the pipeline "
                  "whether used or not"),
    FLUE_DURATION(struct kafka_receiver_config, revoke_timeout, .def = "10s", .minimum = 0,
                  .maximum = 240000 * MS,
                  .help = "before partitions are given up, wait so long for what is open"),
    FLUE_IGNORED("partition_processing", "partitions never wait for each other"),
    FLUE_IGNORED("default_fetch_size", "max_fetch_size and max_partition_fetch_size bound it"),
    FLUE_IGNORED("traces", "traces are not read"),
    FLUE_IGNORED("metrics", "metrics are not read"),
    FLUE_IGNORED("logs", "logs are not read"),
    FLUE_FIELDS_END};

struct kafka_receiver {
    const struct kafka_receiver_config *config;
    struct kafka_consumer_settings settings;
    struct flue_list topics, excluded;
    struct kafka_consumer *consumer;
};

static bool given(const char *text)
{
    return text && *text;
}

/* The deprecated key counts where the other is as it was born. */
static struct flue_list topics_of(const struct kafka_topics_config *config)
{
    const char *const *items = config->topics.items;
    if (given(config->topic) && config->topics.count == 1 && strcmp(items[0], "otlp_profiles") == 0)
        return (struct flue_list){(void *)&config->topic, 1};
    return config->topics;
}

static struct flue_list excluded_of(const struct kafka_topics_config *config)
{
    return given(config->exclude_topic) && !config->exclude_topics.count
               ? (struct flue_list){(void *)&config->exclude_topic, 1}
               : config->exclude_topics;
}

static void check_topics(const struct kafka_topics_config *config, struct flue_check *check)
{
    struct flue_list topics = topics_of(config), excluded = excluded_of(config);
    bool patterns = false;

    if (!topics.count)
        flue_check_fail(check, "profiles.topics", "names no topic");
    for (size_t i = 0; i < topics.count; i++) {
        const char *topic = ((const char *const *)topics.items)[i];
        if (topic[0] == '^')
            patterns = true;
        else if (!flue_kafka_topic_valid(flue_bytes_of(topic)))
            flue_check_fail(check, "profiles.topics",
                            "\"%.64s\" is no topic: 1 to 249 of letters, digits and ._-", topic);
    }
    if (excluded.count && !patterns)
        flue_check_fail(check, "profiles.exclude_topics",
                        "has no effect: none of `topics` is a regular expression (begins with ^)");
    for (size_t i = 0; i < excluded.count; i++) {
        const char *pattern = ((const char *const *)excluded.items)[i];
        regex_t compiled;
        if (!*pattern || strchr(pattern, ','))
            flue_check_fail(check, "profiles.exclude_topics",
                            "\"%.64s\" is empty or has a comma, which librdkafka takes for the end "
                            "of a pattern",
                            pattern);
        else if (regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB) != 0)
            flue_check_fail(check, "profiles.exclude_topics", "\"%.64s\" is no regular expression",
                            pattern);
        else
            regfree(&compiled);
    }
}

static void check_strategies(const struct kafka_receiver_config *config, struct flue_check *check)
{
    const char *const *items = config->group_rebalance_strategies.items;
    size_t count = config->group_rebalance_strategies.count;
    const char *path = "group_rebalance_strategies";
    bool eager = false, cooperative = false;

    if (given(config->group_rebalance_strategy)) {
        if (count)
            flue_check_fail(check, "group_rebalance_strategy",
                            "and group_rebalance_strategies exclude each other");
        items = &config->group_rebalance_strategy;
        count = 1;
        path = "group_rebalance_strategy";
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(items[i], "cooperative-sticky") == 0)
            cooperative = true;
        else if (strcmp(items[i], "range") == 0 || strcmp(items[i], "roundrobin") == 0)
            eager = true;
        else
            flue_check_fail(check, path,
                            "\"%.64s\" is not there: librdkafka has cooperative-sticky, range and "
                            "roundrobin",
                            items[i]);
    }
    if (eager && cooperative)
        flue_check_fail(check, path,
                        "cooperative-sticky and the eager range and roundrobin cannot be mixed in "
                        "librdkafka: change all members at a time");
}

static void kafka_check(const void *bound, struct flue_check *check)
{
    const struct kafka_receiver_config *config = bound;

    flue_kafka_client_check(&config->client, check);
    check_topics(&config->profiles, check);
    check_strategies(config, check);
    if (!given(config->group_id))
        flue_check_fail(check, "group_id", "is empty");
    if (config->heartbeat_interval >= config->session_timeout)
        flue_check_fail(check, "heartbeat_interval", "must be less than session_timeout");
    if (config->max_fetch_size < config->min_fetch_size)
        flue_check_fail(check, "max_fetch_size", "must be at least min_fetch_size");
    if (!config->message_marking.after)
        flue_check_warn(check, "message_marking.after",
                        "false: what is on its way is lost when the process ends");
    if (config->header_extraction.headers.count > FLUE_KAFKA_HEADERS_MAX)
        flue_check_fail(check, "header_extraction.headers", "names %zu headers, at most %d",
                        config->header_extraction.headers.count, FLUE_KAFKA_HEADERS_MAX);
}

static enum flue_code kafka_create(const struct flue_create *create, void **instance,
                                   struct flue_error *error)
{
    const struct kafka_receiver_config *config = create->config;
    const struct kafka_backoff_config *backoff = &config->error_backoff;
    struct kafka_receiver *receiver = flue_arena_zalloc(create->arena, 1, sizeof *receiver);

    if (!receiver)
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory", create->id);
    receiver->config = config;
    receiver->settings = (struct kafka_consumer_settings){
        .id = create->id,
        .decoding = {.encoding = config->profiles.encoding},
        .topics = topics_of(&config->profiles),
        .autocommit = config->autocommit.enable,
        .mark_after = config->message_marking.after,
        .past_errors = config->message_marking.on_error,
        .past_permanent = config->message_marking.on_permanent_error,
        .backoff_grows = backoff->enabled,
        .backoff_initial = backoff->initial_interval,
        .backoff_max = backoff->max_interval,
        .backoff_elapsed = backoff->max_elapsed_time,
        .backoff_multiplier = backoff->multiplier,
        .backoff_randomization = backoff->randomization_factor,
        .max_in_flight_messages = config->max_in_flight_messages,
        .max_in_flight_bytes = config->max_in_flight_bytes,
        .max_prefetch_bytes = config->max_prefetch_bytes,
        .revoke_timeout = config->revoke_timeout,
        .delay_metric = config->telemetry.metrics.kafka_receiver_records_delay.enabled,
    };
    if (config->header_extraction.extract_headers) {
        receiver->settings.decoding.extract = config->header_extraction.headers.items;
        receiver->settings.decoding.extract_count = config->header_extraction.headers.count;
    }
    receiver->consumer = kafka_consumer_new(&receiver->settings, create);
    if (!receiver->consumer)
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory", create->id);
    *instance = receiver;
    return FLUE_OK;
}

/* Items with commas between them; NULL without memory, "" of none. */
static void join(struct flue_buffer *text, const struct flue_list *list)
{
    flue_buffer_init(text, 1 << 20);
    flue_buffer_text(text, "");
    for (size_t i = 0; i < list->count; i++) {
        flue_buffer_text(text, i ? "," : "");
        flue_buffer_text(text, ((const char *const *)list->items)[i]);
    }
}

static enum flue_code set_list(const struct flue_kafka *library, rd_kafka_conf_t *conf,
                               const char *property, const struct flue_list *list, const char *key,
                               struct flue_error *error)
{
    struct flue_buffer text;
    enum flue_code code = FLUE_OK;

    join(&text, list);
    if (text.failed)
        code = flue_fail(error, FLUE_NO_MEMORY, "%s: no memory for the list", key);
    else if (list->count)
        code = flue_kafka_set(library, conf, property, text.data, key, false, error);
    flue_buffer_destroy(&text);
    return code;
}

static enum flue_code set_group(const struct flue_kafka *library, rd_kafka_conf_t *conf,
                                const struct kafka_receiver_config *config,
                                struct flue_error *error)
{
    struct flue_list one = {(void *)&config->group_rebalance_strategy, 1};
    const char *sticky = "cooperative-sticky";
    struct flue_list strategies =
        config->group_rebalance_strategies.count  ? config->group_rebalance_strategies
        : given(config->group_rebalance_strategy) ? one
                                                  : (struct flue_list){(void *)&sticky, 1};
    struct flue_list excluded = excluded_of(&config->profiles);
    enum flue_code code =
        flue_kafka_set(library, conf, "group.id", config->group_id, "group_id", false, error);

    if (!code && given(config->group_instance_id))
        code = flue_kafka_set(library, conf, "group.instance.id", config->group_instance_id,
                              "group_instance_id", false, error);
    if (!code)
        code = set_list(library, conf, "partition.assignment.strategy", &strategies,
                        "group_rebalance_strategies", error);
    if (!code)
        code =
            set_list(library, conf, "topic.blacklist", &excluded, "profiles.exclude_topics", error);
    if (!code)
        code = flue_kafka_set(library, conf, "auto.offset.reset", offsets[config->initial_offset],
                              "initial_offset", false, error);
    if (!code)
        code = flue_kafka_set_ms(library, conf, "session.timeout.ms", config->session_timeout,
                                 "session_timeout", error);
    if (!code)
        code = flue_kafka_set_ms(library, conf, "heartbeat.interval.ms", config->heartbeat_interval,
                                 "heartbeat_interval", error);
    if (!code)
        code = flue_kafka_set(library, conf, "enable.auto.commit",
                              config->autocommit.enable ? "true" : "false", "autocommit.enable",
                              false, error);
    if (!code)
        code = flue_kafka_set_ms(library, conf, "auto.commit.interval.ms",
                                 config->autocommit.interval, "autocommit.interval", error);
    if (!code) /* flue says which offsets */
        code = flue_kafka_set(library, conf, "enable.auto.offset.store", "false", "autocommit",
                              false, error);
    return code;
}

static enum flue_code set_fetch(const struct flue_kafka *library, rd_kafka_conf_t *conf,
                                const struct kafka_receiver_config *config,
                                struct flue_error *error)
{
    int64_t kib = config->max_prefetch_bytes / 1024;
    /* fetch.max.bytes may not be less than message.max.bytes, which is the producer's. */
    enum flue_code code =
        flue_kafka_set_int(library, conf, "message.max.bytes",
                           config->max_fetch_size < 1000000 ? config->max_fetch_size : 1000000,
                           "max_fetch_size", error);

    if (!code)
        code = flue_kafka_set_int(library, conf, "fetch.max.bytes", config->max_fetch_size,
                                  "max_fetch_size", error);
    if (!code)
        code = flue_kafka_set_int(library, conf, "receive.message.max.bytes",
                                  config->max_fetch_size + (100 << 20) < INT32_MAX
                                      ? config->max_fetch_size + (100 << 20)
                                      : INT32_MAX,
                                  "max_fetch_size", error);
    if (!code)
        code =
            flue_kafka_set_int(library, conf, "max.partition.fetch.bytes",
                               config->max_partition_fetch_size, "max_partition_fetch_size", error);
    if (!code)
        code = flue_kafka_set_int(library, conf, "fetch.min.bytes", config->min_fetch_size,
                                  "min_fetch_size", error);
    if (!code)
        code = flue_kafka_set_int(library, conf, "fetch.wait.max.ms", config->max_fetch_wait / MS,
                                  "max_fetch_wait", error);
    if (!code)
        code = flue_kafka_set_int(library, conf, "queued.max.messages.kbytes",
                                  kib > 2097151 ? 2097151 : kib, "max_prefetch_bytes", error);
    return code;
}

static enum flue_code kafka_start(void *instance, struct flue_error *error)
{
    struct kafka_receiver *receiver = instance;
    const struct kafka_receiver_config *config = receiver->config;
    const struct flue_kafka *library;

    library = flue_kafka_load(error);
    if (!library)
        return error->code;
    rd_kafka_conf_t *conf =
        flue_kafka_client_conf(library, receiver->settings.id, &config->client, error);
    if (!conf)
        return error->code;
    if (set_group(library, conf, config, error) || set_fetch(library, conf, config, error)) {
        library->rd_kafka_conf_destroy(conf);
        return error->code;
    }
    receiver->settings.login_hint = flue_kafka_login_hint(library, &config->client);
    return kafka_consumer_start(receiver->consumer, library, conf, error);
}

static void kafka_stop(void *instance, uint64_t deadline_ns)
{
    kafka_consumer_stop(((struct kafka_receiver *)instance)->consumer, deadline_ns);
}

static bool kafka_stopped(void *instance)
{
    return kafka_consumer_stopped(((struct kafka_receiver *)instance)->consumer);
}

static void kafka_destroy(void *instance)
{
    kafka_consumer_destroy(((struct kafka_receiver *)instance)->consumer);
}

const struct flue_component flue_receiver_kafka = {
    .kind = FLUE_RECEIVER,
    .name = "kafka",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "reads from Apache Kafka as a member of a consumer group; needs librdkafka",
    .config_size = sizeof(struct kafka_receiver_config),
    .fields = kafka_fields,
    .check = kafka_check,
    .create = kafka_create,
    .start = kafka_start,
    .stop = kafka_stop,
    .stopped = kafka_stopped,
    .destroy = kafka_destroy,
};
