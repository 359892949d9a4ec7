/* attribute.h: a key with a value, in OpenTelemetry's terms, without any encoding.
 *
 * Processors and receivers speak in these; proto/ encodes them. Everything is borrowed.
 */
#ifndef FLUE_BASE_ATTRIBUTE_H
#define FLUE_BASE_ATTRIBUTE_H

#include "collector/base/bytes.h"

enum flue_value_type {
    FLUE_VALUE_EMPTY,
    FLUE_VALUE_STRING,
    FLUE_VALUE_BOOL,
    FLUE_VALUE_INT,
    FLUE_VALUE_DOUBLE,
    FLUE_VALUE_BYTES,
    FLUE_VALUE_COMPLEX /* array or key-value list: `text` is the encoded AnyValue, to be copied as
                          is */
};

struct flue_value {
    enum flue_value_type type;
    union {
        bool boolean;
        int64_t integer;
        double number;
    };
    struct flue_bytes text; /* string, bytes, complex */
};

struct flue_attribute {
    struct flue_bytes key;
    struct flue_value value;
};

/* Several attributes that are set together, prepared once (at configuration, or when a pod is
 * learnt) and used for many batches: immutable, so any thread. `keys` is a filter: bit
 * flue_attribute_bit(key) of every key, so that "none of these keys is there" costs one test per
 * existing attribute. `encoded` is every attribute in OTLP's encoding (field 1 of Resource, tag and
 * length included), one behind the other, made by flue_otlp_attribute_set (proto/otlp). */
struct flue_attribute_set {
    const struct flue_attribute *items;
    size_t count;
    uint64_t keys;
    struct flue_bytes encoded;
    const uint32_t *encoded_ends; /* end of item i within encoded */
};

static inline uint64_t flue_attribute_bit(struct flue_bytes key)
{
    if (key.size == 0)
        return 1;
    unsigned h = (unsigned)key.size * 7u + key.data[0] * 31u + key.data[key.size - 1] * 17u +
                 key.data[key.size / 2] * 5u;
    return (uint64_t)1 << (h & 63);
}

#endif
