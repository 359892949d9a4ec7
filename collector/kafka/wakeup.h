/* wakeup.h: a librdkafka queue seen by a loop: the library writes into an eventfd when the queue
 * stops being empty, libuv polls it.
 *
 * The library tells of the first element only, so who is woken takes elements until there are none,
 * or asks to be called again (flue_kafka_wakeup_again). What came before it was told of the
 * descriptor (a broker that is down says so at once) would never be told of: `woken` is called once
 * after the start, whatever there is. One loop; the descriptor stays open until
 * flue_kafka_wakeup_close_fd, to be called when the library's handle is destroyed, since its
 * threads write into it.
 */
#ifndef FLUE_KAFKA_WAKEUP_H
#define FLUE_KAFKA_WAKEUP_H

#include "collector/base/loop.h"

struct flue_kafka_wakeup {
    uv_poll_t poll;
    int fd; /* given to rd_kafka_queue_io_event_enable with FLUE_KAFKA_WAKEUP_ONE */
    void (*woken)(struct flue_kafka_wakeup *wakeup);
    void (*closed)(struct flue_kafka_wakeup *wakeup); /* may be NULL */
};
extern const uint64_t FLUE_KAFKA_WAKEUP_ONE;

/* Opens the descriptor. Any thread. */
enum flue_code flue_kafka_wakeup_init(struct flue_kafka_wakeup *wakeup,
                                      void (*woken)(struct flue_kafka_wakeup *wakeup),
                                      struct flue_error *error);
/* On the loop: begins to poll. */
enum flue_code flue_kafka_wakeup_start(struct flue_kafka_wakeup *wakeup, struct flue_loop *loop,
                                       struct flue_error *error);
void flue_kafka_wakeup_again(struct flue_kafka_wakeup *wakeup);
/* On the loop: no more `woken`; `closed` when the handle may be freed. */
void flue_kafka_wakeup_stop(struct flue_kafka_wakeup *wakeup,
                            void (*closed)(struct flue_kafka_wakeup *wakeup));
void flue_kafka_wakeup_close_fd(struct flue_kafka_wakeup *wakeup);

#endif
