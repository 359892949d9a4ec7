/* quantity.c: see quantity.h. */
#include "proto/otlp/quantity.h"

/* A resource has a handful of profiles; of one with thousands only the first are looked at. */
#define MOST_TWINS 64u

/* Do samples of this type come with their time in another profile of the resource? */
static bool measured(const struct flue_payload *payload, const struct flue_otlp_dictionary *d,
                     uint32_t resource, struct flue_bytes type)
{
    const struct flue_otlp_index *index = flue_otlp_index_of(payload);
    const struct flue_otlp_resource_index *r = &index->resources[resource];
    unsigned looks = MOST_TWINS;
    for (uint32_t s = r->first_scope; s < r->first_scope + r->scopes; s++) {
        const struct flue_otlp_scope_index *scope = &index->scopes[s];
        for (uint32_t i = 0; i < scope->profiles && looks; i++, looks--) {
            struct flue_otlp_profile_fields f;
            if (flue_otlp_profile_removed(payload, scope->first_profile + i))
                continue;
            flue_otlp_profile_read(payload, scope->first_profile + i, &f);
            if (flue_bytes_equal(flue_otlp_string(d, f.sample_type), type) &&
                flue_time_unit(flue_otlp_string(d, f.sample_unit)))
                return true;
        }
    }
    return false;
}

void flue_otlp_quantity(const struct flue_payload *payload, const struct flue_otlp_dictionary *d,
                        const struct flue_otlp_profile *profile, struct flue_quantity_type *out)
{
    struct flue_otlp_profile_fields f;
    flue_otlp_profile_read(payload, profile->profile, &f);
    struct flue_bytes type = flue_otlp_string(d, f.sample_type),
                      unit = flue_otlp_string(d, f.sample_unit),
                      period_type = flue_otlp_string(d, f.period_type),
                      period_unit = flue_otlp_string(d, f.period_unit);
    flue_quantity_of(type, unit, period_type, period_unit, f.period, false, out);
    if (out->by_period && measured(payload, d, profile->resource, out->name))
        flue_quantity_of(type, unit, period_type, period_unit, f.period, true, out);
}
