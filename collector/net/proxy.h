/* proxy.h: the PROXY protocol, versions 1 and 2: who a connection is really from, said by the
 * balancer in front of us before the first byte of TLS or HTTP.
 *
 * Private to net/. Only listed peers are believed, and they must send it: a header that is optional
 * could be left out by the balancer and written by anybody behind it.
 * Source: haproxy, doc/proxy-protocol.txt.
 */
#ifndef FLUE_NET_PROXY_H
#define FLUE_NET_PROXY_H

#include "collector/base/arena.h"
#include "collector/net/server.h"

#define FLUE_PROXY_V1_MAX    107u  /* with CR LF */
#define FLUE_PROXY_V2_HEAD   16u
#define FLUE_PROXY_V2_LENGTH 4096u /* addresses and TLVs; more is refused */
#define FLUE_PROXY_MAX       (FLUE_PROXY_V2_HEAD + FLUE_PROXY_V2_LENGTH)
#define FLUE_PROXY_PEER      56u

enum flue_proxy_state { FLUE_PROXY_MORE, FLUE_PROXY_DONE, FLUE_PROXY_WRONG };

/* Reads the header at the start of `in`. DONE: *size is its length, and `peer` the source as
 * "10.1.2.3:41544" or "[::1]:9", "unix" for the address of a Unix socket, or empty where the real
 * peer counts (LOCAL, UNKNOWN). MORE: good so far; never with FLUE_PROXY_MAX bytes. WRONG: *why
 * says so (constant text). Pure. */
enum flue_proxy_state flue_proxy_read(struct flue_bytes in, size_t *size,
                                      char peer[FLUE_PROXY_PEER], const char **why);

/* Lists of peers: addresses, prefixes, and "unix" for peers without an address. */
void flue_proxy_check(const struct flue_proxy_config *config, const char *path,
                      struct flue_check *check);
/* `peer` as in struct flue_request. An item that cannot be read holds nobody. */
bool flue_proxy_listed(const struct flue_proxy_config *config, const char *peer);

#endif
