/* log.h: one line per event on standard error (or the configured file), as console text or JSON.
 *
 * Any thread; a line is written with one write(2). Lines of one call site are limited to a burst of
 * 20 and then one per second, with a count of what was left out. Values are escaped; never pass a
 * secret (headers, tokens, URLs with user info).
 *
 *     flue_log(FLUE_WARN, "exporter", "retrying", FLUE_S("exporter", id), FLUE_U("after_ms", ms),
 *              FLUE_LOG_END);
 */
#ifndef FLUE_BASE_LOG_H
#define FLUE_BASE_LOG_H

#include "collector/base/bytes.h"

enum flue_log_level { FLUE_DEBUG, FLUE_INFO, FLUE_WARN, FLUE_ERROR };
struct flue_log_field {
    const char *key;
    enum { FLUE_LOG_STRING = 1, FLUE_LOG_U64, FLUE_LOG_I64 } type;
    struct flue_bytes text;
    uint64_t number;
};
struct flue_log_site {
    _Atomic uint64_t window; /* second of the current window */
    _Atomic uint32_t written, left_out;
};

#define FLUE_S(k, c_string)                                                                        \
    ((struct flue_log_field){(k), FLUE_LOG_STRING, flue_bytes_of(c_string), 0})
#define FLUE_B(k, bytes)  ((struct flue_log_field){(k), FLUE_LOG_STRING, (bytes), 0})
#define FLUE_U(k, number) ((struct flue_log_field){(k), FLUE_LOG_U64, {0}, (uint64_t)(number)})
#define FLUE_I(k, number)                                                                          \
    ((struct flue_log_field){(k), FLUE_LOG_I64, {0}, (uint64_t)(int64_t)(number)})

#define flue_log(level, component, message, ...)                                                   \
    do {                                                                                           \
        if (flue_log_enabled(level)) {                                                             \
            static struct flue_log_site flue_site_;                                                \
            const struct flue_log_field flue_fields_[] = {__VA_ARGS__};                            \
            flue_log_write(&flue_site_, (level), (component), (message), flue_fields_,             \
                           sizeof flue_fields_ / sizeof flue_fields_[0]);                          \
        }                                                                                          \
    } while (0)
#define FLUE_LOG_END                                                                               \
    (struct flue_log_field)                                                                        \
    {                                                                                              \
        0                                                                                          \
    }

bool flue_log_enabled(enum flue_log_level level);
void flue_log_configure(enum flue_log_level level, bool json, int fd);
void flue_log_write(struct flue_log_site *site, enum flue_log_level level, const char *component,
                    const char *message, const struct flue_log_field *fields, size_t count);

#endif
