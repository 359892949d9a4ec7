/* trusted.c: see trusted.h. */
#include "receivers/pyroscope/trusted.h"

#include <arpa/inet.h>

#include "collector/net/request_origin.h"

static bool address_of(const char *text, uint8_t out[16], bool *four)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    memcpy(out, mapped, sizeof mapped);
    *four = inet_pton(AF_INET, text, out + 12) == 1;
    return *four || inet_pton(AF_INET6, text, out) == 1;
}

bool flue_trusted_parse(const char *text, struct flue_trusted_net *net, bool *unix_socket)
{
    char host[64];
    uint64_t bits = 0;
    bool four;
    struct flue_bytes all = flue_bytes_of(text);
    size_t slash = flue_bytes_find(all, '/');
    struct flue_bytes address = flue_bytes_first(all, slash);
    *unix_socket = flue_bytes_is(all, "unix");
    if (*unix_socket)
        return true;
    if (address.size >= sizeof host)
        return false;
    memcpy(host, address.data, address.size);
    host[address.size] = '\0';
    if (!address_of(host, net->address, &four))
        return false;
    if (slash != SIZE_MAX &&
        (!flue_parse_u64(flue_bytes_from(all, slash + 1), &bits) || bits > (four ? 32 : 128)))
        return false;
    net->bits = slash == SIZE_MAX ? 128 : (unsigned)bits + (four ? 96 : 0);
    return true;
}

bool flue_trusted_init(struct flue_trusted *trusted, const struct flue_list *list,
                       struct flue_arena *arena)
{
    *trusted = (struct flue_trusted){0};
    trusted->nets = flue_arena_zalloc(arena, list->count + 1, sizeof *trusted->nets);
    if (!trusted->nets)
        return false;
    for (size_t i = 0; i < list->count; i++) {
        bool unix_socket;
        if (!flue_trusted_parse(((const char *const *)list->items)[i],
                                &trusted->nets[trusted->count], &unix_socket))
            continue; /* the check has refused it */
        if (unix_socket)
            trusted->unix_sockets = true;
        else
            trusted->count++;
    }
    return true;
}

bool flue_is_trusted(const struct flue_trusted *trusted, const char *peer)
{
    char host[64];
    uint8_t address[16];
    bool four;
    struct flue_bytes text = flue_peer_address(peer);
    if (strcmp(peer, "unix") == 0)
        return trusted->unix_sockets;
    if (text.size == 0 || text.size >= sizeof host)
        return false;
    memcpy(host, text.data, text.size);
    host[text.size] = '\0';
    if (!address_of(host, address, &four))
        return false;
    for (size_t i = 0; i < trusted->count; i++) {
        const struct flue_trusted_net *net = &trusted->nets[i];
        unsigned bytes = net->bits / 8, rest = net->bits % 8;
        if (memcmp(address, net->address, bytes) == 0 &&
            (rest == 0 || ((address[bytes] ^ net->address[bytes]) >> (8 - rest)) == 0))
            return true;
    }
    return false;
}
