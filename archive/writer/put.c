/* put.c: see put.h. */
#include "archive/writer/put.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"

#define FIRST_WAIT_NS 200000000u
#define SLOWEST_RATE  (256u * 1024) /* bytes a second that a try must make */
#define TRY_MIN_NS    (30ull * 1000000000u)
#define HOPELESS_NS   (60ull * 1000000000u) /* between tries that will hardly succeed */

static void try_now(struct flue_put *put);

static void again(struct flue_timer *timer)
{
    struct flue_put *put = (struct flue_put *)((char *)timer - offsetof(struct flue_put, timer));

    if (put->cancelled) {
        (void)flue_fail(&put->error, FLUE_CANCELLED, "given up before it was written");
        put->done(put);
        return;
    }
    try_now(put);
}

/* Exponential with jitter, at least what the store asks for. */
static uint64_t wait_after(const struct flue_put *put, const struct flue_error *error)
{
    unsigned shift = put->tried > 12 ? 12 : put->tried - 1;
    uint64_t wait = (uint64_t)FIRST_WAIT_NS << shift;
    uint64_t stated = (uint64_t)error->retry_after_ms * 1000000u;

    if (wait > put->max_wait_ns)
        wait = put->max_wait_ns;
    wait = wait / 2 + flue_random_u64() % (wait / 2 + 1);
    if (!flue_code_facts(error->code)->retryable && wait < HOPELESS_NS)
        wait = HOPELESS_NS;
    return wait > stated ? wait : stated;
}

static void tried(struct flue_object_request *request)
{
    struct flue_put *put = request->user;
    uint64_t wait, now = flue_monotonic_ns();

    put->error = request->error;
    if (put->error.code == FLUE_OK || put->cancelled) {
        put->done(put);
        return;
    }
    bool retryable = flue_code_facts(put->error.code)->retryable;
    wait = wait_after(put, &put->error);
    if (put->attempts && (!retryable || put->tried >= put->attempts ||
                          (put->deadline_ns && now + wait >= put->deadline_ns))) {
        put->done(put);
        return;
    }
    flue_log(retryable ? FLUE_INFO : FLUE_ERROR, "archive", "an object will be written again",
             FLUE_S("exporter", put->who), FLUE_U("attempt", put->tried + 1),
             FLUE_U("after_ms", wait / 1000000), FLUE_S("error", put->error.text), FLUE_LOG_END);
    put->timer.fire = again;
    flue_timer_arm(put->loop, &put->timer, now + wait);
}

static void try_now(struct flue_put *put)
{
    uint64_t patience = put->body->total / SLOWEST_RATE * 1000000000ull;

    put->tried++;
    put->request = (struct flue_object_request){.store = put->store,
                                                .key = put->key,
                                                .body = put->body,
                                                .content_type = put->content_type,
                                                .content_encoding = put->content_encoding,
                                                .sha256 = put->sha256,
                                                .create = FLUE_OBJECT_OVERWRITE,
                                                .done = tried,
                                                .user = put};
    if (patience < TRY_MIN_NS)
        patience = TRY_MIN_NS;
    put->request.deadline_ns = put->deadline_ns ? put->deadline_ns : flue_monotonic_ns() + patience;
    flue_object_put(&put->request);
}

void flue_put_start(struct flue_put *put)
{
    put->tried = 0;
    put->cancelled = false;
    memset(&put->timer, 0, sizeof put->timer);
    memset(&put->error, 0, sizeof put->error);
    try_now(put);
}

void flue_put_cancel(struct flue_put *put)
{
    if (put->cancelled)
        return;
    put->cancelled = true;
    if (put->timer.due_ns) /* waiting: ends at once, from the loop */
        flue_timer_arm(put->loop, &put->timer, flue_monotonic_ns());
    else
        flue_object_cancel(&put->request);
}
