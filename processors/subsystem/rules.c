/* rules.c: see rules.h. */
#include "processors/subsystem/rules.h"

#include <stdio.h>

const struct flue_field subsystem_rule_fields[] = {
    FLUE_STRING(struct subsystem_rule_config, subsystem, .required = true,
                .help = "name of the subsystem that a frame belongs to when any glob matches it; "
                        "in globs * stands for anything, ? for one byte"),
    FLUE_STRINGS(struct subsystem_rule_config, function,
                 .help = "globs over the function's name (or its linker name)"),
    FLUE_STRINGS(struct subsystem_rule_config, package,
                 .help = "globs over what stands before the function within its name: net/http, "
                         "com.example.session, boost::asio"),
    FLUE_STRINGS(struct subsystem_rule_config, file,
                 .help = "globs over the source file; without / over its last part alone"),
    FLUE_STRINGS(struct subsystem_rule_config, mapping,
                 .help = "globs over the program or library; without / over its last part alone"),
    FLUE_STRINGS(struct subsystem_rule_config, frame_type,
                 .help = "globs over profile.frame.type: kernel, native, cpython, jvm, go"),
    FLUE_BOOL(struct subsystem_rule_config, fallback, .def = "false",
              .help = "only for stacks that no other rule takes"),
    FLUE_FIELDS_END};

/* Two sets where the last part of a path is looked at, too. */
struct paths {
    struct subsystem_globs *whole, *last;
};

struct subsystem_rules {
    struct subsystem_globs *functions, *frame_types;
    struct paths files, mappings;
    uint8_t *subsystems; /* by verdict */
    uint16_t count, strong;
    bool root_first;
    const char *names[SUBSYSTEMS_MAX];
    size_t name_count;
};

/* ---- checking ------------------------------------------------------------------------------- */

static void check_globs(const struct flue_list *globs, const char *path, const char *key,
                        struct flue_check *check)
{
    for (size_t i = 0; i < globs->count; i++) {
        const char *glob = ((const char *const *)globs->items)[i];
        char where[96];
        snprintf(where, sizeof where, "%s.%s[%zu]", path, key, i);
        if (!glob || !*glob)
            flue_check_fail(check, where, "is empty: it would match nothing");
        else if (strlen(glob) > SUBSYSTEM_GLOB_MAX)
            flue_check_fail(check, where, "has %zu bytes; a glob has at most %u", strlen(glob),
                            SUBSYSTEM_GLOB_MAX);
    }
}

static size_t glob_count(const struct subsystem_rule_config *rule)
{
    return rule->function.count + rule->package.count + rule->file.count + rule->mapping.count +
           rule->frame_type.count;
}

static size_t distinct_names(const struct subsystem_rule_config *rules, size_t count)
{
    const char *seen[SUBSYSTEMS_MAX + 1];
    size_t names = 0;
    for (size_t i = 0; i < count && names <= SUBSYSTEMS_MAX; i++) {
        size_t n = 0;
        while (n < names && strcmp(seen[n], rules[i].subsystem) != 0)
            n++;
        if (n == names)
            seen[names++] = rules[i].subsystem;
    }
    return names;
}

static size_t builtin_count(void)
{
    size_t count = 0;
    while (subsystem_builtin[count].subsystem)
        count++;
    return count;
}

static size_t builtin_names(void)
{
    size_t count = 0;
    for (size_t i = 0; subsystem_builtin[i].subsystem; i++) {
        size_t j = 0;
        while (strcmp(subsystem_builtin[j].subsystem, subsystem_builtin[i].subsystem) != 0)
            j++;
        count += j == i;
    }
    return count;
}

void subsystem_rules_check(const struct flue_list *list, bool builtin, const char *path,
                           struct flue_check *check)
{
    const struct subsystem_rule_config *rules = list->items;
    size_t room = SUBSYSTEMS_MAX - 2 - (builtin ? builtin_names() : 0);
    size_t globs = 0;
    for (size_t i = 0; i < list->count; i++) {
        char where[64], key[96];
        size_t size = rules[i].subsystem ? strlen(rules[i].subsystem) : 0;
        snprintf(where, sizeof where, "%s[%zu]", path, i);
        snprintf(key, sizeof key, "%s.subsystem", where);
        if (size == 0 || size > SUBSYSTEM_NAME_MAX)
            flue_check_fail(check, key, "has %zu bytes; a name has 1 to %u", size,
                            SUBSYSTEM_NAME_MAX);
        else if (!flue_utf8_valid(flue_bytes_of(rules[i].subsystem)))
            flue_check_fail(check, key, "is not UTF-8");
        if (glob_count(&rules[i]) == 0)
            flue_check_fail(check, where,
                            "matches nothing: give function, package, file, mapping or frame_type");
        check_globs(&rules[i].function, where, "function", check);
        check_globs(&rules[i].package, where, "package", check);
        check_globs(&rules[i].file, where, "file", check);
        check_globs(&rules[i].mapping, where, "mapping", check);
        check_globs(&rules[i].frame_type, where, "frame_type", check);
        globs += glob_count(&rules[i]);
    }
    if (list->count > SUBSYSTEM_RULES_MAX - builtin_count())
        flue_check_fail(check, path, "has %zu rules; %zu are possible", list->count,
                        SUBSYSTEM_RULES_MAX - builtin_count());
    else if (globs > SUBSYSTEM_GLOBS_MAX / 8)
        flue_check_fail(check, path, "has %zu globs; %u are possible", globs,
                        SUBSYSTEM_GLOBS_MAX / 8);
    else if (distinct_names(rules, list->count) > room)
        flue_check_fail(check, path, "names more than %zu subsystems", room);
    if (list->count == 0 && !builtin)
        flue_check_fail(check, path, "is empty, and builtin_rules is false: nothing would match");
}

/* ---- compiling ------------------------------------------------------------------------------ */

static bool add_path(struct paths *paths, struct flue_bytes glob, uint16_t value)
{
    bool whole = flue_bytes_find(glob, '/') != SIZE_MAX;
    return subsystem_globs_add(whole ? paths->whole : paths->last, glob, value);
}

/* "net/http" takes "net/http.(*conn).serve", "a::b" takes "a::b::c"; a package with dots also the
 * form that the Java machine has, "a/b/C.m". */
static bool add_package(struct subsystem_rules *rules, struct flue_bytes package, uint16_t value)
{
    static const char *const joints[] = {".*", "::*"};
    char text[SUBSYSTEM_GLOB_MAX + 4];
    int size = (int)package.size;
    bool open = size && package.data[size - 1] == '*'; /* so is what stands behind it */
    if (open && !subsystem_globs_add(rules->functions, package, value))
        return false;
    for (size_t i = 0; !open && i < sizeof joints / sizeof joints[0]; i++) {
        int n = snprintf(text, sizeof text, "%.*s%s", size, (const char *)package.data, joints[i]);
        if (!subsystem_globs_add(rules->functions, flue_bytes(text, (size_t)n), value))
            return false;
    }
    if (flue_bytes_find(package, '/') != SIZE_MAX || flue_bytes_find(package, '.') == SIZE_MAX)
        return true;
    int n =
        snprintf(text, sizeof text, "%.*s%s", size, (const char *)package.data, open ? "" : "/*");
    for (char *c = text; *c; c++)
        *c = *c == '.' ? '/' : *c;
    return subsystem_globs_add(rules->functions, flue_bytes(text, (size_t)n), value);
}

enum field { FUNCTION, PACKAGE, FILE_PATH, MAPPING, FRAME_TYPE, FIELDS };

static bool add_glob(struct subsystem_rules *rules, enum field field, struct flue_bytes glob,
                     uint16_t value)
{
    switch (field) {
    case FUNCTION:
        return subsystem_globs_add(rules->functions, glob, value);
    case PACKAGE:
        return add_package(rules, glob, value);
    case FILE_PATH:
        return add_path(&rules->files, glob, value);
    case MAPPING:
        return add_path(&rules->mappings, glob, value);
    default:
        return subsystem_globs_add(rules->frame_types, glob, value);
    }
}

static bool name_rule(struct subsystem_rules *rules, const char *name)
{
    size_t i = 0;
    while (i < rules->name_count && strcmp(rules->names[i], name) != 0)
        i++;
    if (i == SUBSYSTEMS_MAX)
        return false;
    if (i == rules->name_count)
        rules->names[rules->name_count++] = name;
    rules->subsystems[rules->count++] = (uint8_t)i;
    return true;
}

static bool add_own(struct subsystem_rules *rules, const struct subsystem_rule_config *rule)
{
    const struct flue_list *lists[FIELDS] = {&rule->function, &rule->package, &rule->file,
                                             &rule->mapping, &rule->frame_type};
    uint16_t value = rules->count;
    if (!name_rule(rules, rule->subsystem))
        return false;
    for (int field = 0; field < FIELDS; field++)
        for (size_t i = 0; i < lists[field]->count; i++)
            if (!add_glob(rules, (enum field)field,
                          flue_bytes_of(((const char *const *)lists[field]->items)[i]), value))
                return false;
    return true;
}

static bool add_builtin(struct subsystem_rules *rules, const struct subsystem_builtin *rule)
{
    const char *const *const lists[FIELDS] = {rule->function, rule->package, rule->file,
                                              rule->mapping, rule->frame_type};
    uint16_t value = rules->count;
    if (!name_rule(rules, rule->subsystem))
        return false;
    for (int field = 0; field < FIELDS; field++)
        for (size_t i = 0; lists[field] && lists[field][i]; i++)
            if (!add_glob(rules, (enum field)field, flue_bytes_of(lists[field][i]), value))
                return false;
    return true;
}

static bool compile(struct subsystem_rules *rules, const struct flue_list *list, bool builtin)
{
    const struct subsystem_rule_config *own = list->items;
    for (int fallback = 0; fallback < 2; fallback++) {
        for (size_t i = 0; i < list->count; i++)
            if (own[i].fallback == (fallback == 1) && !add_own(rules, &own[i]))
                return false;
        for (size_t i = 0; builtin && subsystem_builtin[i].subsystem; i++)
            if (subsystem_builtin[i].fallback == (fallback == 1) &&
                !add_builtin(rules, &subsystem_builtin[i]))
                return false;
        if (!fallback)
            rules->strong = rules->count;
    }
    return subsystem_globs_compile(rules->functions) &&
           subsystem_globs_compile(rules->frame_types) &&
           subsystem_globs_compile(rules->files.whole) &&
           subsystem_globs_compile(rules->files.last) &&
           subsystem_globs_compile(rules->mappings.whole) &&
           subsystem_globs_compile(rules->mappings.last);
}

enum flue_code subsystem_rules_new(const struct flue_list *list, bool builtin, bool root_first,
                                   struct flue_arena *arena, struct subsystem_rules **out,
                                   struct flue_error *error)
{
    struct subsystem_rules *rules = flue_arena_zalloc(arena, 1, sizeof *rules);
    size_t most = list->count + builtin_count();
    if (rules) {
        rules->root_first = root_first;
        rules->functions = subsystem_globs_new(arena);
        rules->frame_types = subsystem_globs_new(arena);
        rules->files = (struct paths){subsystem_globs_new(arena), subsystem_globs_new(arena)};
        rules->mappings = (struct paths){subsystem_globs_new(arena), subsystem_globs_new(arena)};
        rules->subsystems = flue_arena_zalloc(arena, most + 1, 1);
        rules->names[SUBSYSTEM_UNMATCHED] = "unmatched";
        rules->names[SUBSYSTEM_OTHER] = "other";
        rules->name_count = 2;
    }
    if (!rules || !rules->functions || !rules->frame_types || !rules->files.whole ||
        !rules->files.last || !rules->mappings.whole || !rules->mappings.last ||
        !rules->subsystems || !compile(rules, list, builtin))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for %zu rules", most);
    *out = rules;
    return FLUE_OK;
}

/* ---- verdicts ------------------------------------------------------------------------------- */

static uint16_t least(uint16_t a, uint16_t b)
{
    return a < b ? a : b;
}

uint16_t subsystem_of_function(const struct subsystem_rules *rules, struct flue_bytes name,
                               struct flue_bytes system_name)
{
    uint16_t verdict = subsystem_globs_match(rules->functions, name, SUBSYSTEM_NONE);
    if (system_name.size == 0 || flue_bytes_equal(name, system_name))
        return verdict;
    return least(verdict, subsystem_globs_match(rules->functions, system_name, verdict));
}

static uint16_t of_path(const struct paths *paths, struct flue_bytes path)
{
    const uint8_t *slash = path.size ? memrchr(path.data, '/', path.size) : NULL;
    struct flue_bytes last = slash ? flue_bytes_from(path, (size_t)(slash - path.data) + 1) : path;
    uint16_t verdict = subsystem_globs_match(paths->last, last, SUBSYSTEM_NONE);
    return least(verdict, subsystem_globs_match(paths->whole, path, verdict));
}

uint16_t subsystem_of_file(const struct subsystem_rules *rules, struct flue_bytes path)
{
    return of_path(&rules->files, path);
}

uint16_t subsystem_of_mapping(const struct subsystem_rules *rules, struct flue_bytes path)
{
    return of_path(&rules->mappings, path);
}

uint16_t subsystem_of_frame_type(const struct subsystem_rules *rules, struct flue_bytes type)
{
    return subsystem_globs_match(rules->frame_types, type, SUBSYSTEM_NONE);
}

bool subsystem_join(const struct subsystem_rules *rules, uint16_t *sum, uint16_t frame)
{
    if (frame < rules->strong && (*sum >= rules->strong || rules->root_first)) {
        *sum = frame;
        return !rules->root_first;
    }
    if (*sum >= rules->strong)
        *sum = least(*sum, frame);
    return false;
}

uint8_t subsystem_of_verdict(const struct subsystem_rules *rules, uint16_t verdict)
{
    return verdict < rules->count ? rules->subsystems[verdict] : SUBSYSTEM_UNMATCHED;
}

size_t subsystem_count(const struct subsystem_rules *rules)
{
    return rules->name_count;
}

const char *subsystem_name(const struct subsystem_rules *rules, size_t subsystem)
{
    return rules->names[subsystem];
}

uint8_t subsystem_by_name(const struct subsystem_rules *rules, struct flue_bytes name)
{
    for (size_t i = 0; i < rules->name_count; i++)
        if (flue_bytes_is(name, rules->names[i]))
            return (uint8_t)i;
    return SUBSYSTEM_OTHER;
}
