/* random_pprof.h: valid pprof profiles by a seed: sparse ids, strings twice, negative values,
 * several values of one label, mappings up to 2^64 - 1, frames without anything. */
#ifndef TESTS_CONVERT_RANDOM_PPROF_H
#define TESTS_CONVERT_RANDOM_PPROF_H

#include "schema/pprof.pb-c.h"
#include "tests/unit/proto/convert/random_otlp.h"

static inline struct flue_block *pprof_packed(Pprof__Profile *p)
{
    struct flue_block *block = flue_block_new(NULL, pprof__profile__get_packed_size(p));
    block->size = pprof__profile__pack(p, block->data);
    flue_block_finish(block);
    pprof__profile__free_unpacked(p, NULL);
    return block;
}

static inline Pprof__ValueType *pprof_type(int64_t type, int64_t unit)
{
    Pprof__ValueType *t = NEW(Pprof__ValueType, PPROF__VALUE_TYPE__INIT);
    t->type = type;
    t->unit = unit;
    return t;
}

static inline struct flue_block *random_pprof(uint64_t seed)
{
    struct dice d = {seed * 104729};
    Pprof__Profile *p = NEW(Pprof__Profile, PPROF__PROFILE__INIT);
    uint64_t stride = pick(&d, 3) ? 1 : 0x7f0000001000u; /* ids like addresses */
    static const char *const known[] = {
        "span_id", "trace_id",         "profile_id", "span id", "cpu",
        "bytes",   "0011223344556677", "258",        "thread",  "00112233445566778899aabbccddeeff"};
    MANY(p->string_table, p->n_string_table, 15 + pick(&d, 40));
    for (size_t i = 0; i < p->n_string_table; i++) {
        char text[32];
        snprintf(text, sizeof text, "text %u", pick(&d, 40));
        p->string_table[i] = strdup(i == 0 ? "" : i <= 10 ? known[i - 1] : text);
    }
    uint32_t strings = (uint32_t)p->n_string_table;
    MANY(p->sample_type, p->n_sample_type, 1 + pick(&d, 4));
    for (size_t i = 0; i < p->n_sample_type; i++) /* different ones */
        p->sample_type[i] = pprof_type((int64_t)(1 + i), pick(&d, strings));
    MANY(p->mapping, p->n_mapping, pick(&d, 4));
    for (size_t i = 0; i < p->n_mapping; i++) {
        Pprof__Mapping *m = NEW(Pprof__Mapping, PPROF__MAPPING__INIT);
        m->id = (i + 1) * stride;
        m->memory_start = pick(&d, 2) ? 0 : odd_number(&d);
        m->memory_limit = m->memory_start ? m->memory_start + 1 : UINT64_MAX;
        if (m->memory_start == UINT64_MAX)
            m->memory_start = m->memory_limit = 0;
        m->file_offset = odd_number(&d);
        m->filename = pick(&d, strings);
        m->build_id = pick(&d, strings);
        m->has_functions = pick(&d, 2);
        m->has_filenames = pick(&d, 2);
        m->has_line_numbers = pick(&d, 2);
        m->has_inline_frames = pick(&d, 2);
        p->mapping[i] = m;
    }
    MANY(p->function, p->n_function, 1 + pick(&d, 12));
    for (size_t i = 0; i < p->n_function; i++) {
        Pprof__Function *f = NEW(Pprof__Function, PPROF__FUNCTION__INIT);
        f->id = (i + 1) * stride;
        f->name = pick(&d, 4) ? pick(&d, strings) : 0;
        f->system_name = pick(&d, 2) ? pick(&d, strings) : 0;
        f->filename = pick(&d, 3) ? pick(&d, strings) : 0;
        f->start_line = pick(&d, 3) ? 0 : pick(&d, 500);
        p->function[i] = f;
    }
    MANY(p->location, p->n_location, 1 + pick(&d, 30));
    for (size_t i = 0; i < p->n_location; i++) {
        Pprof__Location *l = NEW(Pprof__Location, PPROF__LOCATION__INIT);
        l->id = (i + 1) * stride;
        if (p->n_mapping && pick(&d, 3))
            l->mapping_id = (1 + pick(&d, (uint32_t)p->n_mapping)) * stride;
        l->address = pick(&d, 3) ? odd_number(&d) : 0;
        MANY(l->line, l->n_line, pick(&d, 4));
        /* A frame with nothing comes back as "[unknown]", which the mapping then has a name of. */
        for (size_t j = 0; j < l->n_line; j++) {
            l->line[j] = NEW(Pprof__Line, PPROF__LINE__INIT);
            l->line[j]->function_id = (1 + pick(&d, (uint32_t)p->n_function)) * stride;
            l->line[j]->line = pick(&d, 3) ? (int64_t)(odd_number(&d) >> 1) : 0;
            l->line[j]->column = pick(&d, 3) ? 0 : 3;
        }
        l->is_folded = pick(&d, 6) == 0;
        p->location[i] = l;
    }
    MANY(p->sample, p->n_sample, pick(&d, 8) ? pick(&d, 40) : 0);
    for (size_t i = 0; i < p->n_sample; i++) {
        Pprof__Sample *s = NEW(Pprof__Sample, PPROF__SAMPLE__INIT);
        MANY(s->location_id, s->n_location_id, pick(&d, 5) ? pick(&d, 300) : 0);
        for (size_t j = 0; j < s->n_location_id; j++)
            s->location_id[j] = (1 + pick(&d, (uint32_t)p->n_location)) * stride;
        MANY(s->value, s->n_value, p->n_sample_type);
        for (size_t j = 0; j < s->n_value; j++)
            s->value[j] = (int64_t)odd_number(&d);
        MANY(s->label, s->n_label, pick(&d, 6));
        for (size_t j = 0; j < s->n_label; j++) {
            Pprof__Label *l = NEW(Pprof__Label, PPROF__LABEL__INIT);
            l->key = 1 + pick(&d, pick(&d, 2) ? 4 : 11);
            if (pick(&d, 2)) {
                l->str = 1 + pick(&d, strings - 1);
            } else {
                l->num = (int64_t)odd_number(&d);
                l->num_unit = pick(&d, 2) ? 0 : 5 + pick(&d, 2);
            }
            s->label[j] = l;
        }
        p->sample[i] = s;
    }
    p->drop_frames = pick(&d, 2) ? pick(&d, strings) : 0;
    p->keep_frames = pick(&d, 2) ? pick(&d, strings) : 0;
    p->time_nanos = (int64_t)(1700000000000000000u + pick(&d, 1000));
    p->duration_nanos = (int64_t)(roll(&d) >> 20);
    if (pick(&d, 2))
        p->period_type = pprof_type(pick(&d, strings), pick(&d, strings));
    p->period = (int64_t)odd_number(&d);
    MANY(p->comment, p->n_comment, pick(&d, 3));
    for (size_t i = 0; i < p->n_comment; i++)
        p->comment[i] = pick(&d, strings);
    p->default_sample_type = pick(&d, 2) ? pick(&d, strings) : 0;
    p->doc_url = pick(&d, 2) ? pick(&d, strings) : 0;
    return pprof_packed(p);
}

/* One sample of value 5 with these labels; a value that begins with '#' is a number. */
static inline struct flue_block *labelled_pprof(const char *const labels[][2], size_t count)
{
    Pprof__Profile *p = NEW(Pprof__Profile, PPROF__PROFILE__INIT);
    Pprof__Sample *s = NEW(Pprof__Sample, PPROF__SAMPLE__INIT);
    MANY(p->string_table, p->n_string_table, 2 + 2 * count);
    p->string_table[0] = strdup("");
    p->string_table[1] = strdup("events");
    MANY(p->sample_type, p->n_sample_type, 1);
    p->sample_type[0] = pprof_type(1, 1);
    MANY(p->sample, p->n_sample, 1);
    p->sample[0] = s;
    MANY(s->value, s->n_value, 1);
    s->value[0] = 5;
    MANY(s->label, s->n_label, count);
    for (size_t i = 0; i < count; i++) {
        s->label[i] = NEW(Pprof__Label, PPROF__LABEL__INIT);
        p->string_table[2 + 2 * i] = strdup(labels[i][0]);
        p->string_table[3 + 2 * i] = strdup(labels[i][1]);
        s->label[i]->key = (int64_t)(2 + 2 * i);
        if (labels[i][1][0] == '#')
            s->label[i]->num = strtoll(labels[i][1] + 1, NULL, 10);
        else
            s->label[i]->str = (int64_t)(3 + 2 * i);
    }
    return pprof_packed(p);
}

#endif
