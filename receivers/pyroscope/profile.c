/* profile.c: see profile.h. */
#include "receivers/pyroscope/profile.h"

#include "proto/pprof/repair.h"
#include "proto/wire/json_budget.h"
#include "receivers/pyroscope/spy.h"

#define YEAR_1971_NS  (31536000ll * 1000000000)
#define CONFIG_BUDGET (1u << 20)

/* ---- the profile's name --------------------------------------------------------------------- */

static bool contains(struct flue_bytes text, const char *part)
{
    return text.size > 0 && memmem(text.data, text.size, part, strlen(part)) != NULL;
}

/* What a sample type is called: by the client's own table, or by Pyroscope's. */
static struct flue_bytes display_name(struct flue_bytes type, json_t *config)
{
    static const struct {
        const char *type, *name;
    } usual[] = {{"samples", "cpu"},
                 {"goroutine", "goroutines"},
                 {"contentions", "mutex_count"},
                 {"delay", "mutex_duration"}};
    if (config) {
        json_t *entry = json_object_getn(config, (const char *)type.data, type.size);
        json_t *name = json_object_get(entry, "display-name");
        return json_string_length(name) > 0
                   ? flue_bytes(json_string_value(name), json_string_length(name))
                   : type;
    }
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (flue_bytes_is(type, usual[i].type))
            return flue_bytes_of(usual[i].name);
    return type;
}

static struct flue_bytes profile_name(const struct flue_pprof_type_name *types, size_t count,
                                      json_t *config, struct flue_arena *arena)
{
    struct flue_bytes name = {0};
    for (size_t i = 0; i < count; i++)
        if (flue_bytes_is(types[i].type, "wall"))
            return FLUE_BYTES("wall");
    for (size_t i = 0; i < count; i++) {
        name = display_name(types[i].type, config);
        if (contains(name, "cpu"))
            return FLUE_BYTES("process_cpu");
        if (contains(name, "alloc_") || contains(name, "inuse_") || flue_bytes_is(name, "space") ||
            flue_bytes_is(name, "objects"))
            return FLUE_BYTES("memory");
        if (contains(name, "mutex_"))
            return FLUE_BYTES("mutex");
        if (contains(name, "block_"))
            return FLUE_BYTES("block");
        if (contains(name, "goroutines"))
            return FLUE_BYTES("goroutines");
    }
    return flue_arena_copy(arena, name);
}

static enum flue_code name_of(struct flue_bytes config, const struct flue_pprof_type_name *types,
                              size_t count, struct flue_arena *arena, struct flue_bytes *name,
                              struct flue_error *error)
{
    struct flue_json_budget budget;
    json_t *root = NULL;
    enum flue_code code = FLUE_OK;
    flue_json_begin(&budget, CONFIG_BUDGET);
    if (config.size > 0) {
        code = flue_json_parse(&budget, config, &root, error);
        if (code != FLUE_OK)
            flue_fail_prefix(error, "sample_type_config");
        else if (!json_is_object(root) && !json_is_null(root))
            code = flue_fail(error, FLUE_INVALID, "sample_type_config: must be a JSON object");
    }
    if (code == FLUE_OK)
        *name = profile_name(types, count, json_is_object(root) ? root : NULL, arena);
    json_decref(root);
    flue_json_end(&budget);
    if (code == FLUE_OK && name->size == 0)
        return flue_fail(error, FLUE_INVALID, "profile: its sample types have no names");
    return code;
}

/* ---- labels --------------------------------------------------------------------------------- */

static void add_labels(struct flue_pprof_builder *builder, const struct flue_ingest *ingest,
                       struct flue_bytes name, struct flue_bytes app, const char *app_label)
{
    const struct flue_ingest_name *given = &ingest->name;
    bool service = false;
    for (size_t i = 0; i < given->count; i++)
        service |= flue_bytes_is(given->labels[i].name, "service_name");
    flue_pprof_builder_label(builder, FLUE_BYTES("__name__"), name);
    flue_pprof_builder_label(builder, FLUE_BYTES("__delta__"), FLUE_BYTES("false"));
    flue_pprof_builder_label(builder, FLUE_BYTES("pyroscope_spy"),
                             ingest->spy.size ? ingest->spy : FLUE_BYTES("unknown"));
    if (!service)
        flue_pprof_builder_label(builder, FLUE_BYTES("service_name"), app);
    else if (app_label)
        flue_pprof_builder_label(builder, flue_bytes_of(app_label), app);
    for (size_t i = 0; i < given->count; i++) {
        struct flue_bytes label = given->labels[i].name;
        if (flue_bytes_is(label, "pyroscope_spy") ||
            (app_label && service && flue_bytes_is(label, app_label)))
            continue; /* ours stands */
        if (!flue_bytes_starts_with(label, FLUE_BYTES("__")) ||
            flue_bytes_is(label, "__session_id__"))
            flue_pprof_builder_label(builder, label, given->labels[i].value);
    }
}

static enum flue_code build(const struct flue_ingest *ingest,
                            const struct flue_pprof_profile *profile, struct flue_block *holder,
                            struct flue_bytes name, struct flue_bytes app, const char *app_label,
                            struct flue_ingest_result *out, struct flue_error *error)
{
    struct flue_pprof_builder *builder = flue_pprof_builder_new(ingest->account);
    if (!builder)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a profile's labels");
    flue_pprof_builder_keep(builder, holder);
    flue_pprof_builder_series(builder);
    add_labels(builder, ingest, name, app, app_label);
    flue_pprof_builder_profile(builder, profile);
    return flue_pprof_builder_finish(builder, &out->payload, &out->counts, error);
}

/* ---- pprof ---------------------------------------------------------------------------------- */

static void hold(struct flue_block **holder, struct flue_bytes *profile, struct flue_block *block)
{
    flue_block_unref(*holder);
    *holder = block;
    *profile = flue_block_bytes(block);
}

/* Everything about a profile that must be rewritten, one after the other; usually nothing. *holder
 * is an own reference. */
static enum flue_code put_right(const struct flue_ingest *ingest, struct flue_block **holder,
                                struct flue_bytes *profile, struct flue_pprof_facts *facts,
                                struct flue_arena *arena, struct flue_pprof_type_name **types,
                                bool *repaired, struct flue_error *error)
{
    const struct flue_pprof_limits *limits = &ingest->limits;
    struct flue_block *block = NULL;
    bool changed = false;
    enum flue_code code = flue_pprof_check_types(*profile, limits, facts, arena, types, error);
    if (code == FLUE_INVALID && flue_bytes_is(ingest->spy, "dotnetspy") &&
        flue_spy_dotnet_ids(*profile, limits, ingest->account, &block)) {
        hold(holder, profile, block);
        code = flue_pprof_check_types(*profile, limits, facts, arena, types, error);
    }
    if (code == FLUE_OK && facts->invalid_utf8) {
        code = flue_pprof_repair(*profile, limits, ingest->account, &block, error);
        if (code == FLUE_OK) {
            hold(holder, profile, block);
            *repaired = changed = true;
        }
    }
    if (code == FLUE_OK && flue_spy_rewrites(ingest->spy, facts->dash_in_sample_type)) {
        code = flue_spy_rewrite(ingest->spy, *profile, limits, ingest->account, &block, error);
        if (code == FLUE_OK) {
            hold(holder, profile, block);
            changed = true;
        }
    }
    if (code == FLUE_OK && facts->time_nanos < YEAR_1971_NS) {
        code = flue_pprof_set_time(*profile, (int64_t)ingest->from_ns, limits, ingest->account,
                                   &block, error);
        if (code == FLUE_OK) {
            hold(holder, profile, block);
            changed = true;
        }
    }
    if (code == FLUE_OK && changed)
        code = flue_pprof_check_types(*profile, limits, facts, arena, types, error);
    return code;
}

enum flue_code flue_ingest_profile(const struct flue_ingest *ingest, struct flue_bytes profile,
                                   struct flue_bytes config, struct flue_block *holder,
                                   struct flue_ingest_result *out, struct flue_error *error)
{
    struct flue_arena arena;
    struct flue_pprof_type_name *types = NULL;
    struct flue_pprof_profile one = {.bytes = profile};
    struct flue_bytes name;
    *out = (struct flue_ingest_result){0};
    flue_block_ref(holder);
    flue_arena_init(&arena, 1u << 20, 0);
    enum flue_code code =
        put_right(ingest, &holder, &one.bytes, &one.facts, &arena, &types, &out->repaired, error);
    if (code == FLUE_OK && one.facts.samples > 0) {
        code = name_of(config, types, (size_t)one.facts.sample_types, &arena, &name, error);
        if (code == FLUE_OK)
            code = build(ingest, &one, holder, name, ingest->name.app, NULL, out, error);
    }
    flue_arena_destroy(&arena);
    flue_block_unref(holder);
    return code;
}

/* ---- folded --------------------------------------------------------------------------------- */

enum flue_code flue_ingest_folded(const struct flue_ingest *ingest, struct flue_bytes text,
                                  enum flue_folded_form form, struct flue_ingest_result *out,
                                  struct flue_error *error)
{
    struct flue_folded_meaning meaning = {0};
    struct flue_folded_facts facts;
    struct flue_pprof_profile one = {0};
    struct flue_bytes app, name;
    struct flue_block *block;
    /* design.md, limits: decoded size 8 times the wire with a floor of 1 MiB; stacks of short
     * frames need a little more in rows. */
    size_t budget = (1u << 20) + text.size * 16;
    *out = (struct flue_ingest_result){0};
    enum flue_code code =
        flue_folded_pyroscope(ingest->name.app, ingest->sample_rate, &app, &name, &meaning, error);
    if (code != FLUE_OK)
        return code;
    meaning.time_nanos = (int64_t)ingest->from_ns;
    meaning.duration_nanos =
        ingest->until_ns > ingest->from_ns ? (int64_t)(ingest->until_ns - ingest->from_ns) : 0;
    code =
        flue_folded_to_pprof(text, form, &meaning, budget, ingest->account, &block, &facts, error);
    if (code != FLUE_OK)
        return code;
    out->repaired = facts.repaired;
    one.bytes = flue_block_bytes(block);
    if (facts.samples > 0)
        code = flue_pprof_check(one.bytes, &ingest->limits, &one.facts, error);
    if (code == FLUE_OK && facts.samples > 0)
        code = build(ingest, &one, block, name, app, "app_name", out, error);
    flue_block_unref(block);
    return code;
}
