/* dictionary_out.c: see dictionary_out.h. */
#include "proto/otlp/dictionary_out.h"

bool flue_out_init(struct flue_out *out, size_t expected, size_t maximum)
{
    out->maximum = maximum;
    out->block = flue_block_new(NULL, expected < maximum ? expected : maximum);
    out->failed = !out->block;
    return out->block;
}

void flue_out_destroy(struct flue_out *out)
{
    flue_block_unref(out->block);
    out->block = NULL;
}

uint8_t *flue_out_grow(struct flue_out *out, size_t more)
{
    if (out->failed || flue_block_reserve(out->block, more, out->maximum, NULL) != FLUE_OK) {
        out->failed = true;
        return NULL;
    }
    return out->block->data + out->block->size;
}

void flue_out_close_long(struct flue_out *out, size_t mark)
{
    size_t size = out->block->size - mark, extra = flue_varint_size(size) - 1;
    uint8_t *at = flue_out_room(out, extra);

    if (!at)
        return;
    memmove(out->block->data + mark + extra, out->block->data + mark, size);
    flue_write_varint(out->block->data + mark - 1, size);
    out->block->size += extra;
}
