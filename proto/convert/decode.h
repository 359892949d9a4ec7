/* decode.h: a payload of either form again from its encoded form; for flue_payload_decoder. */
#ifndef PROTO_CONVERT_DECODE_H
#define PROTO_CONVERT_DECODE_H

#include "collector/base/payload.h"

/* As flue_payload_decode says. Limits of size are those under which it was accepted before. */
enum flue_code flue_decode(enum flue_form form, enum flue_signal signal, struct flue_block *body,
                           struct flue_payload **out, struct flue_error *error);

#endif
