/* peers.h: lists of addresses and prefixes ("10.0.0.0/8", "::1", "unix"). */
#ifndef PROCESSORS_K8SATTRIBUTES_PEERS_H
#define PROCESSORS_K8SATTRIBUTES_PEERS_H

#include "collector/component.h"

void k8s_peers_check(const struct flue_list *list, const char *path, bool unix_too,
                     struct flue_check *check);

struct k8s_peers {
    struct k8s_prefix {
        uint8_t address[16];
        unsigned size, bits; /* 4 or 16 bytes */
    } * items;
    size_t count;
    bool unix_too; /* peers without an address */
};
/* The list was checked. In the arena. */
bool k8s_peers_read(const struct flue_list *list, struct flue_arena *arena, struct k8s_peers *out);
/* `address` as in flue_origin.peer_address; empty is a Unix socket. */
bool k8s_peers_have(const struct k8s_peers *peers, struct flue_bytes address);

#endif
