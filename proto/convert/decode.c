/* decode.c: by the readers that receivers use: what comes from a disk is checked like the rest. */
#include "proto/convert/decode.h"
#include "proto/otlp/metric_payload.h"
#include "proto/otlp/otlp.h"
#include "proto/otlp/trace.h"
#include "proto/pprof/pprof.h"

enum flue_code flue_decode(enum flue_form form, enum flue_signal signal, struct flue_block *body,
                           struct flue_payload **out, struct flue_error *error)
{
    static const struct flue_pprof_limits limits = {(size_t)1 << 40, 1u << 30};
    struct flue_otlp_report otlp;
    struct flue_push_report push;
    struct flue_trace_report trace;

    *out = NULL;
    if (signal == FLUE_TRACES && form == FLUE_FORM_OTLP)
        return flue_trace_read(body, out, &trace, error);
    if (signal == FLUE_METRICS && form == FLUE_FORM_OTLP)
        return flue_metric_payload_read(body, out, NULL, error);
    if (signal != FLUE_PROFILES || (form != FLUE_FORM_OTLP && form != FLUE_FORM_PPROF)) {
        flue_block_unref(body);
        return flue_fail(error, FLUE_INVALID, "no form of payload that is known: %d of signal %d",
                         (int)form, (int)signal);
    }
    return form == FLUE_FORM_OTLP ? flue_otlp_read(body, out, &otlp, error)
                                  : flue_push_read(body, &limits, false, out, &push, error);
}
