/* tables.c: from a file to a table. */
#include "processors/cdn/tables.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "collector/base/clock.h"

bool flue_cdn_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* The whole file as it is now: read, not mapped, since a mapped file that is truncated kills. */
static enum flue_code read_file(const char *path, int64_t max, struct stat *stat, uint8_t **out,
                                size_t *size, struct flue_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, stat) < 0) {
        int why = errno;
        if (fd >= 0)
            close(fd);
        return flue_fail(error, FLUE_IO, "%s: %s", path, strerror(why));
    }
    enum flue_code code = FLUE_OK;
    *size = 0;
    *out = NULL;
    if (!S_ISREG(stat->st_mode))
        code = flue_fail(error, FLUE_INVALID, "%s: not a file", path);
    else if (stat->st_size > max)
        code = flue_fail(error, FLUE_TOO_LARGE, "%s: %lld bytes; max_file_size is %lld", path,
                         (long long)stat->st_size, (long long)max);
    else if (!(*out = malloc((size_t)stat->st_size + 1)))
        code = flue_fail(error, FLUE_NO_MEMORY, "%s: no memory for %lld bytes", path,
                         (long long)stat->st_size);
    while (code == FLUE_OK) {
        ssize_t got = read(fd, *out + *size, (size_t)stat->st_size + 1 - *size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            code = flue_fail(error, FLUE_IO, "%s: %s", path, strerror(errno));
        if (got <= 0)
            break;
        *size += (size_t)got;
        if (*size > (size_t)stat->st_size)
            code = flue_fail(error, FLUE_IO, "%s: it grew while it was read", path);
    }
    if (code == FLUE_OK && *size < (size_t)stat->st_size)
        code = flue_fail(error, FLUE_IO, "%s: it shrank while it was read", path);
    struct stat after;
    if (code == FLUE_OK && (fstat(fd, &after) < 0 || !flue_cdn_same_file(stat, &after)))
        code = flue_fail(error, FLUE_IO, "%s: it changed while it was read", path);
    close(fd);
    if (code != FLUE_OK) {
        free(*out);
        *out = NULL;
    }
    return code;
}

struct dispute {
    struct flue_feed *feed;
    unsigned count;
};

static void dispute(void *arg, const struct flue_prefix *one, const struct flue_prefix *other)
{
    struct dispute *d = arg;
    d->count++;
    flue_feed_warn(d->feed, other->line,
                   "the same network as in line %u with another place: neither counts", one->line);
}

#define DEFAULTS_MAX FLUE_PLACE_ATTRIBUTES

static enum flue_code build(struct flue_feed *feed, bool keep_items, struct flue_cdn_table *table,
                            struct flue_error *error)
{
    struct dispute d = {feed, 0};
    enum flue_code code = flue_prefixes_build(feed->items, feed->count, FLUE_PLACE_DISPUTED,
                                              dispute, &d, &table->prefixes, error);
    if (code != FLUE_OK)
        return code;
    flue_places_seal(&feed->places);
    table->places = feed->places;
    memset(&feed->places, 0, sizeof feed->places);
    if (keep_items) {
        table->items = feed->items;
        table->item_count = flue_prefixes_count(table->prefixes);
        feed->items = NULL;
    }
    table->form = feed->form;
    table->warnings = feed->warnings;
    table->disputes = d.count;
    table->loaded_ns = flue_wall_ns();
    return FLUE_OK;
}

enum flue_code flue_cdn_table_read(const struct flue_cdn_file *file,
                                   const struct flue_cdn_config *config, bool keep_items,
                                   void (*warn)(void *arg, unsigned line, const char *text),
                                   void *arg, struct flue_cdn_table **out, struct flue_error *error)
{
    struct flue_place_default defaults[DEFAULTS_MAX];
    char texts[DEFAULTS_MAX][FLUE_PLACE_VALUE_MAX];
    struct flue_cdn_table *table = calloc(1, sizeof *table);
    struct flue_feed feed = {0};
    uint8_t *content = NULL;
    size_t size = 0, count = 0;

    *out = NULL;
    if (!table)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a table");
    atomic_init(&table->refs, 1);
    enum flue_code code =
        read_file(file->path, config->max_file_size, &table->stat, &content, &size, error);
    if (code == FLUE_OK)
        code = flue_feed_init(&feed, (size_t)config->max_prefixes, error);
    for (size_t i = 0; code == FLUE_OK && i < file->set.count && count < DEFAULTS_MAX; i++) {
        enum flue_place_attribute attribute =
            flue_place_attribute_find(flue_bytes_of(file->set.items[i].key));
        size_t length;
        if (attribute < FLUE_PLACE_ATTRIBUTES &&
            flue_place_normalize(attribute, flue_bytes_of(file->set.items[i].value), texts[count],
                                 &length)) {
            defaults[count] = (struct flue_place_default){attribute, {NULL, 0}};
            defaults[count].value = flue_bytes(texts[count], length);
            count++;
        }
    }
    feed.defaults = defaults;
    feed.default_count = count;
    feed.netbox_vrf = file->vrf;
    feed.warn = warn;
    feed.arg = arg;
    if (code == FLUE_OK) {
        code = flue_feed_read(&feed, flue_bytes(content, size), error);
        if (code == FLUE_OK)
            code = build(&feed, keep_items, table, error);
        if (code != FLUE_OK)
            (void)flue_fail_prefix(error, "%s", file->path);
    }
    free(content);
    flue_feed_destroy(&feed);
    if (code != FLUE_OK)
        flue_cdn_table_unref(table);
    else
        *out = table;
    return code;
}

void flue_cdn_table_unref(struct flue_cdn_table *table)
{
    if (!table || atomic_fetch_sub(&table->refs, 1) != 1)
        return;
    flue_prefixes_destroy(table->prefixes);
    flue_places_destroy(&table->places);
    free(table->items);
    free(table);
}

size_t flue_cdn_table_bytes(const struct flue_cdn_table *table)
{
    return flue_prefixes_bytes(table->prefixes) + table->places.arena.used;
}

/* ---- sets ------------------------------------------------------------------------------------ */

struct flue_cdn_tables *flue_cdn_tables_new(const struct flue_cdn_config *config)
{
    size_t count = config->networks.count + config->databases.count;
    struct flue_cdn_tables *tables = calloc(1, sizeof *tables + count * sizeof tables->items[0]);
    if (!tables)
        return NULL;
    atomic_init(&tables->refs, 1);
    tables->network_count = config->networks.count;
    tables->database_count = config->databases.count;
    return tables;
}

struct flue_cdn_tables *flue_cdn_tables_ref(struct flue_cdn_tables *tables)
{
    atomic_fetch_add(&tables->refs, 1);
    return tables;
}

void flue_cdn_tables_unref(struct flue_cdn_tables *tables)
{
    if (!tables || atomic_fetch_sub(&tables->refs, 1) != 1)
        return;
    for (size_t i = 0; i < tables->network_count + tables->database_count; i++)
        flue_cdn_table_unref(tables->items[i]);
    free(tables);
}

const struct flue_cdn_file *flue_cdn_tables_file(const struct flue_cdn_config *config, size_t i)
{
    return i < config->networks.count
               ? &((const struct flue_cdn_file *)config->networks.items)[i]
               : &((const struct flue_cdn_file *)config->databases.items)[i - config->networks.count];
}
