/* log.c: see log.h. */
#include "collector/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <unistd.h>
#include "collector/base/buffer.h"
#include "collector/base/clock.h"

#define BURST       20u
#define VALUE_LIMIT ((size_t)2048)
#define LINE_LIMIT  ((size_t)256 * 1024)

static _Atomic int lowest = FLUE_INFO;
static _Atomic bool as_json;
static _Atomic int output = STDERR_FILENO;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

bool flue_log_enabled(enum flue_log_level level)
{
    return (int)level >= atomic_load_explicit(&lowest, memory_order_relaxed);
}

void flue_log_configure(enum flue_log_level level, bool json, int fd)
{
    atomic_store(&lowest, (int)level);
    atomic_store(&as_json, json);
    atomic_store(&output, fd);
}

/* A bucket of BURST lines that gets one back every second. Two threads may both pass at its edge:
 * a line more does no harm. */
static bool may_write(struct flue_log_site *site, uint32_t *left_out)
{
    uint64_t now = flue_monotonic_ns() / 1000000000u + 1, then = atomic_load(&site->window);

    if (now > then && atomic_compare_exchange_strong(&site->window, &then, now)) {
        uint32_t written = atomic_load(&site->written);

        atomic_store(&site->written, now - then < written ? written - (uint32_t)(now - then) : 0);
    }
    if (atomic_load(&site->written) >= BURST) {
        atomic_fetch_add(&site->left_out, 1);
        return false;
    }
    atomic_fetch_add(&site->written, 1);
    *left_out = atomic_exchange(&site->left_out, 0);
    return true;
}

static bool is_plain(struct flue_bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] <= ' ' || text.data[i] >= 0x7F || text.data[i] == '"' ||
            text.data[i] == '\\' || text.data[i] == '=')
            return false;
    return text.size > 0;
}

static void put_value(struct flue_buffer *line, const struct flue_log_field *field, bool json)
{
    struct flue_bytes text = flue_bytes_first(field->text, VALUE_LIMIT);

    if (field->type == FLUE_LOG_U64)
        flue_buffer_printf(line, "%" PRIu64, field->number);
    else if (field->type == FLUE_LOG_I64)
        flue_buffer_printf(line, "%" PRId64, (int64_t)field->number);
    else if (!json && is_plain(text))
        flue_buffer_add(line, text);
    else
        flue_buffer_json(line, text);
}

static void put_field(struct flue_buffer *line, const struct flue_log_field *field, bool json)
{
    if (json) {
        flue_buffer_byte(line, ',');
        flue_buffer_json(line, flue_bytes_of(field->key));
        flue_buffer_byte(line, ':');
    } else {
        flue_buffer_byte(line, ' ');
        flue_buffer_text(line, field->key);
        flue_buffer_byte(line, '=');
    }
    put_value(line, field, json);
}

static void write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t written = write(fd, data, size);

        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return; /* nowhere to complain to */
        data += written;
        size -= (size_t)written;
    }
}

void flue_log_write(struct flue_log_site *site, enum flue_log_level level, const char *component,
                    const char *message, const struct flue_log_field *fields, size_t count)
{
    bool json = atomic_load_explicit(&as_json, memory_order_relaxed);
    const char *name = level_names[(unsigned)level <= FLUE_ERROR ? level : FLUE_ERROR];
    struct flue_buffer line;
    uint32_t left_out = 0;
    int saved = errno;
    char time[25];

    if (!may_write(site, &left_out))
        return;
    flue_format_time(flue_wall_ns(), time);
    flue_buffer_init(&line, LINE_LIMIT);
    if (json) {
        flue_buffer_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\"", time, name);
        put_field(&line, &FLUE_S("component", component), true);
        put_field(&line, &FLUE_S("message", message), true);
    } else {
        flue_buffer_printf(&line, "%s %-5s %s: %s", time, name, component, message);
    }
    for (size_t i = 0; i < count && fields[i].key; i++)
        put_field(&line, &fields[i], json);
    if (left_out)
        put_field(&line, &FLUE_U("lines_left_out", left_out), json);
    flue_buffer_text(&line, json ? "}\n" : "\n");
    if (!line.failed) {
        write_all(atomic_load(&output), line.data, line.size);
    } else {
        static const char lost[] = "a log line was lost: no memory, or too long\n";

        write_all(atomic_load(&output), lost, sizeof lost - 1);
    }
    flue_buffer_destroy(&line);
    errno = saved;
}
