/* from_pprof_labels.c: labels of a pprof sample as OTLP attributes and a link.
 *
 * Values of one key become one attribute: a scalar, or an array where there are several (keys must
 * be unique in OTLP). Only numbers of one key with different units stay apart, since an attribute
 * has one unit.
 *
 * Span labels in every form that clients send become the link: span_id or profile_id of 16 hex
 * digits, "span id" or "local root span id" as a number or in decimal (64 bits, big-endian in the
 * link), trace_id of 32 hex digits. The label stays an attribute as well, unless the link gives it
 * back as it was: span_id and trace_id alone, in lower case, once, and no other form of the same
 * span beside it (label_sets.h is the way back).
 */
#include "proto/convert/from_pprof.h"

#include <stdlib.h>

enum span_form { SPAN_ID, PROFILE_ID, DD_SPAN, DD_ROOT, TRACE_ID, FORMS };

static const char *const form_keys[FORMS] = {
    [SPAN_ID] = "span_id",   [PROFILE_ID] = "profile_id",
    [DD_SPAN] = "span id",   [DD_ROOT] = "local root span id",
    [TRACE_ID] = "trace_id",
};

struct ids {
    struct flue_from_label *first[FORMS]; /* the first label of each form */
    size_t counts[FORMS];
};

static bool label_read(struct flue_from_pprof *from, struct flue_bytes label, size_t *count)
{
    struct flue_reader r = flue_reader(label);
    struct flue_from_label read = {.order = *count};
    uint64_t fields[5] = {0};
    struct flue_field_value f;

    while (flue_read_field(&r, &f))
        if (f.number <= 4 && f.type == FLUE_VARINT)
            fields[f.number] = f.varint;
    read.key = flue_from_string(from, fields[1]);
    read.is_text = fields[2] != 0;
    read.text = flue_from_string(from, fields[2]);
    read.number = (int64_t)fields[3];
    read.unit = read.is_text ? 0 : flue_from_string(from, fields[4]);
    return FLUE_ARENA_PUSH(from->arena, from->labels, *count, from->label_room, read);
}

static struct flue_bytes text_at(const struct flue_from_pprof *from, uint32_t row)
{
    const struct flue_otlp_made_table *strings = &from->tables->tables[FLUE_OTLP_STRING];
    struct flue_otlp_made_row made = strings->index[row];

    return flue_bytes(strings->rows.block->data + made.at, made.size);
}

static void ids_find(struct flue_from_pprof *from, size_t count, struct ids *ids)
{
    for (size_t i = 0; i < count; i++) {
        struct flue_bytes key = text_at(from, from->labels[i].key);

        for (unsigned form = 0; form < FORMS; form++)
            if (flue_bytes_is(key, form_keys[form])) {
                if (ids->counts[form]++ == 0)
                    ids->first[form] = &from->labels[i];
                break;
            }
    }
}

static bool any_set(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i])
            return true;
    return false;
}

static bool hex_read(const struct flue_from_pprof *from, const struct flue_from_label *label,
                     uint8_t *out, size_t size)
{
    struct flue_bytes text;

    if (!label || !label->is_text)
        return false;
    text = text_at(from, label->text);
    return text.size == 2 * size && flue_unhex(text, out, size) && any_set(out, size);
}

static bool decimal_read(const struct flue_from_pprof *from, const struct flue_from_label *label,
                         uint8_t out[8])
{
    uint64_t number;

    if (!label)
        return false;
    number = (uint64_t)label->number;
    if (label->is_text && !flue_parse_u64(text_at(from, label->text), &number))
        return false;
    for (unsigned i = 0; i < 8; i++)
        out[i] = (uint8_t)(number >> (56 - 8 * i));
    return number != 0;
}

static bool lower_case(struct flue_bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] >= 'A' && text.data[i] <= 'F')
            return false;
    return true;
}

/* Does a label of another form tell this span, too? Then it hides span_id on the way back. */
static bool told_otherwise(const struct flue_from_pprof *from, const struct ids *ids,
                           const uint8_t span[8])
{
    for (unsigned form = PROFILE_ID; form <= DD_ROOT; form++) {
        const struct flue_from_label *label = ids->first[form];
        uint8_t other[8];

        if (ids->counts[form] > 1 || (label &&
                                      (form == PROFILE_ID ? hex_read(from, label, other, 8)
                                                          : decimal_read(from, label, other)) &&
                                      memcmp(other, span, sizeof other) == 0))
            return true;
    }
    return false;
}

/* The row of the link that the labels name, or 0; labels that it gives back are marked taken. */
static uint32_t link_row(struct flue_from_pprof *from, const struct ids *ids)
{
    uint8_t span[8] = {0}, trace[16] = {0}, content[32], *at = content;
    bool by_span_id = hex_read(from, ids->first[SPAN_ID], span, 8);
    bool has_span = by_span_id || hex_read(from, ids->first[PROFILE_ID], span, 8) ||
                    decimal_read(from, ids->first[DD_SPAN], span) ||
                    decimal_read(from, ids->first[DD_ROOT], span);
    bool has_trace = hex_read(from, ids->first[TRACE_ID], trace, 16);
    uint32_t row;

    if (!has_span && !has_trace)
        return 0;
    if (!has_span)
        memset(span, 0, sizeof span); /* a form that did not fit may have left something */
    if (!has_trace)
        memset(trace, 0, sizeof trace);
    if (by_span_id && ids->counts[SPAN_ID] == 1 && !told_otherwise(from, ids, span) &&
        lower_case(text_at(from, ids->first[SPAN_ID]->text)))
        ids->first[SPAN_ID]->taken = true;
    if (has_trace && ids->counts[TRACE_ID] == 1 &&
        lower_case(text_at(from, ids->first[TRACE_ID]->text)))
        ids->first[TRACE_ID]->taken = true;
    at = flue_write_len_field(at, 1, flue_bytes(trace, sizeof trace));
    at = flue_write_len_field(at, 2, flue_bytes(span, sizeof span));
    row = flue_otlp_tables_put(from->tables, FLUE_OTLP_LINK,
                               flue_bytes(content, (size_t)(at - content)));
    return row == FLUE_OTLP_NO_ROW ? 0 : row;
}

static void value_write(struct flue_from_pprof *from, const struct flue_from_label *label)
{
    struct flue_out *scratch = &from->tables->scratch;
    struct flue_bytes text;
    uint8_t *at;

    if (label->is_text) {
        text = text_at(from, label->text);
        at = flue_out_room(scratch, text.size + 16);
        if (at) /* a member of a oneof is written even when it is empty */
            flue_out_end(scratch, flue_write_len_field(at, 1, text));
        return;
    }
    at = flue_out_room(scratch, 16);
    if (at) {
        *at++ = 3 << 3;
        flue_out_end(scratch, flue_write_varint(at, (uint64_t)label->number));
    }
}

/* One attribute of the labels [first, first + count), which have one key and one unit. */
static uint32_t attribute_row(struct flue_from_pprof *from, const struct flue_from_label *first,
                              size_t count)
{
    struct flue_out *scratch = &from->tables->scratch;
    size_t mark = flue_out_size(scratch), value, array, element;
    uint32_t unit = 0, row;

    flue_out_number(scratch, 1, first->key);
    value = flue_out_open(scratch, 2);
    if (count == 1) {
        value_write(from, first);
    } else {
        array = flue_out_open(scratch, 5);
        for (size_t i = 0; i < count; i++) {
            element = flue_out_open(scratch, 1);
            value_write(from, &first[i]);
            flue_out_close(scratch, element);
        }
        flue_out_close(scratch, array);
    }
    flue_out_close(scratch, value);
    for (size_t i = 0; i < count; i++)
        unit = first[i].is_text ? unit : first[i].unit;
    flue_out_number(scratch, 3, unit);
    row = flue_otlp_tables_put_scratch(from->tables, FLUE_OTLP_ATTRIBUTE, mark);
    return row == FLUE_OTLP_NO_ROW ? 0 : row;
}

static int by_key(const void *a, const void *b)
{
    const struct flue_from_label *x = a, *y = b;

    if (x->taken != y->taken)
        return x->taken ? 1 : -1;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static struct flue_bytes labels_encode(struct flue_from_pprof *from, size_t count)
{
    struct flue_out *packed = &from->packed;
    struct ids ids = {0};
    uint32_t link;
    size_t mark;

    ids_find(from, count, &ids);
    link = link_row(from, &ids);
    if (count)
        qsort(from->labels, count, sizeof *from->labels, by_key);
    while (count && from->labels[count - 1].taken)
        count--;
    flue_out_cut(packed, 0);
    mark = count ? flue_out_open(packed, 2) : 0;
    for (size_t i = 0, next; i < count; i = next) {
        const struct flue_from_label *first = &from->labels[i];
        bool has_unit = !first->is_text;
        uint32_t unit = first->unit;

        for (next = i + 1; next < count && from->labels[next].key == first->key; next++) {
            const struct flue_from_label *label = &from->labels[next];

            if (label->is_text)
                continue;
            if (has_unit && label->unit != unit)
                break;
            has_unit = true;
            unit = label->unit;
        }
        flue_out_varint(packed, attribute_row(from, first, next - i));
    }
    if (mark)
        flue_out_close(packed, mark);
    flue_out_number(packed, 3, link);
    if (packed->failed)
        return flue_bytes(NULL, 0);
    return flue_arena_copy(from->arena, flue_block_bytes(packed->block));
}

static bool same_labels(const void *rows, uint32_t row, const void *key)
{
    const struct flue_label_memo *memo = rows;

    return flue_bytes_equal(memo[row].labels, *(const struct flue_bytes *)key);
}

/* From the first label field to the last: the key of the memo (what stands between counts as well,
 * which costs a miss at worst). */
static struct flue_bytes label_bytes(struct flue_bytes sample)
{
    struct flue_reader r = flue_reader(sample);
    const uint8_t *first = NULL, *last = NULL;
    struct flue_field_value f;

    while (flue_read_field(&r, &f))
        if (f.number == 3) {
            first = first ? first : f.tag_at;
            last = r.at;
        }
    return flue_bytes(first, (size_t)(last - first));
}

struct flue_bytes flue_from_labels(struct flue_from_pprof *from, struct flue_bytes sample)
{
    struct flue_label_memo memo = {.labels = label_bytes(sample)};
    struct flue_field_value f;
    struct flue_reader r;
    uint64_t hash;
    size_t count = 0;
    uint32_t found;

    if (memo.labels.size == 0)
        return FLUE_BYTES("");
    hash = flue_hash(memo.labels);
    found = flue_table_find(&from->memo_table, hash, same_labels, from->memo, &memo.labels);
    if (found != FLUE_TABLE_NONE)
        return from->memo[found].packed;
    r = flue_reader(memo.labels);
    while (flue_read_field(&r, &f))
        if (f.number == 3 && f.type == FLUE_LEN && !label_read(from, f.bytes, &count))
            return flue_bytes(NULL, 0);
    memo.packed = labels_encode(from, count);
    if (!memo.packed.data ||
        !FLUE_ARENA_PUSH(from->arena, from->memo, from->memo_count, from->memo_room, memo) ||
        !flue_table_insert(&from->memo_table, hash, (uint32_t)from->memo_count - 1))
        return flue_bytes(NULL, 0);
    return memo.packed;
}
