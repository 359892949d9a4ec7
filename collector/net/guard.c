/* guard.c: the authenticator of a listener between the headers of a request and its route.
 *
 * What it can say at once it says at once. What takes long runs on the pool with a copy of the
 * credentials; meanwhile the body is held back, and a request that ends leaves the job behind. */
#include <openssl/crypto.h>
#include <stdlib.h>

#include "collector/net/auth.h"
#include "collector/net/request.h"

#define GRPC_PREFIX 5u

struct flue_guard_job {
    struct flue_job job;
    struct flue_exchange *exchange; /* NULL: it has ended */
    struct flue_auth *auth;
    enum flue_auth_answer answer;
    struct flue_error error;
    size_t size;
    uint8_t credentials[];
};

static struct flue_guard_job *of_job(struct flue_job *job)
{
    return (struct flue_guard_job *)(void *)((char *)job - offsetof(struct flue_guard_job, job));
}

static void work(struct flue_job *base)
{
    struct flue_guard_job *job = of_job(base);
    job->answer =
        job->auth->verify(job->auth, flue_bytes(job->credentials, job->size), &job->error);
}

static void done(struct flue_job *base)
{
    struct flue_guard_job *job = of_job(base);
    struct flue_exchange *exchange = job->exchange;
    if (exchange) {
        exchange->verify = NULL;
        flue_exchange_verified(exchange, job->answer == FLUE_AUTH_YES, &job->error);
    }
    OPENSSL_cleanse(job->credentials, job->size);
    free(job);
}

void flue_exchange_guard_drop(struct flue_exchange *exchange)
{
    if (exchange->verify)
        exchange->verify->exchange = NULL;
    exchange->verify = NULL;
}

bool flue_exchange_guard(struct flue_exchange *exchange)
{
    struct flue_request *request = &exchange->request;
    struct flue_auth *auth = exchange->listener->auth;
    struct flue_bytes credentials = flue_request_header(request, auth->header);
    struct flue_error error = {.code = FLUE_UNAUTHENTICATED};
    switch (auth->look(auth, credentials, &error)) {
    case FLUE_AUTH_YES:
        return true;
    case FLUE_AUTH_NO:
        flue_exchange_refuse(exchange, &error);
        return false;
    case FLUE_AUTH_LATER:
        break;
    }
    struct flue_guard_job *job = malloc(sizeof *job + credentials.size);
    if (!job) {
        flue_fail(&error, FLUE_NO_MEMORY, "no memory to look at credentials; send again later");
        flue_exchange_refuse(exchange, &error);
        (void)auth->verify(auth, flue_bytes(NULL, 0), &error); /* every LATER is followed by one */
        return false;
    }
    *job = (struct flue_guard_job){.job = {.work = work, .done = done},
                                   .exchange = exchange,
                                   .auth = auth,
                                   .error = {.code = FLUE_UNAUTHENTICATED},
                                   .size = credentials.size};
    memcpy(job->credentials, credentials.data, credentials.size);
    exchange->verify = job;
    exchange->limit =
        (size_t)request->config->max_request_body_size + (exchange->grpc ? GRPC_PREFIX : 0);
    flue_pool_submit(request->loop, &job->job);
    return false;
}
