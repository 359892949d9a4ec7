/* auth.h: the Authorization header of every push, from configuration or from a file that is read
 * again when it changes.
 *
 * One a loop. A file is looked at on the pool, at most every ten seconds and at once after a 401,
 * and only while something is sent; what it holds never reaches a log. A file that cannot be read
 * leaves the value as it was, with a warning; at start it is an error.
 */
#ifndef EXPORTERS_PYROSCOPE_AUTH_H
#define EXPORTERS_PYROSCOPE_AUTH_H

#include "collector/base/loop.h"
#include "exporters/pyroscope/settings.h"

struct flue_push_auth {
    const struct flue_pyroscope_config *config;
    const char *exporter;
    struct flue_loop *loop;
    const char *path;         /* NULL: nothing to read again */
    struct flue_block *value; /* the header's; NULL: none is sent */
    uint64_t read_ns;
    bool reading;
    struct flue_job job;
    struct flue_block *fresh; /* of the job; NULL: could not be read */
    struct flue_error error;  /* of the job */
};

enum flue_code flue_push_auth_init(struct flue_push_auth *auth,
                                   const struct flue_pyroscope_config *config, const char *exporter,
                                   struct flue_loop *loop, struct flue_error *error);
void flue_push_auth_destroy(struct flue_push_auth *auth);
/* The value for one request, with a reference, or NULL. */
struct flue_block *flue_push_auth_take(struct flue_push_auth *auth);
/* A 401 came: true when another value may be there for the next attempt. */
bool flue_push_auth_refused(struct flue_push_auth *auth);

#endif
