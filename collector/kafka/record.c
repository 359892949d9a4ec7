/* record.c: see record.h. */
#include "collector/kafka/record.h"

const char *const flue_kafka_encodings[] = {"otlp_proto", "otlp_json", "pprof", NULL};

static bool plain(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x7f && byte != '%';
}

size_t flue_kafka_escaped_size(struct flue_bytes value)
{
    size_t size = value.size;
    for (size_t i = 0; i < value.size; i++)
        size += plain(value.data[i]) ? 0 : 2;
    return size;
}

void flue_kafka_escape(struct flue_bytes value, uint8_t *out)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < value.size; i++) {
        uint8_t byte = value.data[i];
        if (plain(byte)) {
            *out++ = byte;
            continue;
        }
        *out++ = '%';
        *out++ = (uint8_t)digits[byte >> 4];
        *out++ = (uint8_t)digits[byte & 15];
    }
}

size_t flue_kafka_unescape(struct flue_bytes value, uint8_t *out)
{
    size_t size = 0;

    for (size_t i = 0; i < value.size; i++) {
        uint8_t byte;
        if (value.data[i] == '%' && value.size - i > 2 &&
            flue_unhex(flue_bytes(value.data + i + 1, 2), &byte, 1)) {
            out[size++] = byte;
            i += 2;
        } else {
            out[size++] = value.data[i];
        }
    }
    return size;
}

bool flue_kafka_topic_valid(struct flue_bytes topic)
{
    if (topic.size == 0 || topic.size > 249 || flue_bytes_is(topic, ".") ||
        flue_bytes_is(topic, ".."))
        return false;
    for (size_t i = 0; i < topic.size; i++) {
        uint8_t c = topic.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}
