/* check_walk.h: the fast walk itself, compiled once for each kind of machine (WALK names it).
 *
 * Walkers are written by hand for the messages that make up a body; any other tag is one field
 * through the exact reader. Each returns true when its message is whole. `p` may pass the end of a
 * message by less than the slack before that is seen. Maxima live in locals where records are many.
 */
#include "proto/otlp/check_pieces.h"

/* ------------------------------------------------------------- attributes */

static bool WALK(any_value)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                            unsigned depth);

ALWAYS bool WALK(key_value)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                            uint64_t *keys, unsigned depth)
{
    bool keyed = false;
    while (p < e) {
        size_t n;
        switch (*p) {
        case 0x0a:
            LENGTH(n);
            WALK(text)(check, p, n);
            *keys |= flue_attribute_bit(flue_bytes(p, n));
            keyed = true;
            p += n;
            break;
        case 0x12:
            LENGTH(n);
            if (LIKELY(n - 2 < 0x80 && p[0] == 0x0a && p[1] == n - 2))
                WALK(text)(check, p + 2, n - 2);
            else if (UNLIKELY(!WALK(any_value)(check, p, p + n, depth)))
                return false;
            p += n;
            break;
        case 0x18:
            check->alarms |= FLUE_OTLP_REFERENCE;
            NUMBER(check->max[FLUE_OTLP_STRING]);
            break;
        default:
            FIELD_ODD(0xe);
        }
    }
    if (!keyed)
        *keys |= 1;
    return p == e;
}

static bool WALK(any_value)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                            unsigned depth)
{
    uint64_t unused = 0;
    if (depth > FLUE_OTLP_MAX_DEPTH) {
        check->alarms |= FLUE_OTLP_DEPTH;
        return false;
    }
    while (p < e) {
        size_t n;
        switch (*p) {
        case 0x0a:
            TEXT();
            break;
        case 0x10:
        case 0x18:
            SKIP();
            break;
        case 0x21:
            p += 9;
            break;
        case 0x2a: /* ArrayValue */
        case 0x32: /* KeyValueList */ {
            bool list = *p == 0x32;
            LENGTH(n);
            const uint8_t *outer = e;
            e = p + n;
            while (p < e) {
                if (*p == 0x0a) {
                    LENGTH(n);
                    if (!(list ? WALK(key_value)(check, p, p + n, &unused, depth + 1)
                               : WALK(any_value)(check, p, p + n, depth + 1)))
                        return false;
                    p += n;
                } else {
                    FIELD_ODD(0x2);
                }
            }
            if (p != e)
                return false;
            e = outer;
            break;
        }
        case 0x3a:
            LENGTH(n);
            p += n;
            break;
        case 0x40:
            check->alarms |= FLUE_OTLP_REFERENCE;
            NUMBER(check->max[FLUE_OTLP_STRING]);
            break;
        default:
            FIELD_ODD(0x1fe);
        }
    }
    return p == e;
}

/* ------------------------------------------------------------- dictionary */

ALWAYS bool WALK(location)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                           uint64_t *mapping, uint64_t *function, uint64_t *attribute)
{
    while (p < e) {
        size_t n;
        switch (*p) {
        case 0x08:
            NUMBER(*mapping);
            break;
        case 0x10:
            SKIP();
            break;
        case 0x1a: {
            const uint8_t *outer = e;
            LENGTH(n);
            e = p + n;
            while (p < e) {
                if (LIKELY(*p == 0x08))
                    NUMBER(*function);
                else if (LIKELY(*p == 0x10 || *p == 0x18))
                    SKIP();
                else
                    FIELD_ODD(0xe);
            }
            if (UNLIKELY(p != e))
                return false;
            e = outer;
            break;
        }
        case 0x20:
            NUMBER(*attribute);
            break;
        case 0x22:
            INDICES(*attribute);
            break;
        default:
            FIELD_ODD(0x1e);
        }
    }
    return p == e;
}

ALWAYS bool WALK(function)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                           uint64_t *string)
{
    while (p < e) {
        if (LIKELY(*p == 0x08 || *p == 0x10 || *p == 0x18))
            NUMBER(*string);
        else if (*p == 0x20)
            SKIP();
        else
            FIELD_ODD(0x1e);
    }
    return p == e;
}

ALWAYS bool WALK(stack)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                        uint64_t limit, unsigned bytes, uint64_t *location)
{
    while (p < e) {
        size_t n;
        if (LIKELY(*p == 0x0a)) {
            LENGTH(n);
#ifdef WALK_AVX2
            if (LIKELY(WALK(within)(p, n, limit, bytes))) {
                p += n;
                continue;
            }
#endif
            if (!WALK(indices)(p, p + n, location))
                return false;
            p += n;
        } else if (*p == 0x08) {
            NUMBER(*location);
        } else {
            FIELD_ODD(0x2);
        }
    }
    return p == e;
}

static bool WALK(mapping)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    while (p < e) {
        switch (*p) {
        case 0x08:
        case 0x10:
        case 0x18:
            SKIP();
            break;
        case 0x20:
            NUMBER(check->max[FLUE_OTLP_STRING]);
            break;
        case 0x28:
            NUMBER(check->max[FLUE_OTLP_ATTRIBUTE]);
            break;
        case 0x2a:
            INDICES(check->max[FLUE_OTLP_ATTRIBUTE]);
            break;
        default:
            FIELD_ODD(0x3e);
        }
    }
    return p == e;
}

ALWAYS bool WALK(link)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    while (p < e) {
        size_t n;
        if (LIKELY(*p == 0x0a || *p == 0x12)) {
            size_t want = *p == 0x0a ? 16 : 8;
            LENGTH(n);
            if (n != 0 && n != want)
                check->alarms |= FLUE_OTLP_SHAPE;
            p += n;
        } else {
            FIELD_ODD(0x6);
        }
    }
    return p == e;
}

ALWAYS bool WALK(attribute)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    while (p < e) {
        size_t n;
        if (*p == 0x08 || *p == 0x18) {
            NUMBER(check->max[FLUE_OTLP_STRING]);
        } else if (*p == 0x12) {
            LENGTH(n);
            if (!WALK(any_value)(check, p, p + n, 1))
                return false;
            p += n;
        } else {
            FIELD_ODD(0xe);
        }
    }
    return p == e;
}

/* The encoding of the greatest index that a table of so many rows takes. */
ALWAYS uint64_t WALK(limit)(uint64_t rows, unsigned *bytes)
{
    uint64_t value = rows ? rows - 1 : 0, limit = 0;
    unsigned n = 0;
    do {
        limit |= ((value & 0x7f) | (value >> 7 ? 0x80 : 0)) << 8 * n++;
        value >>= 7;
    } while (value);
    *bytes = n;
    return limit;
}

static bool WALK(dictionary)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    uint64_t mappings = 0, functions = 0, attributes = 0, strings = 0, locations = 0;
    uint64_t location_rows = check->rows[FLUE_OTLP_LOCATION];
    uint64_t limit = 0, limit_rows = UINT64_MAX;
    unsigned limit_bytes = 1;
    /* Stacks before locations (pdata's order): their rows are only stepped over, and judged when
     * the number of locations is known. */
    const uint8_t *late = NULL, *late_end = NULL;
    size_t n;

    while (p < e) {
        uint8_t tag = *p;
        const uint8_t *row_end;
        if (UNLIKELY((tag & 7) != FLUE_LEN || tag < 0x0a || tag > 0x3a)) {
            FIELD_ODD(0xfe);
            continue;
        }
        if (tag == 0x3a && location_rows == 0 && !late) {
            late = p;
            do {
                LENGTH(n);
                p += n;
                check->rows[FLUE_OTLP_STACK]++;
            } while (p < e && *p == 0x3a);
            late_end = p;
            continue;
        }
        LENGTH(n);
        row_end = p + n;
        switch (tag >> 3) {
        case FLUE_OTLP_MAPPING:
            check->rows[FLUE_OTLP_MAPPING]++;
            if (!WALK(mapping)(check, p, row_end))
                return false;
            break;
        case FLUE_OTLP_LOCATION:
            location_rows++;
            if (UNLIKELY(!WALK(location)(check, p, row_end, &mappings, &functions, &attributes)))
                return false;
            break;
        case FLUE_OTLP_FUNCTION:
            check->rows[FLUE_OTLP_FUNCTION]++;
            if (UNLIKELY(!WALK(function)(check, p, row_end, &strings)))
                return false;
            break;
        case FLUE_OTLP_LINK:
            check->rows[FLUE_OTLP_LINK]++;
            if (UNLIKELY(!WALK(link)(check, p, row_end)))
                return false;
            break;
        case FLUE_OTLP_STRING:
            check->rows[FLUE_OTLP_STRING]++;
            WALK(text)(check, p, n);
            break;
        case FLUE_OTLP_ATTRIBUTE:
            check->rows[FLUE_OTLP_ATTRIBUTE]++;
            if (UNLIKELY(!WALK(attribute)(check, p, row_end)))
                return false;
            break;
        default: /* FLUE_OTLP_STACK */
            check->rows[FLUE_OTLP_STACK]++;
            if (UNLIKELY(limit_rows != location_rows)) {
                limit_rows = location_rows;
                limit = WALK(limit)(location_rows, &limit_bytes);
            }
            if (UNLIKELY(!WALK(stack)(check, p, row_end, limit, limit_bytes, &locations)))
                return false;
        }
        p = row_end;
    }
    if (p != e)
        return false;
    if (late) {
        limit = WALK(limit)(location_rows, &limit_bytes);
        for (p = late, e = late_end; p < e; p += n) {
            LENGTH(n);
            if (UNLIKELY(!WALK(stack)(check, p, p + n, limit, limit_bytes, &locations)))
                return false;
        }
    }
    check->rows[FLUE_OTLP_LOCATION] = location_rows;
#define RAISE(table, value)                                                                        \
    check->max[table] = (value) > check->max[table] ? (value) : check->max[table]
    RAISE(FLUE_OTLP_MAPPING, mappings);
    RAISE(FLUE_OTLP_FUNCTION, functions);
    RAISE(FLUE_OTLP_ATTRIBUTE, attributes);
    RAISE(FLUE_OTLP_STRING, strings);
    RAISE(FLUE_OTLP_LOCATION, locations);
    return true;
}

/* --------------------------------------------------------------- profiles */

static bool WALK(value_type)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    while (p < e) {
        if (*p == 0x08 || *p == 0x10)
            NUMBER(check->max[FLUE_OTLP_STRING]);
        else
            FIELD_ODD(0x6);
    }
    return p == e;
}

ALWAYS bool WALK(sample)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                         uint64_t *stack, uint64_t *attribute, uint64_t *link)
{
    uint64_t values = 0, times = 0;
    while (p < e) {
        size_t n;
        switch (*p) {
        case 0x08:
            NUMBER(*stack);
            break;
        case 0x10:
            NUMBER(*attribute);
            break;
        case 0x12:
            INDICES(*attribute);
            break;
        case 0x18:
            NUMBER(*link);
            break;
        case 0x20:
            SKIP();
            values++;
            break;
        case 0x22:
            LENGTH(n);
            if (UNLIKELY(!WALK(values)(p, n, &values)))
                return false;
            p += n;
            break;
        case 0x29:
            p += 9;
            times++;
            break;
        case 0x2a:
            LENGTH(n);
            if (UNLIKELY(n & 7))
                return false;
            times += n >> 3;
            p += n;
            break;
        default:
            FIELD_ODD(0x3e);
        }
    }
    if (UNLIKELY(values != times && values && times) || UNLIKELY(!(values | times)))
        check->alarms |= FLUE_OTLP_SHAPE;
    return p == e;
}

static bool WALK(profile)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                          uint32_t *sample_count)
{
    uint64_t stacks = 0, attributes = 0, links = 0;
    uint32_t samples = 0;
    size_t n;

    while (p < e) {
        switch (*p) {
        case 0x12:
            do {
                LENGTH(n);
                if (UNLIKELY(!WALK(sample)(check, p, p + n, &stacks, &attributes, &links)))
                    return false;
                p += n;
                samples++;
            } while (p < e && *p == 0x12);
            break;
        case 0x0a:
        case 0x2a:
            LENGTH(n);
            if (!WALK(value_type)(check, p, p + n))
                return false;
            p += n;
            break;
        case 0x19:
            p += 9;
            break;
        case 0x20:
        case 0x30:
        case 0x40:
            SKIP();
            break;
        case 0x3a:
            LENGTH(n);
            if (n != 0 && n != 16)
                check->alarms |= FLUE_OTLP_SHAPE;
            p += n;
            break;
        case 0x52:
            LENGTH(n);
            p += n;
            break;
        case 0x4a:
            TEXT();
            break;
        case 0x58:
            NUMBER(attributes);
            break;
        case 0x5a:
            INDICES(attributes);
            break;
        default:
            FIELD_ODD(0xffe);
        }
    }
    RAISE(FLUE_OTLP_STACK, stacks);
    RAISE(FLUE_OTLP_ATTRIBUTE, attributes);
    RAISE(FLUE_OTLP_LINK, links);
    *sample_count = samples;
    return p == e;
}

/* ------------------------------------------------- resources and scopes */

#define SPAN(tag_at, from, n)                                                                      \
    ((struct flue_otlp_span){(uint32_t)((tag_at)-check->base), (uint32_t)((from)-check->base),     \
                             (uint32_t)((from) + (n)-check->base)})

static bool WALK(entity)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    while (p < e) {
        if (*p == 0x0a || *p == 0x12 || *p == 0x1a || *p == 0x22)
            TEXT();
        else
            FIELD_ODD(0x1e);
    }
    return p == e;
}

static bool WALK(resource)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                           uint64_t *keys)
{
    unsigned attributes = 0;
    size_t n;
    while (p < e) {
        switch (*p) {
        case 0x0a:
            LENGTH(n);
            if (UNLIKELY(++attributes > FLUE_OTLP_MAX_ATTRIBUTES)) {
                check->alarms |= FLUE_OTLP_CROWDED;
                return false;
            }
            if (UNLIKELY(!WALK(key_value)(check, p, p + n, keys, 1)))
                return false;
            p += n;
            break;
        case 0x10:
            SKIP();
            break;
        case 0x1a:
            LENGTH(n);
            if (!WALK(entity)(check, p, p + n))
                return false;
            p += n;
            break;
        default:
            FIELD_ODD(0xe);
        }
    }
    return p == e;
}

static bool WALK(scope)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    unsigned attributes = 0;
    uint64_t unused = 0;
    size_t n;
    while (p < e) {
        switch (*p) {
        case 0x0a:
        case 0x12:
            TEXT();
            break;
        case 0x1a:
            LENGTH(n);
            if (UNLIKELY(++attributes > FLUE_OTLP_MAX_ATTRIBUTES)) {
                check->alarms |= FLUE_OTLP_CROWDED;
                return false;
            }
            if (!WALK(key_value)(check, p, p + n, &unused, 1))
                return false;
            p += n;
            break;
        case 0x20:
            SKIP();
            break;
        default:
            FIELD_ODD(0x1e);
        }
    }
    return p == e;
}

static bool WALK(scope_profiles)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e,
                                 struct flue_otlp_scope_index *scope)
{
    uint32_t number = (uint32_t)(scope - check->index->scopes);
    size_t n;

    scope->first_profile = check->index->profile_count;
    while (p < e) {
        const uint8_t *tag_at = p;
        struct flue_otlp_profile_index *profile;
        switch (*p) {
        case 0x0a:
            LENGTH(n);
            if (scope->scope.end)
                check->alarms |= FLUE_OTLP_TWICE;
            scope->scope = SPAN(tag_at, p, n);
            if (!WALK(scope)(check, p, p + n))
                return false;
            p += n;
            break;
        case 0x12:
            LENGTH(n);
            profile = flue_otlp_add_profile(check);
            if (UNLIKELY(!profile))
                return false;
            profile->at = SPAN(tag_at, p, n);
            profile->scope = number;
            if (UNLIKELY(!WALK(profile)(check, p, p + n, &profile->samples)))
                return false;
            check->index->samples += profile->samples;
            scope->profiles++;
            p += n;
            break;
        case 0x1a:
            TEXT();
            break;
        default:
            FIELD_ODD(0xe);
        }
    }
    return p == e;
}

static bool WALK(resource_profiles)(struct flue_otlp_check *check, const uint8_t *p,
                                    const uint8_t *e, struct flue_otlp_resource_index *resource)
{
    uint32_t number = (uint32_t)(resource - check->index->resources);
    size_t n;

    resource->first_scope = check->index->scope_count;
    while (p < e) {
        const uint8_t *tag_at = p;
        struct flue_otlp_scope_index *scope;
        switch (*p) {
        case 0x0a:
            LENGTH(n);
            if (resource->resource.end)
                check->alarms |= FLUE_OTLP_TWICE;
            resource->resource = SPAN(tag_at, p, n);
            if (!WALK(resource)(check, p, p + n, &resource->keys))
                return false;
            p += n;
            break;
        case 0x12:
            LENGTH(n);
            scope = flue_otlp_add_scope(check);
            if (UNLIKELY(!scope))
                return false;
            scope->at = SPAN(tag_at, p, n);
            scope->resource = number;
            if (UNLIKELY(!WALK(scope_profiles)(check, p, p + n, scope)))
                return false;
            resource->scopes++;
            p += n;
            break;
        case 0x1a:
            TEXT();
            break;
        default:
            FIELD_ODD(0xe);
        }
    }
    return p == e;
}

static bool WALK(request)(struct flue_otlp_check *check, const uint8_t *p, const uint8_t *e)
{
    size_t n;
    while (p < e) {
        const uint8_t *tag_at = p;
        struct flue_otlp_resource_index *resource;
        switch (*p) {
        case 0x0a:
            LENGTH(n);
            resource = flue_otlp_add_resource(check);
            if (UNLIKELY(!resource))
                return false;
            resource->at = SPAN(tag_at, p, n);
            if (UNLIKELY(!WALK(resource_profiles)(check, p, p + n, resource)))
                return false;
            p += n;
            break;
        case 0x12:
            LENGTH(n);
            if (check->index->dictionary.end)
                check->alarms |= FLUE_OTLP_TWICE;
            check->index->dictionary = SPAN(tag_at, p, n);
            if (UNLIKELY(!WALK(dictionary)(check, p, p + n)))
                return false;
            p += n;
            break;
        default:
            FIELD_ODD(0x6);
        }
    }
    return p == e;
}

void WALK(flue_otlp_walk)(struct flue_otlp_check *check, struct flue_bytes body)
{
    if (!WALK(request)(check, body.data, body.data + body.size) &&
        !(check->alarms &
          (FLUE_OTLP_DEPTH | FLUE_OTLP_MEMORY | FLUE_OTLP_INDEX_SIZE | FLUE_OTLP_CROWDED)))
        check->alarms |= FLUE_OTLP_BROKEN;
}
