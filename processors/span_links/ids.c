/* ids.c: see ids.h. */
#include "processors/span_links/ids.h"

enum id_form id_form_of(struct flue_bytes key)
{
    static const struct {
        const char *name;
        enum id_form form;
    } forms[] = {{"span_id", ID_SPAN},    {"profile_id", ID_PROFILE},
                 {"span id", ID_DD_SPAN}, {"local root span id", ID_DD_ROOT},
                 {"trace_id", ID_TRACE},  {"trace_id_hi", ID_HI},
                 {"trace_id_lo", ID_LO},  {"traceIdHi", ID_HI},
                 {"traceIdLo", ID_LO}};

    if (key.size < 7 || key.size > 18)
        return ID_NONE;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (flue_bytes_is(key, forms[i].name))
            return forms[i].form;
    return ID_NONE;
}

static uint64_t big_endian(const uint8_t *bytes)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < 8; i++)
        number = number << 8 | bytes[i];
    return number;
}

static void put_big_endian(uint8_t *out, uint64_t number)
{
    for (unsigned i = 0; i < 8; i++)
        out[i] = (uint8_t)(number >> (56 - 8 * i));
}

static bool hex64(struct flue_bytes text, uint64_t *out)
{
    uint8_t bytes[8];
    if (text.size != 16 || !flue_unhex(text, bytes, 8))
        return false;
    *out = big_endian(bytes);
    return true;
}

static bool decimal64(struct flue_bytes text, uint64_t *out)
{
    int64_t negative;
    if (flue_parse_u64(text, out))
        return true;
    if (!flue_parse_i64(text, &negative))
        return false;
    *out = (uint64_t)negative;
    return true;
}

bool ids_add(struct ids *ids, enum id_form form, const struct id_value *value)
{
    uint64_t number = (uint64_t)value->number;
    uint8_t trace[16];

    if (ids->there & 1u << form)
        return false;
    if (form == ID_TRACE) {
        if (!value->is_text || value->text.size != 32 || !flue_unhex(value->text, trace, 16))
            return false;
        ids->hi = big_endian(trace);
        ids->lo = big_endian(trace + 8);
        if (!(ids->hi | ids->lo))
            return false;
        ids->there |= 1u << form;
        return true;
    }
    if (value->is_text) {
        bool decimal = form == ID_DD_SPAN || form == ID_DD_ROOT;
        if (!(decimal ? decimal64(value->text, &number) : hex64(value->text, &number)))
            return false;
    }
    if (number == 0 && form != ID_HI && form != ID_LO)
        return false;
    ids->span[form] = number;
    ids->there |= 1u << form;
    return true;
}

void ids_link(const struct ids *ids, struct id_link *out)
{
    static const enum id_form order[] = {ID_SPAN, ID_PROFILE, ID_DD_SPAN, ID_DD_ROOT};
    const uint32_t halves = 1u << ID_HI | 1u << ID_LO;
    uint64_t span = 0, hi = 0, lo = 0;

    *out = (struct id_link){.told = 0};
    for (unsigned i = 0; i < 4 && !span; i++)
        if (ids->there & 1u << order[i])
            span = ids->span[order[i]];
    for (unsigned i = 0; i < 4 && span; i++) /* another span than the link's stays a label */
        if (ids->there & 1u << order[i] && ids->span[order[i]] == span)
            out->told |= 1u << order[i];
    if (ids->there & 1u << ID_TRACE) {
        hi = ids->hi;
        lo = ids->lo;
        out->told |= 1u << ID_TRACE;
    } else if ((ids->there & halves) == halves && (ids->span[ID_HI] | ids->span[ID_LO])) {
        hi = ids->span[ID_HI];
        lo = ids->span[ID_LO];
    }
    if ((ids->there & halves) == halves && ids->span[ID_HI] == hi && ids->span[ID_LO] == lo)
        out->told |= halves;
    out->has_span = span != 0;
    out->has_trace = (hi | lo) != 0;
    put_big_endian(out->span, span);
    put_big_endian(out->trace, hi);
    put_big_endian(out->trace + 8, lo);
}
