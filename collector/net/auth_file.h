/* auth_file.h: a file of secrets, read at the start and again when it changes.
 *
 * It is looked at every 2 s on the pool (by device, inode, size and time of change: a mounted
 * secret of Kubernetes is replaced by a link). What cannot be read or taken leaves the old content
 * in use and is logged once.
 */
#ifndef FLUE_NET_AUTH_FILE_H
#define FLUE_NET_AUTH_FILE_H

#include <sys/stat.h>
#include "collector/base/loop.h"

struct flue_auth_file { /* zeroed but for the first three; may be freed when the loops are gone */
    const char *path;
    /* The whole content, which is wiped afterwards. In the caller of start, then on the pool. */
    enum flue_code (*take)(void *arg, struct flue_bytes content, struct flue_error *error);
    void *arg;
    /* its own */
    struct flue_loop *loop;
    struct flue_timer timer;
    struct flue_job job;
    struct stat seen;
    bool complained;
    _Atomic bool working; /* on the pool */
    bool stopping;
};

#define FLUE_AUTH_FILE_MOST ((size_t)1 << 20)

/* In the component's start; FLUE_INVALID names the file and what is wrong with it. */
enum flue_code flue_auth_file_start(struct flue_auth_file *file, struct flue_loop *loop,
                                    struct flue_error *error);
/* In its destroy; `take` is not running and not called again. One never started is fine. */
void flue_auth_file_stop(struct flue_auth_file *file);

#endif
