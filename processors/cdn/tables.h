/* tables.h: the files of networks and databases, each read whole, checked, and swapped whole.
 *
 * A set of tables is immutable and counted: a batch that has begun with one set ends with it. A
 * file that is truncated, half written, wrong or gone leaves its old table in use, with a warning
 * that says since when.
 *
 * Threads: reading is for the pool or for start-up; looking up for any thread that holds a set.
 */
#ifndef FLUE_CDN_TABLES_H
#define FLUE_CDN_TABLES_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "processors/cdn/config.h"
#include "processors/cdn/feed.h"

struct flue_cdn_table {
    _Atomic unsigned refs;
    struct flue_places places;
    struct flue_prefixes *prefixes;
    struct flue_prefix *items; /* for `flue cdn explain` alone: which prefix, which line */
    size_t item_count;
    const char *form;
    unsigned warnings, disputes;
    uint64_t loaded_ns; /* wall clock */
    struct stat stat;
};
/* Reads a file. `keep_items` costs 28 bytes a prefix. `warn` may be NULL. */
enum flue_code flue_cdn_table_read(const struct flue_cdn_file *file,
                                   const struct flue_cdn_config *config, bool keep_items,
                                   void (*warn)(void *arg, unsigned line, const char *text),
                                   void *arg, struct flue_cdn_table **out,
                                   struct flue_error *error);
void flue_cdn_table_unref(struct flue_cdn_table *table); /* NULL: fine */
/* Neither replaced nor written to in between. */
bool flue_cdn_same_file(const struct stat *a, const struct stat *b);
size_t flue_cdn_table_bytes(const struct flue_cdn_table *table);

struct flue_cdn_tables {
    _Atomic unsigned refs;
    size_t network_count, database_count;
    struct flue_cdn_table *items[]; /* networks, then databases; NULL: never could be read */
};
struct flue_cdn_tables *flue_cdn_tables_new(const struct flue_cdn_config *config);
struct flue_cdn_tables *flue_cdn_tables_ref(struct flue_cdn_tables *tables);
void flue_cdn_tables_unref(struct flue_cdn_tables *tables); /* NULL: fine */
const struct flue_cdn_file *flue_cdn_tables_file(const struct flue_cdn_config *config, size_t i);

#endif
