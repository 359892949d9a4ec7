/* ids.c: see ids.h. */
#include "processors/span_links/ids.h"

/* Asked of every string of a dictionary: the size alone answers nearly always. */
enum id_form id_form_of(struct flue_bytes key)
{
    switch (key.size) {
    case 7:
        return memcmp(key.data, "span_id", 7) == 0   ? ID_SPAN
               : memcmp(key.data, "span id", 7) == 0 ? ID_DD_SPAN
                                                     : ID_NONE;
    case 8:
        return memcmp(key.data, "trace_id", 8) == 0 ? ID_TRACE : ID_NONE;
    case 9:
        return memcmp(key.data, "traceIdHi", 9) == 0   ? ID_HI
               : memcmp(key.data, "traceIdLo", 9) == 0 ? ID_LO
                                                       : ID_NONE;
    case 10:
        return memcmp(key.data, "profile_id", 10) == 0 ? ID_PROFILE : ID_NONE;
    case 11:
        return memcmp(key.data, "trace_id_hi", 11) == 0   ? ID_HI
               : memcmp(key.data, "trace_id_lo", 11) == 0 ? ID_LO
                                                          : ID_NONE;
    case 18:
        return memcmp(key.data, "local root span id", 18) == 0 ? ID_DD_ROOT : ID_NONE;
    default:
        return ID_NONE;
    }
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

bool id_read(enum id_form form, const struct id_value *value, struct id *out)
{
    bool decimal = form == ID_DD_SPAN || form == ID_DD_ROOT;
    uint8_t trace[16];

    *out = (struct id){form, 0, (uint64_t)value->number};
    if (form == ID_TRACE) {
        if (!value->is_text || value->text.size != 32 || !flue_unhex(value->text, trace, 16))
            return false;
        out->hi = big_endian(trace);
        out->lo = big_endian(trace + 8);
    } else if (value->is_text) {
        if (!(decimal ? decimal64(value->text, &out->lo) : hex64(value->text, &out->lo)))
            return false;
    }
    return out->hi | out->lo || form == ID_HI || form == ID_LO;
}

bool ids_add(struct ids *ids, const struct id *id)
{
    if (ids->there & 1u << id->form)
        return false;
    ids->of[id->form] = *id;
    ids->there |= 1u << id->form;
    return true;
}

void ids_link(const struct ids *ids, struct id_link *out)
{
    static const enum id_form order[] = {ID_SPAN, ID_PROFILE, ID_DD_SPAN, ID_DD_ROOT};
    const uint32_t halves = 1u << ID_HI | 1u << ID_LO;
    bool in_halves = (ids->there & halves) == halves;
    uint64_t span = 0, hi = 0, lo = 0;

    *out = (struct id_link){.told = 0};
    for (unsigned i = 0; i < 4 && !span; i++)
        if (ids->there & 1u << order[i])
            span = ids->of[order[i]].lo;
    for (unsigned i = 0; i < 4 && span; i++) /* another span than the link's stays a label */
        if (order[i] != ID_DD_ROOT && ids->there & 1u << order[i] && ids->of[order[i]].lo == span)
            out->told |= 1u << order[i];
    if (ids->there & 1u << ID_TRACE) {
        hi = ids->of[ID_TRACE].hi;
        lo = ids->of[ID_TRACE].lo;
        out->told |= 1u << ID_TRACE;
    } else if (in_halves) {
        hi = ids->of[ID_HI].lo;
        lo = ids->of[ID_LO].lo;
    }
    out->has_span = span != 0;
    out->has_trace = (hi | lo) != 0;
    if (in_halves && out->has_trace && ids->of[ID_HI].lo == hi && ids->of[ID_LO].lo == lo)
        out->told |= halves;
    put_big_endian(out->span, span);
    put_big_endian(out->trace, hi);
    put_big_endian(out->trace + 8, lo);
}
