/* field.h: one row per option; it alone makes parsing, default, bounds, error, help and reference.
 *
 * A component's configuration is a C struct and a table of rows that bind YAML keys to its members.
 * Nothing about an option is said twice. Bound values live in the configuration's arena, as long as
 * the graph that was built from it.
 */
#ifndef FLUE_CONFIG_FIELD_H
#define FLUE_CONFIG_FIELD_H

#include <stddef.h>
#include "collector/base/attribute.h"

/* ---- fields ---------------------------------------------------------------------------------- */

enum flue_field_type {
    FLUE_FIELD_END = 0,
    FLUE_FIELD_BOOL,     /* bool */
    FLUE_FIELD_INT,      /* int64_t, within minimum..maximum */
    FLUE_FIELD_SIZE,     /* int64_t bytes, within minimum..maximum; a plain number is bytes, a
                          * string may carry KiB, MiB, GiB, kB, MB, GB */
    FLUE_FIELD_FLOAT,    /* double */
    FLUE_FIELD_DURATION, /* int64_t nanoseconds, within minimum..maximum */
    FLUE_FIELD_STRING,   /* const char *; NULL when the default is NULL */
    FLUE_FIELD_SECRET,   /* const char *, printed as [REDACTED] */
    FLUE_FIELD_ENUM,     /* int; `choices`, one NULL-ended list of names, the index is the value */
    FLUE_FIELD_ENDPOINT, /* const char * "host:port", "[::1]:0", ":4317", a path, or an URL */
    FLUE_FIELD_BLOCK,    /* an embedded struct with its own fields */
    FLUE_FIELD_OPTIONAL, /* const struct X *: NULL when the key is absent (unless .def = "{}", which
                          * makes it present); a null value or {} gives the defaults; inside it
                          * `enabled: false` gives NULL again */
    FLUE_FIELD_LIST,     /* struct flue_list of structs with `fields` */
    FLUE_FIELD_STRINGS,  /* struct flue_list of const char * */
    FLUE_FIELD_MAP,      /* struct flue_map of string to string, in the file's order; the file may
                          * also write a list of {name, value} (configopaque.MapList) */
    FLUE_FIELD_SECRETS,  /* as MAP, values printed as [REDACTED] (headers) */
    FLUE_FIELD_VALUE,    /* struct flue_value: any scalar, as YAML types it */
    FLUE_FIELD_IGNORED   /* accepted for compatibility, has no effect; `help` says why */
};

struct flue_list {
    void *items; /* array of structs, or of const char * */
    size_t count;
};
struct flue_map_entry {
    const char *key, *value;
};
struct flue_map {
    const struct flue_map_entry *items;
    size_t count;
};

/* Where a value stood, for errors found after binding. */
struct flue_position {
    const char *file;
    unsigned line, column;
};

struct flue_field {
    const char *name;
    enum flue_field_type type;
    uint32_t offset;
    uint32_t size;                   /* of the nested struct: BLOCK, OPTIONAL, LIST */
    const struct flue_field *fields; /* nested */
    const char *help;
    const char *def;            /* default in YAML's words: "30s", "true", "gzip", "[a, b]";
                                 * NULL: zero, empty, the first choice, no block */
    int64_t minimum, maximum;   /* INT, SIZE, FLOAT (value), DURATION (ns); both 0: none */
    const char *const *choices; /* ENUM */
    const char *unit;           /* "bytes", "MiB", for help */
    const char *alias;          /* deprecated other name of the same key */
    bool required;
    bool reloadable;
};

#define FLUE_FIELD_(TYPE, S, member, ...)                                                          \
    {                                                                                              \
        .name = #member, .type = TYPE, .offset = offsetof(S, member), __VA_ARGS__                  \
    }
#define FLUE_BOOL(S, m, ...)     FLUE_FIELD_(FLUE_FIELD_BOOL, S, m, __VA_ARGS__)
#define FLUE_INT(S, m, ...)      FLUE_FIELD_(FLUE_FIELD_INT, S, m, __VA_ARGS__)
#define FLUE_SIZE(S, m, ...)     FLUE_FIELD_(FLUE_FIELD_SIZE, S, m, __VA_ARGS__)
#define FLUE_FLOAT(S, m, ...)    FLUE_FIELD_(FLUE_FIELD_FLOAT, S, m, __VA_ARGS__)
#define FLUE_DURATION(S, m, ...) FLUE_FIELD_(FLUE_FIELD_DURATION, S, m, __VA_ARGS__)
#define FLUE_STRING(S, m, ...)   FLUE_FIELD_(FLUE_FIELD_STRING, S, m, __VA_ARGS__)
#define FLUE_SECRET(S, m, ...)   FLUE_FIELD_(FLUE_FIELD_SECRET, S, m, __VA_ARGS__)
#define FLUE_ENUM(S, m, ...)     FLUE_FIELD_(FLUE_FIELD_ENUM, S, m, __VA_ARGS__)
#define FLUE_ENDPOINT(S, m, ...) FLUE_FIELD_(FLUE_FIELD_ENDPOINT, S, m, __VA_ARGS__)
#define FLUE_STRINGS(S, m, ...)  FLUE_FIELD_(FLUE_FIELD_STRINGS, S, m, __VA_ARGS__)
#define FLUE_MAP(S, m, ...)      FLUE_FIELD_(FLUE_FIELD_MAP, S, m, __VA_ARGS__)
#define FLUE_SECRETS(S, m, ...)  FLUE_FIELD_(FLUE_FIELD_SECRETS, S, m, __VA_ARGS__)
#define FLUE_VALUE(S, m, ...)    FLUE_FIELD_(FLUE_FIELD_VALUE, S, m, __VA_ARGS__)
/* Nested: T is the nested struct, F its table. */
#define FLUE_BLOCK(S, m, T, F, ...)                                                                \
    FLUE_FIELD_(FLUE_FIELD_BLOCK, S, m, .size = sizeof(T), .fields = (F), __VA_ARGS__)
#define FLUE_OPTIONAL(S, m, T, F, ...)                                                             \
    FLUE_FIELD_(FLUE_FIELD_OPTIONAL, S, m, .size = sizeof(T), .fields = (F), __VA_ARGS__)
#define FLUE_LIST(S, m, T, F, ...)                                                                 \
    FLUE_FIELD_(FLUE_FIELD_LIST, S, m, .size = sizeof(T), .fields = (F), __VA_ARGS__)
/* The nested table's keys stand in the outer block itself (the Collector's "squash"). A row of the
 * outer table with the same key hides the nested one: so an outer block gives it another default.
 */
#define FLUE_SQUASH(S, m, T, F)                                                                    \
    {                                                                                              \
        .name = NULL, .type = FLUE_FIELD_BLOCK, .offset = offsetof(S, m), .size = sizeof(T),       \
        .fields = (F)                                                                              \
    }
#define FLUE_IGNORED(key, why)                                                                     \
    {                                                                                              \
        .name = key, .type = FLUE_FIELD_IGNORED, .help = why                                       \
    }
/* name == NULL and type END end a table. */
#define FLUE_FIELDS_END                                                                            \
    {                                                                                              \
        .type = FLUE_FIELD_END                                                                     \
    }

/* ---- checking -------------------------------------------------------------------------------- */

/* Collects every mistake; flue validate prints them all. `path` is the key within the component's
 * block ("protocols.grpc.endpoint", "attributes[2].key"), "" for the block itself: its position is
 * looked up, or that of the nearest block around it which the file has. The text does not repeat
 * the path. See check.h for who reads them. */
struct flue_check;
void flue_check_fail(struct flue_check *check, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void flue_check_warn(struct flue_check *check, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
