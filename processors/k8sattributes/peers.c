/* peers.c: see peers.h. */
#include "processors/k8sattributes/peers.h"
#include <stdio.h>
#include "kubernetes/store.h"

static bool read_prefix(const char *text, struct k8s_prefix *out)
{
    size_t size = strcspn(text, "/");
    uint64_t bits;

    out->size = flue_kube_address(flue_bytes(text, size), out->address);
    out->bits = out->size * 8;
    if (!out->size)
        return false;
    if (!text[size])
        return true;
    if (!flue_parse_u64(flue_bytes_of(text + size + 1), &bits) || bits > out->size * 8)
        return false;
    out->bits = (unsigned)bits;
    return true;
}

void k8s_peers_check(const struct flue_list *list, const char *path, bool unix_too,
                     struct flue_check *check)
{
    struct k8s_prefix unused;
    char at[96];

    for (size_t i = 0; i < list->count; i++) {
        const char *text = ((const char *const *)list->items)[i];
        snprintf(at, sizeof at, "%s[%zu]", path, i);
        if (!(unix_too && strcmp(text, "unix") == 0) && !read_prefix(text, &unused))
            flue_check_fail(check, at, "`%.60s` is no address or prefix, such as 10.0.0.0/8", text);
    }
}

bool k8s_peers_read(const struct flue_list *list, struct flue_arena *arena, struct k8s_peers *out)
{
    memset(out, 0, sizeof *out);
    out->items = flue_arena_zalloc(arena, list->count + 1, sizeof *out->items);
    if (!out->items)
        return false;
    for (size_t i = 0; i < list->count; i++) {
        const char *text = ((const char *const *)list->items)[i];
        if (strcmp(text, "unix") == 0)
            out->unix_too = true;
        else if (read_prefix(text, &out->items[out->count]))
            out->count++;
    }
    return true;
}

bool k8s_peers_have(const struct k8s_peers *peers, struct flue_bytes address)
{
    uint8_t binary[16];

    if (!address.size)
        return peers->unix_too;
    unsigned size = peers->count ? flue_kube_address(address, binary) : 0;
    for (size_t i = 0; size && i < peers->count; i++) {
        const struct k8s_prefix *p = &peers->items[i];
        unsigned whole = p->bits / 8, rest = p->bits % 8;
        if (p->size == size && memcmp(p->address, binary, whole) == 0 &&
            (!rest || (p->address[whole] ^ binary[whole]) >> (8 - rest) == 0))
            return true;
    }
    return false;
}
