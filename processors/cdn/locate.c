/* locate.c: sources, their order, their conflicts. */
#include "processors/cdn/locate.h"

#include <stdio.h>

struct pattern {
    struct flue_host_pattern compiled;
    const struct flue_cdn_pattern *config;
    const struct flue_map *codes; /* of its dictionary, or NULL */
    struct flue_bytes set[FLUE_PLACE_ATTRIBUTES];
};
struct pop {
    struct flue_bytes pop, provider;
    struct flue_bytes set[FLUE_PLACE_ATTRIBUTES];
};
struct header {
    struct flue_bytes name; /* lower-case */
    enum flue_header_format format;
    enum flue_place_attribute attribute;
};
struct node_label {
    struct flue_bytes key; /* k8s.node.label.… */
    enum flue_place_attribute attribute;
};
struct networks {
    struct flue_prefix *items;
    size_t count;
};
struct flue_cdn_locator {
    const struct flue_cdn_config *config;
    enum flue_cdn_source order[FLUE_CDN_SOURCES];
    size_t order_count;
    uint32_t locked; /* bit per attribute */
    struct pattern *patterns;
    struct pop *pops;
    struct header *headers;
    struct node_label *node_labels;
    struct networks trusted, relays;
};

/* ---- making ---------------------------------------------------------------------------------- */

static bool read_set(const struct flue_map *map, struct flue_arena *arena, struct flue_bytes *set)
{
    char text[FLUE_PLACE_VALUE_MAX];
    size_t size;
    for (size_t i = 0; i < map->count; i++) {
        enum flue_place_attribute attribute =
            flue_place_attribute_find(flue_bytes_of(map->items[i].key));
        if (attribute == FLUE_PLACE_ATTRIBUTES ||
            !flue_place_normalize(attribute, flue_bytes_of(map->items[i].value), text, &size))
            continue; /* check has said so */
        set[attribute] = flue_arena_copy(arena, flue_bytes(text, size));
        if (!set[attribute].data)
            return false;
    }
    return true;
}

static bool read_networks(const struct flue_list *list, struct flue_arena *arena,
                          struct networks *out)
{
    bool masked;
    out->items = flue_arena_zalloc(arena, list->count + 1, sizeof *out->items);
    for (size_t i = 0; out->items && i < list->count; i++)
        out->count += flue_prefix_parse(flue_bytes_of(((const char *const *)list->items)[i]),
                                        &out->items[out->count], &masked);
    return out->items != NULL;
}

static bool read_patterns(struct flue_cdn_locator *l, struct flue_arena *arena,
                          struct flue_error *error)
{
    const struct flue_cdn_config *config = l->config;
    l->patterns = flue_arena_zalloc(arena, config->patterns.count + 1, sizeof *l->patterns);
    for (size_t i = 0; l->patterns && i < config->patterns.count; i++) {
        struct pattern *pattern = &l->patterns[i];
        pattern->config = &((const struct flue_cdn_pattern *)config->patterns.items)[i];
        if (flue_host_pattern_compile(pattern->config->host, &pattern->compiled, error) != FLUE_OK ||
            !read_set(&pattern->config->set, arena, pattern->set))
            return false;
        for (size_t d = 0; pattern->config->dictionary && d < config->dictionaries.count; d++) {
            const struct flue_cdn_dictionary *dictionary =
                &((const struct flue_cdn_dictionary *)config->dictionaries.items)[d];
            if (strcmp(dictionary->name, pattern->config->dictionary) == 0)
                pattern->codes = &dictionary->codes;
        }
    }
    return l->patterns != NULL;
}

static bool read_rest(struct flue_cdn_locator *l, struct flue_arena *arena)
{
    const struct flue_cdn_config *config = l->config;
    l->pops = flue_arena_zalloc(arena, config->pops.count + 1, sizeof *l->pops);
    l->headers = flue_arena_zalloc(arena, config->headers.count + 1, sizeof *l->headers);
    l->node_labels = flue_arena_zalloc(arena, config->node_labels.count + 1, sizeof *l->node_labels);
    if (!l->pops || !l->headers || !l->node_labels)
        return false;
    for (size_t i = 0; i < config->pops.count; i++) {
        const struct flue_cdn_pop *pop = &((const struct flue_cdn_pop *)config->pops.items)[i];
        l->pops[i].pop = flue_bytes_of(pop->pop);
        l->pops[i].provider = flue_bytes_of(pop->provider);
        if (!read_set(&pop->set, arena, l->pops[i].set))
            return false;
    }
    for (size_t i = 0; i < config->headers.count; i++) {
        const struct flue_cdn_header *header =
            &((const struct flue_cdn_header *)config->headers.items)[i];
        char *name = flue_arena_string(arena, flue_bytes_of(header->name));
        if (!name)
            return false;
        for (char *c = name; *c; c++)
            *c = (char)(*c >= 'A' && *c <= 'Z' ? *c | 32 : *c);
        l->headers[i] = (struct header){flue_bytes_of(name), (enum flue_header_format)header->format,
                                        FLUE_PLACE_ATTRIBUTES};
        if (header->attribute)
            l->headers[i].attribute = flue_place_attribute_find(flue_bytes_of(header->attribute));
    }
    for (size_t i = 0; i < config->node_labels.count; i++) {
        const struct flue_cdn_node_label *label =
            &((const struct flue_cdn_node_label *)config->node_labels.items)[i];
        char *key = flue_arena_printf(arena, "k8s.node.label.%s", label->label);
        if (!key)
            return false;
        l->node_labels[i].key = flue_bytes_of(key);
        l->node_labels[i].attribute = flue_place_attribute_find(flue_bytes_of(label->attribute));
    }
    return read_networks(&config->trusted_peers, arena, &l->trusted) &&
           read_networks(&config->relays, arena, &l->relays);
}

enum flue_code flue_cdn_locator_new(const struct flue_cdn_config *config, struct flue_arena *arena,
                                    struct flue_cdn_locator **out, struct flue_error *error)
{
    struct flue_cdn_locator *l = flue_arena_zalloc(arena, 1, sizeof *l);
    if (!l)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for cdn");
    l->config = config;
    l->order_count = flue_cdn_order(config, l->order);
    for (size_t i = 0; i < config->locked.count; i++)
        l->locked |= 1u << flue_place_attribute_find(
                         flue_bytes_of(((const char *const *)config->locked.items)[i]));
    if (!read_patterns(l, arena, error) || !read_rest(l, arena))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for cdn");
    *out = l;
    return FLUE_OK;
}

/* ---- asking ---------------------------------------------------------------------------------- */

struct finding {
    struct flue_bytes values[FLUE_PLACE_ATTRIBUTES];
    uint32_t retracted; /* bits of attributes: nobody may answer */
    uint32_t doubtful;  /* this source does not */
};
#define ADDRESSES_MAX 16 /* of one machine; what is behind them is not looked at */
struct asking {
    const struct flue_cdn_locator *l;
    const struct flue_cdn_question *q;
    struct flue_cdn_answer *answer;
    struct finding found[FLUE_CDN_SOURCES];
    struct flue_address peer; /* after trusted proxies */
    bool has_peer, peer_trusted, peer_is_relay;
    const char *no_peer; /* why its address is not used */
    struct flue_address addresses[ADDRESSES_MAX]; /* of the machine */
    size_t address_count;
    const char *address_from;
    uint32_t there; /* attributes of the resource, whatever they say */
};

static const char *name_of(enum flue_place_attribute attribute)
{
    return (const char *)flue_place_attribute_name(attribute).data;
}

static void say(const struct asking *a, enum flue_cdn_source source,
                enum flue_place_attribute attribute, struct flue_bytes value, const char *why)
{
    if (a->q->explain)
        a->q->explain(a->q->arg, source,
                      attribute == FLUE_PLACE_ATTRIBUTES ? NULL : name_of(attribute), value, why);
}

/* Takes what a source read out of text: in its proper form, or not at all. */
static void take(struct asking *a, enum flue_cdn_source source, enum flue_place_attribute attribute,
                 struct flue_bytes value, const char *why)
{
    struct flue_cdn_answer *answer = a->answer;
    char *to = answer->scratch + answer->scratch_used;
    size_t size;

    if (attribute >= FLUE_PLACE_ATTRIBUTES || value.size == 0 ||
        a->found[source].values[attribute].size ||
        sizeof answer->scratch - answer->scratch_used < FLUE_PLACE_VALUE_MAX)
        return;
    if (!flue_place_normalize(attribute, value, to, &size)) {
        say(a, source, attribute, value, "cannot be one; left out");
        return;
    }
    answer->scratch_used += size;
    a->found[source].values[attribute] = flue_bytes(to, size);
    say(a, source, attribute, flue_bytes(to, size), why);
}

/* A value that is in its form already. */
static void take_known(struct asking *a, enum flue_cdn_source source,
                       enum flue_place_attribute attribute, struct flue_bytes value,
                       const char *why)
{
    if (value.size == 0 || a->found[source].values[attribute].size)
        return;
    a->found[source].values[attribute] = value;
    say(a, source, attribute, value, why);
}

static void ask_attributes(struct asking *a)
{
    for (int i = 0; i < FLUE_PLACE_ATTRIBUTES; i++) {
        enum flue_place_attribute attribute = (enum flue_place_attribute)i;
        struct flue_bytes value = a->q->attribute(a->q->arg, flue_place_attribute_name(attribute));
        if (value.size)
            a->there |= 1u << i;
        take(a, FLUE_CDN_ATTRIBUTES, attribute, value, "the resource says so");
    }
}

static bool listed(const void *arg, const struct flue_address *address)
{
    const struct networks *networks = arg;
    for (size_t i = 0; i < networks->count; i++)
        if (flue_prefix_holds(&networks->items[i], address))
            return true;
    return false;
}

/* Who sent it: the peer, or with `forwarded_for` who stands behind trusted peers. An address that
 * somebody passes on for is a balancer's or a gateway's. */
static void find_peer(struct asking *a)
{
    struct flue_bytes chain = a->q->header(a->q->arg, FLUE_BYTES("x-forwarded-for"));
    bool passed_on = chain.size || a->q->header(a->q->arg, FLUE_BYTES("forwarded")).size ||
                     a->q->header(a->q->arg, FLUE_BYTES("via")).size;

    if (a->q->peer.size == 0 || !flue_address_parse(a->q->peer, &a->peer))
        return;
    a->peer_trusted = listed(&a->l->trusted, &a->peer);
    a->peer_is_relay = listed(&a->l->relays, &a->peer);
    if (a->peer_is_relay)
        a->no_peer = "not used: the sender is in relays";
    else if (a->q->relayed)
        a->no_peer = "not used: several machines in one batch, so the sender passes on";
    if (a->l->config->forwarded_for && a->peer_trusted && chain.size) {
        a->peer = flue_header_sender(a->peer, chain, listed, &a->l->trusted);
        passed_on = listed(&a->l->trusted, &a->peer); /* still: the chain tells no more */
        if (!a->no_peer && listed(&a->l->relays, &a->peer))
            a->no_peer = "not used: who stands behind the trusted peers is in relays";
    }
    a->has_peer = !a->no_peer && !passed_on;
    if (!a->no_peer && passed_on)
        a->no_peer = "not used: the request was passed on, as its headers say";
}

static void ask_headers(struct asking *a)
{
    for (size_t i = 0; i < a->l->config->headers.count; i++) {
        const struct header *header = &a->l->headers[i];
        struct flue_bytes value = a->q->header(a->q->arg, header->name);
        struct flue_bytes found[FLUE_PLACE_ATTRIBUTES] = {{NULL, 0}};
        if (value.size == 0)
            continue;
        if (!a->peer_trusted || a->q->relayed || a->peer_is_relay) {
            say(a, FLUE_CDN_HEADERS, FLUE_PLACE_ATTRIBUTES, value,
                a->peer_trusted ? a->no_peer : "not used: the sender is not in trusted_peers");
            continue;
        }
        if (!flue_header_place(header->format, header->attribute, value, found)) {
            say(a, FLUE_CDN_HEADERS, FLUE_PLACE_ATTRIBUTES, value, "not of the header's grammar");
            continue;
        }
        for (int k = 0; k < FLUE_PLACE_ATTRIBUTES; k++)
            take(a, FLUE_CDN_HEADERS, (enum flue_place_attribute)k, found[k],
                 (const char *)header->name.data);
    }
}

static void ask_node_labels(struct asking *a)
{
    for (size_t i = 0; i < a->l->config->node_labels.count; i++)
        take(a, FLUE_CDN_NODE_LABELS, a->l->node_labels[i].attribute,
             a->q->attribute(a->q->arg, a->l->node_labels[i].key),
             (const char *)a->l->node_labels[i].key.data);
}

static void add_addresses(struct asking *a, struct flue_bytes text)
{
    while (text.size && a->address_count < ADDRESSES_MAX) {
        size_t end = 0;
        while (end < text.size && text.data[end] != '\n' && text.data[end] != ',')
            end++;
        a->address_count += flue_address_parse(flue_bytes_trim(flue_bytes_first(text, end)),
                                               &a->addresses[a->address_count]);
        text = flue_bytes_from(text, end < text.size ? end + 1 : end);
    }
}

/* The addresses of the machine: what the resource says of itself, else who sent it. */
static void find_addresses(struct asking *a)
{
    const struct flue_list *keys = &a->l->config->address_attributes;
    for (size_t i = 0; i < keys->count && a->address_count == 0; i++) {
        a->address_from = ((const char *const *)keys->items)[i];
        add_addresses(a, a->q->attribute(a->q->arg, flue_bytes_of(a->address_from)));
    }
    if (a->address_count == 0 && a->has_peer) {
        a->address_from = "the sender's address";
        a->addresses[a->address_count++] = a->peer;
    }
}

static void explain_table(const struct asking *a, size_t file, const struct flue_cdn_table *table,
                          const struct flue_address *address, char *out, size_t size)
{
    const struct flue_prefix *best = NULL;
    for (size_t i = 0; i < table->item_count; i++)
        if (flue_prefix_holds(&table->items[i], address) &&
            (!best || table->items[i].length > best->length))
            best = &table->items[i];
    const char *path = flue_cdn_tables_file(a->l->config, file)->path;
    char line[16] = "";
    if (best && best->line)
        (void)snprintf(line, sizeof line, ":%u", best->line);
    (void)snprintf(out, size, "%s%s, /%u, by %s", path, line, best ? best->length : 0,
                   a->address_from);
}

/* What the rows of one table say of one attribute: equal values are equal indices. */
static void take_rows(struct asking *a, enum flue_cdn_source source,
                      const struct flue_cdn_table *table, const uint32_t *rows, size_t count,
                      enum flue_place_attribute attribute, const char *why)
{
    struct finding *found = &a->found[source];
    uint32_t value = FLUE_PLACE_EMPTY, row = FLUE_PLACE_NOWHERE;
    char ended[560];

    for (size_t i = 0; i < count; i++) {
        uint32_t other = table->places.rows[rows[i]].values[attribute];
        if (value > FLUE_PLACE_RETRACTED && other > FLUE_PLACE_RETRACTED && other != value) {
            found->doubtful |= 1u << attribute;
            say(a, source, attribute, flue_bytes(NULL, 0),
                "the machine's addresses stand in different places: none counts");
            return;
        }
        if (other == FLUE_PLACE_RETRACTED || value == FLUE_PLACE_EMPTY) {
            value = other;
            row = rows[i];
        }
        if (value == FLUE_PLACE_RETRACTED)
            break;
    }
    if (value == FLUE_PLACE_RETRACTED) {
        found->retracted |= 1u << attribute;
        if (a->q->explain && row != FLUE_PLACE_DISPUTED) { /* which has been said for all at once */
            (void)snprintf(ended, sizeof ended, "retracted: %s", why);
            say(a, source, attribute, flue_bytes(NULL, 0), ended);
        }
    } else {
        take_known(a, source, attribute, flue_places_value(&table->places, row, attribute), why);
    }
}

static void ask_tables(struct asking *a, enum flue_cdn_source source, size_t first, size_t count)
{
    const struct finding *found = &a->found[source];
    bool any = false;
    char why[512] = "", text[64];

    if (count && a->address_count == 0 && a->no_peer)
        say(a, source, FLUE_PLACE_ATTRIBUTES, a->q->peer, a->no_peer);
    for (size_t i = first; a->q->tables && i < first + count; i++) {
        const struct flue_cdn_table *table = a->q->tables->items[i];
        uint32_t rows[ADDRESSES_MAX];
        size_t known = 0;
        for (size_t k = 0; table && k < a->address_count; k++) {
            uint32_t row = flue_prefixes_find(table->prefixes, &a->addresses[k]);
            if (row == FLUE_PLACE_NOWHERE)
                continue;
            rows[known++] = row;
            if (a->q->explain && known == 1)
                explain_table(a, i, table, &a->addresses[k], why, sizeof why);
            if (row == FLUE_PLACE_DISPUTED)
                say(a, source, FLUE_PLACE_ATTRIBUTES, FLUE_BYTES("all attributes"),
                    "in dispute: two lines place the same network differently");
        }
        any |= known > 0;
        for (int k = 0; known && k < FLUE_PLACE_ATTRIBUTES; k++)
            if (!((found->retracted | found->doubtful) & 1u << k) && !found->values[k].size)
                take_rows(a, source, table, rows, known, (enum flue_place_attribute)k, why);
    }
    if (a->q->explain && count && a->address_count && !any &&
        flue_address_text(&a->addresses[0], text, sizeof text))
        say(a, source, FLUE_PLACE_ATTRIBUTES, flue_bytes_of(text), "no network holds it");
}

static bool translate(const struct pattern *pattern, struct flue_bytes *pop)
{
    if (!pattern->codes)
        return true;
    for (size_t i = 0; i < pattern->codes->count; i++) {
        if (flue_bytes_equal_nocase(flue_bytes_of(pattern->codes->items[i].key), *pop)) {
            *pop = flue_bytes_of(pattern->codes->items[i].value);
            return true;
        }
    }
    return false;
}

static bool same_places(const struct flue_bytes *a, const struct flue_bytes *b)
{
    for (int i = 0; i < FLUE_PLACE_ATTRIBUTES; i++)
        if (!flue_bytes_equal_nocase(a[i], b[i]))
            return false;
    return true;
}

static void ask_host(struct asking *a)
{
    const struct flue_list *keys = &a->l->config->host_attributes;
    struct flue_bytes best[FLUE_PLACE_ATTRIBUTES] = {{NULL, 0}}, host = {NULL, 0};
    const struct pattern *winner = NULL;

    for (size_t i = 0; i < keys->count && host.size == 0; i++)
        host = a->q->attribute(a->q->arg, flue_bytes_of(((const char *const *)keys->items)[i]));
    if (host.size == 0 || host.size > 255)
        return;
    for (size_t i = 0; i < a->l->config->patterns.count; i++) {
        const struct pattern *pattern = &a->l->patterns[i];
        struct flue_bytes found[FLUE_PLACE_ATTRIBUTES];
        memcpy(found, pattern->set, sizeof found);
        if (!flue_host_pattern_match(&pattern->compiled, host, found))
            continue;
        if (!translate(pattern, &found[FLUE_PLACE_POP])) {
            say(a, FLUE_CDN_HOST, FLUE_PLACE_POP, found[FLUE_PLACE_POP],
                "not in the pattern's dictionary");
            continue;
        }
        if (winner && !same_places(best, found)) {
            say(a, FLUE_CDN_HOST, FLUE_PLACE_ATTRIBUTES, host,
                "two patterns match with different results: neither counts");
            return;
        }
        winner = pattern;
        memcpy(best, found, sizeof best);
    }
    for (int k = 0; winner && k < FLUE_PLACE_ATTRIBUTES; k++)
        take(a, FLUE_CDN_HOST, (enum flue_place_attribute)k, best[k], winner->config->host);
}

/* ---- one answer of many ---------------------------------------------------------------------- */

static bool ignored(const struct asking *a, enum flue_cdn_source source, int attribute)
{
    return source == FLUE_CDN_ATTRIBUTES && a->l->locked & 1u << attribute;
}

/* With `override` what is there already is asked last. */
static enum flue_cdn_source nth(const struct asking *a, size_t i)
{
    const struct flue_cdn_locator *l = a->l;
    if (!l->config->override || l->order[0] != FLUE_CDN_ATTRIBUTES)
        return l->order[i];
    return i + 1 == l->order_count ? FLUE_CDN_ATTRIBUTES : l->order[i + 1];
}

static struct flue_bytes decide(const struct asking *a, int attribute, uint8_t *winner,
                                uint8_t *loser)
{
    struct flue_bytes value = {NULL, 0};
    bool ended = false;

    *winner = *loser = FLUE_CDN_NOBODY;
    for (size_t i = 0; i < a->l->order_count; i++) {
        enum flue_cdn_source source = nth(a, i);
        const struct finding *found = &a->found[source];
        if (ignored(a, source, attribute))
            continue;
        if (*winner == FLUE_CDN_NOBODY && !ended && found->retracted & 1u << attribute)
            ended = true;
        if (ended || found->values[attribute].size == 0)
            continue;
        if (*winner == FLUE_CDN_NOBODY) {
            *winner = (uint8_t)source;
            value = found->values[attribute];
        } else if (*loser == FLUE_CDN_NOBODY &&
                   !flue_bytes_equal_nocase(value, found->values[attribute])) {
            *loser = (uint8_t)source;
        }
    }
    return value;
}

static void ask_cloud_region(struct asking *a)
{
    const struct flue_list *list = &a->l->config->cloud_regions;
    uint8_t winner, loser;
    if (list->count == 0)
        return;
    struct flue_bytes provider = decide(a, FLUE_PLACE_CLOUD_PROVIDER, &winner, &loser);
    struct flue_bytes region = decide(a, FLUE_PLACE_CLOUD_REGION, &winner, &loser);
    for (size_t i = 0; region.size && i < list->count; i++) {
        const struct flue_cdn_cloud_region *row =
            &((const struct flue_cdn_cloud_region *)list->items)[i];
        if (flue_bytes_is(region, row->cloud_region) &&
            (!row->cloud_provider || flue_bytes_is(provider, row->cloud_provider))) {
            take(a, FLUE_CDN_CLOUD_REGION, FLUE_PLACE_REGION, flue_bytes_of(row->cdn_region),
                 row->cloud_region);
            return;
        }
    }
}

static void ask_pops(struct asking *a)
{
    uint8_t winner, loser;
    if (a->l->config->pops.count == 0)
        return;
    struct flue_bytes pop = decide(a, FLUE_PLACE_POP, &winner, &loser);
    struct flue_bytes provider = decide(a, FLUE_PLACE_PROVIDER, &winner, &loser);
    for (size_t i = 0; pop.size && i < a->l->config->pops.count; i++) {
        const struct pop *row = &a->l->pops[i];
        if (!flue_bytes_equal_nocase(row->pop, pop) ||
            (row->provider.size && !flue_bytes_equal_nocase(row->provider, provider)))
            continue;
        for (int k = 0; k < FLUE_PLACE_ATTRIBUTES; k++)
            take_known(a, FLUE_CDN_POPS, (enum flue_place_attribute)k, row->set[k],
                       (const char *)row->pop.data);
        take_known(a, FLUE_CDN_POPS, FLUE_PLACE_PROVIDER, row->provider,
                   (const char *)row->pop.data);
        return;
    }
}

static bool in_order(const struct flue_cdn_locator *l, enum flue_cdn_source source)
{
    for (size_t i = 0; i < l->order_count; i++)
        if (l->order[i] == source)
            return true;
    return false;
}

void flue_cdn_locate(const struct flue_cdn_locator *locator,
                     const struct flue_cdn_question *question, struct flue_cdn_answer *answer)
{
    struct asking a = {.l = locator, .q = question, .answer = answer};
    const struct flue_cdn_config *config = locator->config;

    answer->scratch_used = 0;
    ask_attributes(&a);
    find_peer(&a);
    find_addresses(&a);
    if (in_order(locator, FLUE_CDN_HEADERS))
        ask_headers(&a);
    if (in_order(locator, FLUE_CDN_NODE_LABELS))
        ask_node_labels(&a);
    if (in_order(locator, FLUE_CDN_NETWORKS))
        ask_tables(&a, FLUE_CDN_NETWORKS, 0, config->networks.count);
    if (in_order(locator, FLUE_CDN_DATABASES))
        ask_tables(&a, FLUE_CDN_DATABASES, config->networks.count, config->databases.count);
    if (in_order(locator, FLUE_CDN_HOST))
        ask_host(&a);
    if (in_order(locator, FLUE_CDN_CLOUD_REGION))
        ask_cloud_region(&a);
    if (in_order(locator, FLUE_CDN_POPS))
        ask_pops(&a);
    for (int i = 0; i < FLUE_PLACE_ATTRIBUTES; i++) {
        answer->values[i] = decide(&a, i, &answer->winner[i], &answer->loser[i]);
        answer->remove[i] = ignored(&a, FLUE_CDN_ATTRIBUTES, i) && !answer->values[i].size &&
                            a.there & 1u << i;
    }
}
