/* json_schema.c: see json_schema.h. Field numbers: opentelemetry-proto 1.10. */
#include "proto/otlp/json_schema.h"
#include <stddef.h>

#define END                                                                                        \
    {                                                                                              \
        .name = NULL                                                                               \
    }
#define ONE(n, camel, snake, k)                                                                    \
    {                                                                                              \
        .name = camel, .other = snake, .number = n, .kind = FLUE_JSON_##k                          \
    }
#define MANY(n, camel, snake, k)                                                                   \
    {                                                                                              \
        .name = camel, .other = snake, .number = n, .kind = FLUE_JSON_##k, .repeated = true        \
    }
#define OF(n, camel, snake, m)                                                                     \
    {                                                                                              \
        .name = camel, .other = snake, .number = n, .kind = FLUE_JSON_MESSAGE, .message = m        \
    }
#define MANY_OF(n, camel, snake, m)                                                                \
    {                                                                                              \
        .name = camel, .other = snake, .number = n, .kind = FLUE_JSON_MESSAGE, .repeated = true,   \
        .message = m                                                                               \
    }
#define ID(n, camel, snake, size)                                                                  \
    {                                                                                              \
        .name = camel, .other = snake, .number = n, .kind = FLUE_JSON_HEX, .id_size = size         \
    }
#define EITHER(n, camel, snake, k)                                                                 \
    {                                                                                              \
        .name = camel, .other = snake, .number = n, .kind = FLUE_JSON_##k, .oneof = true           \
    }

static const struct flue_json_field any_value[];
static const struct flue_json_field key_value[];

static const struct flue_json_field array_value[] = {MANY_OF(1, "values", NULL, any_value), END};
static const struct flue_json_field key_value_list[] = {MANY_OF(1, "values", NULL, key_value), END};
static const struct flue_json_field any_value[] = {
    EITHER(1, "stringValue", "string_value", STRING),
    EITHER(2, "boolValue", "bool_value", BOOL),
    EITHER(3, "intValue", "int_value", INT64),
    EITHER(4, "doubleValue", "double_value", DOUBLE),
    {"arrayValue", "array_value", 5, FLUE_JSON_MESSAGE, false, true, array_value, 0},
    {"kvlistValue", "kvlist_value", 6, FLUE_JSON_MESSAGE, false, true, key_value_list, 0},
    EITHER(7, "bytesValue", "bytes_value", BYTES),
    EITHER(8, "stringValueStrindex", "string_value_strindex", INT32),
    END};
static const struct flue_json_field key_value[] = {
    ONE(1, "key", NULL, STRING), OF(2, "value", NULL, any_value),
    ONE(3, "keyStrindex", "key_strindex", INT32), END};

static const struct flue_json_field mapping[] = {
    ONE(1, "memoryStart", "memory_start", UINT64),
    ONE(2, "memoryLimit", "memory_limit", UINT64),
    ONE(3, "fileOffset", "file_offset", UINT64),
    ONE(4, "filenameStrindex", "filename_strindex", INT32),
    MANY(5, "attributeIndices", "attribute_indices", INT32),
    END};
static const struct flue_json_field line[] = {ONE(1, "functionIndex", "function_index", INT32),
                                              ONE(2, "line", NULL, INT64),
                                              ONE(3, "column", NULL, INT64), END};
static const struct flue_json_field location[] = {
    ONE(1, "mappingIndex", "mapping_index", INT32), ONE(2, "address", NULL, UINT64),
    MANY_OF(3, "lines", "line", line), MANY(4, "attributeIndices", "attribute_indices", INT32),
    END};
static const struct flue_json_field function[] = {
    ONE(1, "nameStrindex", "name_strindex", INT32),
    ONE(2, "systemNameStrindex", "system_name_strindex", INT32),
    ONE(3, "filenameStrindex", "filename_strindex", INT32),
    ONE(4, "startLine", "start_line", INT64), END};
static const struct flue_json_field link_row[] = {ID(1, "traceId", "trace_id", 16),
                                                  ID(2, "spanId", "span_id", 8), END};
static const struct flue_json_field attribute_row[] = {
    ONE(1, "keyStrindex", "key_strindex", INT32), OF(2, "value", NULL, any_value),
    ONE(3, "unitStrindex", "unit_strindex", INT32), END};
static const struct flue_json_field stack[] = {
    MANY(1, "locationIndices", "location_indices", INT32), END};
static const struct flue_json_field dictionary[] = {
    MANY_OF(1, "mappingTable", "mapping_table", mapping),
    MANY_OF(2, "locationTable", "location_table", location),
    MANY_OF(3, "functionTable", "function_table", function),
    MANY_OF(4, "linkTable", "link_table", link_row),
    MANY(5, "stringTable", "string_table", STRING),
    MANY_OF(6, "attributeTable", "attribute_table", attribute_row),
    MANY_OF(7, "stackTable", "stack_table", stack),
    END};

static const struct flue_json_field value_type[] = {ONE(1, "typeStrindex", "type_strindex", INT32),
                                                    ONE(2, "unitStrindex", "unit_strindex", INT32),
                                                    END};
static const struct flue_json_field sample[] = {
    ONE(1, "stackIndex", "stack_index", INT32),
    MANY(2, "attributeIndices", "attribute_indices", INT32),
    ONE(3, "linkIndex", "link_index", INT32),
    MANY(4, "values", NULL, INT64),
    MANY(5, "timestampsUnixNano", "timestamps_unix_nano", FIXED64),
    END};
static const struct flue_json_field profile[] = {
    OF(1, "sampleType", "sample_type", value_type),
    MANY_OF(2, "samples", "sample", sample),
    ONE(3, "timeUnixNano", "time_unix_nano", FIXED64),
    ONE(4, "durationNano", "duration_nano", UINT64),
    OF(5, "periodType", "period_type", value_type),
    ONE(6, "period", NULL, INT64),
    ID(7, "profileId", "profile_id", 16),
    ONE(8, "droppedAttributesCount", "dropped_attributes_count", UINT32),
    ONE(9, "originalPayloadFormat", "original_payload_format", STRING),
    ONE(10, "originalPayload", "original_payload", BYTES),
    MANY(11, "attributeIndices", "attribute_indices", INT32),
    END};
static const struct flue_json_field scope[] = {
    ONE(1, "name", NULL, STRING), ONE(2, "version", NULL, STRING),
    MANY_OF(3, "attributes", NULL, key_value),
    ONE(4, "droppedAttributesCount", "dropped_attributes_count", UINT32), END};
static const struct flue_json_field scope_profiles[] = {
    OF(1, "scope", NULL, scope), MANY_OF(2, "profiles", NULL, profile),
    ONE(3, "schemaUrl", "schema_url", STRING), END};
static const struct flue_json_field entity_ref[] = {
    ONE(1, "schemaUrl", "schema_url", STRING), ONE(2, "type", NULL, STRING),
    MANY(3, "idKeys", "id_keys", STRING), MANY(4, "descriptionKeys", "description_keys", STRING),
    END};
static const struct flue_json_field resource[] = {
    MANY_OF(1, "attributes", NULL, key_value),
    ONE(2, "droppedAttributesCount", "dropped_attributes_count", UINT32),
    MANY_OF(3, "entityRefs", "entity_refs", entity_ref), END};
static const struct flue_json_field resource_profiles[] = {
    OF(1, "resource", NULL, resource),
    MANY_OF(2, "scopeProfiles", "scope_profiles", scope_profiles),
    ONE(3, "schemaUrl", "schema_url", STRING), END};
const struct flue_json_field flue_json_request[] = {
    MANY_OF(1, "resourceProfiles", "resource_profiles", resource_profiles),
    OF(2, "dictionary", NULL, dictionary), END};

static const struct flue_json_field event[] = {
    ONE(1, "timeUnixNano", "time_unix_nano", FIXED64), ONE(2, "name", NULL, STRING),
    MANY_OF(3, "attributes", NULL, key_value),
    ONE(4, "droppedAttributesCount", "dropped_attributes_count", UINT32), END};
static const struct flue_json_field span_link[] = {
    ID(1, "traceId", "trace_id", 16),
    ID(2, "spanId", "span_id", 8),
    ONE(3, "traceState", "trace_state", STRING),
    MANY_OF(4, "attributes", NULL, key_value),
    ONE(5, "droppedAttributesCount", "dropped_attributes_count", UINT32),
    ONE(6, "flags", NULL, FIXED32),
    END};
static const struct flue_json_field status[] = {ONE(2, "message", NULL, STRING),
                                                ONE(3, "code", NULL, INT32), END};
static const struct flue_json_field span[] = {
    ID(1, "traceId", "trace_id", 16),
    ID(2, "spanId", "span_id", 8),
    ONE(3, "traceState", "trace_state", STRING),
    ID(4, "parentSpanId", "parent_span_id", 8),
    ONE(5, "name", NULL, STRING),
    ONE(6, "kind", NULL, INT32),
    ONE(7, "startTimeUnixNano", "start_time_unix_nano", FIXED64),
    ONE(8, "endTimeUnixNano", "end_time_unix_nano", FIXED64),
    MANY_OF(9, "attributes", NULL, key_value),
    ONE(10, "droppedAttributesCount", "dropped_attributes_count", UINT32),
    MANY_OF(11, "events", NULL, event),
    ONE(12, "droppedEventsCount", "dropped_events_count", UINT32),
    MANY_OF(13, "links", NULL, span_link),
    ONE(14, "droppedLinksCount", "dropped_links_count", UINT32),
    OF(15, "status", NULL, status),
    ONE(16, "flags", NULL, FIXED32),
    END};
static const struct flue_json_field scope_spans[] = {
    OF(1, "scope", NULL, scope), MANY_OF(2, "spans", NULL, span),
    ONE(3, "schemaUrl", "schema_url", STRING), END};
static const struct flue_json_field resource_spans[] = {
    OF(1, "resource", NULL, resource), MANY_OF(2, "scopeSpans", "scope_spans", scope_spans),
    ONE(3, "schemaUrl", "schema_url", STRING), END};
const struct flue_json_field flue_json_trace_request[] = {
    MANY_OF(1, "resourceSpans", "resource_spans", resource_spans), END};
