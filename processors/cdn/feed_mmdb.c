/* feed_mmdb.c: a MaxMind-format database, read whole into our own table.
 *
 * The file is not mapped and no library looks into it while profiles pass: a mapped file that is
 * truncated kills the process, and libmaxminddb 1.7 opens damaged files and answers from them. So
 * every node is walked and every record decoded once here, with limits, and what is left is the
 * table of prefixes.h. MaxMind-DB specification 2.0.
 */
#include <stdio.h>
#include <stdlib.h>

#include "processors/cdn/feed.h"

#define DEPTH_MAX  16 /* of maps, arrays and pointers in a record */
#define VALUES_MAX 4096 /* in one record */

enum { POINTER = 1, STRING, DOUBLE, BYTES, UINT16, UINT32, MAP, INT32, UINT64, UINT128, ARRAY,
       BOOLEAN = 14, FLOAT };

struct mmdb {
    struct flue_feed *feed;
    struct flue_error *error;
    struct flue_bytes tree, data; /* data: behind the 16 zero bytes, up to the metadata */
    uint64_t node_count, record_size, ip_version;
    uint32_t *places; /* by offset in data, of records that were decoded; hash of offsets */
    uint64_t *offsets;
    size_t slots, used;
    unsigned values; /* decoded in this record */
    /* of the record being decoded */
    struct flue_feed_entry entry;
    bool anycast;
    char subdivision[8];
};

/* ---- the data section ------------------------------------------------------------------------ */

struct item {
    int type;
    uint64_t size; /* bytes, or entries of a map or array; the value of a boolean */
    size_t at;     /* of the payload */
};

/* Reads the control byte (and what follows it) at *at; follows no pointer. */
static bool control(const struct mmdb *db, size_t *at, struct item *out)
{
    const uint8_t *data = db->data.data;
    size_t end = db->data.size, i = *at;
    if (i >= end)
        return false;
    unsigned byte = data[i++], type = byte >> 5, size = byte & 31;
    if (type == POINTER) {
        static const uint32_t bias[] = {0, 2048, 526336, 0};
        unsigned bytes = (size >> 3) + 1;
        if (end - i < bytes)
            return false;
        uint64_t value = bytes == 4 ? 0 : size & 7;
        for (unsigned k = 0; k < bytes; k++)
            value = value << 8 | data[i++];
        *out = (struct item){POINTER, value + bias[bytes - 1], i};
        *at = i;
        return true;
    }
    if (type == 0) {
        if (i >= end)
            return false;
        type = data[i++] + 7u;
        if (type < 8 || type > FLOAT || type == 12 || type == 13)
            return false;
    }
    uint64_t length = size;
    if (size >= 29) {
        static const uint32_t base[] = {29, 285, 65821};
        unsigned bytes = size - 28;
        if (end - i < bytes)
            return false;
        length = 0;
        for (unsigned k = 0; k < bytes; k++)
            length = length << 8 | data[i++];
        length += base[bytes - 1];
    }
    *out = (struct item){(int)type, length, i};
    if (type != MAP && type != ARRAY && type != BOOLEAN) {
        if (length > end - i)
            return false;
        i += length;
    }
    *at = i;
    return true;
}

static bool next_item(struct mmdb *db, size_t *at, struct item *out)
{
    if (++db->values > VALUES_MAX || !control(db, at, out))
        return false;
    if (out->type != POINTER)
        return true;
    size_t target = out->size;
    return control(db, &target, out) && out->type != POINTER; /* to a pointer: not allowed */
}

static bool number_text(const struct mmdb *db, const struct item *item, char *out, size_t size)
{
    uint64_t bits = 0;
    if (item->size > 8)
        return false;
    for (uint64_t i = 0; i < item->size; i++)
        bits = bits << 8 | db->data.data[item->at + i];
    if (item->type == DOUBLE || item->type == FLOAT) {
        double value;
        float narrow;
        uint32_t low = (uint32_t)bits;
        memcpy(&value, &bits, sizeof value);
        memcpy(&narrow, &low, sizeof narrow);
        if (item->size != (item->type == DOUBLE ? 8 : 4))
            return false;
        (void)snprintf(out, size, "%.6g", item->type == DOUBLE ? value : (double)narrow);
    } else if (item->type == UINT16 || item->type == UINT32 || item->type == UINT64) {
        (void)snprintf(out, size, "%llu", (unsigned long long)bits);
    } else {
        return false;
    }
    return true;
}

/* Paths that say something, of MaxMind, DB-IP, the flat repacks and IPinfo. A later one does not
 * take the place of an earlier one. `*` is any element of an array, the first that answers. */
static const struct {
    const char *path;
    enum flue_place_attribute attribute;
} paths[] = {
    {"continent.code", FLUE_PLACE_CONTINENT},
    {"country.iso_code", FLUE_PLACE_COUNTRY},
    {"country_code", FLUE_PLACE_COUNTRY},
    {"country", FLUE_PLACE_COUNTRY},
    {"city.names.en", FLUE_PLACE_CITY},
    {"city", FLUE_PLACE_CITY},
    {"location.latitude", FLUE_PLACE_LATITUDE},
    {"latitude", FLUE_PLACE_LATITUDE},
    {"location.longitude", FLUE_PLACE_LONGITUDE},
    {"longitude", FLUE_PLACE_LONGITUDE},
    {"postal.code", FLUE_PLACE_POSTAL_CODE},
    {"postal_code", FLUE_PLACE_POSTAL_CODE},
    {"autonomous_system_number", FLUE_PLACE_ASN},
    {"traits.autonomous_system_number", FLUE_PLACE_ASN},
    {"asn", FLUE_PLACE_ASN},
};

static void value_at(struct mmdb *db, const char *path, const struct item *item)
{
    char text[64];
    struct flue_bytes value;

    if (strcmp(path, "traits.is_anycast") == 0) {
        db->anycast = item->type == BOOLEAN && item->size;
        return;
    }
    if (item->type == STRING)
        value = flue_bytes(db->data.data + item->at, item->size);
    else if (number_text(db, item, text, sizeof text))
        value = flue_bytes_of(text);
    else
        return;
    if (strcmp(path, "subdivisions.*.iso_code") == 0 || strcmp(path, "region_code") == 0) {
        if (!db->subdivision[0] && value.size && value.size <= 6)
            (void)snprintf(db->subdivision, sizeof db->subdivision, "%.*s", FLUE_PRI(value));
        return;
    }
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        enum flue_place_attribute attribute = paths[i].attribute;
        char normal[FLUE_PLACE_VALUE_MAX];
        size_t size;
        if (strcmp(paths[i].path, path) != 0 || db->entry.place.values[attribute])
            continue;
        /* A country that is a name, not a code, is no mistake of the file: it is not for us. */
        if (flue_place_normalize(attribute, value, normal, &size))
            flue_feed_set(db->feed, &db->entry, 0, attribute, value);
    }
}

/* Walks a value and all below it, moving *at behind it; `path` is where it stands. */
static bool walk(struct mmdb *db, size_t *at, char *path, size_t path_size, unsigned depth)
{
    struct item item, key;
    size_t inside;

    if (!next_item(db, at, &item))
        return false;
    if (item.type != MAP && item.type != ARRAY) {
        path[path_size] = 0;
        value_at(db, path, &item);
        return true;
    }
    if (depth == DEPTH_MAX || item.size > VALUES_MAX)
        return false;
    /* Behind a pointer the entries lie elsewhere and *at stays where next_item has left it. */
    bool here = item.at == *at;
    inside = item.at;
    for (uint64_t i = 0; i < item.size; i++) {
        char deep[132], *to = path;
        size_t size = path_size;
        struct flue_bytes name = FLUE_BYTES("*");
        if (item.type == MAP) {
            if (!next_item(db, &inside, &key) || key.type != STRING)
                return false;
            name = flue_bytes(db->data.data + key.at, key.size);
        }
        if (size + name.size + 2 > 128) { /* longer than any that we want: walked, not looked at */
            name = FLUE_BYTES("?");
            size = 0;
            to = deep;
        }
        if (size)
            to[size++] = '.';
        memcpy(to + size, name.data, name.size);
        if (!walk(db, &inside, to, size + name.size, depth + 1))
            return false;
    }
    if (here)
        *at = inside;
    return true;
}

/* ---- records --------------------------------------------------------------------------------- */

static uint32_t *place_slot(struct mmdb *db, uint64_t offset)
{
    if (db->used * 2 >= db->slots) {
        size_t slots = db->slots ? db->slots * 2 : 4096;
        uint32_t *places = calloc(slots, sizeof *places);
        uint64_t *offsets = calloc(slots, sizeof *offsets);
        if (!places || !offsets) {
            free(places);
            free(offsets);
            return NULL;
        }
        for (size_t i = 0; i < db->slots; i++) {
            if (!db->offsets[i])
                continue;
            size_t to = flue_hash_u64(db->offsets[i]) & (slots - 1);
            while (offsets[to])
                to = (to + 1) & (slots - 1);
            offsets[to] = db->offsets[i];
            places[to] = db->places[i];
        }
        free(db->places);
        free(db->offsets);
        db->places = places;
        db->offsets = offsets;
        db->slots = slots;
    }
    size_t at = flue_hash_u64(offset + 1) & (db->slots - 1);
    while (db->offsets[at] && db->offsets[at] != offset + 1)
        at = (at + 1) & (db->slots - 1);
    if (!db->offsets[at]) {
        db->offsets[at] = offset + 1;
        db->places[at] = UINT32_MAX; /* not decoded yet */
        db->used++;
    }
    return &db->places[at];
}

static bool damaged(struct mmdb *db, const char *what, uint64_t where)
{
    (void)flue_fail(db->error, FLUE_INVALID, "the database is damaged: %s %llu", what,
                    (unsigned long long)where);
    return false;
}

static bool record(struct mmdb *db, uint64_t offset, const struct flue_prefix *prefix)
{
    uint32_t *slot = place_slot(db, offset);
    char path[132];
    size_t at = offset;

    if (!slot) {
        (void)flue_fail(db->error, FLUE_NO_MEMORY, "no memory for the records of a database");
        return false;
    }
    if (*slot == UINT32_MAX) {
        flue_feed_begin(db->feed, &db->entry);
        db->anycast = false;
        db->subdivision[0] = 0;
        db->values = 0;
        if (!walk(db, &at, path, 0, 0))
            return damaged(db, "record at", offset);
        uint32_t country = db->entry.place.values[FLUE_PLACE_COUNTRY];
        if (db->subdivision[0] && country > FLUE_PLACE_RETRACTED) {
            char joined[16];
            int size = snprintf(joined, sizeof joined, "%.*s-%s",
                                FLUE_PRI(db->feed->places.texts[country]), db->subdivision);
            flue_feed_set(db->feed, &db->entry, 0, FLUE_PLACE_SUBDIVISION,
                          flue_bytes(joined, (size_t)size));
        }
        if (db->anycast) /* many places: who, not where */
            for (int i = FLUE_PLACE_CONTINENT; i <= FLUE_PLACE_POSTAL_CODE; i++)
                flue_feed_retract(&db->entry, (enum flue_place_attribute)i);
        *slot = db->entry.failed ? UINT32_MAX
                                 : flue_places_row(&db->feed->places, &db->entry.place);
        if (*slot == UINT32_MAX) {
            (void)flue_fail(db->error, FLUE_TOO_LARGE, "too many different places");
            return false;
        }
    }
    if (*slot == FLUE_PLACE_NOWHERE)
        return true;
    db->entry.place = db->feed->places.rows[*slot];
    db->entry.failed = false;
    return flue_feed_add_prefix(db->feed, &db->entry, prefix, db->error);
}

/* ---- the tree -------------------------------------------------------------------------------- */

static uint64_t child(const struct mmdb *db, uint64_t node, unsigned side)
{
    const uint8_t *at = db->tree.data + node * db->record_size / 4;
    switch (db->record_size) {
    case 24:
        at += 3 * side;
        return (uint64_t)at[0] << 16 | (uint64_t)at[1] << 8 | at[2];
    case 28:
        return side ? (uint64_t)(at[3] & 15) << 24 | (uint64_t)at[4] << 16 | (uint64_t)at[5] << 8 |
                          at[6]
                    : (uint64_t)(at[3] >> 4) << 24 | (uint64_t)at[0] << 16 | (uint64_t)at[1] << 8 |
                          at[2];
    default:
        at += 4 * side;
        return (uint64_t)at[0] << 24 | (uint64_t)at[1] << 16 | (uint64_t)at[2] << 8 | at[3];
    }
}

/* Every path from the root is at most as deep as an address has bits, so a loop in a damaged tree
 * ends as damage. IPv4 lies under ::/96; the same subtree is often found again under ::ffff:0:0/96
 * and 2002::/16, which are left out. */
static bool walk_tree(struct mmdb *db)
{
    struct {
        uint64_t node;
        unsigned side;
    } stack[129];
    unsigned bits = db->ip_version == 4 ? 32 : 128, depth = 0;
    struct flue_prefix prefix;
    uint8_t bytes[16] = {0};
    uint64_t steps = 0;

    stack[0].node = 0;
    stack[0].side = 0;
    for (;;) {
        if (stack[depth].side == 2) {
            if (depth == 0)
                return true;
            bytes[depth / 8] &= (uint8_t)~(0x80u >> depth % 8);
            depth--;
            continue;
        }
        unsigned side = stack[depth].side++;
        uint64_t value = child(db, stack[depth].node, side);
        if (++steps > 4 * (db->node_count + 1))
            return damaged(db, "more paths than nodes; nodes:", db->node_count);
        if (side)
            bytes[depth / 8] |= (uint8_t)(0x80u >> depth % 8);
        unsigned length = depth + 1;
        if (value == db->node_count) {
            continue;
        }
        static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
        bool alias = bits == 128 && ((length == 96 && memcmp(bytes, mapped, 12) == 0) ||
                                     (length == 16 && bytes[0] == 0x20 && bytes[1] == 0x02));
        if (alias)
            continue;
        if (value < db->node_count) {
            if (length >= bits)
                return damaged(db, "a path is longer than an address, node", value);
            depth++;
            stack[depth].node = value;
            stack[depth].side = 0;
            continue;
        }
        uint64_t offset = value - db->node_count - 16;
        if (value < db->node_count + 16 || offset >= db->data.size)
            return damaged(db, "a record outside of the data, node", stack[depth].node);
        memset(&prefix, 0, sizeof prefix);
        static const uint8_t zeros[12];
        bool four = bits == 32 || (length >= 96 && memcmp(bytes, zeros, 12) == 0);
        prefix.address.v6 = !four;
        memcpy(prefix.address.bytes, four && bits == 128 ? bytes + 12 : bytes, four ? 4 : 16);
        prefix.length = (uint8_t)(four && bits == 128 ? length - 96 : length);
        if (!record(db, offset, &prefix))
            return false;
    }
}

/* ---- metadata -------------------------------------------------------------------------------- */

static bool metadata_number(struct mmdb *db, const char *name, uint64_t *out)
{
    size_t at = 0;
    struct item map, key, value;

    db->values = 0;
    if (!next_item(db, &at, &map) || map.type != MAP || map.size > 64)
        return false;
    for (uint64_t i = 0; i < map.size; i++) {
        char text[32], skip[132];
        if (!next_item(db, &at, &key) || key.type != STRING)
            return false;
        size_t before = at;
        if (flue_bytes_is(flue_bytes(db->data.data + key.at, key.size), name))
            return next_item(db, &at, &value) && number_text(db, &value, text, sizeof text) &&
                   flue_parse_u64(flue_bytes_of(text), out);
        at = before;
        flue_feed_begin(db->feed, &db->entry);
        if (!walk(db, &at, skip, 0, 1))
            return false;
    }
    return false;
}

enum flue_code flue_feed_read_mmdb(struct flue_feed *feed, struct flue_bytes content,
                                   struct flue_error *error)
{
    static const char marker[] = "\xab\xcd\xefMaxMind.com";
    struct flue_error own = {0};
    struct mmdb db = {.feed = feed, .error = &own};
    const uint8_t *meta = NULL, *at = content.data;
    size_t size = content.size;

    feed->form = "mmdb";
    while ((at = memmem(at, size - (size_t)(at - content.data), marker, sizeof marker - 1)))
        meta = at++; /* the last one */
    if (!meta)
        return flue_fail(error, FLUE_INVALID, "no metadata");
    size_t end = (size_t)(meta - content.data);
    db.data = flue_bytes_from(content, end + sizeof marker - 1);
    uint64_t major = 0;
    char skip[132];
    size_t from = 0;
    flue_feed_begin(feed, &db.entry);
    if (!walk(&db, &from, skip, 0, 0)) /* all of it: what is cut off is cut off here */
        return flue_fail(error, FLUE_INVALID, "the metadata is damaged");
    if (!metadata_number(&db, "node_count", &db.node_count) ||
        !metadata_number(&db, "record_size", &db.record_size) ||
        !metadata_number(&db, "ip_version", &db.ip_version) ||
        !metadata_number(&db, "binary_format_major_version", &major))
        return flue_fail(error, FLUE_INVALID, "the metadata is damaged");
    if (major != 2 || (db.ip_version != 4 && db.ip_version != 6) ||
        (db.record_size != 24 && db.record_size != 28 && db.record_size != 32))
        return flue_fail(error, FLUE_UNPROCESSABLE,
                         "format %llu, record size %llu, IP version %llu: not of format 2",
                         (unsigned long long)major, (unsigned long long)db.record_size,
                         (unsigned long long)db.ip_version);
    uint64_t tree = db.node_count * (db.record_size / 4);
    if (db.node_count == 0 || db.node_count > UINT32_MAX || tree + 16 > end)
        return flue_fail(error, FLUE_INVALID,
                         "truncated: %llu nodes of %llu bits do not fit into %zu bytes",
                         (unsigned long long)db.node_count,
                         (unsigned long long)db.record_size, end);
    for (unsigned i = 0; i < 16; i++)
        if (content.data[tree + i])
            return flue_fail(error, FLUE_INVALID, "damaged: no gap between tree and data");
    db.tree = flue_bytes_first(content, tree);
    db.data = flue_bytes(content.data + tree + 16, end - tree - 16);
    bool ok = walk_tree(&db);
    free(db.places);
    free(db.offsets);
    if (!ok && error)
        *error = own;
    return ok ? FLUE_OK : own.code;
}
