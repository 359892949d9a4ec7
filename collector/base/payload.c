/* payload.c: who rebuilds payloads. */
#include "collector/base/payload.h"

static flue_payload_decode decode;

void flue_payload_decoder(flue_payload_decode decoder)
{
    decode = decoder;
}

enum flue_code flue_payload_read(enum flue_form form, enum flue_signal signal,
                                 struct flue_block *body, struct flue_payload **out,
                                 struct flue_error *error)
{
    *out = NULL;
    if (decode)
        return decode(form, signal, body, out, error);
    flue_block_unref(body);
    return flue_fail(error, FLUE_INTERNAL, "nobody here reads encoded payloads");
}
