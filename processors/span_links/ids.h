/* ids.h: span labels in every form that clients send, and the ids that they tell.
 *
 *   span_id, profile_id        16 hex digits (leading zeros stand), or the id's 64 bits as a number
 *   span id                    64 bits in decimal, or as a number (negative ones: ids from 2^63 on)
 *   local root span id         the same: used only where nothing names the span itself
 *   trace_id                   32 hex digits
 *   trace_id_hi, trace_id_lo   (traceIdHi, traceIdLo) halves of 16 hex digits, or as numbers
 *
 * An id that is all zero is none. What fits no form is left as it is and counted.
 * Sources: producers.md 1.6 (clients), W3C Trace Context.
 */
#ifndef PROCESSORS_SPAN_LINKS_IDS_H
#define PROCESSORS_SPAN_LINKS_IDS_H

#include "collector/base/bytes.h"

enum id_form {
    ID_NONE,
    ID_SPAN,
    ID_PROFILE,
    ID_DD_SPAN,
    ID_DD_ROOT,
    ID_TRACE,
    ID_HI,
    ID_LO,
    ID_FORMS
};

enum id_form id_form_of(struct flue_bytes key);

struct id_value {
    bool is_text;
    struct flue_bytes text;
    int64_t number;
};
/* One label: an id of 128 bits (ID_TRACE), or of 64 in `lo`. */
struct id {
    enum id_form form;
    uint64_t hi, lo;
};
/* False: an impossible form. */
bool id_read(enum id_form form, const struct id_value *value, struct id *out);

/* What the labels of one sample tell; by form, those that are there. */
struct ids {
    uint32_t there; /* 1 << form */
    struct id of[ID_FORMS];
};
/* False: the form is there already; the first counts. */
bool ids_add(struct ids *ids, const struct id *id);

struct id_link {
    uint8_t span[8], trace[16];
    bool has_span, has_trace;
    uint32_t told; /* 1 << form of the labels that the link says completely; never a root's */
};
void ids_link(const struct ids *ids, struct id_link *out);

#endif
