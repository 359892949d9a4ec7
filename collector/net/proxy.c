/* proxy.c: see proxy.h. */
#include "collector/net/proxy.h"

#include <arpa/inet.h>
#include <isa-l.h>
#include <stdio.h>

#define TLV_CRC32C 3u

static const uint8_t signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                      0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

static enum flue_proxy_state wrong(const char **why, const char *text)
{
    *why = text;
    return FLUE_PROXY_WRONG;
}

/* A source that is IPv4 in IPv6's clothes is written as our own listeners write it. */
static void print_peer(int family, const uint8_t *address, unsigned port, char *peer)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char host[INET6_ADDRSTRLEN] = "";
    if (family == AF_INET6 && memcmp(address, mapped, sizeof mapped) == 0) {
        family = AF_INET;
        address += sizeof mapped;
    }
    inet_ntop(family, address, host, sizeof host);
    snprintf(peer, FLUE_PROXY_PEER, family == AF_INET ? "%s:%u" : "[%s]:%u", host, port);
}

/* ---- version 1 ------------------------------------------------------------------------------ */

/* One word up to a blank or the end of the line; words are divided by exactly one blank. */
static bool word(struct flue_bytes *rest, bool last, char *out, size_t room)
{
    size_t size = flue_bytes_find(*rest, ' ');
    if ((size == SIZE_MAX) != last)
        return false;
    if (last)
        size = rest->size;
    if (size == 0 || size >= room || memchr(rest->data, 0, size))
        return false;
    memcpy(out, rest->data, size);
    out[size] = 0;
    *rest = last ? flue_bytes("", 0) : flue_bytes_from(*rest, size + 1);
    return true;
}

static bool port_number(const char *text, unsigned *port)
{
    *port = 0;
    if (!*text || (text[0] == '0' && text[1]) || strlen(text) > 5)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        *port = *port * 10 + (unsigned)(*text - '0');
    }
    return *port <= 65535;
}

static enum flue_proxy_state read_line(struct flue_bytes line, char *peer, const char **why)
{
    static const char start[] = "PROXY ";
    struct flue_bytes rest = flue_bytes_from(line, sizeof start - 1);
    char source[48], target[48], port[8], target_port[8];
    uint8_t from[16], to[16];
    unsigned from_port, to_port;
    struct flue_bytes unknown = FLUE_BYTES("UNKNOWN");

    if (flue_bytes_starts_with(rest, unknown) &&
        (rest.size == unknown.size || rest.data[unknown.size] == ' '))
        return FLUE_PROXY_DONE;
    int family = AF_UNSPEC;
    if (flue_bytes_starts_with(rest, FLUE_BYTES("TCP4 ")))
        family = AF_INET;
    else if (flue_bytes_starts_with(rest, FLUE_BYTES("TCP6 ")))
        family = AF_INET6;
    if (family == AF_UNSPEC)
        return wrong(why, "neither TCP4, TCP6 nor UNKNOWN");
    rest = flue_bytes_from(rest, 5);
    if (!word(&rest, false, source, sizeof source) || !word(&rest, false, target, sizeof target) ||
        !word(&rest, false, port, sizeof port) ||
        !word(&rest, true, target_port, sizeof target_port))
        return wrong(why, "not two addresses and two ports");
    if (inet_pton(family, source, from) != 1 || inet_pton(family, target, to) != 1)
        return wrong(why, "an address that cannot be read");
    if (!port_number(port, &from_port) || !port_number(target_port, &to_port))
        return wrong(why, "a port that cannot be read");
    print_peer(family, from, from_port, peer);
    return FLUE_PROXY_DONE;
}

static enum flue_proxy_state read_v1(struct flue_bytes in, size_t *size, char *peer,
                                     const char **why)
{
    size_t most = in.size < FLUE_PROXY_V1_MAX ? in.size : FLUE_PROXY_V1_MAX;
    for (size_t i = 0; i < most; i++) {
        if (in.data[i] == '\n')
            return wrong(why, "a line feed without a carriage return");
        if (in.data[i] != '\r')
            continue;
        if (i + 1 == FLUE_PROXY_V1_MAX)
            break;
        if (i + 1 == in.size)
            return FLUE_PROXY_MORE;
        if (in.data[i + 1] != '\n')
            return wrong(why, "a carriage return without a line feed");
        *size = i + 2;
        return read_line(flue_bytes_first(in, i), peer, why);
    }
    if (in.size >= FLUE_PROXY_V1_MAX)
        return wrong(why, "no end of line within 107 bytes");
    return FLUE_PROXY_MORE;
}

/* ---- version 2 ------------------------------------------------------------------------------ */

static bool checksum_good(struct flue_bytes header, size_t at)
{
    static const uint8_t zero[4];
    const uint8_t *stated = header.data + at;
    uint32_t crc = 0xffffffffu;
    /* ISA-L reads only, but does not say so. */
    crc = crc32_iscsi((unsigned char *)(uintptr_t)header.data, (int)at, crc);
    crc = crc32_iscsi((unsigned char *)(uintptr_t)zero, 4, crc);
    crc = ~crc32_iscsi((unsigned char *)(uintptr_t)(stated + 4), (int)(header.size - at - 4), crc);
    return crc == ((uint32_t)stated[0] << 24 | (uint32_t)stated[1] << 16 |
                   (uint32_t)stated[2] << 8 | stated[3]);
}

static enum flue_proxy_state read_tlvs(struct flue_bytes header, size_t at, const char **why)
{
    while (at < header.size) {
        if (header.size - at < 3)
            return wrong(why, "a cut TLV");
        size_t length = (size_t)header.data[at + 1] << 8 | header.data[at + 2];
        if (header.size - at - 3 < length)
            return wrong(why, "a TLV longer than the header");
        if (header.data[at] == TLV_CRC32C) {
            if (length != 4)
                return wrong(why, "a CRC32C that has not four bytes");
            if (!checksum_good(header, at + 3))
                return wrong(why, "CRC32C differs");
        }
        at += 3 + length;
    }
    return FLUE_PROXY_DONE;
}

static enum flue_proxy_state read_v2(struct flue_bytes in, size_t *size, char *peer,
                                     const char **why)
{
    if (in.size < FLUE_PROXY_V2_HEAD)
        return FLUE_PROXY_MORE;
    const uint8_t *data = in.data;
    unsigned command = data[12] & 0x0f, family = data[13];
    size_t length = (size_t)data[14] << 8 | data[15], addresses = 0;
    if (command > 1)
        return wrong(why, "neither LOCAL nor PROXY");
    if (length > FLUE_PROXY_V2_LENGTH)
        return wrong(why, "over 4096 bytes");
    switch (family) {
    case 0x00:
        break;
    case 0x11:
    case 0x12:
        addresses = 12;
        break;
    case 0x21:
    case 0x22:
        addresses = 36;
        break;
    case 0x31:
    case 0x32:
        addresses = 216;
        break;
    default:
        if (command == 1)
            return wrong(why, "an unknown family or transport");
    }
    if (command == 1 && length < addresses)
        return wrong(why, "shorter than its addresses");
    if (in.size - FLUE_PROXY_V2_HEAD < length)
        return FLUE_PROXY_MORE;
    *size = FLUE_PROXY_V2_HEAD + length;
    if (command == 0)
        return FLUE_PROXY_DONE;
    const uint8_t *from = data + FLUE_PROXY_V2_HEAD;
    if (addresses == 12)
        print_peer(AF_INET, from, (unsigned)from[8] << 8 | from[9], peer);
    else if (addresses == 36)
        print_peer(AF_INET6, from, (unsigned)from[32] << 8 | from[33], peer);
    else if (addresses == 216)
        snprintf(peer, FLUE_PROXY_PEER, "unix");
    return read_tlvs(flue_bytes_first(in, *size), FLUE_PROXY_V2_HEAD + addresses, why);
}

enum flue_proxy_state flue_proxy_read(struct flue_bytes in, size_t *size,
                                      char peer[FLUE_PROXY_PEER], const char **why)
{
    static const char start[] = "PROXY ";
    peer[0] = 0;
    *size = 0;
    if (in.size == 0)
        return FLUE_PROXY_MORE;
    if (in.data[0] == 'P') {
        size_t most = in.size < sizeof start - 1 ? in.size : sizeof start - 1;
        if (memcmp(in.data, start, most) != 0)
            return wrong(why, "no PROXY header");
        return most < sizeof start - 1 ? FLUE_PROXY_MORE : read_v1(in, size, peer, why);
    }
    size_t most = in.size < sizeof signature ? in.size : sizeof signature;
    if (memcmp(in.data, signature, most) != 0)
        return wrong(why, "no PROXY header");
    if (in.size > 12 && in.data[12] >> 4 != 2)
        return wrong(why, "neither version 1 nor 2");
    return read_v2(in, size, peer, why);
}

/* ---- whom to believe ------------------------------------------------------------------------ */

struct network {
    uint8_t address[16];
    int family;
    unsigned bits;
};

static bool parse_network(const char *text, struct network *out)
{
    char host[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t size = slash ? (size_t)(slash - text) : strlen(text);
    if (size == 0 || size >= sizeof host)
        return false;
    memcpy(host, text, size);
    host[size] = 0;
    out->family = strchr(host, ':') ? AF_INET6 : AF_INET;
    out->bits = out->family == AF_INET ? 32 : 128;
    if (inet_pton(out->family, host, out->address) != 1)
        return false;
    unsigned bits = out->bits;
    if (slash && (!port_number(slash + 1, &bits) || bits > out->bits))
        return false;
    out->bits = bits;
    return true;
}

void flue_proxy_check(const struct flue_proxy_config *config, const char *path,
                      struct flue_check *check)
{
    struct network network;
    char at[300];
    snprintf(at, sizeof at, "%s.from", path);
    if (config->from.count == 0)
        flue_check_fail(check, path,
                        "from is empty: name the balancers (addresses or networks) that send the "
                        "PROXY protocol");
    for (size_t i = 0; i < config->from.count; i++) {
        const char *item = ((const char *const *)config->from.items)[i];
        if (strcmp(item, "unix") == 0)
            continue;
        if (!parse_network(item, &network))
            flue_check_fail(check, at,
                            "\"%.64s\" is no address or network (10.0.0.0/8, ::1, or unix)", item);
        else if (network.bits == 0)
            flue_check_warn(check, at,
                            "\"%.64s\" is everybody: whoever reaches the port can say to be anyone",
                            item);
    }
}

static bool holds(const struct network *network, const struct network *address)
{
    unsigned whole = network->bits / 8, rest = network->bits % 8;
    if (network->family != address->family ||
        memcmp(network->address, address->address, whole) != 0)
        return false;
    return rest == 0 ||
           ((network->address[whole] ^ address->address[whole]) & (0xff00u >> rest & 0xffu)) == 0;
}

bool flue_proxy_listed(const struct flue_proxy_config *config, const char *peer)
{
    struct network address, network;
    char host[INET6_ADDRSTRLEN] = "";
    const char *colon = strrchr(peer, ':');
    if (colon) {
        bool brackets = *peer == '[';
        size_t size = (size_t)(colon - peer) - (brackets ? 2 : 0);
        if (size < sizeof host)
            memcpy(host, peer + brackets, size);
    }
    bool known = parse_network(host, &address);
    for (size_t i = 0; i < config->from.count; i++) {
        const char *item = ((const char *const *)config->from.items)[i];
        if (known ? parse_network(item, &network) && holds(&network, &address)
                  : strcmp(item, "unix") == 0)
            return true;
    }
    return false;
}
