/* splice.h: edits of a protobuf message written in one walk over the original bytes.
 *
 * An edit replaces the bytes [from, to) by others; the messages around it are named by *marks* so
 * that their lengths can be repaired upward. Untouched runs are borrowed from the original; only
 * the new length prefixes are written anew (in the arena). Lengths in the original may be
 * non-minimal; a mark's new length is minimal, and a marked message whose length does not change is
 * left as is.
 *
 * Steps are given in order of position: a message before what is inside it, messages properly
 * nested, edits inside of marked messages or at the top, never across a border and never
 * overlapping. Several insertions at one position stand in the order given. An insertion at a
 * position where a message begins or ends belongs to the message that `inside` counts: the number
 * of marked messages that are open around it.
 */
#ifndef PROTO_WIRE_SPLICE_H
#define PROTO_WIRE_SPLICE_H

#include "collector/base/arena.h"
#include "collector/base/block.h"

#define FLUE_SPLICE_DEPTH 96

struct flue_splice_step {
    bool message;
    uint8_t inside;    /* marked messages open around this step */
    uint32_t from, to; /* edit: what is replaced; message: its length prefix's position, its end */
    uint32_t start;    /* message: where its content begins */
    uint32_t size;     /* message: set by flue_splice_measure: the new size of its content */
    struct flue_bytes with; /* edit */
};

/* Sets the size of every message step; returns the whole new size. 0 with count > 0 and *ok false:
 * the steps are not in order (a mistake of the caller), or a size passes 4 GiB. */
size_t flue_splice_measure(size_t original, struct flue_splice_step *steps, size_t count, bool *ok);

/* Writes; the steps have been measured. */
enum flue_code flue_splice_write(struct flue_bytes original, const struct flue_splice_step *steps,
                                 size_t count, struct flue_arena *arena, struct flue_slices *out,
                                 struct flue_error *error);

#endif
