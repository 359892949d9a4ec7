/* trace_schema.c: opentelemetry-proto 1.10: trace, common, resource, as tables. */
#include "proto/otlp/trace_schema.h"

#define F(name, kind, to)                                                                          \
    {                                                                                              \
        name, FLUE_TRACE_F_##kind, to, false                                                       \
    }
#define M(name, to)                                                                                \
    {                                                                                              \
        name, FLUE_TRACE_F_MESSAGE, FLUE_TRACE_M_##to, false                                       \
    }
#define MANY(name, to)                                                                             \
    {                                                                                              \
        name, FLUE_TRACE_F_MESSAGE, FLUE_TRACE_M_##to, true                                        \
    }
#define STRINGS(name)                                                                              \
    {                                                                                              \
        name, FLUE_TRACE_F_STRING, 0, true                                                         \
    }

const struct flue_trace_field flue_trace_schema[FLUE_TRACE_MESSAGES][FLUE_TRACE_FIELDS] = {
    [FLUE_TRACE_M_REQUEST] = {[1] = MANY("resource_spans", RESOURCE_SPANS)},
    [FLUE_TRACE_M_RESOURCE_SPANS] = {[1] = M("resource", RESOURCE),
                                     [2] = MANY("scope_spans", SCOPE_SPANS),
                                     [3] = F("schema_url", STRING, 0)},
    [FLUE_TRACE_M_RESOURCE] = {[1] = MANY("attributes", KEY_VALUE),
                               [2] = F("dropped_attributes_count", NUMBER, 0),
                               [3] = MANY("entity_refs", ENTITY)},
    [FLUE_TRACE_M_ENTITY] = {[1] = F("schema_url", STRING, 0),
                             [2] = F("type", STRING, 0),
                             [3] = STRINGS("id_keys"),
                             [4] = STRINGS("description_keys")},
    [FLUE_TRACE_M_SCOPE_SPANS] =
        {[1] = M("scope", SCOPE), [2] = MANY("spans", SPAN), [3] = F("schema_url", STRING, 0)},
    [FLUE_TRACE_M_SCOPE] = {[1] = F("name", STRING, 0),
                            [2] = F("version", STRING, 0),
                            [3] = MANY("attributes", KEY_VALUE),
                            [4] = F("dropped_attributes_count", NUMBER, 0)},
    [FLUE_TRACE_M_SPAN] = {[1] = F("trace_id", ID, 16),
                           [2] = F("span_id", ID, 8),
                           [3] = F("trace_state", STRING, 0),
                           [4] = F("parent_span_id", ID, 8),
                           [5] = F("name", STRING, 0),
                           [6] = F("kind", NUMBER, 0),
                           [7] = F("start_time_unix_nano", FIXED64, 0),
                           [8] = F("end_time_unix_nano", FIXED64, 0),
                           [9] = MANY("attributes", KEY_VALUE),
                           [10] = F("dropped_attributes_count", NUMBER, 0),
                           [11] = MANY("events", EVENT),
                           [12] = F("dropped_events_count", NUMBER, 0),
                           [13] = MANY("links", LINK),
                           [14] = F("dropped_links_count", NUMBER, 0),
                           [15] = M("status", STATUS),
                           [16] = F("flags", FIXED32, 0)},
    [FLUE_TRACE_M_EVENT] = {[1] = F("time_unix_nano", FIXED64, 0),
                            [2] = F("name", STRING, 0),
                            [3] = MANY("attributes", KEY_VALUE),
                            [4] = F("dropped_attributes_count", NUMBER, 0)},
    [FLUE_TRACE_M_LINK] = {[1] = F("trace_id", ID, 16),
                           [2] = F("span_id", ID, 8),
                           [3] = F("trace_state", STRING, 0),
                           [4] = MANY("attributes", KEY_VALUE),
                           [5] = F("dropped_attributes_count", NUMBER, 0),
                           [6] = F("flags", FIXED32, 0)},
    [FLUE_TRACE_M_STATUS] = {[2] = F("message", STRING, 0), [3] = F("code", NUMBER, 0)},
    [FLUE_TRACE_M_KEY_VALUE] = {[1] = F("key", STRING, 0), [2] = M("value", ANY_VALUE)},
    [FLUE_TRACE_M_ANY_VALUE] = {[1] = F("string_value", STRING, 0),
                                [2] = F("bool_value", NUMBER, 0),
                                [3] = F("int_value", NUMBER, 0),
                                [4] = F("double_value", FIXED64, 0),
                                [5] = M("array_value", ARRAY),
                                [6] = M("kvlist_value", LIST),
                                [7] = F("bytes_value", BYTES, 0)},
    [FLUE_TRACE_M_ARRAY] = {[1] = MANY("values", ANY_VALUE)},
    [FLUE_TRACE_M_LIST] = {[1] = MANY("values", KEY_VALUE)},
};
