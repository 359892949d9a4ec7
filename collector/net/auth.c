/* auth.c: see auth.h. */
#include "collector/net/auth.h"

#include <openssl/crypto.h>

const char flue_auth_tag[] = "authenticator";

enum flue_code flue_auth_find(const struct flue_create *create, const char *id,
                              struct flue_auth **out, struct flue_error *error)
{
    struct flue_auth *auth = create->extension ? create->extension(create, id) : NULL;
    if (!auth)
        return flue_fail(error, FLUE_INVALID,
                         "auth.authenticator: there is no extension \"%s\" that runs: define it "
                         "under extensions and name it in service.extensions",
                         id);
    if (auth->tag != flue_auth_tag)
        return flue_fail(error, FLUE_INVALID,
                         "auth.authenticator: the extension \"%s\" is no authenticator: use "
                         "basicauth or bearertokenauth",
                         id);
    *out = auth;
    return FLUE_OK;
}

bool flue_auth_equal(struct flue_bytes a, struct flue_bytes b)
{
    return a.size == b.size && CRYPTO_memcmp(a.data, b.data, a.size) == 0;
}
