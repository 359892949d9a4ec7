/* Groups of a payload in files of their own; one that comes again after a failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "collector/base/payload.h"
#include "exporters/file/groups.h"
#include "proto/otlp/otlp.h"
#include "tests/unit/proto/convert/random_otlp.h"

/* A resource without profiles' samples for every name. */
static struct flue_payload *payload_of(const char *const *names, size_t count)
{
    Otlp__ExportProfilesServiceRequest *q =
        NEW(Otlp__ExportProfilesServiceRequest, OTLP__EXPORT_PROFILES_SERVICE_REQUEST__INIT);
    struct flue_otlp_report report;
    struct flue_payload *payload;
    struct flue_error error;
    struct flue_block *block;

    q->dictionary = NEW(Otlp__ProfilesDictionary, OTLP__PROFILES_DICTIONARY__INIT);
    MANY(q->dictionary->string_table, q->dictionary->n_string_table, 1);
    q->dictionary->string_table[0] = strdup("");
    MANY(q->resource_profiles, q->n_resource_profiles, count);
    for (size_t i = 0; i < count; i++) {
        Otlp__ResourceProfiles *rp = q->resource_profiles[i] =
            NEW(Otlp__ResourceProfiles, OTLP__RESOURCE_PROFILES__INIT);
        rp->resource = NEW(Otlp__Resource, OTLP__RESOURCE__INIT);
        MANY(rp->resource->attributes, rp->resource->n_attributes, 1);
        rp->resource->attributes[0] = NEW(Otlp__KeyValue, OTLP__KEY_VALUE__INIT);
        rp->resource->attributes[0]->key = strdup("team");
        rp->resource->attributes[0]->value = NEW(Otlp__AnyValue, OTLP__ANY_VALUE__INIT);
        rp->resource->attributes[0]->value->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE;
        rp->resource->attributes[0]->value->string_value = strdup(names[i]);
        MANY(rp->scope_profiles, rp->n_scope_profiles, 1);
        rp->scope_profiles[0] = NEW(Otlp__ScopeProfiles, OTLP__SCOPE_PROFILES__INIT);
        MANY(rp->scope_profiles[0]->profiles, rp->scope_profiles[0]->n_profiles, 1);
        rp->scope_profiles[0]->profiles[0] = NEW(Otlp__Profile, OTLP__PROFILE__INIT);
    }
    block = flue_block_new(NULL, otlp__export_profiles_service_request__get_packed_size(q));
    block->size = otlp__export_profiles_service_request__pack(q, block->data);
    flue_block_finish(block);
    otlp__export_profiles_service_request__free_unpacked(q, NULL);
    if (flue_otlp_read(block, &payload, &report, &error) != FLUE_OK)
        fail_msg("%s", error.text);
    return payload;
}

struct writing {
    unsigned writes, fail_at; /* counted over all calls; 0: never */
    char teams[200];
};

static enum flue_code write_part(void *arg, struct flue_stream *stream,
                                 const struct flue_payload *part, struct flue_error *error)
{
    struct writing *w = arg;
    size_t used = strlen(w->teams);
    struct flue_value team;

    if (++w->writes == w->fail_at)
        return flue_fail(error, FLUE_IO, "told to fail");
    assert_true(part->ops->attribute_get(part, 0, FLUE_BYTES("team"), &team));
    snprintf(w->teams + used, sizeof w->teams - used, "%.*s:%zu ", FLUE_PRI(team.text),
             part->ops->resource_count(part));
    return flue_stream_write(stream, FLUE_BYTES("x"), false, error);
}

static void again_after_a_failure(void **state)
{
    static const char *const names[] = {"live", "vod", "live", "ads"};
    char folder[] = "/tmp/flue-groups-XXXXXX", path[64], file[64];
    struct flue_payload *payload = payload_of(names, 4);
    struct flue_groups *groups;
    struct flue_error error;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/*.otlp", folder);
    groups = flue_groups_new(path, "team", 2, false, 0755, NULL);
    assert_non_null(groups);
    for (unsigned fail_at = 0; fail_at <= 3; fail_at++) {
        struct writing w = {.fail_at = fail_at};
        uint32_t done = 0;
        if (fail_at) {
            assert_int_equal(flue_groups_write(groups, payload, &done, write_part, &w, &error),
                             FLUE_IO);
            assert_int_equal(done, fail_at - 1);
        }
        assert_int_equal(flue_groups_write(groups, payload, &done, write_part, &w, &error),
                         FLUE_OK);
        assert_int_equal(done, 3);
        assert_string_equal(w.teams, "live:2 vod:1 ads:1 ");
    }
    flue_groups_destroy(groups);
    flue_payload_unref(payload);
    for (size_t i = 1; i < 4; i++) {
        snprintf(file, sizeof file, "%s/%s.otlp", folder, names[i]);
        assert_int_equal(unlink(file), 0);
    }
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(again_after_a_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
