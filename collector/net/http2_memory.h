/* http2_memory.h: the memory of nghttp2's sessions, for both sides.
 *
 * A request costs nghttp2 about fifteen small allocations (stream, frames, header pairs) that are
 * given back within the same millisecond. They come from lists of the calling thread, by size,
 * without a lock; what a thread keeps is bounded (128 KiB) and given back when it ends. Memory may
 * be freed on another thread than it was allocated on.
 */
#ifndef FLUE_NET_HTTP2_MEMORY_H
#define FLUE_NET_HTTP2_MEMORY_H

#include <nghttp2/nghttp2.h>

/* For the `_new3` functions of nghttp2, which copy it. */
nghttp2_mem *flue_http2_memory(void);

#endif
