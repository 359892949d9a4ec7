/* trusted.h: the next hops before us whose profiles need no second check. */
#ifndef RECEIVERS_PYROSCOPE_TRUSTED_H
#define RECEIVERS_PYROSCOPE_TRUSTED_H

#include "collector/base/arena.h"
#include "config/field.h"

struct flue_trusted_net {
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
    unsigned bits;
};
struct flue_trusted {
    struct flue_trusted_net *nets;
    size_t count;
    bool unix_sockets;
};

/* "10.0.0.0/8", "10.1.2.3", "fd00::/8", "unix". False: none of these. */
bool flue_trusted_parse(const char *text, struct flue_trusted_net *net, bool *unix_socket);
/* `list` of strings that flue_trusted_parse takes. False without memory. */
bool flue_trusted_init(struct flue_trusted *trusted, const struct flue_list *list,
                       struct flue_arena *arena);
/* `peer` as in struct flue_request. */
bool flue_is_trusted(const struct flue_trusted *trusted, const char *peer);

#endif
