/* sample_groups.c: see sample_groups.h. */
#include "proto/convert/sample_groups.h"

bool flue_sample_groups_begin(struct flue_sample_groups *groups, struct flue_arena *arena,
                              const struct flue_payload *payload,
                              const struct flue_otlp_dictionary *dictionary,
                              struct flue_label_sets *sets)
{
    memset(groups, 0, sizeof *groups);
    groups->payload = payload;
    groups->dictionary = dictionary;
    groups->sets = sets;
    groups->arena = arena;
    return flue_table_init(&groups->alike.table, arena, 8) &&
           flue_table_init(&groups->same_type.table, arena, 8);
}

static void add_to(int64_t *sum, int64_t value)
{
    if (__builtin_add_overflow(*sum, value, sum))
        *sum = value < 0 ? INT64_MIN : INT64_MAX;
}

static bool index_add(struct flue_sample_groups *groups, size_t *count, uint64_t index)
{
    return FLUE_ARENA_PUSH(groups->arena, groups->indices, *count, groups->index_room,
                           (uint32_t)index);
}

/* One walk over a Sample (1 stack, 2 attributes, 3 link, 4 values, 5 timestamps). */
static bool sample_read(struct flue_sample_groups *groups, struct flue_bytes sample,
                        struct flue_sample_row *row, int64_t *value)
{
    struct flue_reader r = flue_reader(sample), run;
    struct flue_field_value f;
    size_t indices = 0, timestamps = 0;
    bool has_value = false;
    uint32_t link = 0;
    uint64_t number;

    row->stack = 0;
    *value = 0;
    while (flue_read_field(&r, &f)) {
        switch (f.number) {
        case 1:
            row->stack = (uint32_t)f.varint;
            break;
        case 2:
            if (f.type == FLUE_VARINT && !index_add(groups, &indices, f.varint))
                return false;
            if (f.type != FLUE_LEN)
                break;
            for (run = flue_reader(f.bytes); flue_read_varint(&run, &number);)
                if (!index_add(groups, &indices, number))
                    return false;
            break;
        case 3:
            link = (uint32_t)f.varint;
            break;
        case 4:
            has_value = has_value || f.type == FLUE_VARINT || f.bytes.size;
            if (f.type == FLUE_VARINT)
                add_to(value, (int64_t)f.varint);
            else
                for (run = flue_reader(f.bytes); flue_read_varint(&run, &number);)
                    add_to(value, (int64_t)number);
            break;
        case 5:
            timestamps += f.type == FLUE_FIXED64 ? 1 : f.bytes.size / 8;
            break;
        default:
            break;
        }
    }
    if (!has_value)
        *value = (int64_t)timestamps;
    row->labels = flue_label_sets_find(groups->sets, groups->indices, indices, link);
    return row->labels != UINT32_MAX;
}

struct attributes {
    struct flue_sample_groups *groups;
    struct flue_sample_list *list;
    bool failed;
};

static void attribute(void *arg, uint32_t index)
{
    struct attributes *a = arg;

    if (!FLUE_ARENA_PUSH(a->groups->arena, a->list->attributes, a->list->attribute_count,
                         a->list->attribute_room, index))
        a->failed = true;
}

static struct flue_bytes string_at(const struct flue_sample_groups *groups, uint32_t row)
{
    return flue_otlp_string(groups->dictionary, row);
}

static uint64_t list_hash(const struct flue_sample_groups *groups,
                          const struct flue_sample_list *list)
{
    const struct flue_otlp_profile_fields *f = &list->fields;
    uint64_t hash = flue_hash(flue_bytes(list->rows, list->count * sizeof *list->rows));

    hash = flue_hash_join(hash, f->time_unix_nano);
    hash = flue_hash_join(hash, f->duration_nano);
    hash = flue_hash_join(hash, (uint64_t)f->period);
    hash = flue_hash_join(hash, flue_hash(string_at(groups, f->period_type)));
    return flue_hash_join(
        hash,
        flue_hash(flue_bytes(list->attributes, list->attribute_count * sizeof *list->attributes)));
}

static bool strings_equal(const struct flue_sample_groups *groups, uint32_t a, uint32_t b)
{
    return a == b || flue_bytes_equal(string_at(groups, a), string_at(groups, b));
}

static bool lists_alike(const struct flue_sample_groups *groups, const struct flue_sample_list *a,
                        const struct flue_sample_list *b)
{
    const struct flue_otlp_profile_fields *f = &a->fields, *g = &b->fields;

    return a->hash == b->hash && a->count == b->count && f->time_unix_nano == g->time_unix_nano &&
           f->duration_nano == g->duration_nano && f->period == g->period &&
           strings_equal(groups, f->period_type, g->period_type) &&
           strings_equal(groups, f->period_unit, g->period_unit) &&
           flue_bytes_equal(
               flue_bytes(a->attributes, a->attribute_count * sizeof *a->attributes),
               flue_bytes(b->attributes, b->attribute_count * sizeof *b->attributes)) &&
           memcmp(a->rows, b->rows, a->count * sizeof *a->rows) == 0;
}

static bool alike(const void *rows, uint32_t row, const void *key)
{
    const struct flue_sample_groups *groups = rows;

    return lists_alike(groups, &groups->lists[groups->alike.items[row].list], key);
}

static bool same_type(const void *rows, uint32_t row, const void *key)
{
    const struct flue_sample_groups *groups = rows;
    const struct flue_sample_list *other = &groups->lists[groups->same_type.items[row].list];
    const struct flue_sample_list *list = key;

    return lists_alike(groups, other, list) &&
           strings_equal(groups, other->fields.sample_type, list->fields.sample_type) &&
           strings_equal(groups, other->fields.sample_unit, list->fields.sample_unit);
}

/* A new group of list `number` alone. */
static bool group_new(struct flue_sample_groups *groups, uint32_t number)
{
    struct flue_sample_group group = {number, number, 1, UINT32_MAX};

    return FLUE_ARENA_PUSH(groups->arena, groups->groups, groups->count, groups->room, group);
}

static bool list_place(struct flue_sample_groups *groups, uint32_t number)
{
    struct flue_sample_list *list = &groups->lists[number];
    uint64_t type_hash = flue_hash_join(
        list->hash, flue_hash_join(flue_hash(string_at(groups, list->fields.sample_type)),
                                   flue_hash(string_at(groups, list->fields.sample_unit))));
    uint32_t first = flue_table_find(&groups->alike.table, list->hash, alike, groups, list);
    uint32_t last = first == FLUE_TABLE_NONE ? FLUE_TABLE_NONE
                                             : flue_table_find(&groups->same_type.table, type_hash,
                                                               same_type, groups, list);
    uint32_t before = last == FLUE_TABLE_NONE ? UINT32_MAX : groups->same_type.items[last].group;
    uint32_t to = first == FLUE_TABLE_NONE ? UINT32_MAX
                  : before == UINT32_MAX   ? groups->alike.items[first].group
                                           : groups->groups[before].next_same;
    struct flue_same same = {number, to};

    if (to == UINT32_MAX) {
        same.group = (uint32_t)groups->count;
        if (!group_new(groups, number))
            return false;
        if (before != UINT32_MAX)
            groups->groups[before].next_same = same.group;
    } else {
        groups->lists[groups->groups[to].last].next = number;
        groups->groups[to].last = number;
        groups->groups[to].types++;
    }
    if (first == FLUE_TABLE_NONE &&
        (!FLUE_ARENA_PUSH(groups->arena, groups->alike.items, groups->alike.count,
                          groups->alike.room, same) ||
         !flue_table_insert(&groups->alike.table, list->hash, (uint32_t)groups->alike.count - 1)))
        return false;
    if (last != FLUE_TABLE_NONE) {
        groups->same_type.items[last].group = same.group;
        return true;
    }
    return FLUE_ARENA_PUSH(groups->arena, groups->same_type.items, groups->same_type.count,
                           groups->same_type.room, same) &&
           flue_table_insert(&groups->same_type.table, type_hash,
                             (uint32_t)groups->same_type.count - 1);
}

bool flue_sample_groups_add(struct flue_sample_groups *groups,
                            const struct flue_otlp_profile *profile)
{
    struct flue_sample_list list = {
        .profile = profile->profile, .encoded_size = profile->bytes.size, .next = UINT32_MAX};
    struct flue_otlp_samples samples = flue_otlp_samples(groups->payload, profile->profile);
    struct attributes attributes = {groups, &list, false};
    struct flue_bytes sample;

    flue_otlp_profile_read(groups->payload, profile->profile, &list.fields);
    flue_otlp_profile_attributes(groups->payload, profile->profile, attribute, &attributes);
    list.rows = flue_arena_alloc(groups->arena, profile->samples * sizeof *list.rows);
    list.values = flue_arena_alloc(groups->arena, profile->samples * sizeof *list.values);
    if (attributes.failed || !list.rows || !list.values)
        return false;
    while (list.count < profile->samples && flue_otlp_samples_next(&samples, &sample)) {
        if (!sample_read(groups, sample, &list.rows[list.count], &list.values[list.count]))
            return false;
        list.count++;
    }
    list.hash = list_hash(groups, &list);
    return groups->list_count < UINT32_MAX - 1 &&
           FLUE_ARENA_PUSH(groups->arena, groups->lists, groups->list_count, groups->list_room,
                           list) &&
           list_place(groups, (uint32_t)groups->list_count - 1);
}

static bool same_row(const void *rows, uint32_t row, const void *key)
{
    const struct flue_sample_row *all = rows, *wanted = key;

    return all[row].stack == wanted->stack && all[row].labels == wanted->labels;
}

bool flue_sample_group_fold(struct flue_sample_groups *groups,
                            const struct flue_sample_group *group)
{
    struct flue_sample_list *first = &groups->lists[group->first];
    size_t count = first->count, kept = 0;
    struct flue_sample_row *rows = first->rows;
    struct flue_table table;

    if (!flue_table_init(&table, groups->arena, count))
        return false;
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = flue_hash_u64((uint64_t)rows[i].stack << 32 | rows[i].labels);
        uint32_t to = flue_table_find(&table, hash, same_row, rows, &rows[i]);

        if (to == FLUE_TABLE_NONE) {
            to = (uint32_t)kept++;
            rows[to] = rows[i];
            if (!flue_table_insert(&table, hash, to))
                return false;
            for (uint32_t l = group->first; l != UINT32_MAX; l = groups->lists[l].next)
                groups->lists[l].values[to] = groups->lists[l].values[i];
        } else {
            for (uint32_t l = group->first; l != UINT32_MAX; l = groups->lists[l].next)
                add_to(&groups->lists[l].values[to], groups->lists[l].values[i]);
        }
    }
    for (uint32_t l = group->first; l != UINT32_MAX; l = groups->lists[l].next)
        groups->lists[l].count = kept;
    return true;
}
