/* schema.c: opentelemetry-proto 1.10: profiles, common, resource, as tables. */
#include "proto/otlp/schema.h"

#define F(name, kind, to)                                                                          \
    {                                                                                              \
        name, FLUE_OTLP_F_##kind, to, false                                                        \
    }
#define REPEATED(name, kind, to)                                                                   \
    {                                                                                              \
        name, FLUE_OTLP_F_##kind, to, true                                                         \
    }

const struct flue_otlp_field flue_otlp_schema[FLUE_OTLP_MESSAGES][FLUE_OTLP_FIELDS] = {
    [FLUE_OTLP_M_REQUEST] = {[1] = REPEATED("resource_profiles", MESSAGE,
                                            FLUE_OTLP_M_RESOURCE_PROFILES),
                             [2] = F("dictionary", MESSAGE, FLUE_OTLP_M_DICTIONARY)},
    [FLUE_OTLP_M_DICTIONARY] = {[1] = REPEATED("mapping_table", MESSAGE, FLUE_OTLP_M_MAPPING),
                                [2] = REPEATED("location_table", MESSAGE, FLUE_OTLP_M_LOCATION),
                                [3] = REPEATED("function_table", MESSAGE, FLUE_OTLP_M_FUNCTION),
                                [4] = REPEATED("link_table", MESSAGE, FLUE_OTLP_M_LINK),
                                [5] = REPEATED("string_table", STRING, 0),
                                [6] = REPEATED("attribute_table", MESSAGE, FLUE_OTLP_M_ATTRIBUTE),
                                [7] = REPEATED("stack_table", MESSAGE, FLUE_OTLP_M_STACK)},
    [FLUE_OTLP_M_MAPPING] = {[1] = F("memory_start", NUMBER, 0),
                             [2] = F("memory_limit", NUMBER, 0),
                             [3] = F("file_offset", NUMBER, 0),
                             [4] = F("filename_strindex", INDEX, FLUE_OTLP_STRING),
                             [5] = REPEATED("attribute_indices", INDICES, FLUE_OTLP_ATTRIBUTE)},
    [FLUE_OTLP_M_LOCATION] = {[1] = F("mapping_index", INDEX, FLUE_OTLP_MAPPING),
                              [2] = F("address", NUMBER, 0),
                              [3] = REPEATED("lines", MESSAGE, FLUE_OTLP_M_LINE),
                              [4] = REPEATED("attribute_indices", INDICES, FLUE_OTLP_ATTRIBUTE)},
    [FLUE_OTLP_M_LINE] = {[1] = F("function_index", INDEX, FLUE_OTLP_FUNCTION),
                          [2] = F("line", NUMBER, 0),
                          [3] = F("column", NUMBER, 0)},
    [FLUE_OTLP_M_FUNCTION] = {[1] = F("name_strindex", INDEX, FLUE_OTLP_STRING),
                              [2] = F("system_name_strindex", INDEX, FLUE_OTLP_STRING),
                              [3] = F("filename_strindex", INDEX, FLUE_OTLP_STRING),
                              [4] = F("start_line", NUMBER, 0)},
    [FLUE_OTLP_M_LINK] = {[1] = F("trace_id", ID, 16), [2] = F("span_id", ID, 8)},
    [FLUE_OTLP_M_ATTRIBUTE] = {[1] = F("key_strindex", INDEX, FLUE_OTLP_STRING),
                               [2] = F("value", MESSAGE, FLUE_OTLP_M_ANY_VALUE),
                               [3] = F("unit_strindex", INDEX, FLUE_OTLP_STRING)},
    [FLUE_OTLP_M_STACK] = {[1] = REPEATED("location_indices", INDICES, FLUE_OTLP_LOCATION)},
    [FLUE_OTLP_M_RESOURCE_PROFILES] = {[1] = F("resource", MESSAGE, FLUE_OTLP_M_RESOURCE),
                                       [2] = REPEATED("scope_profiles", MESSAGE,
                                                      FLUE_OTLP_M_SCOPE_PROFILES),
                                       [3] = F("schema_url", STRING, 0)},
    [FLUE_OTLP_M_RESOURCE] = {[1] = REPEATED("attributes", MESSAGE, FLUE_OTLP_M_KEY_VALUE),
                              [2] = F("dropped_attributes_count", NUMBER, 0),
                              [3] = REPEATED("entity_refs", MESSAGE, FLUE_OTLP_M_ENTITY)},
    [FLUE_OTLP_M_ENTITY] = {[1] = F("schema_url", STRING, 0),
                            [2] = F("type", STRING, 0),
                            [3] = REPEATED("id_keys", STRING, 0),
                            [4] = REPEATED("description_keys", STRING, 0)},
    [FLUE_OTLP_M_SCOPE_PROFILES] = {[1] = F("scope", MESSAGE, FLUE_OTLP_M_SCOPE),
                                    [2] = REPEATED("profiles", MESSAGE, FLUE_OTLP_M_PROFILE),
                                    [3] = F("schema_url", STRING, 0)},
    [FLUE_OTLP_M_SCOPE] = {[1] = F("name", STRING, 0),
                           [2] = F("version", STRING, 0),
                           [3] = REPEATED("attributes", MESSAGE, FLUE_OTLP_M_KEY_VALUE),
                           [4] = F("dropped_attributes_count", NUMBER, 0)},
    [FLUE_OTLP_M_PROFILE] = {[1] = F("sample_type", MESSAGE, FLUE_OTLP_M_VALUE_TYPE),
                             [2] = REPEATED("samples", MESSAGE, FLUE_OTLP_M_SAMPLE),
                             [3] = F("time_unix_nano", FIXED64, 0),
                             [4] = F("duration_nano", NUMBER, 0),
                             [5] = F("period_type", MESSAGE, FLUE_OTLP_M_VALUE_TYPE),
                             [6] = F("period", NUMBER, 0),
                             [7] = F("profile_id", ID, 16),
                             [8] = F("dropped_attributes_count", NUMBER, 0),
                             [9] = F("original_payload_format", STRING, 0),
                             [10] = F("original_payload", BYTES, 0),
                             [11] = REPEATED("attribute_indices", INDICES, FLUE_OTLP_ATTRIBUTE)},
    [FLUE_OTLP_M_SAMPLE] = {[1] = F("stack_index", INDEX, FLUE_OTLP_STACK),
                            [2] = REPEATED("attribute_indices", INDICES, FLUE_OTLP_ATTRIBUTE),
                            [3] = F("link_index", INDEX, FLUE_OTLP_LINK),
                            [4] = REPEATED("values", NUMBERS, 0),
                            [5] = REPEATED("timestamps_unix_nano", TIMES, 0)},
    [FLUE_OTLP_M_VALUE_TYPE] = {[1] = F("type_strindex", INDEX, FLUE_OTLP_STRING),
                                [2] = F("unit_strindex", INDEX, FLUE_OTLP_STRING)},
    [FLUE_OTLP_M_KEY_VALUE] = {[1] = F("key", STRING, 0),
                               [2] = F("value", MESSAGE, FLUE_OTLP_M_ANY_VALUE),
                               [3] = F("key_strindex", REFERENCE, FLUE_OTLP_STRING)},
    [FLUE_OTLP_M_ANY_VALUE] = {[1] = F("string_value", STRING, 0),
                               [2] = F("bool_value", NUMBER, 0),
                               [3] = F("int_value", NUMBER, 0),
                               [4] = F("double_value", FIXED64, 0),
                               [5] = F("array_value", MESSAGE, FLUE_OTLP_M_ARRAY),
                               [6] = F("kvlist_value", MESSAGE, FLUE_OTLP_M_LIST),
                               [7] = F("bytes_value", BYTES, 0),
                               [8] = F("string_value_strindex", REFERENCE, FLUE_OTLP_STRING)},
    [FLUE_OTLP_M_ARRAY] = {[1] = REPEATED("values", MESSAGE, FLUE_OTLP_M_ANY_VALUE)},
    [FLUE_OTLP_M_LIST] = {[1] = REPEATED("values", MESSAGE, FLUE_OTLP_M_KEY_VALUE)},
};

const char *const flue_otlp_table_names[FLUE_OTLP_TABLES] = {
    NULL,         "mapping_table", "location_table",  "function_table",
    "link_table", "string_table",  "attribute_table", "stack_table"};

const uint8_t flue_otlp_row_messages[FLUE_OTLP_TABLES] = {
    FLUE_OTLP_MESSAGES, FLUE_OTLP_M_MAPPING, FLUE_OTLP_M_LOCATION,  FLUE_OTLP_M_FUNCTION,
    FLUE_OTLP_M_LINK,   FLUE_OTLP_MESSAGES,  FLUE_OTLP_M_ATTRIBUTE, FLUE_OTLP_M_STACK};
