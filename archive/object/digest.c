/* digest.c: see digest.h. CRC64 with the polynomial 0xad93d23594c93659 (NVM Express) by tables of
 * eight bytes: ISA-L in Debian 12 does not have it. */
#include "archive/object/digest.h"
#include "collector/base/base64.h"

#include <isa-l/crc.h>
#include <openssl/evp.h>
#include <pthread.h>

#define POLYNOMIAL UINT64_C(0x9a6c9329ac4bc9b5) /* reflected */
#define PIECE      (16u * 1024)                 /* stays in the first-level cache for all of them */

static uint64_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void make_table(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t crc = i;
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        table[0][i] = crc;
    }
    for (unsigned k = 1; k < 8; k++)
        for (unsigned i = 0; i < 256; i++)
            table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 0xff];
}

static uint64_t crc64(uint64_t crc, const uint8_t *data, size_t size)
{
    while (size >= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        word ^= crc; /* little-endian machines only, as all of flue */
        crc = table[7][word & 0xff] ^ table[6][word >> 8 & 0xff] ^ table[5][word >> 16 & 0xff] ^
              table[4][word >> 24 & 0xff] ^ table[3][word >> 32 & 0xff] ^
              table[2][word >> 40 & 0xff] ^ table[1][word >> 48 & 0xff] ^ table[0][word >> 56];
        data += 8;
        size -= 8;
    }
    while (size--)
        crc = crc >> 8 ^ table[0][(crc ^ *data++) & 0xff];
    return crc;
}

static EVP_MD_CTX *begin(const EVP_MD *kind, bool wanted, bool *good)
{
    if (!wanted)
        return NULL;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!context || EVP_DigestInit_ex(context, kind, NULL) != 1)
        *good = false;
    return context;
}

static void end(EVP_MD_CTX *context, uint8_t *out, bool *good)
{
    if (context && *good && EVP_DigestFinal_ex(context, out, NULL) != 1)
        *good = false;
    EVP_MD_CTX_free(context);
}

enum flue_code flue_digest_make(const struct flue_slices *slices, unsigned which,
                                struct flue_digest *out, struct flue_error *error)
{
    bool good = true;
    uint32_t crc32c = 0xffffffff, crc32 = 0;
    uint64_t nvme = ~UINT64_C(0);
    EVP_MD_CTX *sha256 = begin(EVP_sha256(), which & FLUE_DIGEST_SHA256, &good);
    EVP_MD_CTX *sha1 = begin(EVP_sha1(), which & FLUE_DIGEST_SHA1, &good);
    EVP_MD_CTX *md5 = begin(EVP_md5(), which & FLUE_DIGEST_MD5, &good);
    memset(out, 0, sizeof *out);
    out->which = which;
    if (which & FLUE_DIGEST_CRC64NVME)
        pthread_once(&table_once, make_table);
    for (size_t i = 0; good && slices && i < slices->count; i++) {
        for (struct flue_bytes rest = slices->items[i]; good && rest.size;) {
            /* one of them alone needs no pieces */
            struct flue_bytes b = (which & (which - 1)) || rest.size > INT32_MAX
                                      ? flue_bytes_first(rest, PIECE)
                                      : rest;
            if (sha256)
                good &= EVP_DigestUpdate(sha256, b.data, b.size) == 1;
            if (sha1)
                good &= EVP_DigestUpdate(sha1, b.data, b.size) == 1;
            if (md5)
                good &= EVP_DigestUpdate(md5, b.data, b.size) == 1;
            if (which & FLUE_DIGEST_CRC32)
                crc32 = crc32_gzip_refl(crc32, b.data, b.size);
            if (which & FLUE_DIGEST_CRC32C)
                crc32c = crc32_iscsi((unsigned char *)(uintptr_t)b.data, (int)b.size, crc32c);
            if (which & FLUE_DIGEST_CRC64NVME)
                nvme = crc64(nvme, b.data, b.size);
            rest = flue_bytes_from(rest, b.size);
        }
    }
    end(sha256, out->sha256, &good);
    end(sha1, out->sha1, &good);
    end(md5, out->md5, &good);
    out->crc32 = crc32;
    out->crc32c = ~crc32c;
    out->crc64nvme = ~nvme;
    return good ? FLUE_OK : flue_fail(error, FLUE_NO_MEMORY, "no memory for a checksum");
}

static void encode(uint64_t value, unsigned size, char *out)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> 8 * (size - 1 - i));
    flue_base64_encode(flue_bytes(bytes, size), out);
    out[(size + 2) / 3 * 4] = 0;
}

void flue_digest_base64(const struct flue_digest *digest, unsigned which, char *out)
{
    struct flue_bytes b = {0};
    switch (which) {
    case FLUE_DIGEST_SHA256:
        b = flue_bytes(digest->sha256, sizeof digest->sha256);
        break;
    case FLUE_DIGEST_SHA1:
        b = flue_bytes(digest->sha1, sizeof digest->sha1);
        break;
    case FLUE_DIGEST_MD5:
        b = flue_bytes(digest->md5, sizeof digest->md5);
        break;
    case FLUE_DIGEST_CRC32:
        encode(digest->crc32, 4, out);
        return;
    case FLUE_DIGEST_CRC32C:
        encode(digest->crc32c, 4, out);
        return;
    default:
        encode(digest->crc64nvme, 8, out);
        return;
    }
    flue_base64_encode(b, out);
    out[(b.size + 2) / 3 * 4] = 0;
}
