/* library.h: librdkafka, loaded when a component that needs it is started, and never before.
 *
 * Its header is needed to build; the library itself is not linked. The table below has one pointer
 * for every function that flue calls, with the type that the header gives it. Loaded once for the
 * process and never unloaded (its threads may outlive every handle for a moment).
 *
 * Source: librdkafka 2.0.2 (Debian 12), rdkafka.h; anything with the soname librdkafka.so.1 and all
 * of these functions will do.
 */
#ifndef FLUE_KAFKA_LIBRARY_H
#define FLUE_KAFKA_LIBRARY_H

#include <librdkafka/rdkafka.h>
#include "collector/base/error.h"

#define FLUE_KAFKA_FUNCTIONS(F)                                                                    \
    F(rd_kafka_version)                                                                            \
    F(rd_kafka_version_str)                                                                        \
    F(rd_kafka_err2str)                                                                            \
    F(rd_kafka_conf_new)                                                                           \
    F(rd_kafka_conf_destroy)                                                                       \
    F(rd_kafka_conf_dup)                                                                           \
    F(rd_kafka_conf_set)                                                                           \
    F(rd_kafka_conf_set_events)                                                                    \
    F(rd_kafka_conf_set_opaque)                                                                    \
    F(rd_kafka_conf_set_log_cb)                                                                    \
    F(rd_kafka_conf_set_error_cb)                                                                  \
    F(rd_kafka_conf_set_rebalance_cb)                                                              \
    F(rd_kafka_opaque)                                                                             \
    F(rd_kafka_new)                                                                                \
    F(rd_kafka_destroy)                                                                            \
    F(rd_kafka_purge)                                                                              \
    F(rd_kafka_fatal_error)                                                                        \
    F(rd_kafka_produceva)                                                                          \
    F(rd_kafka_headers_new)                                                                        \
    F(rd_kafka_headers_destroy)                                                                    \
    F(rd_kafka_header_add)                                                                         \
    F(rd_kafka_header_get_all)                                                                     \
    F(rd_kafka_message_headers)                                                                    \
    F(rd_kafka_message_destroy)                                                                    \
    F(rd_kafka_message_timestamp)                                                                  \
    F(rd_kafka_error_code)                                                                         \
    F(rd_kafka_error_string)                                                                       \
    F(rd_kafka_error_destroy)                                                                      \
    F(rd_kafka_queue_get_main)                                                                     \
    F(rd_kafka_queue_get_consumer)                                                                 \
    F(rd_kafka_queue_destroy)                                                                      \
    F(rd_kafka_queue_poll)                                                                         \
    F(rd_kafka_queue_io_event_enable)                                                              \
    F(rd_kafka_event_type)                                                                         \
    F(rd_kafka_event_message_next)                                                                 \
    F(rd_kafka_event_error)                                                                        \
    F(rd_kafka_event_error_string)                                                                 \
    F(rd_kafka_event_destroy)                                                                      \
    F(rd_kafka_poll_set_consumer)                                                                  \
    F(rd_kafka_consumer_poll)                                                                      \
    F(rd_kafka_consumer_close)                                                                     \
    F(rd_kafka_subscribe)                                                                          \
    F(rd_kafka_assign)                                                                             \
    F(rd_kafka_incremental_assign)                                                                 \
    F(rd_kafka_incremental_unassign)                                                               \
    F(rd_kafka_assignment_lost)                                                                    \
    F(rd_kafka_rebalance_protocol)                                                                 \
    F(rd_kafka_pause_partitions)                                                                   \
    F(rd_kafka_resume_partitions)                                                                  \
    F(rd_kafka_offsets_store)                                                                      \
    F(rd_kafka_commit)                                                                             \
    F(rd_kafka_topic_name)                                                                         \
    F(rd_kafka_topic_partition_list_new)                                                           \
    F(rd_kafka_topic_partition_list_add)                                                           \
    F(rd_kafka_topic_partition_list_copy)                                                          \
    F(rd_kafka_topic_partition_list_destroy)

struct flue_kafka {
#define FLUE_KAFKA_MEMBER(name) __typeof__(&name) name;
    FLUE_KAFKA_FUNCTIONS(FLUE_KAFKA_MEMBER)
#undef FLUE_KAFKA_MEMBER
};

/* The first from which SCRAM works with brokers since 4.0 (confluentinc/librdkafka pull 4895). */
#define FLUE_KAFKA_SCRAM_VERSION 0x02060100

/* Main thread (start). NULL and *error: what is missing, and what to install. */
const struct flue_kafka *flue_kafka_load(struct flue_error *error);
/* The same from a file of another name; for tests. */
const struct flue_kafka *flue_kafka_load_from(const char *name, struct flue_error *error);

#endif
