/* unpack.h: a request's body with its compression taken off: a small one at once, more than 64 KiB
 * on the pool. On the loop of the request. */
#ifndef FLUE_NET_UNPACK_H
#define FLUE_NET_UNPACK_H

#include "collector/base/codec.h"
#include "collector/base/loop.h"

struct flue_unpack {
    struct flue_block *block; /* as received, then inflated; owned; NULL when that failed */
    enum flue_coding coding;
    size_t limit;                 /* bytes of the inflated body */
    struct flue_account *account; /* pays for it */
    bool gone;                    /* may be set meanwhile: the client went away */
    /* Called once, from within flue_unpack or later. Without a block `error` says why: what the
     * codec said, or FLUE_CANCELLED when `gone`. */
    void (*done)(struct flue_unpack *unpack);
    struct flue_error error;
    struct flue_job job; /* its own */
};
/* Must stay where it is until done. */
void flue_unpack(struct flue_unpack *unpack, struct flue_loop *loop);

#endif
