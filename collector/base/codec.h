/* codec.h: taking compression off under a cap, and putting it on.
 *
 * Names as in the OpenTelemetry Collector: gzip zlib deflate snappy x-snappy-framed zstd lz4 none
 * ""
 * ("snappy" tells framed from block by the first bytes; deflate and zlib take either wrapping).
 * Inflating never produces more than `limit` bytes nor more than `ratio` times the input (with a
 * floor of 1 MiB): what would is FLUE_TOO_LARGE, found while inflating, before the memory is used.
 * Trailing garbage and truncated input are FLUE_INVALID; gzip may have several members.
 */
#ifndef FLUE_BASE_CODEC_H
#define FLUE_BASE_CODEC_H

#include "collector/base/block.h"

enum flue_coding {
    FLUE_IDENTITY,
    FLUE_GZIP,
    FLUE_ZLIB,
    FLUE_DEFLATE,
    FLUE_SNAPPY,
    FLUE_SNAPPY_FRAMED,
    FLUE_ZSTD,
    FLUE_LZ4,
    FLUE_CODINGS
};
#define FLUE_RATIO_LIMIT 200

/* Case-insensitive; "", "identity" and "none" are FLUE_IDENTITY. False: unknown. */
bool flue_coding_by_name(struct flue_bytes name, enum flue_coding *out);
const char *flue_coding_name(enum flue_coding coding); /* as in Content-Encoding */

/* Whole input to a new finished block (charged to `account`). */
enum flue_code flue_inflate(enum flue_coding coding, struct flue_bytes in, size_t limit,
                            unsigned ratio, struct flue_account *account, struct flue_block **out,
                            struct flue_error *error);

/* A window at a time, for what need not be held whole: gzip and zlib only. `sink` gets consecutive
 * pieces and may end it by returning non-FLUE_OK, which is returned. */
typedef enum flue_code (*flue_inflate_sink)(void *arg, struct flue_bytes piece,
                                            struct flue_error *error);
enum flue_code flue_inflate_windows(struct flue_bytes gzip, size_t limit, unsigned ratio,
                                    flue_inflate_sink sink, void *arg, struct flue_error *error);

/* `level`: FLUE_LEVEL_DEFAULT is ISA-L level 1 for gzip/zlib/deflate (level 0 for bodies below 8
 * KiB) and 1 for zstd; FLUE_LEVEL_DENSE is libdeflate 2 and zstd 3; other numbers are the codec's
 * own. The result is an uncharged block. Any thread. */
#define FLUE_LEVEL_DEFAULT (-1000)
#define FLUE_LEVEL_DENSE   (-1001)
enum flue_code flue_deflate(enum flue_coding coding, int level, const struct flue_slices *in,
                            struct flue_block **out, struct flue_error *error);

#endif
