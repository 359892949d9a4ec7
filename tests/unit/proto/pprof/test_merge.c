/* Merging keeps sums per stack, joins what google/pprof joins, and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "corpus.h"
#include "pprof.pb-c.h"
#include "proto/pprof/merge.h"

static Pprof__Profile *unpacked(struct flue_bytes raw)
{
    Pprof__Profile *p = pprof__profile__unpack(NULL, raw.size, raw.data);
    assert_non_null(p);
    return p;
}

/* A sample as text that does not depend on ids: frames with addresses relative to their mapping,
 * sorted labels. Free it. */
static char *key_of(const Pprof__Profile *p, const Pprof__Sample *sample)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    for (size_t i = 0; i < sample->n_location_id; i++) {
        const Pprof__Location *l = NULL;
        const Pprof__Mapping *m = NULL;
        for (size_t j = 0; j < p->n_location && !l; j++)
            if (p->location[j]->id == sample->location_id[i])
                l = p->location[j];
        for (size_t j = 0; j < p->n_mapping && !m; j++)
            if (p->mapping[j]->id == l->mapping_id)
                m = p->mapping[j];
        fprintf(out, "%llx@%s", (unsigned long long)(l->address - (m ? m->memory_start : 0)),
                m ? p->string_table[m->filename] : "");
        for (size_t j = 0; j < l->n_line; j++)
            for (size_t k = 0; k < p->n_function; k++)
                if (p->function[k]->id == l->line[j]->function_id)
                    fprintf(out, " %s:%lld", p->string_table[p->function[k]->name],
                            (long long)l->line[j]->line);
        fputc(';', out);
    }
    char labels[64][256];
    size_t count = sample->n_label < 64 ? sample->n_label : 64;
    for (size_t i = 0; i < count; i++) {
        char one[256];
        size_t at = i;
        const Pprof__Label *label = sample->label[i];
        snprintf(one, sizeof one, "%s=%s/%lld/%s", p->string_table[label->key],
                 p->string_table[label->str], (long long)label->num,
                 p->string_table[label->num_unit]);
        for (; at > 0 && strcmp(one, labels[at - 1]) < 0; at--)
            memcpy(labels[at], labels[at - 1], sizeof one);
        memcpy(labels[at], one, sizeof one);
    }
    for (size_t i = 0; i < count; i++)
        fprintf(out, "|%s", labels[i]);
    fclose(out);
    return text;
}

struct row {
    char *key;
    int64_t values[32];
};

static size_t rows_of(const Pprof__Profile *p, int64_t times, struct row *rows)
{
    size_t count = 0;
    for (size_t i = 0; i < p->n_sample; i++) {
        char *key = key_of(p, p->sample[i]);
        size_t at = 0;
        bool zero = true;
        for (size_t j = 0; j < p->sample[i]->n_value; j++)
            zero = zero && p->sample[i]->value[j] == 0;
        while (at < count && strcmp(rows[at].key, key) != 0)
            at++;
        if (zero || at < count)
            free(key);
        if (zero)
            continue;
        if (at == count)
            rows[count++] = (struct row){.key = key};
        for (size_t j = 0; j < p->sample[i]->n_value; j++)
            rows[at].values[j] += times * p->sample[i]->value[j];
    }
    return count;
}

static void twice_is_double(const char *name, struct flue_bytes profile, void *arg)
{
    static struct row before[4000], after[4000];
    const struct flue_bytes both[] = {profile, profile};
    struct flue_block *merged, *raw = raw_of(profile);
    struct flue_error error = {0};
    struct flue_pprof_facts facts;
    Pprof__Profile *a = unpacked(flue_block_bytes(raw));
    if (a->n_sample > 1500) { /* the comparison is quadratic */
        pprof__profile__free_unpacked(a, NULL);
        flue_block_unref(raw);
        return;
    }
    if (flue_pprof_merge(both, 2, &test_limits, NULL, &merged, &error) != FLUE_OK)
        fail_msg("%s: %s", name, error.text);
    assert_int_equal(flue_pprof_check(flue_block_bytes(merged), &test_limits, &facts, &error),
                     FLUE_OK);
    Pprof__Profile *b = unpacked(flue_block_bytes(merged));
    size_t expected = rows_of(a, 2, before), got = rows_of(b, 1, after);
    if (expected != got || got != b->n_sample)
        fail_msg("%s: %zu different samples became %zu (%zu)", name, expected, got, b->n_sample);
    for (size_t i = 0; i < expected; i++) {
        size_t at = 0;
        while (at < got && strcmp(before[i].key, after[at].key) != 0)
            at++;
        if (at == got)
            fail_msg("%s: lost %s", name, before[i].key);
        assert_memory_equal(before[i].values, after[at].values, sizeof before[i].values);
    }
    assert_int_equal(b->time_nanos, a->time_nanos);
    assert_int_equal(b->duration_nanos, 2 * a->duration_nanos);
    assert_int_equal(b->period, a->period);
    assert_true(b->n_string_table <= a->n_string_table);
    assert_true(b->n_location <= a->n_location);
    for (size_t i = 0; i < expected; i++)
        free(before[i].key);
    for (size_t i = 0; i < got; i++)
        free(after[i].key);
    pprof__profile__free_unpacked(a, NULL);
    pprof__profile__free_unpacked(b, NULL);
    flue_block_unref(merged);
    flue_block_unref(raw);
}

static void every_capture_doubles(void **state)
{
    every_profile(twice_is_double, NULL);
}

static void other_types_are_not_merged(void **state)
{
    struct flue_block *cpu = capture("go-net-http-pprof/profile.body");
    struct flue_block *heap = capture("go-net-http-pprof/heap.body"), *out;
    struct flue_bytes both[] = {flue_block_bytes(cpu), flue_block_bytes(heap)};
    struct flue_error error = {0};
    assert_int_equal(flue_pprof_merge(both, 2, &test_limits, NULL, &out, &error),
                     FLUE_UNPROCESSABLE);
    assert_non_null(strstr(error.text, "profile 1"));
    assert_int_equal(flue_pprof_merge(both, 0, &test_limits, NULL, &out, &error), FLUE_INVALID);
    flue_block_unref(cpu);
    flue_block_unref(heap);
}

/* The same program at another address, one stack in common; then its negative: nothing is left. */
static struct flue_block *small(uint64_t start, int64_t value, int64_t time, const char *comment)
{
    char *strings[] = {(char *)"",         (char *)"cpu",      (char *)"ns",   (char *)"main",
                       (char *)"/bin/enc", (char *)"1438280a", (char *)comment};
    Pprof__ValueType type = PPROF__VALUE_TYPE__INIT, period = PPROF__VALUE_TYPE__INIT;
    Pprof__Mapping mapping = PPROF__MAPPING__INIT;
    Pprof__Location location = PPROF__LOCATION__INIT;
    Pprof__Sample sample = PPROF__SAMPLE__INIT;
    Pprof__Profile profile = PPROF__PROFILE__INIT;
    Pprof__ValueType *types[] = {&type};
    Pprof__Mapping *mappings[] = {&mapping};
    Pprof__Location *locations[] = {&location};
    Pprof__Sample *samples[] = {&sample};
    uint64_t ids[] = {77};
    int64_t values[] = {value}, comments[] = {6};
    type.type = period.type = 1;
    type.unit = period.unit = 2;
    mapping.id = 9;
    mapping.memory_start = start;
    mapping.memory_limit = start + 0x2345;
    mapping.filename = 4;
    mapping.build_id = 5;
    location.id = 77;
    location.mapping_id = 9;
    location.address = start + 0x100;
    sample.n_location_id = 1;
    sample.location_id = ids;
    sample.n_value = 1;
    sample.value = values;
    profile.n_sample_type = 1;
    profile.sample_type = types;
    profile.n_mapping = 1;
    profile.mapping = mappings;
    profile.n_location = 1;
    profile.location = locations;
    profile.n_sample = 1;
    profile.sample = samples;
    profile.n_string_table = 7;
    profile.string_table = strings;
    profile.period_type = &period;
    profile.period = value;
    profile.time_nanos = time;
    profile.n_comment = 1;
    profile.comment = comments;
    struct flue_block *block = flue_block_new(NULL, 1024);
    block->size = pprof__profile__pack(&profile, block->data);
    flue_block_finish(block);
    return block;
}

static void addresses_move_together(void **state)
{
    struct flue_block *a = small(0x400000, 5, 100, "first"), *b = small(0x7f0000, 7, 0, "second"),
                      *c = small(0x500000, 1, 50, "first"), *out;
    struct flue_bytes all[] = {flue_block_bytes(a), flue_block_bytes(b), flue_block_bytes(c)};
    struct flue_error error = {0};
    assert_int_equal(flue_pprof_merge(all, 3, &test_limits, NULL, &out, &error), FLUE_OK);
    Pprof__Profile *p = unpacked(flue_block_bytes(out));
    assert_int_equal(p->n_sample, 1);
    assert_int_equal(p->sample[0]->value[0], 13);
    assert_int_equal(p->n_mapping, 1);
    assert_int_equal(p->mapping[0]->memory_start, 0x400000);
    assert_int_equal(p->location[0]->address, 0x400100);
    assert_int_equal(p->time_nanos, 50); /* a 0 does not win */
    assert_int_equal(p->period, 7);
    assert_int_equal(p->n_comment, 2);
    assert_string_equal(p->string_table[p->comment[0]], "first");
    assert_string_equal(p->string_table[p->comment[1]], "second");
    pprof__profile__free_unpacked(p, NULL);
    flue_block_unref(out);
    flue_block_unref(b);
    b = small(0x600000, -5, 200, "x");
    struct flue_bytes opposite[] = {flue_block_bytes(a), flue_block_bytes(b)};
    assert_int_equal(flue_pprof_merge(opposite, 2, &test_limits, NULL, &out, &error), FLUE_OK);
    p = unpacked(flue_block_bytes(out));
    assert_int_equal(p->n_sample, 0);
    pprof__profile__free_unpacked(p, NULL);
    flue_block_unref(out);
    flue_block_unref(a);
    flue_block_unref(b);
    flue_block_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_capture_doubles),
        cmocka_unit_test(other_types_are_not_merged),
        cmocka_unit_test(addresses_move_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
