/* check_ids.h: ids that are defined and referred to: a comparison with the row where they count up,
 * sets where they do not, and the largest of a packed run, 16 bytes at a time. Part of check.c,
 * behind check_walk.h. */
#ifdef __SSE2__
#include <emmintrin.h>
#endif

static bool __attribute__((cold)) too_many_ids(struct walk *w, int table)
{
    w->code = w->ids[table].count >= FLUE_IDS_MAX
                  ? flue_fail(w->error, FLUE_TOO_LARGE,
                              "%s ids are not 1, 2, 3, ... and there are more than %u of them",
                              table_names[table], FLUE_IDS_MAX)
                  : flue_fail(w->error, FLUE_NO_MEMORY, "no memory for %s ids", table_names[table]);
    return false;
}

static bool define(struct walk *w, int table, uint64_t id)
{
    uint64_t row = w->rows[table]++;
    if (id == row + 1 && !w->exact[table])
        return true;
    if (id == 0)
        return bad(w, "%s[%" PRIu64 "].id: 0 is not an id", table_names[table], row);
    if (!w->exact[table]) {
        w->exact[table] = true;
        return again(w);
    }
    bool made;
    uint32_t *marks = flue_ids_put(&w->ids[table], id, 0, &made);
    if (!marks)
        return too_many_ids(w, table);
    /* While judging, the marks of the pass before are there, DEFINED among them: a duplicate was
     * found by that pass already. */
    if (*marks & DEFINED && !w->judging)
        return bad(w, "%s[%" PRIu64 "].id: %" PRIu64 " is there twice", table_names[table], row,
                   id);
    if (*marks & REFERENCED && !(*marks & DEFINED))
        w->unresolved[table]--;
    *marks |= DEFINED;
    return true;
}

static bool __attribute__((noinline))
refer_exact(struct walk *w, int table, uint64_t id, uint64_t row, const char *field)
{
    const char *from = table == LOCATION ? "sample" : "location";
    if (id == 0)
        return bad(w, "%s[%" PRIu64 "]%s: 0 is not an id", from, row, field);
    if (!w->exact[table]) {
        if (id > w->id_limit[table])
            return bad(w,
                       "%s[%" PRIu64 "]%s: %" PRIu64
                       ", but there is no such %s (ids are 1 to %" PRIu64 ")",
                       from, row, field, id, table_names[table], w->id_limit[table]);
        if (id > w->max_id[table])
            w->max_id[table] = id;
        return true;
    }
    bool made;
    uint32_t *marks = flue_ids_put(&w->ids[table], id, 0, &made);
    if (!marks)
        return too_many_ids(w, table);
    if (!(*marks & DEFINED)) {
        if (w->judging)
            return bad(w, "%s[%" PRIu64 "]%s: %" PRIu64 ", but there is no such %s", from, row,
                       field, id, table_names[table]);
        if (!(*marks & REFERENCED))
            w->unresolved[table]++;
    }
    *marks |= REFERENCED;
    return true;
}

static inline bool refer(struct walk *w, int table, uint64_t id, uint64_t row, const char *field)
{
    if (unlikely(id == 0 || w->exact[table] || id > w->id_limit[table]))
        return refer_exact(w, table, id, row, field);
    if (id > w->max_id[table])
        w->max_id[table] = id;
    return true;
}

#ifdef __SSE2__
static inline __m128i either(__m128i mask, __m128i yes, __m128i no)
{
    return _mm_or_si128(_mm_and_si128(mask, yes), _mm_andnot_si128(mask, no));
}

static inline __m128i larger(__m128i a, __m128i b)
{
    return either(_mm_cmpgt_epi32(a, b), a, b);
}

/* The largest of a packed run of ids of one to three bytes each, 16 bytes at a time; stops before
 * anything else (longer encodings, a 0, the tail) and leaves r->at at the start of a varint. A byte
 * that ends an id is put together with the one or two before it; the low 7 bits of each stand in a
 * byte of their own, which keeps the order. The two bytes before the run are readable: they are the
 * run's tag and length. */
static void packed_maximum(struct flue_reader *r, uint64_t *maximum)
{
    const __m128i none = _mm_setzero_si128(), low7 = _mm_set1_epi8(0x7f);
    const uint8_t *at = r->at;
    __m128i best16 = none, best32 = none;
    for (; r->end - at >= 16; at += 16) {
        __m128i b = _mm_loadu_si128((const __m128i *)at);
        __m128i b1 = _mm_loadu_si128((const __m128i *)(at - 1));
        __m128i on = _mm_cmplt_epi8(b, none), on1 = _mm_cmplt_epi8(b1, none);
        __m128i on01 = _mm_and_si128(on, on1), zero = _mm_cmpeq_epi8(b, none);
        __m128i seven1 = _mm_and_si128(b1, low7);
        if (!_mm_movemask_epi8(_mm_or_si128(on01, zero)) && at[-2] < 0x80) {
            __m128i high = _mm_and_si128(b, on1);
            __m128i low = _mm_andnot_si128(on, either(on1, seven1, b));
            best16 = _mm_max_epi16(best16, _mm_unpacklo_epi8(low, high));
            best16 = _mm_max_epi16(best16, _mm_unpackhi_epi8(low, high));
            continue;
        }
        __m128i b2 = _mm_loadu_si128((const __m128i *)(at - 2));
        __m128i on12 = _mm_and_si128(on1, _mm_cmplt_epi8(b2, none));
        if (_mm_movemask_epi8(_mm_or_si128(_mm_and_si128(on, on12), zero)))
            break;
        __m128i first = either(on12, _mm_and_si128(b2, low7), either(on1, seven1, b));
        __m128i second = _mm_and_si128(on1, either(on12, seven1, b));
        __m128i third = _mm_and_si128(on12, b);
        first = _mm_andnot_si128(on, first);
        second = _mm_andnot_si128(on, second);
        third = _mm_andnot_si128(on, third);
        __m128i low = _mm_unpacklo_epi8(first, second), high = _mm_unpacklo_epi8(third, none);
        best32 = larger(best32, _mm_unpacklo_epi16(low, high));
        best32 = larger(best32, _mm_unpackhi_epi16(low, high));
        low = _mm_unpackhi_epi8(first, second);
        high = _mm_unpackhi_epi8(third, none);
        best32 = larger(best32, _mm_unpacklo_epi16(low, high));
        best32 = larger(best32, _mm_unpackhi_epi16(low, high));
    }
    if (at == r->at)
        return;
    while (at[-1] >= 0x80)
        at--;
    r->at = at;
    uint32_t lanes[4];
    uint16_t halves[8];
    _mm_storeu_si128((__m128i *)lanes, best32);
    _mm_storeu_si128((__m128i *)halves, best16);
    for (int i = 0; i < 12; i++) {
        uint64_t sevens = i < 4 ? lanes[i] : halves[i - 4];
        uint64_t id = (sevens & 0x7f) | (sevens >> 8 & 0x7f) << 7 | (sevens >> 16) << 14;
        if (id > *maximum)
            *maximum = id;
    }
}
#endif

static bool location_run(struct walk *w, struct flue_bytes run)
{
    struct flue_reader r = flue_reader(run);
    uint64_t id;
    w->depth += run.size > FLUE_DEPTH_COUNTED ? flue_count_varints(run) : run.size;
#ifdef __SSE2__
    if (run.size >= 16 && !w->exact[LOCATION] && w->id_limit[LOCATION] == UINT64_MAX)
        packed_maximum(&r, &w->max_id[LOCATION]);
#endif
    while (r.at < r.end) {
        NUMBER(w, &r, "sample", w->samples, &id);
        if (!refer(w, LOCATION, id, w->samples, ".location_id"))
            return false;
    }
    return true;
}
