/* payload_split.c: a payload cut into parts of at most so many samples or encoded bytes.
 *
 * Profiles are dealt out in order; one that is too large alone is decoded and cut between samples,
 * and each piece is compressed again if it came so. Counts as received are shared out by what has
 * passed so far, so that the shares add up exactly. */
#include "collector/base/codec.h"
#include "proto/pprof/document.h"
#include "proto/pprof/series.h"

/* Decoding one profile: rows cost a few times its bytes. */
#define DECODE_FACTOR 12
#define DECODE_FLOOR  (4u << 20)

struct splitting {
    const struct flue_pprof_payload *payload;
    uint64_t max;
    bool by_bytes;
    struct flue_account *account;
    void (*emit)(void *arg, struct flue_payload *part, const struct flue_counts *counts);
    void *arg;
    struct flue_error *error;

    struct flue_pprof_builder *part; /* NULL: nothing in it */
    size_t part_series;              /* the series that is open in it */
    size_t part_bytes;
    uint64_t part_samples;

    /* shares: weights passed so far, weights of all, what was given away */
    struct flue_counts total, whole, passed, given;
};

static uint64_t share(uint64_t total, uint64_t passed, uint64_t whole, uint64_t *given)
{
    uint64_t upto = passed >= whole ? total : (uint64_t)((unsigned __int128)total * passed / whole);
    uint64_t part = upto - *given;
    *given = upto;
    return part;
}

static enum flue_code close_part(struct splitting *s)
{
    struct flue_payload *part;
    if (!s->part)
        return FLUE_OK;
    enum flue_code code = flue_pprof_builder_finish(s->part, &part, NULL, s->error);
    s->part = NULL;
    s->part_bytes = 0;
    s->part_samples = 0;
    if (code != FLUE_OK)
        return code;
    struct flue_counts counts = {
        share(s->total.profiles, s->passed.profiles, s->whole.profiles, &s->given.profiles),
        share(s->total.samples, s->passed.samples, s->whole.samples, &s->given.samples),
        share(s->total.bytes, s->passed.bytes, s->whole.bytes, &s->given.bytes),
    };
    s->emit(s->arg, part, &counts);
    return FLUE_OK;
}

static enum flue_code add(struct splitting *s, size_t row, const struct flue_pprof_profile *profile)
{
    const struct flue_pprof_series *series = &s->payload->series[row].series;
    const struct flue_pprof_core *core = s->payload->core;
    size_t head = flue_pprof_labels_size(series->labels, series->label_count) + 12;
    size_t bytes = flue_pprof_profile_size(profile);
    bool opens = !s->part || s->part_series != row;
    uint64_t have = s->by_bytes ? s->part_bytes : s->part_samples;
    uint64_t more = s->by_bytes ? bytes + (opens ? head : 0) : profile->facts.samples;
    enum flue_code code;
    if (s->part && have + more > s->max) {
        if ((code = close_part(s)) != FLUE_OK)
            return code;
        opens = true;
    }
    if (!s->part) {
        s->part = flue_pprof_builder_new(s->account);
        if (!s->part)
            return flue_fail(s->error, FLUE_NO_MEMORY, "no memory for a part of a payload");
        for (size_t i = 0; i < core->block_count; i++)
            flue_pprof_builder_keep(s->part, core->blocks[i]);
    }
    if (opens) {
        flue_pprof_builder_series(s->part);
        for (size_t i = 0; i < series->label_count; i++)
            flue_pprof_builder_label(s->part, series->labels[i].name, series->labels[i].value);
        s->part_series = row;
        s->part_bytes += head;
    }
    flue_pprof_builder_profile(s->part, profile);
    s->part_bytes += bytes;
    s->part_samples += profile->facts.samples;
    return FLUE_OK;
}

static void pass(struct splitting *s, const struct flue_pprof_profile *profile)
{
    s->passed.profiles++;
    s->passed.samples += profile->facts.samples;
    s->passed.bytes += profile->bytes.size;
}

/* One piece of a cut profile, as it will travel, and what a check finds in it. */
static enum flue_code piece_of(struct splitting *s, const struct flue_pprof_document *document,
                               const struct flue_pprof_profile *whole, uint32_t first,
                               uint32_t count, struct flue_arena *scratch, struct flue_block **out,
                               struct flue_pprof_facts *facts)
{
    const struct flue_pprof_limits limits = {SIZE_MAX, FLUE_RATIO_LIMIT};
    struct flue_block *raw;
    enum flue_code code =
        flue_pprof_encode(document, first, count, scratch, s->account, &raw, s->error);
    flue_arena_reset(scratch);
    if (code != FLUE_OK)
        return code;
    code = flue_pprof_check(flue_block_bytes(raw), &limits, facts, s->error);
    if (code != FLUE_OK) {
        flue_block_unref(raw);
        return code;
    }
    facts->gzip = whole->facts.gzip;
    if (!whole->facts.gzip) {
        *out = raw;
        return FLUE_OK;
    }
    struct flue_bytes bytes = flue_block_bytes(raw);
    struct flue_slices slices = {&bytes, 1, 1, bytes.size};
    code = flue_deflate(FLUE_GZIP, FLUE_LEVEL_DEFAULT, &slices, out, s->error);
    flue_block_unref(raw);
    return code;
}

/* `passed`: the weights when this piece is gone. */
static enum flue_code add_piece(struct splitting *s, size_t row,
                                const struct flue_pprof_profile *whole,
                                const struct flue_pprof_facts *facts, struct flue_block *piece,
                                const struct flue_counts *passed)
{
    struct flue_pprof_profile profile = {flue_block_bytes(piece), *facts, whole->id};
    enum flue_code code = add(s, row, &profile);
    if (code != FLUE_OK)
        return code;
    flue_pprof_builder_keep(s->part, piece);
    s->passed = *passed;
    /* A piece is a part of its own: what follows starts a new one. */
    return close_part(s);
}

static enum flue_code cut_rows(struct splitting *s, size_t row,
                               const struct flue_pprof_profile *whole,
                               const struct flue_pprof_document *document, uint64_t room)
{
    struct flue_arena scratch;
    struct flue_block *piece;
    struct flue_pprof_facts facts;
    enum flue_code code = FLUE_OK;
    uint32_t step = document->sample_count;
    const struct flue_counts before = s->passed;
    flue_arena_init(&scratch, SIZE_MAX, 0);
    if (!s->by_bytes)
        step = (uint32_t)room;
    else if (whole->bytes.size > room)
        step = (uint32_t)((uint64_t)step * room / whole->bytes.size);
    for (uint32_t first = 0; first < document->sample_count && code == FLUE_OK;) {
        uint32_t count = document->sample_count - first;
        if (count > step)
            count = step ? step : 1;
        code = piece_of(s, document, whole, first, count, &scratch, &piece, &facts);
        if (code != FLUE_OK)
            break;
        if (s->by_bytes && piece->size > room && count > 1) {
            /* Tables shared by all samples weigh more than their share: smaller steps from here. */
            step = count / 2;
        } else {
            first += count;
            struct flue_counts passed = before;
            passed.profiles += first == document->sample_count;
            passed.samples += whole->facts.samples * first / document->sample_count;
            passed.bytes += whole->bytes.size * first / document->sample_count;
            code = add_piece(s, row, whole, &facts, piece, &passed);
        }
        flue_block_unref(piece);
    }
    flue_arena_destroy(&scratch);
    return code;
}

static enum flue_code cut(struct splitting *s, size_t row, const struct flue_pprof_profile *whole,
                          uint64_t room)
{
    /* Checked when it came, or trusted; a trusted one may still turn out broken here. */
    struct flue_pprof_limits limits = {
        whole->facts.inflated_size ? whole->facts.inflated_size : 64u << 20, FLUE_RATIO_LIMIT};
    struct flue_pprof_document document;
    struct flue_pprof_facts facts;
    struct flue_block *inflated = NULL;
    struct flue_bytes raw;
    struct flue_arena arena;
    enum flue_code code = FLUE_OK;
    if (whole->facts.samples == 0)
        code = flue_pprof_check(whole->bytes, &limits, &facts, s->error);
    if (code == FLUE_OK)
        code = flue_pprof_raw(whole->bytes, &limits, s->account, &inflated, &raw, s->error);
    if (code != FLUE_OK)
        return code;
    flue_arena_init(&arena, DECODE_FLOOR + raw.size * DECODE_FACTOR, 0);
    code = flue_pprof_decode(raw, &arena, &document, s->error);
    if (code == FLUE_OK && document.sample_count < 2) {
        code = add(s, row, whole);
        pass(s, whole);
    } else if (code == FLUE_OK) {
        code = cut_rows(s, row, whole, &document, room);
    }
    flue_arena_destroy(&arena);
    flue_block_unref(inflated);
    return code;
}

static enum flue_code deal(struct splitting *s, size_t row,
                           const struct flue_pprof_profile *profile)
{
    const struct flue_pprof_series *series = &s->payload->series[row].series;
    size_t head = flue_pprof_labels_size(series->labels, series->label_count) + 12 +
                  flue_pprof_profile_size(profile) - profile->bytes.size;
    enum flue_code code;
    if (s->by_bytes ? profile->bytes.size + head > s->max : profile->facts.samples > s->max) {
        if ((code = close_part(s)) != FLUE_OK)
            return code;
        return cut(s, row, profile, !s->by_bytes ? s->max : s->max > head ? s->max - head : 1);
    }
    if ((code = add(s, row, profile)) != FLUE_OK)
        return code;
    pass(s, profile);
    return FLUE_OK;
}

enum flue_code flue_pprof_payload_split(const struct flue_payload *payload, uint64_t max,
                                        bool by_bytes, const struct flue_counts *total,
                                        struct flue_account *account,
                                        void (*emit)(void *arg, struct flue_payload *part,
                                                     const struct flue_counts *counts),
                                        void *arg, struct flue_error *error)
{
    struct splitting s = {.payload = flue_pprof_of(payload),
                          .max = max ? max : 1,
                          .by_bytes = by_bytes,
                          .account = account,
                          .emit = emit,
                          .arg = arg,
                          .error = error,
                          .total = *total};
    const struct flue_pprof_core *core = s.payload->core;
    enum flue_code code = FLUE_OK;
    s.whole = (struct flue_counts){core->profiles, core->samples, 0};
    for (size_t i = 0; i < core->count; i++)
        for (size_t j = 0; j < s.payload->series[i].series.profile_count; j++)
            s.whole.bytes += s.payload->series[i].series.profiles[j].bytes.size;
    for (size_t i = 0; i < core->count && code == FLUE_OK; i++)
        for (size_t j = 0; j < s.payload->series[i].series.profile_count && code == FLUE_OK; j++)
            code = deal(&s, i, &s.payload->series[i].series.profiles[j]);
    if (code == FLUE_OK)
        code = close_part(&s);
    if (s.part)
        flue_pprof_builder_discard(s.part);
    return code;
}
