/* htpasswd.c: see htpasswd.h. */
#include "extensions/basicauth/htpasswd.h"

#include <crypt.h>
#include <dlfcn.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "collector/base/base64.h"
#include "collector/net/auth.h"

#define LINE_MOST     1024
#define PASSWORD_MOST 512

enum scheme { PLAIN, SHA, SSHA, APR1, CRYPT };

struct user {
    struct flue_bytes name, hash; /* in text */
    enum scheme scheme;
};
struct flue_htpasswd {
    char *text;
    struct user *users;
    size_t count;
    char *(*crypt_r)(const char *, const char *, struct crypt_data *); /* NULL: not needed */
    struct user nobody; /* of the slowest scheme: looked at for users who are not there */
};

/* ---- reading -------------------------------------------------------------------------------- */

static enum scheme scheme_of(struct flue_bytes hash)
{
    if (flue_bytes_starts_with(hash, FLUE_BYTES("{SHA}")))
        return SHA;
    if (flue_bytes_starts_with(hash, FLUE_BYTES("{SSHA}")))
        return SSHA;
    if (flue_bytes_starts_with(hash, FLUE_BYTES("$apr1$")))
        return APR1;
    static const char *const known[] = {"$2a$", "$2b$", "$2y$", "$1$", "$5$", "$6$", "$y$"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (flue_bytes_starts_with(hash, flue_bytes_of(known[i])))
            return CRYPT;
    return PLAIN;
}

static struct user *find(const struct flue_htpasswd *users, struct flue_bytes name)
{
    size_t low = 0, high = users->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = flue_bytes_compare(users->users[middle].name, name);
        if (order == 0)
            return &users->users[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static enum flue_code load_crypt(struct flue_htpasswd *users, struct flue_error *error)
{
    static const char *const names[] = {"libcrypt.so.1", "libcrypt.so.2"};
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof names[0]; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    void *symbol = library ? dlsym(library, "crypt_r") : NULL;
    if (!symbol)
        return flue_fail(error, FLUE_INVALID,
                         "htpasswd: bcrypt and crypt hashes need libcrypt.so.1, which is not here");
    memcpy(&users->crypt_r, &symbol, sizeof symbol); /* as POSIX asks for it */
    return FLUE_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct user *x = a, *y = b;
    int order = flue_bytes_compare(x->name, y->name);
    return order ? order : x->name.data < y->name.data ? -1 : x->name.data > y->name.data;
}

/* Lines of one source; `first` says how its lines are called in errors. */
static enum flue_code read_lines(struct flue_htpasswd *users, struct flue_bytes text,
                                 const char *source, struct flue_error *error)
{
    size_t number = 0;
    while (text.size) {
        struct flue_bytes line = flue_bytes_first(text, flue_bytes_find(text, '\n'));
        text = flue_bytes_from(text, line.size + 1);
        number++;
        if (line.size && line.data[line.size - 1] == '\r')
            line.size--;
        line = flue_bytes_trim(line);
        if (line.size == 0 || line.data[0] == '#')
            continue;
        size_t colon = flue_bytes_find(line, ':');
        if (colon == SIZE_MAX || colon == 0 || line.size > LINE_MOST)
            return flue_fail(error, FLUE_INVALID,
                             "htpasswd, %s, line %zu: not \"user:hash\" of at most %d bytes",
                             source, number, LINE_MOST);
        if (users->count == FLUE_HTPASSWD_USERS)
            return flue_fail(error, FLUE_INVALID, "htpasswd: more than %d users",
                             FLUE_HTPASSWD_USERS);
        struct flue_bytes hash = flue_bytes_from(line, colon + 1);
        users->users[users->count++] =
            (struct user){flue_bytes_first(line, colon), hash, scheme_of(hash)};
    }
    return FLUE_OK;
}

/* Of several lines for a user the last counts. */
static void keep_last(struct flue_htpasswd *users)
{
    size_t kept = 0;
    qsort(users->users, users->count, sizeof *users->users, by_name);
    for (size_t i = 0; i < users->count; i++) {
        bool last = i + 1 == users->count ||
                    !flue_bytes_equal(users->users[i].name, users->users[i + 1].name);
        if (last)
            users->users[kept++] = users->users[i];
    }
    users->count = kept;
}

static size_t count_lines(struct flue_bytes text)
{
    size_t lines = 1;
    for (size_t i = 0; i < text.size; i++)
        lines += text.data[i] == '\n';
    return lines;
}

enum flue_code flue_htpasswd_read(struct flue_bytes file, struct flue_bytes more,
                                  struct flue_htpasswd **out, struct flue_error *error)
{
    struct flue_htpasswd *users = calloc(1, sizeof *users);
    size_t most = count_lines(file) + count_lines(more);
    if (users) {
        users->text = malloc(file.size + more.size + 1);
        users->users = calloc(most, sizeof *users->users);
    }
    if (!users || !users->text || !users->users) {
        flue_htpasswd_free(users);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for users");
    }
    if (file.size)
        memcpy(users->text, file.data, file.size);
    if (more.size)
        memcpy(users->text + file.size, more.data, more.size);
    enum flue_code code = read_lines(users, flue_bytes(users->text, file.size), "file", error);
    if (!code)
        code = read_lines(users, flue_bytes(users->text + file.size, more.size), "inline", error);
    if (!code) {
        keep_last(users);
        for (size_t i = 0; i < users->count; i++)
            if (users->users[i].scheme >= users->nobody.scheme)
                users->nobody = users->users[i];
        if (users->nobody.scheme == CRYPT)
            code = load_crypt(users, error);
    }
    if (!code && users->count == 0)
        code = flue_fail(error, FLUE_INVALID, "htpasswd: there is no user in it");
    if (code) {
        flue_htpasswd_free(users);
        return code;
    }
    *out = users;
    return FLUE_OK;
}

void flue_htpasswd_free(struct flue_htpasswd *users)
{
    if (!users)
        return;
    free(users->text);
    free(users->users);
    free(users);
}

/* ---- comparing ------------------------------------------------------------------------------ */

static bool same_sha(struct flue_bytes password, struct flue_bytes base64, bool salted)
{
    uint8_t stored[LINE_MOST], digest[EVP_MAX_MD_SIZE];
    size_t size;
    unsigned got = 0;
    if (flue_base64_room(base64.size) > sizeof stored ||
        !flue_base64_decode(base64, stored, &size) || (salted ? size <= 20 : size != 20))
        return false;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool good = context && EVP_DigestInit_ex(context, EVP_sha1(), NULL) &&
                EVP_DigestUpdate(context, password.data, password.size) &&
                EVP_DigestUpdate(context, stored + 20, size - 20) &&
                EVP_DigestFinal_ex(context, digest, &got);
    EVP_MD_CTX_free(context);
    return good && flue_auth_equal(flue_bytes(digest, got), flue_bytes(stored, 20));
}

static void sixty_four(char *out, uint32_t bits, int characters)
{
    static const char alphabet[] =
        "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    while (characters-- > 0) {
        *out++ = alphabet[bits & 63];
        bits >>= 6;
    }
}

/* MD5-crypt with Apache's name in it: a thousand rounds of MD5 (apr_md5_encode). `stored` is
 * "$apr1$SALT$HASH". */
static bool same_apr1(struct flue_bytes password, struct flue_bytes stored)
{
    static const struct flue_bytes magic = FLUE_BYTES_INIT("$apr1$");
    struct flue_bytes salt = flue_bytes_from(stored, magic.size);
    size_t end = flue_bytes_find(salt, '$');
    if (end == SIZE_MAX || end > 8)
        return false;
    struct flue_bytes hash = flue_bytes_from(salt, end + 1);
    salt = flue_bytes_first(salt, end);
    uint8_t d[EVP_MAX_MD_SIZE] = {0};
    unsigned size;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool good = c && EVP_DigestInit_ex(c, EVP_md5(), NULL) &&
                EVP_DigestUpdate(c, password.data, password.size) &&
                EVP_DigestUpdate(c, salt.data, salt.size) &&
                EVP_DigestUpdate(c, password.data, password.size) &&
                EVP_DigestFinal_ex(c, d, &size) && EVP_DigestInit_ex(c, EVP_md5(), NULL) &&
                EVP_DigestUpdate(c, password.data, password.size) &&
                EVP_DigestUpdate(c, magic.data, magic.size) &&
                EVP_DigestUpdate(c, salt.data, salt.size);
    for (size_t left = password.size; good && left; left -= left < 16 ? left : 16)
        good = EVP_DigestUpdate(c, d, left < 16 ? left : 16);
    for (size_t bits = password.size; good && bits; bits >>= 1)
        good = EVP_DigestUpdate(c, bits & 1 ? (const uint8_t *)"" : password.data, 1);
    good = good && EVP_DigestFinal_ex(c, d, &size);
    for (int round = 0; good && round < 1000; round++) {
        struct flue_bytes last = flue_bytes(d, 16);
        uint8_t before[16];
        memcpy(before, d, 16);
        last.data = before;
        struct flue_bytes odd = round & 1 ? password : last, even = round & 1 ? last : password;
        good = EVP_DigestInit_ex(c, EVP_md5(), NULL) && EVP_DigestUpdate(c, odd.data, odd.size) &&
               (round % 3 == 0 || EVP_DigestUpdate(c, salt.data, salt.size)) &&
               (round % 7 == 0 || EVP_DigestUpdate(c, password.data, password.size)) &&
               EVP_DigestUpdate(c, even.data, even.size) && EVP_DigestFinal_ex(c, d, &size);
    }
    EVP_MD_CTX_free(c);
    static const uint8_t order[5][3] = {{0, 6, 12}, {1, 7, 13}, {2, 8, 14}, {3, 9, 15}, {4, 10, 5}};
    char text[22];
    for (int i = 0; i < 5; i++)
        sixty_four(text + 4 * i,
                   (uint32_t)d[order[i][0]] << 16 | (uint32_t)d[order[i][1]] << 8 | d[order[i][2]],
                   4);
    sixty_four(text + 20, d[11], 2);
    return good && flue_auth_equal(flue_bytes(text, sizeof text), hash);
}

static bool same_crypt(const struct flue_htpasswd *users, struct flue_bytes password,
                       struct flue_bytes stored)
{
    char key[PASSWORD_MOST + 1], setting[LINE_MOST + 1];
    if (memchr(password.data, 0, password.size))
        return false;
    memcpy(key, password.data, password.size);
    key[password.size] = 0;
    memcpy(setting, stored.data, stored.size);
    setting[stored.size] = 0;
    struct crypt_data *data = calloc(1, sizeof *data);
    const char *made = data ? users->crypt_r(key, setting, data) : NULL;
    bool good = made && made[0] != '*' && flue_auth_equal(flue_bytes_of(made), stored);
    OPENSSL_cleanse(key, sizeof key);
    if (data)
        OPENSSL_cleanse(data, sizeof *data);
    free(data);
    return good;
}

enum flue_htpasswd_kind flue_htpasswd_kind(const struct flue_htpasswd *users,
                                           struct flue_bytes name)
{
    const struct user *user = find(users, name);
    if ((user ? user : &users->nobody)->scheme == CRYPT)
        return FLUE_HTPASSWD_SLOW;
    return user ? FLUE_HTPASSWD_QUICK : FLUE_HTPASSWD_NOBODY;
}

bool flue_htpasswd_fits(const struct flue_htpasswd *users, struct flue_bytes name,
                        struct flue_bytes password)
{
    const struct user *found = find(users, name);
    const struct user *user = found ? found : &users->nobody;
    bool fits = false;
    if (password.size > PASSWORD_MOST)
        return false;
    switch (user->scheme) {
    case PLAIN:
        fits = flue_auth_equal(password, user->hash);
        break;
    case SHA:
        fits = same_sha(password, flue_bytes_from(user->hash, 5), false);
        break;
    case SSHA:
        fits = same_sha(password, flue_bytes_from(user->hash, 6), true);
        break;
    case APR1:
        fits = same_apr1(password, user->hash);
        break;
    case CRYPT:
        fits = same_crypt(users, password, user->hash);
        break;
    }
    return fits && found;
}
