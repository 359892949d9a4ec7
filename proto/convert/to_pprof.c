/* to_pprof.c: an OTLP payload as pprof profiles, scope by scope. See convert.h; the writing of one
 * is in to_pprof_write.c, what is one in sample_groups.c. */
#include "proto/convert/to_pprof.h"

#include <stdlib.h>

struct scope_facts {
    struct flue_otlp_scope_fields fields;
    bool was_pprof; /* its types are said as they were, not as Pyroscope would have them */
    struct flue_bytes default_sample_type;
    int64_t *order; /* of the sample types in the pprof that was */
    size_t order_count, order_room;
    bool failed;
    struct flue_arena *arena;
};

struct conversion {
    const struct flue_payload *payload;
    const struct flue_to_pprof_options *options;
    struct flue_arena *arena; /* of the results */
    void (*emit)(void *arg, const struct flue_to_pprof_result *result);
    void *arg;
    struct flue_error *error;
    enum flue_code code;

    struct flue_work work;
    struct flue_arena scope_arena;
    struct flue_otlp_dictionary dictionary;
    struct flue_label_sets sets;
    struct flue_pprof_writer writer;
    struct flue_sample_groups groups;
    uint32_t scope, resource;                  /* being read; scope UINT32_MAX: none */
    uint64_t whole_bytes, weight, weight_done; /* sharing out the bytes */
};

static enum flue_code failed(struct conversion *c)
{
    if (c->code == FLUE_OK)
        c->code = flue_work_failed(&c->work, c->error);
    return c->code;
}

/* -------------------------------------------------------------------- scopes */

/* What an attribute's array holds, one by one. `dictionary` NULL: the values refer to none. */
static void array_each(struct flue_bytes any_value, const struct flue_otlp_dictionary *dictionary,
                       void (*each)(void *arg, const struct flue_value *value), void *arg)
{
    struct flue_reader r = flue_reader(any_value), values;
    struct flue_field_value f;
    struct flue_value value;

    while (flue_read_field(&r, &f)) {
        if (f.number != 5 || f.type != FLUE_LEN)
            continue;
        values = flue_reader(f.bytes);
        while (flue_read_field(&values, &f)) {
            if (f.number != 1 || f.type != FLUE_LEN)
                continue;
            flue_otlp_value_read(f.bytes, dictionary, &value);
            each(arg, &value);
        }
    }
}

static void order_add(void *arg, const struct flue_value *value)
{
    struct scope_facts *facts = arg;

    if (value->type == FLUE_VALUE_INT &&
        !FLUE_ARENA_PUSH(facts->arena, facts->order, facts->order_count, facts->order_room,
                         value->integer))
        facts->failed = true;
}

static bool scope_attribute(void *arg, const struct flue_attribute *attribute)
{
    struct scope_facts *facts = arg;

    if (flue_bytes_is(attribute->key, "pprof.scope.default_sample_type") &&
        attribute->value.type == FLUE_VALUE_STRING) {
        facts->was_pprof = true;
        facts->default_sample_type = flue_arena_copy(facts->arena, attribute->value.text);
        facts->failed = facts->failed || !facts->default_sample_type.data;
    } else if (flue_bytes_is(attribute->key, "pprof.scope.sample_type_order") &&
               attribute->value.type == FLUE_VALUE_COMPLEX) {
        facts->was_pprof = true;
        array_each(attribute->value.text, NULL, order_add, facts);
    }
    return true;
}

/* ---------------------------------------------------------- profile attributes */

struct profile_facts {
    struct conversion *c;
    struct flue_pprof_head *head;
    size_t comment_room;
    struct flue_bytes name; /* as the series was called */
    struct flue_pprof_label *identity;
    size_t identity_count, identity_room;
    bool failed;
};

static void comment_add(struct profile_facts *facts, struct flue_bytes comment)
{
    if (!FLUE_ARENA_PUSH(&facts->c->scope_arena, facts->head->comments, facts->head->comment_count,
                         facts->comment_room, comment))
        facts->failed = true;
}

static void comment_text(void *arg, const struct flue_value *value)
{
    if (value->type == FLUE_VALUE_STRING)
        comment_add(arg, value->text);
}

static void identity_add(struct profile_facts *facts, struct flue_bytes label,
                         struct flue_bytes text)
{
    struct flue_pprof_label own = {label, text};

    if (flue_bytes_is(label, "__name__"))
        facts->name = text;
    else if (!FLUE_ARENA_PUSH(facts->c->arena, facts->identity, facts->identity_count,
                              facts->identity_room, own))
        facts->failed = true;
}

static void profile_attribute(struct profile_facts *facts, uint32_t row)
{
    static const struct flue_bytes comment = FLUE_BYTES_INIT("pprof.profile.comment");
    static const struct flue_bytes identity = FLUE_BYTES_INIT(FLUE_IDENTITY_PREFIX);
    const struct flue_otlp_dictionary *d = &facts->c->dictionary;
    struct flue_otlp_attribute_row read;
    struct flue_value value;
    struct flue_bytes key;

    flue_otlp_attribute_row_read(flue_otlp_row(d, FLUE_OTLP_ATTRIBUTE, row), &read);
    flue_otlp_value_read(read.value, d, &value);
    key = flue_otlp_string(d, read.key);
    if (flue_bytes_equal(key, comment) && value.type == FLUE_VALUE_COMPLEX)
        array_each(read.value, &facts->c->dictionary, comment_text, facts);
    if (value.type != FLUE_VALUE_STRING)
        return;
    if (flue_bytes_is(key, "pprof.profile.drop_frames"))
        facts->head->drop_frames = value.text;
    else if (flue_bytes_is(key, "pprof.profile.keep_frames"))
        facts->head->keep_frames = value.text;
    else if (flue_bytes_is(key, "pprof.profile.doc_url"))
        facts->head->doc_url = value.text;
    else if (flue_bytes_starts_with(key, comment)) /* or ".0" and so on, as the Collector's */
        comment_add(facts, value.text);
    else if (flue_bytes_starts_with(key, identity))
        identity_add(facts, flue_bytes_from(key, identity.size), value.text);
}

/* -------------------------------------------------------------------- groups */

/* The lists of a group, in the order that the pprof had where that is known. */
static const struct flue_sample_list **lists_of(struct conversion *c,
                                                const struct scope_facts *scope,
                                                const struct flue_sample_group *group)
{
    const struct flue_sample_list **lists =
        flue_arena_alloc(&c->scope_arena, group->types * sizeof *lists);
    const struct flue_sample_list **ordered =
        flue_arena_zalloc(&c->scope_arena, group->types, sizeof *ordered);
    size_t n = 0;

    if (!lists || !ordered)
        return NULL;
    for (uint32_t l = group->first; l != UINT32_MAX; l = c->groups.lists[l].next)
        lists[n++] = &c->groups.lists[l];
    if (scope->order_count != n)
        return lists;
    for (size_t i = 0; i < n; i++) {
        if (scope->order[i] < 0 || (uint64_t)scope->order[i] >= n || ordered[scope->order[i]])
            return lists; /* no permutation: says nothing */
        ordered[scope->order[i]] = lists[i];
    }
    return ordered;
}

static bool types_read(struct conversion *c, const struct scope_facts *scope,
                       const struct flue_sample_list **lists, size_t count,
                       struct flue_pprof_head *head)
{
    const struct flue_otlp_dictionary *d = &c->dictionary;

    head->types = flue_arena_alloc(&c->scope_arena, count * sizeof *head->types);
    head->times_period = flue_arena_zalloc(&c->scope_arena, count, sizeof *head->times_period);
    if (!head->types || !head->times_period)
        return false;
    for (size_t i = 0; i < count; i++)
        head->types[i] =
            (struct flue_profile_type){flue_otlp_string(d, lists[i]->fields.sample_type),
                                       flue_otlp_string(d, lists[i]->fields.sample_unit)};
    head->type_count = count;
    head->period_type =
        (struct flue_profile_type){flue_otlp_string(d, lists[0]->fields.period_type),
                                   flue_otlp_string(d, lists[0]->fields.period_unit)};
    head->period = lists[0]->fields.period;
    if (!scope->was_pprof)
        flue_profile_types_known(head->types, count, head->times_period, &head->period_type,
                                 head->period);
    /* What a pprof without any type became. */
    if (count == 1 && lists[0]->count == 0 && head->types[0].type.size == 0 &&
        head->types[0].unit.size == 0)
        head->type_count = 0;
    return true;
}

static bool underscored(struct conversion *c, struct flue_bytes *text)
{
    uint8_t *copy;

    if (!text->size || flue_bytes_find(*text, '-') == SIZE_MAX)
        return true;
    copy = flue_arena_alloc(&c->scope_arena, text->size);
    if (!copy)
        return false;
    for (size_t i = 0; i < text->size; i++)
        copy[i] = text->data[i] == '-' ? '_' : text->data[i];
    *text = flue_bytes(copy, text->size);
    return true;
}

static bool types_underscored(struct conversion *c, struct flue_pprof_head *head)
{
    if (!c->options->underscore_sample_types)
        return true;
    for (size_t i = 0; i < head->type_count; i++)
        if (!underscored(c, &head->types[i].type))
            return false;
    return underscored(c, &head->default_sample_type);
}

static void counts_share(struct conversion *c, const struct flue_sample_group *group,
                         struct flue_counts *counts)
{
    uint64_t weight = 0;

    for (uint32_t l = group->first; l != UINT32_MAX; l = c->groups.lists[l].next) {
        counts->profiles++;
        counts->samples += c->groups.lists[l].count;
        weight += c->groups.lists[l].encoded_size + 1;
    }
    counts->bytes = flue_share(c->whole_bytes, c->weight_done, weight, c->weight);
    c->weight_done += weight;
}

/* The samples of one group on their way out, in runs. */
struct runs {
    const struct flue_pprof_head *head;
    const struct flue_sample_list **lists;
    struct flue_to_pprof_result *result;
    struct flue_counts whole;
    size_t samples, done;
};

static bool run_emit(struct conversion *c, struct runs *runs, struct flue_bytes made, size_t count)
{
    struct flue_to_pprof_result *result = runs->result;

    result->time_at = c->writer.time_at;
    flue_pprof_writer_facts(&c->writer, runs->head, count, &result->facts);
    result->pprof = made;
    result->block = NULL;
    if (c->options->own_block_from && made.size >= c->options->own_block_from) {
        result->block = flue_pprof_writer_take(&c->writer);
    } else {
        result->pprof = flue_arena_copy(c->arena, made);
        if (!result->pprof.data)
            return false;
    }
    if (count < runs->samples) {
        result->counts.profiles = result->part ? 0 : runs->whole.profiles;
        result->counts.samples = flue_share(runs->whole.samples, runs->done, count, runs->samples);
        result->counts.bytes = flue_share(runs->whole.bytes, runs->done, count, runs->samples);
    }
    runs->done += count;
    c->emit(c->arg, result);
    result->part++;
    return true;
}

/* In halves while it is too large: at most 64 deep. */
static bool run_write(struct conversion *c, struct runs *runs, size_t first, size_t count)
{
    struct flue_bytes made = flue_pprof_write(&c->writer, runs->head, runs->lists, first, count);

    if (!made.data)
        return false;
    if (count < 2 || !c->options->most_bytes || made.size <= c->options->most_bytes)
        return run_emit(c, runs, made, count);
    return run_write(c, runs, first, count / 2) &&
           run_write(c, runs, first + count / 2, count - count / 2);
}

static bool cut_emit(struct conversion *c, const struct flue_pprof_head *head,
                     const struct flue_sample_list **lists, struct flue_to_pprof_result *result)
{
    struct runs runs = {head, lists, result, result->counts, lists[0]->count, 0};
    size_t most = c->options->most_samples && c->options->most_samples < runs.samples
                      ? (size_t)c->options->most_samples
                      : runs.samples;
    size_t parts = most ? (runs.samples + most - 1) / most : 1;
    size_t step = runs.samples / parts + (runs.samples % parts != 0), at = 0;

    do {
        size_t count = runs.samples - at < step ? runs.samples - at : step;

        if (!run_write(c, &runs, at, count))
            return false;
        at += count;
    } while (at < runs.samples);
    return true;
}

static bool group_convert(struct conversion *c, const struct scope_facts *scope,
                          const struct flue_sample_group *group)
{
    const struct flue_sample_list **lists = lists_of(c, scope, group);
    struct flue_pprof_head head = {.default_sample_type = scope->default_sample_type};
    struct profile_facts facts = {.c = c, .head = &head};
    struct flue_to_pprof_result result = {.resource = c->resource};
    const struct flue_otlp_profile_fields *f;

    if (!lists)
        return false;
    f = &lists[0]->fields;
    counts_share(c, group, &result.counts);
    if (c->options->drop_other_attributes && !flue_sample_group_fold(&c->groups, group))
        return false;
    if (!types_read(c, scope, lists, group->types, &head))
        return false;
    for (size_t i = 0; i < lists[0]->attribute_count; i++)
        profile_attribute(&facts, lists[0]->attributes[i]);
    head.time_nanos = (int64_t)(f->time_unix_nano ? f->time_unix_nano : c->options->received_ns);
    head.duration_nanos = (int64_t)f->duration_nano;
    result.name = facts.name.size
                      ? facts.name
                      : flue_profile_name(head.types, head.type_count, head.period_type, c->arena);
    if (facts.failed || !types_underscored(c, &head) || !result.name.data)
        return false;
    for (size_t i = 0; i < group->types && !result.profile_id.size; i++)
        result.profile_id = lists[i]->fields.profile_id;
    result.time_nanos = head.time_nanos;
    result.scope_name = scope->fields.name;
    result.scope_version = scope->fields.version;
    result.identity = facts.identity;
    result.identity_count = facts.identity_count;
    return cut_emit(c, &head, lists, &result);
}

/* Emits what was read of the scope and makes ready for the next. */
static bool scope_end(struct conversion *c)
{
    struct scope_facts scope = {.arena = &c->scope_arena};

    if (c->scope == UINT32_MAX)
        return true;
    flue_otlp_scope_read(c->payload, c->scope, &scope.fields);
    flue_otlp_scope_attributes(c->payload, c->scope, scope_attribute, &scope);
    if (scope.failed)
        return false;
    for (size_t i = 0; i < c->groups.count; i++)
        if (!group_convert(c, &scope, &c->groups.groups[i]))
            return false;
    flue_work_charge(&c->work, c->scope_arena.used +
                                   (c->writer.out.block ? flue_out_size(&c->writer.out) : 0));
    flue_arena_reset(&c->scope_arena);
    c->scope = UINT32_MAX;
    return true;
}

static bool profile_convert(void *arg, const struct flue_otlp_profile *profile)
{
    struct conversion *c = arg;

    if (c->scope != profile->scope) {
        if (!scope_end(c) || !flue_sample_groups_begin(&c->groups, &c->scope_arena, c->payload,
                                                       &c->dictionary, &c->sets))
            return failed(c) == FLUE_OK;
        c->scope = profile->scope;
        c->resource = profile->resource;
    }
    return flue_sample_groups_add(&c->groups, profile) || failed(c) == FLUE_OK;
}

/* An application's one profile is as large as what it came in; of many each is small. */
static size_t expected_size(const struct conversion *c)
{
    size_t one =
        c->payload->ops->resource_count(c->payload) == 1 ? c->whole_bytes : c->whole_bytes / 4;
    return one + one / 8 + 1024;
}

static bool profile_weigh(void *arg, const struct flue_otlp_profile *profile)
{
    *(uint64_t *)arg += profile->bytes.size + 1;
    return true;
}

enum flue_code
flue_otlp_to_pprof(const struct flue_payload *payload, const struct flue_to_pprof_options *options,
                   struct flue_arena *arena,
                   void (*emit)(void *arg, const struct flue_to_pprof_result *result), void *arg,
                   struct flue_error *error)
{
    static const struct flue_to_pprof_options everything;
    struct conversion c = {.payload = payload,
                           .options = options ? options : &everything,
                           .arena = arena,
                           .emit = emit,
                           .arg = arg,
                           .error = error,
                           .scope = UINT32_MAX,
                           .whole_bytes = payload->ops->encoded_size(payload)};

    flue_work_begin(&c.work, flue_otlp_index_of(payload)->body->account, c.whole_bytes);
    flue_arena_init(&c.scope_arena, c.work.budget, 0);
    c.code = flue_otlp_dictionary_open(payload, &c.work.arena, &c.dictionary, error);
    if (c.code == FLUE_NO_MEMORY)
        c.code = flue_work_failed(&c.work, error);
    if (c.code == FLUE_OK) {
        flue_otlp_each_profile(payload, profile_weigh, &c.weight);
        if (!flue_label_sets_init(&c.sets, &c.work.arena, &c.dictionary, c.options) ||
            !flue_pprof_writer_init(&c.writer, &c.dictionary, &c.sets, &c.work,
                                    expected_size(&c)) ||
            (flue_otlp_each_profile(payload, profile_convert, &c) && !scope_end(&c)))
            failed(&c);
        flue_pprof_writer_destroy(&c.writer);
    }
    flue_arena_destroy(&c.scope_arena);
    flue_work_end(&c.work);
    return c.code;
}
