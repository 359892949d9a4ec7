/* codec_inside.h: what codec.c and the codec_*.c families share and nobody else sees. */
#ifndef FLUE_BASE_CODEC_INSIDE_H
#define FLUE_BASE_CODEC_INSIDE_H

#include "collector/base/codec.h"

/* The output of an inflate, growing under its cap. */
struct flue_unpacked {
    struct flue_block *block;
    const char *name; /* of the coding, for messages */
    size_t allowed;   /* bytes, by limit and ratio */
    size_t limit;
    unsigned ratio;
};

/* Most bytes that `in` may become. `ratio` 0: only the limit counts. */
size_t flue_unpack_allowed(struct flue_bytes in, size_t limit, unsigned ratio);
/* Makes the block, with room for `guess` bytes as far as they are allowed. */
enum flue_code flue_unpack_begin(struct flue_unpacked *out, size_t guess,
                                 struct flue_account *account, struct flue_error *error);
/* Room behind block->size: at least 1 byte and at most `step`; never more than allowed + 1 in all,
 * so that one byte too many is seen and no more is made. */
#define FLUE_UNPACK_STEP ((size_t)4 << 20) /* bytes made between two looks at the account */
enum flue_code flue_unpack_room(struct flue_unpacked *out, size_t step, size_t *room,
                                struct flue_error *error);
/* `count` bytes were written there: charges them, and checks the cap. */
enum flue_code flue_unpack_took(struct flue_unpacked *out, size_t count, struct flue_error *error);
enum flue_code flue_unpack_overloaded(const struct flue_unpacked *out, size_t size,
                                      struct flue_error *error);
enum flue_code flue_unpack_too_large(const struct flue_unpacked *out, struct flue_error *error);
enum flue_code flue_unpack_truncated(const char *name, struct flue_error *error);

/* The families. An inflate calls flue_unpack_begin first; the caller drops the block on failure. */
enum flue_code flue_isal_inflate(enum flue_coding coding, struct flue_bytes in,
                                 struct flue_account *account, struct flue_unpacked *out,
                                 struct flue_error *error);
enum flue_code flue_zstd_inflate(struct flue_bytes in, struct flue_account *account,
                                 struct flue_unpacked *out, struct flue_error *error);
enum flue_code flue_snappy_inflate(enum flue_coding coding, struct flue_bytes in,
                                   struct flue_account *account, struct flue_unpacked *out,
                                   struct flue_error *error);
enum flue_code flue_lz4_inflate(struct flue_bytes in, struct flue_account *account,
                                struct flue_unpacked *out, struct flue_error *error);

/* Each appends to the empty block `out`. */
enum flue_code flue_isal_deflate(enum flue_coding coding, int level, const struct flue_slices *in,
                                 struct flue_block *out, struct flue_error *error);
enum flue_code flue_zstd_deflate(int level, const struct flue_slices *in, struct flue_block *out,
                                 struct flue_error *error);
enum flue_code flue_snappy_deflate(enum flue_coding coding, const struct flue_slices *in,
                                   struct flue_block *out, struct flue_error *error);
enum flue_code flue_lz4_deflate(int level, const struct flue_slices *in, struct flue_block *out,
                                struct flue_error *error);

/* The slices as one run: the only slice itself, or a copy in *copy (to be dropped by the caller,
 * NULL is fine). NULL data without memory. */
struct flue_bytes flue_slices_joined(const struct flue_slices *in, struct flue_block **copy);

/* A context for each codec and thread: making one costs up to 15 us, more than a small body. Taken
 * out while in use, so that a codec may be entered again from a sink. */
enum flue_codec_context {
    FLUE_CONTEXT_INFLATE,
    FLUE_CONTEXT_DEFLATE,
    FLUE_CONTEXT_DENSE,
    FLUE_CONTEXT_ZSTD_IN,
    FLUE_CONTEXT_ZSTD_OUT,
    FLUE_CONTEXT_LZ4,
    FLUE_CONTEXTS
};
void *flue_context_take(enum flue_codec_context which); /* NULL: make one */
void flue_context_give(enum flue_codec_context which, void *context, void (*destroy)(void *));

#endif
