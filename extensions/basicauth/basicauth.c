/* basicauth.c: users and passwords of those who send here, or a pair that is sent from here.
 *
 * The Collector's extension of this name with its keys: htpasswd (for listeners) or client_auth
 * (for exporters), not both. A password that fits is remembered by a keyed hash, so that bcrypt
 * costs its 50 ms once and not with every request; those that take long are compared on the pool, a
 * few at a time. Files are read again when they change. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>

#include "collector/base/base64.h"
#include "collector/net/auth.h"
#include "collector/net/auth_file.h"
#include "extensions/basicauth/htpasswd.h"

#define CREDENTIALS_MOST 2048
#define AT_A_TIME        4 /* slow comparisons; more senders are told to come again */
#define REMEMBERED       256
#define DIGEST_SIZE      32

struct htpasswd_config {
    const char *file, *inline_;
};
struct client_config {
    const char *username, *username_file, *password, *password_file;
};
struct basic_config {
    const struct htpasswd_config *htpasswd;
    const struct client_config *client_auth;
};

static const struct flue_field htpasswd_fields[] = {
    FLUE_STRING(struct htpasswd_config, file,
                .help = "a file as htpasswd(1) writes it, read again when it changes"),
    {.name = "inline",
     .type = FLUE_FIELD_SECRET,
     .offset = offsetof(struct htpasswd_config, inline_),
     .help = "the same as text; its users win over the file's"},
    FLUE_FIELDS_END};
static const struct flue_field client_fields[] = {
    FLUE_STRING(struct client_config, username, .help = "the user"),
    FLUE_STRING(struct client_config, username_file,
                .help = "a file that holds it, read again when it changes; wins over username"),
    FLUE_SECRET(struct client_config, password, .help = "the password"),
    FLUE_STRING(struct client_config, password_file,
                .help = "a file that holds it, read again when it changes; wins over password"),
    FLUE_FIELDS_END};
static const struct flue_field basic_fields[] = {
    FLUE_OPTIONAL(struct basic_config, htpasswd, struct htpasswd_config, htpasswd_fields,
                  .help = "who may send: for `auth` of receivers"),
    FLUE_OPTIONAL(struct basic_config, client_auth, struct client_config, client_fields,
                  .help = "who we are: for `auth` of exporters"),
    FLUE_FIELDS_END};

struct basic {
    struct flue_auth auth; /* first */
    const struct basic_config *config;
    struct flue_loops *loops;
    struct flue_auth_file users_file, name_file, password_file;
    pthread_rwlock_t lock; /* of what follows */
    struct flue_htpasswd *users;
    uint8_t key[DIGEST_SIZE];
    uint8_t remembered[REMEMBERED][DIGEST_SIZE]; /* all zero: empty */
    _Atomic int slow;
    char *name, *password; /* as files said; NULL: as configured */
    struct flue_block *value;
};

/* ---- listeners ------------------------------------------------------------------------------ */

static bool digest(const struct basic *basic, struct flue_bytes credentials, uint8_t *out)
{
    size_t size = 0;
    return EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, basic->key, sizeof basic->key,
                     credentials.data, credentials.size, out, DIGEST_SIZE, &size) &&
           size == DIGEST_SIZE;
}

/* "user:password" of the header; false: *error says what is wrong with it. */
static bool decode(struct flue_bytes credentials, uint8_t *room, struct flue_bytes *user,
                   struct flue_bytes *password, struct flue_error *error)
{
    size_t size;
    if (!credentials.size) {
        flue_fail(error, FLUE_UNAUTHENTICATED, "no basic auth provided");
        return false;
    }
    if (!flue_bytes_equal_nocase(flue_bytes_first(credentials, 6), FLUE_BYTES("Basic "))) {
        flue_fail(error, FLUE_UNAUTHENTICATED, "invalid authorization scheme prefix");
        return false;
    }
    struct flue_bytes text = flue_bytes_trim(flue_bytes_from(credentials, 6));
    size_t colon = SIZE_MAX;
    if (text.size <= CREDENTIALS_MOST && flue_base64_decode(text, room, &size))
        colon = flue_bytes_find(flue_bytes(room, size), ':');
    if (colon == SIZE_MAX) {
        flue_fail(error, FLUE_UNAUTHENTICATED, "invalid authorization format");
        return false;
    }
    *user = flue_bytes(room, colon);
    *password = flue_bytes(room + colon + 1, size - colon - 1);
    return true;
}

static bool is_remembered(const struct basic *basic, const uint8_t *hash)
{
    return CRYPTO_memcmp(basic->remembered[hash[0]], hash, DIGEST_SIZE) == 0;
}

static enum flue_auth_answer invalid(struct flue_error *error)
{
    flue_fail(error, FLUE_UNAUTHENTICATED, "invalid credentials");
    return FLUE_AUTH_NO;
}

static enum flue_auth_answer look(struct flue_auth *auth, struct flue_bytes credentials,
                                  struct flue_error *error)
{
    struct basic *basic = (struct basic *)(void *)auth;
    uint8_t room[CREDENTIALS_MOST + 8], hash[DIGEST_SIZE];
    struct flue_bytes user, password;
    if (!decode(credentials, room, &user, &password, error))
        return FLUE_AUTH_NO;
    pthread_rwlock_rdlock(&basic->lock);
    bool slow = !basic->users || flue_htpasswd_kind(basic->users, user) == FLUE_HTPASSWD_SLOW;
    bool fits = !slow ? flue_htpasswd_fits(basic->users, user, password)
                      : digest(basic, credentials, hash) && is_remembered(basic, hash);
    pthread_rwlock_unlock(&basic->lock);
    OPENSSL_cleanse(room, sizeof room);
    if (fits)
        return FLUE_AUTH_YES;
    if (!slow)
        return invalid(error);
    if (atomic_fetch_add(&basic->slow, 1) < AT_A_TIME)
        return FLUE_AUTH_LATER;
    atomic_fetch_sub(&basic->slow, 1);
    flue_fail(error, FLUE_OVERLOADED,
              "%d passwords are being compared, which is all at a time; send again", AT_A_TIME);
    error->retry_after_ms = 1000;
    return FLUE_AUTH_NO;
}

static enum flue_auth_answer verify(struct flue_auth *auth, struct flue_bytes credentials,
                                    struct flue_error *error)
{
    struct basic *basic = (struct basic *)(void *)auth;
    uint8_t room[CREDENTIALS_MOST + 8], hash[DIGEST_SIZE];
    struct flue_bytes user, password;
    bool fits = false;
    if (decode(credentials, room, &user, &password, error)) {
        pthread_rwlock_rdlock(&basic->lock);
        fits = basic->users && flue_htpasswd_fits(basic->users, user, password);
        bool hashed = fits && digest(basic, credentials, hash);
        pthread_rwlock_unlock(&basic->lock);
        if (hashed) {
            pthread_rwlock_wrlock(&basic->lock);
            memcpy(basic->remembered[hash[0]], hash, DIGEST_SIZE);
            pthread_rwlock_unlock(&basic->lock);
        }
        OPENSSL_cleanse(room, sizeof room);
    }
    atomic_fetch_sub(&basic->slow, 1);
    return fits ? FLUE_AUTH_YES : invalid(error);
}

/* New users: nothing of the old ones is remembered, for the key is another. */
static enum flue_code take_users(void *arg, struct flue_bytes content, struct flue_error *error)
{
    struct basic *basic = arg;
    struct flue_htpasswd *fresh;
    uint8_t key[DIGEST_SIZE];
    enum flue_code code = flue_htpasswd_read(
        content, flue_bytes_of(basic->config->htpasswd->inline_), &fresh, error);
    if (code)
        return code;
    if (RAND_bytes(key, sizeof key) != 1) {
        flue_htpasswd_free(fresh);
        return flue_fail(error, FLUE_INTERNAL, "no random bytes");
    }
    pthread_rwlock_wrlock(&basic->lock);
    struct flue_htpasswd *old = basic->users;
    basic->users = fresh;
    memcpy(basic->key, key, sizeof key);
    pthread_rwlock_unlock(&basic->lock);
    flue_htpasswd_free(old);
    return FLUE_OK;
}

/* ---- clients -------------------------------------------------------------------------------- */

/* The lock is held for writing. */
static enum flue_code make_value(struct basic *basic, struct flue_error *error)
{
    const struct client_config *config = basic->config->client_auth;
    const char *name = basic->name ? basic->name : config->username ? config->username : "";
    const char *password = basic->password    ? basic->password
                           : config->password ? config->password
                                              : "";
    size_t size = strlen(name) + 1 + strlen(password);
    if (strchr(name, ':'))
        return flue_fail(error, FLUE_INVALID, "the user name holds a colon");
    char *pair = malloc(size + 1);
    struct flue_block *block = flue_block_new(NULL, 6 + (size + 2) / 3 * 4);
    if (!pair || !block) {
        free(pair);
        flue_block_unref(block);
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for credentials");
    }
    memcpy(pair, name, strlen(name));
    pair[strlen(name)] = ':';
    memcpy(pair + strlen(name) + 1, password, strlen(password));
    memcpy(block->data, "Basic ", 6);
    flue_base64_encode(flue_bytes(pair, size), (char *)block->data + 6);
    block->size = 6 + (size + 2) / 3 * 4;
    flue_block_finish(block);
    OPENSSL_cleanse(pair, size);
    free(pair);
    flue_block_unref(basic->value);
    basic->value = block;
    return FLUE_OK;
}

/* A file's first line, as a string. */
static enum flue_code take_text(struct basic *basic, char **text, struct flue_bytes content,
                                struct flue_error *error)
{
    content = flue_bytes_first(content, flue_bytes_find(content, '\n'));
    if (content.size && content.data[content.size - 1] == '\r')
        content.size--;
    char *copy = strndup((const char *)content.data, content.size);
    if (!copy)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for credentials");
    pthread_rwlock_wrlock(&basic->lock);
    char *old = *text;
    *text = copy;
    enum flue_code code = make_value(basic, error);
    pthread_rwlock_unlock(&basic->lock);
    free(old);
    return code;
}

static enum flue_code take_name(void *arg, struct flue_bytes content, struct flue_error *error)
{
    struct basic *basic = arg;
    return take_text(basic, &basic->name, content, error);
}

static enum flue_code take_password(void *arg, struct flue_bytes content, struct flue_error *error)
{
    struct basic *basic = arg;
    return take_text(basic, &basic->password, content, error);
}

static struct flue_block *credentials(struct flue_auth *auth, struct flue_error *error)
{
    struct basic *basic = (struct basic *)(void *)auth;
    pthread_rwlock_rdlock(&basic->lock);
    struct flue_block *block = basic->value ? flue_block_ref(basic->value) : NULL;
    pthread_rwlock_unlock(&basic->lock);
    if (!block)
        flue_fail(error, FLUE_UNAVAILABLE, "basicauth has no credentials yet");
    return block;
}

/* ---- life ----------------------------------------------------------------------------------- */

static bool set(const char *text)
{
    return text && *text;
}

static void check(const void *bound, struct flue_check *check)
{
    const struct basic_config *config = bound;
    const struct htpasswd_config *htpasswd = config->htpasswd;
    if (htpasswd && config->client_auth)
        flue_check_fail(check, "client_auth", "only one of htpasswd and client_auth can be there");
    if (!htpasswd && !config->client_auth)
        flue_check_fail(check, "", "give htpasswd (for receivers) or client_auth (for exporters)");
    if (htpasswd && !set(htpasswd->file) && !set(htpasswd->inline_))
        flue_check_fail(check, "htpasswd", "give file or inline");
    if (config->client_auth && set(config->client_auth->username) &&
        strchr(config->client_auth->username, ':'))
        flue_check_fail(check, "client_auth.username", "a user name cannot hold a colon");
}

static enum flue_code create(const struct flue_create *create, void **instance,
                             struct flue_error *error)
{
    const struct basic_config *config = create->config;
    struct basic *basic = flue_arena_zalloc(create->arena, 1, sizeof *basic);
    if (!basic)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an extension");
    basic->config = config;
    basic->loops = create->loops;
    pthread_rwlock_init(&basic->lock, NULL);
    basic->auth = (struct flue_auth){.tag = flue_auth_tag,
                                     .header = "authorization",
                                     .challenge = "Basic realm=\"flue\", charset=\"UTF-8\"",
                                     .look = config->htpasswd ? look : NULL,
                                     .verify = verify,
                                     .credentials = config->client_auth ? credentials : NULL};
    *instance = basic;
    if (config->htpasswd && !set(config->htpasswd->file))
        return take_users(basic, flue_bytes(NULL, 0), error);
    if (config->client_auth)
        return make_value(basic, error);
    return FLUE_OK;
}

static enum flue_code start_file(struct basic *basic, struct flue_auth_file *file,
                                 const char *path,
                                 enum flue_code (*take)(void *, struct flue_bytes,
                                                        struct flue_error *),
                                 struct flue_error *error)
{
    *file = (struct flue_auth_file){.path = path, .take = take, .arg = basic};
    return set(path) ? flue_auth_file_start(file, basic->loops->items[0], error) : FLUE_OK;
}

static enum flue_code start(void *instance, struct flue_error *error)
{
    struct basic *basic = instance;
    const struct client_config *client = basic->config->client_auth;
    if (!client)
        return start_file(basic, &basic->users_file, basic->config->htpasswd->file, take_users,
                          error);
    enum flue_code code =
        start_file(basic, &basic->name_file, client->username_file, take_name, error);
    return code ? code
                : start_file(basic, &basic->password_file, client->password_file, take_password,
                             error);
}

static void destroy(void *instance)
{
    struct basic *basic = instance;
    flue_auth_file_stop(&basic->users_file);
    flue_auth_file_stop(&basic->name_file);
    flue_auth_file_stop(&basic->password_file);
    for (;;) { /* comparisons on the pool; a tenth of a second each */
        pthread_rwlock_wrlock(&basic->lock);
        bool idle = atomic_load(&basic->slow) == 0;
        if (idle) {
            flue_htpasswd_free(basic->users);
            basic->users = NULL;
            break;
        }
        pthread_rwlock_unlock(&basic->lock);
        sched_yield();
    }
    flue_block_unref(basic->value);
    basic->value = NULL;
    pthread_rwlock_unlock(&basic->lock);
    pthread_rwlock_destroy(&basic->lock);
    free(basic->name);
    free(basic->password);
    basic->name = basic->password = NULL;
}

const struct flue_component flue_extension_basicauth = {
    .kind = FLUE_EXTENSION,
    .name = "basicauth",
    .alias = "basic_auth",
    .stability = FLUE_BETA,
    .summary = "users and passwords, of those who send here or of what is sent from here",
    .config_size = sizeof(struct basic_config),
    .fields = basic_fields,
    .check = check,
    .create = create,
    .start = start,
    .destroy = destroy,
};
