/* htpasswd.h: users and hashes as htpasswd(1) writes them, and whether a password fits.
 *
 * Hashes: bcrypt ($2a$, $2b$, $2y$), SHA-crypt ($5$, $6$) and MD5-crypt ($1$) by libcrypt, loaded
 * where one of them is used; Apache's MD5 ($apr1$); {SHA}; {SSHA}; and what is none of these is the
 * password itself. bcrypt and crypt take long: not on a loop.
 */
#ifndef FLUE_BASICAUTH_HTPASSWD_H
#define FLUE_BASICAUTH_HTPASSWD_H

#include "collector/base/bytes.h"
#include "collector/base/error.h"

#define FLUE_HTPASSWD_USERS 10000

struct flue_htpasswd; /* immutable */

/* The lines of `file`, then those of `more`, which win where both name a user. Errors name the line,
 * never what stands in it. */
enum flue_code flue_htpasswd_read(struct flue_bytes file, struct flue_bytes more,
                                  struct flue_htpasswd **out, struct flue_error *error);
void flue_htpasswd_free(struct flue_htpasswd *users);

enum flue_htpasswd_kind { FLUE_HTPASSWD_NOBODY, FLUE_HTPASSWD_QUICK, FLUE_HTPASSWD_SLOW };
enum flue_htpasswd_kind flue_htpasswd_kind(const struct flue_htpasswd *users,
                                           struct flue_bytes user);
/* False too for a user who is not there; it takes as long as for one who is. Any thread. */
bool flue_htpasswd_fits(const struct flue_htpasswd *users, struct flue_bytes user,
                        struct flue_bytes password);

#endif
