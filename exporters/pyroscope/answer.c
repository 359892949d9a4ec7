/* answer.c: see answer.h. */
#include "exporters/pyroscope/answer.h"
#include "proto/wire/json_budget.h"

#define ANSWER_BUDGET (1u << 20)

/* Which of the codes of Connect come again with the same data; "unknown" and "internal" are what a
 * server says when its own store fails, and our data was checked. */
static enum flue_code code_of(const char *name, unsigned status)
{
    static const struct {
        const char *name;
        enum flue_code code;
    } table[] = {
        {"resource_exhausted", FLUE_RATE_LIMITED},
        {"unavailable", FLUE_UNAVAILABLE},
        {"deadline_exceeded", FLUE_TIMEOUT},
        {"canceled", FLUE_UNAVAILABLE},
        {"aborted", FLUE_UNAVAILABLE},
        {"unknown", FLUE_UNAVAILABLE},
        {"internal", FLUE_UNAVAILABLE},
        {"data_loss", FLUE_UNAVAILABLE},
        {"unauthenticated", FLUE_UNAUTHENTICATED},
        {"permission_denied", FLUE_FORBIDDEN},
        {"unimplemented", FLUE_NOT_FOUND},
        {"not_found", FLUE_NOT_FOUND},
    };
    for (size_t i = 0; name && i < sizeof table / sizeof table[0]; i++)
        if (strcmp(name, table[i].name) == 0)
            return table[i].code;
    if (name)
        return FLUE_REFUSED;
    switch (status) {
    case 401:
        return FLUE_UNAUTHENTICATED;
    case 403:
        return FLUE_FORBIDDEN;
    case 404:
        return FLUE_NOT_FOUND;
    case 413:
        return FLUE_TOO_LARGE;
    case 429:
        return FLUE_RATE_LIMITED;
    case 408:
    case 499:
        return FLUE_UNAVAILABLE;
    default:
        return status >= 500 ? FLUE_UNAVAILABLE : FLUE_REFUSED;
    }
}

void flue_push_answer(const struct flue_call *call, struct flue_error *error)
{
    struct flue_json_budget budget;
    struct flue_bytes name = {NULL, 0}, message = call->response;
    char code_name[32] = "", text[300];
    json_t *json = NULL;

    flue_json_begin(&budget, ANSWER_BUDGET);
    if (flue_bytes_starts_with(flue_bytes_trim(call->response), FLUE_BYTES("{")) &&
        flue_json_parse(&budget, call->response, &json, NULL) == FLUE_OK) {
        name = flue_bytes_of(json_string_value(json_object_get(json, "code")));
        if (json_is_string(json_object_get(json, "message")))
            message = flue_bytes_of(json_string_value(json_object_get(json, "message")));
    }
    flue_printable(name, code_name, sizeof code_name);
    flue_printable(message, text, sizeof text);
    if (json)
        json_decref(json);
    flue_json_end(&budget);
    flue_fail(error, code_of(code_name[0] ? code_name : NULL, call->status),
              "the server answered %u%s%s: %s", call->status, code_name[0] ? " " : "", code_name,
              text);
    error->retry_after_ms = flue_call_retry_after_ms(call);
}
