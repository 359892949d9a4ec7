/* nop.c: takes everything and keeps nothing; for measurements and for trying a configuration. */
#include "collector/pipeline/exporter.h"

static const struct flue_field nop_fields[] = {FLUE_FIELDS_END};

static enum flue_code nop_create(const struct flue_create *create, void **instance,
                                 struct flue_error *error)
{
    static char nothing;
    *instance = &nothing;
    return FLUE_OK;
}

static void nop_send(void *instance, struct flue_send *send)
{
    flue_send_ok(send);
}

static void nop_destroy(void *instance)
{
    (void)instance;
}

const struct flue_component flue_exporter_nop = {
    .kind = FLUE_EXPORTER,
    .name = "nop",
    .signals = FLUE_PROFILES | FLUE_TRACES | FLUE_METRICS,
    .stability = FLUE_BETA,
    .summary = "takes everything and keeps nothing",
    .fields = nop_fields,
    .no_queue = true,
    .create = nop_create,
    .send = nop_send,
    .destroy = nop_destroy,
};
