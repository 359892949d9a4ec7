/* Is every real profile taken, with the facts that an independent decoder finds, and is everything
 * that google/pprof or Pyroscope would refuse refused with the field's name? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "corpus.h"
#include "pprof.pb-c.h"
#include "proto/wire/writer.h"

/* ---- the corpus against protobuf-c ---------------------------------------------------------- */

static void judge_one(const char *name, struct flue_bytes profile, void *arg)
{
    struct flue_pprof_facts facts, again;
    struct flue_error error = {0};
    if (flue_pprof_check(profile, &test_limits, &facts, &error) != FLUE_OK)
        fail_msg("%s: %s", name, error.text);
    struct flue_block *raw = raw_of(profile);
    Pprof__Profile *oracle = pprof__profile__unpack(NULL, raw->size, raw->data);
    assert_non_null(oracle);
    assert_int_equal(facts.samples, oracle->n_sample);
    assert_int_equal(facts.sample_types, oracle->n_sample_type);
    assert_int_equal(facts.locations, oracle->n_location);
    assert_int_equal(facts.functions, oracle->n_function);
    assert_int_equal(facts.mappings, oracle->n_mapping);
    assert_int_equal(facts.strings, oracle->n_string_table);
    assert_int_equal(facts.time_nanos, oracle->time_nanos);
    assert_int_equal(facts.duration_nanos, oracle->duration_nanos);
    assert_int_equal(facts.inflated_size, raw->size);
    bool dash = false;
    for (size_t i = 0; i < oracle->n_sample_type; i++)
        dash |= strchr(oracle->string_table[oracle->sample_type[i]->type], '-') != NULL;
    assert_int_equal(facts.dash_in_sample_type, dash);
    uint64_t most = 0;
    for (size_t i = 0; i < oracle->n_sample; i++) {
        uint64_t text = 0;
        for (size_t k = 0; k < oracle->sample[i]->n_label; k++)
            text += oracle->sample[i]->label[k]->str != 0;
        most = text > most ? text : most;
    }
    assert_int_equal(facts.sample_labels, most);

    /* The same, raw; and the names of its types. */
    struct flue_arena arena;
    struct flue_pprof_type_name *names;
    flue_arena_init(&arena, 1u << 20, 0);
    assert_int_equal(
        flue_pprof_check_types(flue_block_bytes(raw), &test_limits, &again, &arena, &names, &error),
        FLUE_OK);
    again.gzip = facts.gzip;
    assert_memory_equal(&again, &facts, sizeof facts);
    for (size_t i = 0; i < oracle->n_sample_type; i++) {
        assert_true(
            flue_bytes_is(names[i].type, oracle->string_table[oracle->sample_type[i]->type]));
        assert_true(
            flue_bytes_is(names[i].unit, oracle->string_table[oracle->sample_type[i]->unit]));
    }
    flue_arena_destroy(&arena);
    pprof__profile__free_unpacked(oracle, NULL);
    flue_block_unref(raw);
    ++*(size_t *)arg;
}

static void corpus_agrees_with_protobuf(void **state)
{
    size_t count = 0;
    every_profile(judge_one, &count);
    assert_true(count >= 35);
}

static void shared_corpus_is_taken(void **state)
{
    static const char *const files[] = {"pprof/large.cpu.pb.gz",
                                        "pprof/alloc_objects.pb.gz",
                                        "pprof/wordpress-php-datadog.pprof",
                                        "labels/profile-with-labels.pb.gz",
                                        "delta/heap.after.pprof",
                                        "delta/stress-failure.after.pprof"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[512];
        size_t count = 0;
        snprintf(path, sizeof path, "%s/../shared/corpus/%s", FLUE_SOURCE_DIR, files[i]);
        struct flue_block *block = read_path(path);
        if (!block) {
            print_message("shared corpus absent: %s not checked\n", files[i]);
            continue;
        }
        judge_one(files[i], flue_block_bytes(block), &count);
        flue_block_unref(block);
    }
}

/* ---- a small profile, built by hand --------------------------------------------------------- */

struct text {
    uint8_t data[4096];
    size_t size;
};

static void put(struct text *t, uint32_t number, const void *data, size_t size)
{
    uint8_t *end = flue_write_len_field(t->data + t->size, number, flue_bytes(data, size));
    t->size = (size_t)(end - t->data);
}
static void put_text(struct text *t, uint32_t number, const char *s)
{
    put(t, number, s, strlen(s));
}
static void put_int(struct text *t, uint32_t number, uint64_t value)
{
    uint8_t *at = flue_write_varint(t->data + t->size, flue_tag(number, FLUE_VARINT));
    t->size = (size_t)(flue_write_varint(at, value) - t->data);
}
static void put_text_of(struct text *t, uint32_t number, const struct text *inner)
{
    put(t, number, inner->data, inner->size);
}

/* What may be changed in the small profile. */
struct recipe {
    uint64_t location_ids[3], refs[3], function_id, line_function, type, label_key, label_str,
        label_unit, function_name, filename, comment, default_type, mapping_id, mapping_file;
    unsigned values;
    bool strings_first, samples_first, packed;
    const char *first_string;
    uint64_t time_twice;
    unsigned types;
};

static struct recipe good_recipe(void)
{
    return (struct recipe){.location_ids = {1, 2, 3},
                           .refs = {3, 1, 2},
                           .function_id = 1,
                           .line_function = 1,
                           .type = 1,
                           .label_key = 3,
                           .label_str = 4,
                           .label_unit = 0,
                           .function_name = 5,
                           .filename = 6,
                           .comment = 1,
                           .default_type = 1,
                           .mapping_id = 1,
                           .values = 1,
                           .packed = true,
                           .first_string = "",
                           .types = 1,
                           .mapping_file = 6};
}

static void put_strings(struct text *t, const struct recipe *r)
{
    static const char *const strings[] = {"cpu",  "nanoseconds", "thread",
                                          "main", "encode",      "e.cpp"};
    put_text(t, 6, r->first_string);
    for (size_t i = 0; i < 6; i++)
        put_text(t, 6, strings[i]);
}

static void put_sample(struct text *t, const struct recipe *r, unsigned values)
{
    struct text sample = {0}, label = {0}, run = {0};
    for (int i = 0; i < 3; i++) {
        if (r->packed)
            run.size = (size_t)(flue_write_varint(run.data + run.size, r->refs[i]) - run.data);
        else
            put_int(&sample, 1, r->refs[i]);
    }
    if (r->packed)
        put_text_of(&sample, 1, &run);
    for (unsigned i = 0; i < values; i++)
        put_int(&sample, 2, 100 + i);
    put_int(&label, 1, r->label_key);
    put_int(&label, 2, r->label_str);
    put_int(&label, 4, r->label_unit);
    put_text_of(&sample, 3, &label);
    put_text_of(t, 2, &sample);
}

static struct text make(const struct recipe *r)
{
    struct text t = {0}, part = {0}, line = {0};
    if (r->strings_first)
        put_strings(&t, r);
    if (r->samples_first) {
        put_sample(&t, r, 1);
        put_sample(&t, r, r->values);
    }
    for (unsigned i = 0; i < r->types; i++) {
        part.size = 0;
        put_int(&part, 1, r->type);
        put_int(&part, 2, 2);
        put_text_of(&t, 1, &part);
    }
    if (!r->samples_first) {
        put_sample(&t, r, 1);
        put_sample(&t, r, r->values);
    }
    part.size = 0;
    put_int(&part, 1, r->mapping_id);
    put_int(&part, 5, r->mapping_file);
    put_text_of(&t, 3, &part);
    for (int i = 0; i < 3; i++) {
        part.size = line.size = 0;
        put_int(&part, 1, r->location_ids[i]);
        put_int(&part, 2, 77); /* a mapping that is not there is no mapping */
        put_int(&line, 1, r->line_function);
        put_int(&line, 2, 10 + (unsigned)i);
        put_text_of(&part, 4, &line);
        put_text_of(&t, 4, &part);
    }
    part.size = 0;
    put_int(&part, 1, r->function_id);
    put_int(&part, 2, r->function_name);
    put_int(&part, 4, r->filename);
    put_text_of(&t, 5, &part);
    put_int(&t, 9, 1795239267324246328);
    if (r->time_twice)
        put_int(&t, 9, r->time_twice);
    put_int(&t, 13, r->comment);
    put_int(&t, 14, r->default_type);
    if (!r->strings_first)
        put_strings(&t, r);
    return t;
}

static enum flue_code check_text(const struct text *t, struct flue_pprof_facts *facts,
                                 struct flue_error *error)
{
    return flue_pprof_check(flue_bytes(t->data, t->size), &test_limits, facts, error);
}

static void expect(const struct recipe *r, const char *part_of_error)
{
    struct flue_pprof_facts facts;
    for (int variant = 0; variant < 8; variant++) {
        struct recipe changed = *r;
        struct flue_error error = {0};
        changed.strings_first = variant & 1;
        changed.samples_first = variant & 2;
        changed.packed = variant & 4;
        struct text t = make(&changed);
        enum flue_code code = check_text(&t, &facts, &error);
        if (part_of_error && (code != FLUE_INVALID || !strstr(error.text, part_of_error)))
            fail_msg("variant %d: wanted \"%s\", got %d \"%s\"", variant, part_of_error, code,
                     error.text);
        if (!part_of_error && code != FLUE_OK)
            fail_msg("variant %d: %s", variant, error.text);
    }
}

static void small_profile_is_good(void **state)
{
    struct recipe r = good_recipe();
    expect(&r, NULL);
    r.types = 0; /* then no sample may have a value, but these have one */
    expect(&r, "0 sample types");
}

static void bad_references_are_named(void **state)
{
#define BAD(change, text)                                                                          \
    do {                                                                                           \
        struct recipe r = good_recipe();                                                           \
        change;                                                                                    \
        expect(&r, text);                                                                          \
    } while (0)
    BAD(r.refs[1] = 4, "sample[0].location_id: 4, but there is no such location");
    BAD(r.refs[2] = 0, "sample[0].location_id: 0 is not an id");
    BAD(r.refs[0] = UINT64_MAX, "sample[0].location_id");
    BAD(r.line_function = 2, "location[0].line.function_id: 2, but there is no such function");
    BAD(r.line_function = 0, "location[0].line.function_id: 0 is not an id");
    BAD(r.location_ids[0] = 0, "location[0].id: 0 is not an id");
    BAD(r.location_ids[2] = 2, "location[2].id: 2 is there twice");
    BAD(r.function_id = 0, "function[0].id: 0");
    BAD(r.mapping_id = 0, "mapping[0].id: 0");
    BAD(r.type = 7, "sample_type[0].type: string index 7, but string_table has 7 entries");
    BAD(r.label_key = 7, "sample[0].label.key: string index 7");
    BAD(r.label_str = 1u << 20, "sample[0].label.str: string index 1048576");
    BAD(r.label_unit = 7, "sample[0].label.num_unit: string index 7");
    BAD(r.label_str = (uint64_t)-1, "sample[0].label.str: string index -1 is negative");
    BAD(r.label_str = (uint64_t)-5, "sample[0].label.str: string index -5 is negative");
    BAD(r.function_name = 7, "function[0].name: string index 7");
    BAD(r.filename = 9, "function[0].filename: string index 9");
    BAD(r.mapping_file = 9, "mapping[0].filename: string index 9");
    BAD(r.comment = 7, "comment");
    BAD(r.default_type = 7, "default_sample_type");
    BAD(r.values = 2, "sample[1].value: 2 values");
    BAD(r.values = 0, "sample[1].value: 0 values");
    BAD(r.types = 2, "sample[0].value: 1 values, but there are 2 sample types");
    BAD(r.first_string = "x", "string_table[0]: must be empty");
    BAD(r.time_twice = 5, "time_nanos: there twice");
}

static void sparse_ids_are_taken(void **state)
{
    struct recipe r = good_recipe();
    memcpy(r.location_ids, (uint64_t[]){0x7f0000001000, 5, UINT64_MAX}, sizeof r.location_ids);
    memcpy(r.refs, (uint64_t[]){UINT64_MAX, 5, 0x7f0000001000}, sizeof r.refs);
    r.function_id = r.line_function = 1ull << 63;
    r.mapping_id = 99;
    expect(&r, NULL);
    r.refs[1] = 6;
    expect(&r, "sample[0].location_id: 6, but there is no such location");
    r.refs[1] = 5;
    r.line_function = 1;
    expect(&r, "location[0].line.function_id: 1, but there is no such function");
}

static void permuted_ids_are_taken(void **state)
{
    struct recipe r = good_recipe();
    memcpy(r.location_ids, (uint64_t[]){3, 1, 2}, sizeof r.location_ids);
    expect(&r, NULL);
    r.refs[0] = 4;
    expect(&r, "sample[0].location_id: 4");
}

/* ---- hostile -------------------------------------------------------------------------------- */

static void every_truncation_is_refused_or_whole(void **state)
{
    struct recipe r = good_recipe();
    struct text t = make(&r);
    struct flue_pprof_facts facts;
    struct flue_error error;
    assert_int_equal(check_text(&t, &facts, &error), FLUE_OK);
    size_t size = t.size;
    for (t.size = 0; t.size < size; t.size++) {
        /* Strings come last, so no prefix has them all. A copy, so that a read beyond is seen. */
        uint8_t *copy = malloc(t.size + 1);
        memcpy(copy, t.data, t.size);
        copy = realloc(copy, t.size ? t.size : 1);
        assert_int_equal(flue_pprof_check(flue_bytes(copy, t.size), &test_limits, &facts, &error),
                         FLUE_INVALID);
        free(copy);
    }
}

static void truncated_gzip_is_refused(const char *name, struct flue_bytes profile, void *arg)
{
    struct flue_pprof_facts facts;
    struct flue_error error;
    if (profile.size < 2 || profile.data[0] != 0x1f)
        return;
    for (size_t size = 2; size < profile.size; size += size < 64 ? 1 : 97)
        if (flue_pprof_check(flue_bytes(profile.data, size), &test_limits, &facts, &error) ==
            FLUE_OK)
            fail_msg("%s cut to %zu bytes is taken", name, size);
}

static void truncated_captures_are_refused(void **state)
{
    every_profile(truncated_gzip_is_refused, NULL);
}

/* What passes after a change must be decodable and in range by protobuf-c's reading too. */
static bool oracle_takes(struct flue_bytes raw)
{
    Pprof__Profile *p = pprof__profile__unpack(NULL, raw.size, raw.data);
    if (!p)
        return false;
    bool good = p->n_string_table > 0 && p->string_table[0][0] == '\0';
#define INDEX(x) good = good && (x) >= 0 && (size_t)(x) < p->n_string_table
    for (size_t i = 0; i < p->n_sample_type; i++) {
        INDEX(p->sample_type[i]->type);
        INDEX(p->sample_type[i]->unit);
    }
    for (size_t i = 0; i < p->n_sample; i++) {
        good = good && p->sample[i]->n_value == p->n_sample_type;
        for (size_t j = 0; j < p->sample[i]->n_label; j++) {
            INDEX(p->sample[i]->label[j]->key);
            INDEX(p->sample[i]->label[j]->str);
            INDEX(p->sample[i]->label[j]->num_unit);
        }
        for (size_t j = 0; j < p->sample[i]->n_location_id && good; j++) {
            bool found = false;
            for (size_t k = 0; k < p->n_location && !found; k++)
                found = p->location[k]->id == p->sample[i]->location_id[j];
            good = found && p->sample[i]->location_id[j] != 0;
        }
    }
    for (size_t i = 0; i < p->n_location; i++) {
        good = good && p->location[i]->id != 0;
        for (size_t j = 0; j < i && good; j++)
            good = p->location[j]->id != p->location[i]->id;
        for (size_t j = 0; j < p->location[i]->n_line && good; j++) {
            bool found = false;
            for (size_t k = 0; k < p->n_function && !found; k++)
                found = p->function[k]->id == p->location[i]->line[j]->function_id;
            good = found && p->location[i]->line[j]->function_id != 0;
        }
    }
    for (size_t i = 0; i < p->n_function; i++) {
        good = good && p->function[i]->id != 0;
        for (size_t j = 0; j < i && good; j++)
            good = p->function[j]->id != p->function[i]->id;
        INDEX(p->function[i]->name);
        INDEX(p->function[i]->system_name);
        INDEX(p->function[i]->filename);
    }
    for (size_t i = 0; i < p->n_mapping; i++) {
        good = good && p->mapping[i]->id != 0;
        for (size_t j = 0; j < i && good; j++)
            good = p->mapping[j]->id != p->mapping[i]->id;
        INDEX(p->mapping[i]->filename);
        INDEX(p->mapping[i]->build_id);
    }
    for (size_t i = 0; i < p->n_comment; i++)
        INDEX(p->comment[i]);
    if (p->period_type) {
        INDEX(p->period_type->type);
        INDEX(p->period_type->unit);
    }
    INDEX(p->drop_frames);
    INDEX(p->keep_frames);
    INDEX(p->default_sample_type);
    INDEX(p->doc_url);
#undef INDEX
    pprof__profile__free_unpacked(p, NULL);
    return good;
}

static void mutants_agree_with_the_oracle(void **state)
{
    struct flue_block *body = capture("go-net-http-pprof/delta-mutex.body");
    struct flue_block *raw = raw_of(flue_block_bytes(body));
    struct flue_pprof_facts facts;
    struct flue_error error;
    uint64_t seed = 20261121;
    size_t taken = 0, refused = 0;
    for (int round = 0; round < 40000; round++) {
        uint8_t *copy = malloc(raw->size);
        memcpy(copy, raw->data, raw->size);
        for (int changes = 1 + round % 3; changes > 0; changes--) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            size_t at = (size_t)(seed >> 33) % raw->size;
            copy[at] =
                round & 1 ? (uint8_t)(copy[at] ^ 1 << (seed >> 20 & 7)) : (uint8_t)(seed >> 24);
        }
        bool good =
            flue_pprof_check(flue_bytes(copy, raw->size), &test_limits, &facts, &error) == FLUE_OK;
        /* protobuf-c is laxer (wrong wire types and overlong tags are unknown fields to it), so the
         * check may refuse more; it must never take what the oracle finds wrong. */
        if (good && !facts.invalid_utf8 && !oracle_takes(flue_bytes(copy, raw->size)))
            fail_msg("round %d is taken", round);
        taken += good;
        refused += !good;
        free(copy);
    }
    assert_true(taken > 1000);
    assert_true(refused > 1000);
    flue_block_unref(raw);
    flue_block_unref(body);
}

static void a_field_over_many_windows(void **state)
{
    /* A string of 3 MB arrives in many pieces of inflated gzip. */
    struct recipe r = good_recipe();
    struct text t = make(&r);
    size_t big = 3u << 20;
    struct flue_block *raw = flue_block_new(NULL, big + 8192);
    memcpy(raw->data, t.data, t.size);
    uint8_t *at = flue_write_len_head(raw->data + t.size, 6, big);
    uint64_t seed = 7;
    for (size_t i = 0; i < big; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        at[i] = (uint8_t)('a' + (seed >> 40) % 26);
    }
    raw->size = (size_t)(at + big - raw->data);
    flue_block_finish(raw);
    struct flue_bytes bytes = flue_block_bytes(raw);
    struct flue_slices slices = {&bytes, 1, 1, bytes.size};
    struct flue_block *gzip;
    struct flue_error error = {0};
    struct flue_pprof_facts facts;
    assert_int_equal(flue_deflate(FLUE_GZIP, FLUE_LEVEL_DEFAULT, &slices, &gzip, &error), FLUE_OK);
    assert_int_equal(flue_pprof_check(flue_block_bytes(gzip), &test_limits, &facts, &error),
                     FLUE_OK);
    assert_int_equal(facts.inflated_size, raw->size);
    assert_int_equal(facts.strings, 8);
    /* ±1 around the limit */
    struct flue_pprof_limits limits = {raw->size, 200};
    assert_int_equal(flue_pprof_check(bytes, &limits, &facts, &error), FLUE_OK);
    assert_int_equal(flue_pprof_check(flue_block_bytes(gzip), &limits, &facts, &error), FLUE_OK);
    limits.inflated--;
    assert_int_equal(flue_pprof_check(bytes, &limits, &facts, &error), FLUE_TOO_LARGE);
    assert_int_equal(flue_pprof_check(flue_block_bytes(gzip), &limits, &facts, &error),
                     FLUE_TOO_LARGE);
    flue_block_unref(gzip);
    flue_block_unref(raw);
}

static void a_length_that_lies(void **state)
{
    uint8_t lie[] = {0x32, 0xff, 0xff, 0xff, 0xff, 0x0f, 'x'};
    uint8_t worse[] = {0x32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 'x'};
    struct flue_pprof_facts facts;
    struct flue_error error;
    assert_int_equal(flue_pprof_check(flue_bytes(lie, sizeof lie), &test_limits, &facts, &error),
                     FLUE_INVALID);
    assert_int_equal(
        flue_pprof_check(flue_bytes(worse, sizeof worse), &test_limits, &facts, &error),
        FLUE_INVALID);
    struct flue_bytes bytes = flue_bytes(lie, sizeof lie);
    struct flue_slices slices = {&bytes, 1, 1, bytes.size};
    struct flue_block *gzip;
    assert_int_equal(flue_deflate(FLUE_GZIP, FLUE_LEVEL_DEFAULT, &slices, &gzip, &error), FLUE_OK);
    /* The piece is all there is, so the length is found wrong at its end. */
    assert_int_equal(flue_pprof_check(flue_block_bytes(gzip), &test_limits, &facts, &error),
                     FLUE_INVALID);
    flue_block_unref(gzip);
}

static void a_bomb_is_refused(void **state)
{
    struct flue_block *zeros = flue_block_new(NULL, 32u << 20), *gzip;
    memset(zeros->data, 0, 32u << 20);
    zeros->size = 32u << 20;
    struct flue_bytes bytes = flue_block_bytes(zeros);
    struct flue_slices slices = {&bytes, 1, 1, bytes.size};
    struct flue_error error;
    struct flue_pprof_facts facts;
    uint8_t head[16];
    uint8_t *end = flue_write_len_head(flue_write_len_head(head, 6, 0), 6, 16u << 20);
    memcpy(zeros->data, head, (size_t)(end - head));
    assert_int_equal(flue_deflate(FLUE_GZIP, FLUE_LEVEL_DENSE, &slices, &gzip, &error), FLUE_OK);
    struct flue_pprof_limits limits = {8u << 20, 200};
    assert_int_equal(flue_pprof_check(flue_block_bytes(gzip), &limits, &facts, &error),
                     FLUE_TOO_LARGE);
    flue_block_unref(gzip);
    flue_block_unref(zeros);
}

static void odd_things(void **state)
{
    struct flue_pprof_facts facts;
    struct flue_error error;
    assert_int_equal(flue_pprof_check(FLUE_BYTES(""), &test_limits, &facts, &error), FLUE_INVALID);
    assert_string_equal(error.text, "empty profile");
    struct flue_block *html = capture("go-net-http-pprof/error-unknown.body");
    assert_int_equal(flue_pprof_check(flue_block_bytes(html), &test_limits, &facts, &error),
                     FLUE_INVALID);
    flue_block_unref(html);
    html = capture("go-net-http-pprof/mutex-debug1.body");
    assert_int_equal(flue_pprof_check(flue_block_bytes(html), &test_limits, &facts, &error),
                     FLUE_INVALID);
    flue_block_unref(html);
    struct recipe r = good_recipe();
    struct text t = make(&r);
    size_t size = t.size;
    put(&t, 6, "caf\xc3", 4); /* cut in the middle of a character */
    assert_int_equal(check_text(&t, &facts, &error), FLUE_OK);
    assert_true(facts.invalid_utf8);
    t.size = size;
    put_text(&t, 99, "an unknown field");
    put_int(&t, 98, 12345678901234);
    assert_int_equal(check_text(&t, &facts, &error), FLUE_OK);
    assert_false(facts.invalid_utf8);
    t.size = size;
    put_int(&t, 6, 3); /* a string that is a number */
    assert_int_equal(check_text(&t, &facts, &error), FLUE_INVALID);
    t.size = size;
    t.data[t.size++] = 0x83; /* field 16 as a group */
    t.data[t.size++] = 0x01;
    assert_int_equal(check_text(&t, &facts, &error), FLUE_INVALID);
}

static void dash_is_seen_in_any_order(void **state)
{
    struct flue_pprof_facts facts;
    struct flue_error error;
    for (int order = 0; order < 2; order++) {
        struct text t = {0}, type = {0};
        put_int(&type, 1, 1);
        put_int(&type, 2, 2);
        if (order == 0)
            put_text_of(&t, 1, &type);
        put_text(&t, 6, "");
        put_text(&t, 6, "cpu-time");
        put_text(&t, 6, "n-s");
        if (order == 1)
            put_text_of(&t, 1, &type);
        assert_int_equal(check_text(&t, &facts, &error), FLUE_OK);
        assert_true(facts.dash_in_sample_type);
        t.data[(uint8_t *)memmem(t.data, t.size, "cpu-", 4) + 3 - t.data] = '_';
        /* A dash in a unit is none in a type. */
        assert_int_equal(check_text(&t, &facts, &error), FLUE_OK);
        assert_false(facts.dash_in_sample_type);
    }
}

/* Long packed runs go through the 16-byte path: every position and width must be judged there. */
static void long_runs(void **state)
{
    struct flue_pprof_facts facts;
    struct flue_error error;
    const uint64_t rows = 20000;
    for (unsigned wrong = 0; wrong < 64; wrong++) {
        struct flue_block *b = flue_block_new(NULL, 1u << 20);
        uint8_t *at = b->data, run[512], *end = run;
        for (unsigned i = 0; i < 60; i++) {
            uint64_t id = i % 7 == 0 ? 1 + i : i % 3 == 0 ? 130 + i : i == 41 ? rows : 9000 + i;
            if (i == wrong)
                id = wrong % 2 ? rows + 1 : 0;
            end = flue_write_varint(end, id);
        }
        uint8_t sample[600],
            *s = flue_write_len_field(sample, 1, flue_bytes(run, (size_t)(end - run)));
        at = flue_write_len_field(at, 2, flue_bytes(sample, (size_t)(s - sample)));
        for (uint64_t id = 1; id <= rows; id++) {
            uint8_t one[12] = {0x08}, *stop = flue_write_varint(one + 1, id);
            at = flue_write_len_field(at, 4, flue_bytes(one, (size_t)(stop - one)));
        }
        at = flue_write_len_field(at, 6, FLUE_BYTES(""));
        b->size = (size_t)(at - b->data);
        enum flue_code code = flue_pprof_check(flue_block_bytes(b), &test_limits, &facts, &error);
        if (code != (wrong < 60 ? FLUE_INVALID : FLUE_OK))
            fail_msg("wrong id at %u: %d %s", wrong, code, error.text);
        flue_block_unref(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(corpus_agrees_with_protobuf),
        cmocka_unit_test(shared_corpus_is_taken),
        cmocka_unit_test(small_profile_is_good),
        cmocka_unit_test(bad_references_are_named),
        cmocka_unit_test(sparse_ids_are_taken),
        cmocka_unit_test(permuted_ids_are_taken),
        cmocka_unit_test(every_truncation_is_refused_or_whole),
        cmocka_unit_test(truncated_captures_are_refused),
        cmocka_unit_test(mutants_agree_with_the_oracle),
        cmocka_unit_test(a_field_over_many_windows),
        cmocka_unit_test(a_length_that_lies),
        cmocka_unit_test(a_bomb_is_refused),
        cmocka_unit_test(odd_things),
        cmocka_unit_test(dash_is_seen_in_any_order),
        cmocka_unit_test(long_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
