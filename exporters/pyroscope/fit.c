/* fit.c: see fit.h. */
#include "exporters/pyroscope/fit.h"
#include <stdlib.h>
#include "proto/pprof/document.h"

#define BUDGET_FLOOR  ((size_t)4 << 20)
#define BUDGET_FACTOR 24 /* rows of the profile; as proto/pprof/merge.h */
#define MARK          "[frames left out]"

struct fitting {
    const struct flue_fit_limits *limits;
    struct flue_pprof_document doc;
    struct flue_arena arena, scratch;
    struct flue_account *account;
    bool (*emit)(void *arg, struct flue_block *part, uint64_t samples);
    void *arg;
    size_t *cut;
    struct flue_error *error;
};

static enum flue_code no_memory(struct flue_error *error)
{
    return flue_fail(error, FLUE_NO_MEMORY, "no memory to cut a profile to the server's limits");
}

bool flue_fits(const struct flue_pprof_facts *facts, const struct flue_fit_limits *limits)
{
    return facts->inflated_size <= limits->bytes && facts->samples <= limits->samples &&
           facts->all_labels <= limits->sample_labels &&
           facts->sample_labels <= limits->text_labels && facts->depth <= limits->depth;
}

/* ---- labels of samples ---------------------------------------------------------------------- */

struct key {
    uint32_t row; /* string */
    size_t rank;
    struct flue_bytes name;
};

static bool is_link(struct flue_bytes key)
{
    return flue_bytes_is(key, "span_id") || flue_bytes_is(key, "trace_id") ||
           flue_bytes_is(key, "profile_id");
}

static int by_rank(const void *a, const void *b)
{
    const struct key *x = a, *y = b;

    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return flue_bytes_compare(x->name, y->name);
}

/* The keys with text of all samples, those that stay first in front; marks[row] is then 1 + place,
 * or 0 where the string is no such key. */
static bool rank_keys(struct fitting *f, uint32_t *marks)
{
    struct key *keys = NULL;
    size_t count = 0, room = 0;

    for (uint32_t i = 0; i < f->doc.label_count; i++) {
        const struct flue_pprof_sample_label *label = &f->doc.labels[i];
        struct key key = {label->key, 0, f->doc.strings[label->key]};
        if (!label->str || marks[label->key] || is_link(key.name))
            continue;
        key.rank = flue_label_rank(f->limits->order, key.name);
        marks[label->key] = 1;
        if (!FLUE_ARENA_PUSH(&f->arena, keys, count, room, key))
            return false;
    }
    if (count)
        qsort(keys, count, sizeof *keys, by_rank);
    for (size_t i = 0; i < count; i++)
        marks[keys[i].row] = (uint32_t)i + 1;
    return true;
}

static size_t drop_labels(struct fitting *f, struct flue_pprof_sample *sample,
                          bool (*out)(const struct flue_pprof_sample_label *label, const void *arg),
                          const void *arg)
{
    struct flue_pprof_sample_label *labels = f->doc.labels + sample->first_label;
    uint32_t kept = 0;
    size_t dropped = 0;

    for (uint32_t i = 0; i < sample->label_count; i++) {
        if (out(&labels[i], arg))
            dropped++;
        else
            labels[kept++] = labels[i];
    }
    sample->label_count = kept;
    return dropped;
}

static bool is_number(const struct flue_pprof_sample_label *label, const void *arg)
{
    (void)arg;
    return label->str == 0;
}

struct over {
    const uint32_t *marks;
    uint64_t limit;
};

static bool is_over(const struct flue_pprof_sample_label *label, const void *arg)
{
    const struct over *over = arg;

    return label->str && over->marks[label->key] > over->limit;
}

/* One key twice on a sample counts twice: then what is left over goes, whatever it is. */
static void cut_rest(struct fitting *f, struct flue_pprof_sample *sample)
{
    if (sample->label_count > f->limits->sample_labels) {
        *f->cut += sample->label_count - f->limits->sample_labels;
        sample->label_count = (uint32_t)f->limits->sample_labels;
    }
}

static bool fit_labels(struct fitting *f)
{
    uint32_t *marks = flue_arena_zalloc(&f->arena, f->doc.string_count + 1, sizeof *marks);
    struct over over = {marks, f->limits->text_labels};

    if (!marks || !rank_keys(f, marks))
        return false;
    for (uint32_t i = 0; i < f->doc.sample_count; i++) {
        struct flue_pprof_sample *sample = &f->doc.samples[i];
        if (sample->label_count > f->limits->sample_labels)
            *f->cut += drop_labels(f, sample, is_number, NULL);
        *f->cut += drop_labels(f, sample, is_over, &over);
        cut_rest(f, sample);
    }
    return true;
}

/* ---- stacks --------------------------------------------------------------------------------- */

static bool grow(struct fitting *f, void **items, uint32_t count, size_t size)
{
    void *grown = flue_arena_zalloc(&f->arena, (size_t)count + 1, size);

    if (grown && count)
        memcpy(grown, *items, count * size);
    if (grown)
        *items = grown;
    return grown;
}

/* A frame that says what is missing; its row in locations[], or FLUE_PPROF_NONE without memory. */
static uint32_t make_mark(struct fitting *f)
{
    struct flue_pprof_document *d = &f->doc;

    if (!grow(f, (void **)&d->strings, d->string_count, sizeof *d->strings) ||
        !grow(f, (void **)&d->functions, d->function_count, sizeof *d->functions) ||
        !grow(f, (void **)&d->lines, d->line_count, sizeof *d->lines) ||
        !grow(f, (void **)&d->locations, d->location_count, sizeof *d->locations))
        return FLUE_PPROF_NONE;
    d->strings[d->string_count] = FLUE_BYTES(MARK);
    d->functions[d->function_count] = (struct flue_pprof_function){.name = d->string_count};
    d->lines[d->line_count] = (struct flue_pprof_line){.function = d->function_count};
    d->locations[d->location_count] = (struct flue_pprof_location){
        .mapping = FLUE_PPROF_NONE, .first_line = d->line_count, .line_count = 1};
    d->string_count++;
    d->function_count++;
    d->line_count++;
    return d->location_count++;
}

static bool fit_stacks(struct fitting *f)
{
    uint32_t limit = (uint32_t)f->limits->depth, mark = FLUE_PPROF_NONE;

    for (uint32_t i = 0; i < f->doc.sample_count; i++) {
        struct flue_pprof_sample *sample = &f->doc.samples[i];
        uint32_t inner = limit / 2, outer = limit - inner - 1;
        uint32_t *stack = f->doc.stack + sample->first_location;
        if (sample->location_count <= limit)
            continue;
        if (mark == FLUE_PPROF_NONE && (mark = make_mark(f)) == FLUE_PPROF_NONE)
            return false;
        memmove(stack + inner + 1, stack + sample->location_count - outer, outer * sizeof *stack);
        stack[inner] = mark;
        sample->location_count = limit;
        ++*f->cut;
    }
    return true;
}

/* ---- parts ---------------------------------------------------------------------------------- */

/* Samples [first, first + count), in halves until each fits. At most 32 deep: counts halve. */
static enum flue_code emit_run(struct fitting *f, uint32_t first, uint32_t count)
{
    struct flue_block *block;
    enum flue_code code;

    if (count > f->limits->samples) {
        code = emit_run(f, first, count / 2);
        return code ? code : emit_run(f, first + count / 2, count - count / 2);
    }
    flue_arena_reset(&f->scratch);
    code = flue_pprof_encode(&f->doc, first, count, &f->scratch, f->account, &block, f->error);
    if (code)
        return code;
    if (block->size <= f->limits->bytes)
        return f->emit(f->arg, block, count) ? FLUE_OK : no_memory(f->error);
    if (count == 1)
        code = flue_fail(f->error, FLUE_TOO_LARGE,
                         "sample[%u]: with its stack %zu bytes, limits.profile_bytes is %zu", first,
                         block->size, f->limits->bytes);
    flue_block_unref(block);
    if (code)
        return code;
    code = emit_run(f, first, count / 2);
    return code ? code : emit_run(f, first + count / 2, count - count / 2);
}

/* Begins near the right size: what is cut into halves from the whole is written many times over. */
static enum flue_code emit_all(struct fitting *f, size_t raw_size)
{
    uint64_t parts = (raw_size + f->limits->bytes - 1) / f->limits->bytes,
             samples = f->doc.sample_count, step;
    enum flue_code code = FLUE_OK;

    if ((samples + f->limits->samples - 1) / f->limits->samples > parts)
        parts = (samples + f->limits->samples - 1) / f->limits->samples;
    step = parts ? (samples + parts - 1) / parts : samples;
    for (uint64_t at = 0; !code && at < samples; at += step)
        code = emit_run(f, (uint32_t)at, (uint32_t)(samples - at < step ? samples - at : step));
    return code;
}

enum flue_code flue_fit(struct flue_bytes profile, const struct flue_pprof_limits *inflating,
                        const struct flue_fit_limits *limits, struct flue_account *account,
                        bool (*emit)(void *arg, struct flue_block *part, uint64_t samples),
                        void *arg, size_t *cut, struct flue_error *error)
{
    struct fitting f = {
        .limits = limits, .account = account, .emit = emit, .arg = arg, .cut = cut, .error = error};
    struct flue_block *inflated = NULL;
    struct flue_bytes raw;
    enum flue_code code = flue_pprof_raw(profile, inflating, account, &inflated, &raw, error);

    if (code)
        return code;
    flue_arena_init(&f.arena, raw.size * BUDGET_FACTOR + BUDGET_FLOOR, 0);
    flue_arena_init(&f.scratch, raw.size * BUDGET_FACTOR + BUDGET_FLOOR, 0);
    code = flue_pprof_decode(raw, &f.arena, &f.doc, error);
    if (!code && (!fit_labels(&f) || !fit_stacks(&f)))
        code = no_memory(error);
    if (!code)
        code = emit_all(&f, raw.size);
    flue_arena_destroy(&f.scratch);
    flue_arena_destroy(&f.arena);
    flue_block_unref(inflated);
    return code;
}
