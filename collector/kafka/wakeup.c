/* wakeup.c: see wakeup.h. */
#include "collector/kafka/wakeup.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

const uint64_t FLUE_KAFKA_WAKEUP_ONE = 1;

enum flue_code flue_kafka_wakeup_init(struct flue_kafka_wakeup *wakeup,
                                      void (*woken)(struct flue_kafka_wakeup *wakeup),
                                      struct flue_error *error)
{
    wakeup->woken = woken;
    wakeup->closed = NULL;
    wakeup->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return wakeup->fd >= 0 ? FLUE_OK
                           : flue_fail(error, FLUE_IO, "no event descriptor: %s", strerror(errno));
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct flue_kafka_wakeup *wakeup = poll->data;
    uint64_t count;

    (void)!read(wakeup->fd, &count, sizeof count); /* EAGAIN: woken for nothing */
    wakeup->woken(wakeup);
}

enum flue_code flue_kafka_wakeup_start(struct flue_kafka_wakeup *wakeup, struct flue_loop *loop,
                                       struct flue_error *error)
{
    int result = uv_poll_init(&loop->uv, &wakeup->poll, wakeup->fd);

    wakeup->poll.data = wakeup;
    if (result == 0)
        result = uv_poll_start(&wakeup->poll, UV_READABLE, on_poll);
    flue_kafka_wakeup_again(wakeup);
    return result == 0
               ? FLUE_OK
               : flue_fail(error, FLUE_IO, "cannot poll librdkafka: %s", uv_strerror(result));
}

void flue_kafka_wakeup_again(struct flue_kafka_wakeup *wakeup)
{
    (void)!write(wakeup->fd, &FLUE_KAFKA_WAKEUP_ONE, sizeof FLUE_KAFKA_WAKEUP_ONE);
}

static void on_closed(uv_handle_t *handle)
{
    struct flue_kafka_wakeup *wakeup = handle->data;
    if (wakeup->closed)
        wakeup->closed(wakeup);
}

void flue_kafka_wakeup_stop(struct flue_kafka_wakeup *wakeup,
                            void (*closed)(struct flue_kafka_wakeup *wakeup))
{
    wakeup->closed = closed;
    uv_close((uv_handle_t *)&wakeup->poll, on_closed);
}

void flue_kafka_wakeup_close_fd(struct flue_kafka_wakeup *wakeup)
{
    if (wakeup->fd >= 0)
        close(wakeup->fd);
    wakeup->fd = -1;
}
