/* push.c: push.v1.PusherService/Push, as Connect (protobuf, JSON) and gRPC.
 *
 * A request with good and bad profiles: Connect knows no partial success, and the clients do not
 * send again. The good ones are taken, and the answer is invalid_argument with how many were and
 * the first reason. Source: Pyroscope, api/push/v1/push.proto, pkg/distributor. */
#include "collector/base/log.h"
#include "receivers/pyroscope/pyroscope.h"

#define PUSH_PATH "/push.v1.PusherService/Push"

struct push {
    struct flue_intake_push intake; /* first */
    struct flue_rpc_call *call;
    struct flue_push_report report;
};

static struct flue_account *admit(struct flue_request *request, void *arg, struct flue_error *error)
{
    struct pyroscope *receiver = arg;
    struct flue_account *account;
    (void)flue_intake_admit(&receiver->intake, request, &account, error);
    return account;
}

static void sent(struct flue_intake_push *intake, const struct flue_outcome *outcome)
{
    struct push *push = (struct push *)(void *)intake;
    const struct flue_push_report *report = &push->report;
    struct flue_error partial;
    push->call->user = NULL;
    if (outcome->error.code != FLUE_OK) {
        flue_rpc_fail(push->call, &outcome->error);
        return;
    }
    if (report->rejected_profiles > 0) {
        flue_fail(&partial, FLUE_INVALID, "%llu of %llu profiles were taken; the first refused: %s",
                  (unsigned long long)report->counts.profiles,
                  (unsigned long long)(report->counts.profiles + report->rejected_profiles),
                  report->rejected_reason);
        flue_rpc_fail(push->call, &partial);
        return;
    }
    flue_rpc_answer(push->call,
                    push->call->encoding == FLUE_RPC_JSON ? FLUE_BYTES("{}") : FLUE_BYTES(""));
}

/* JSON becomes protobuf; *body is then a new block, else another reference of the message. */
static enum flue_code as_protobuf(struct flue_rpc_call *call, struct flue_block **body,
                                  struct flue_error *error)
{
    if (call->encoding == FLUE_RPC_PROTO) {
        *body = flue_block_ref(call->message);
        return FLUE_OK;
    }
    /* design.md, limits: decoded size 8 times the wire with a floor of 1 MiB */
    size_t budget = call->message->size < (1u << 17) ? 1u << 20 : call->message->size * 8;
    return flue_push_json_read(flue_block_bytes(call->message), budget, call->account, body, error);
}

static void count_rejected(struct pyroscope *receiver, const struct flue_push_report *report)
{
    flue_metric_add(receiver->repaired_profiles, (int64_t)report->repaired_profiles);
    if (report->rejected_profiles == 0)
        return;
    flue_metric_add(receiver->rejected_profiles, (int64_t)report->rejected_profiles);
    flue_log(FLUE_WARN, "receiver", "profiles left out of a push",
             FLUE_S("receiver", receiver->intake.receiver),
             FLUE_U("profiles", report->rejected_profiles),
             FLUE_S("first_reason", report->rejected_reason), FLUE_LOG_END);
}

static void call_push(struct flue_rpc_call *call, void *arg)
{
    struct pyroscope *receiver = arg;
    struct flue_error error;
    struct flue_block *body;
    struct flue_payload *payload;
    struct push *push = flue_arena_zalloc(&call->request->arena, 1, sizeof *push);
    if (!push) {
        flue_fail(&error, FLUE_NO_MEMORY, "no memory to take the request");
        flue_rpc_fail(call, &error);
        return;
    }
    if (as_protobuf(call, &body, &error) != FLUE_OK) {
        flue_rpc_fail(call, &error);
        return;
    }
    const struct flue_pprof_limits limits = {(size_t)call->request->config->max_request_body_size,
                                             FLUE_RATIO_LIMIT};
    enum flue_code code =
        flue_push_read(body, &limits, flue_is_trusted(&receiver->trusted, call->request->peer),
                       &payload, &push->report, &error);
    flue_block_unref(body);
    count_rejected(receiver, &push->report);
    if (code != FLUE_OK) {
        flue_rpc_fail(call, &error);
        return;
    }
    /* The payload holds the bytes now; the call need not. */
    flue_block_unref(call->message);
    call->message = NULL;
    push->call = call;
    push->intake = (struct flue_intake_push){
        .intake = &receiver->intake,
        .request = call->request,
        .transport = call->protocol == FLUE_RPC_GRPC ? FLUE_OVER_GRPC : FLUE_OVER_CONNECT,
        .done = sent,
    };
    call->user = push;
    flue_intake_push(&push->intake, payload, &push->report.counts);
}

static void gone(struct flue_rpc_call *call, void *arg)
{
    struct push *push = call->user;
    if (push)
        flue_intake_cancel(&push->intake);
}

static void refused(void *arg, const struct flue_error *error)
{
    flue_intake_count_refusal(&((struct pyroscope *)arg)->intake, error->code);
}

void flue_pyroscope_push_route(struct pyroscope *receiver, struct flue_route *route)
{
    receiver->service = (struct flue_rpc_service){
        .path = PUSH_PATH,
        .grpc = true,
        .connect = true,
        .codings = (1u << FLUE_CODINGS) - 1,
        .arg = receiver,
        .admit = admit,
        .call = call_push,
        .gone = gone,
        .refused = refused,
    };
    flue_rpc_route(&receiver->service, route);
}
