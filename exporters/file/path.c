/* path.c: see path.h. */
#include "exporters/file/path.h"
#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <sys/stat.h>

static bool plain(uint8_t byte, size_t position)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '_' || byte == '-' || byte == '=' ||
           (byte == '.' && position > 0);
}

size_t flue_path_element(struct flue_bytes text, char out[FLUE_PATH_ELEMENT + 16])
{
    static const char digits[] = "0123456789ABCDEF";
    uint8_t digest[SHA256_DIGEST_LENGTH];
    size_t at = 0;

    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.data[i];
        size_t need = plain(byte, i) ? 1 : 3;
        if (at + need > FLUE_PATH_ELEMENT) {
            SHA256(text.data, text.size, digest);
            out[at++] = '~';
            flue_hex(flue_bytes(digest, 4), out + at);
            out[at + 8] = 0;
            return at + 8;
        }
        if (need == 1) {
            out[at++] = (char)byte;
        } else {
            out[at++] = '%';
            out[at++] = digits[byte >> 4];
            out[at++] = digits[byte & 15];
        }
    }
    if (at == 0)
        out[at++] = '%';
    out[at] = 0;
    return at;
}

int flue_path_make_parents(char *path, unsigned mode)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        int result = mkdir(path, mode);
        *slash = '/';
        if (result != 0 && errno != EEXIST)
            return -1;
    }
    return 0;
}
