/* bearertokenauth.c: tokens that requests must show, or one that ours show.
 *
 * The Collector's extension of this name, its keys and what they mean: a listener takes any of the
 * tokens, a client sends the first; `filename` (a token a line) wins over both other keys and is
 * read again when it changes; `scheme` stands before the token, with a blank, unless it is empty. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "collector/base/log.h"
#include "collector/net/auth.h"
#include "collector/net/auth_file.h"

#define TOKENS_MOST     1000
#define TOKEN_SIZE_MOST 8192

struct bearer_config {
    const char *header, *scheme, *token, *filename;
    struct flue_list tokens;
};

static const struct flue_field bearer_fields[] = {
    FLUE_STRING(struct bearer_config, header, .def = "Authorization",
                .help = "the header that holds the token"),
    FLUE_STRING(struct bearer_config, scheme, .def = "Bearer",
                .help = "the word before the token; empty: none"),
    FLUE_SECRET(struct bearer_config, token, .help = "the token"),
    FLUE_STRINGS(struct bearer_config, tokens, .unit = "secret",
                 .help = "instead of token: a listener takes each, a client sends the first"),
    FLUE_STRING(struct bearer_config, filename,
                .help = "instead of both: a file with a token a line, read again when it changes"),
    FLUE_FIELDS_END};

struct values { /* as they stand in the header, scheme included */
    size_t count;
    struct flue_block *items[];
};

struct bearer {
    struct flue_auth auth; /* first */
    const struct bearer_config *config;
    struct flue_loops *loops;
    struct flue_auth_file file;
    pthread_mutex_t lock; /* of values */
    struct values *values;
};

/* ---- values --------------------------------------------------------------------------------- */

static void free_values(struct values *values)
{
    for (size_t i = 0; values && i < values->count; i++)
        flue_block_unref(values->items[i]);
    free(values);
}

static enum flue_code add(struct values *values, const char *scheme, struct flue_bytes token,
                          struct flue_error *error)
{
    struct flue_bytes word = flue_bytes_of(scheme);
    for (size_t i = 0; i < token.size; i++)
        if (token.data[i] < ' ' || token.data[i] == 0x7f)
            return flue_fail(error, FLUE_INVALID, "token %zu holds a control character",
                             values->count + 1);
    if (values->count == TOKENS_MOST)
        return flue_fail(error, FLUE_INVALID, "more than %d tokens", TOKENS_MOST);
    if (token.size > TOKEN_SIZE_MOST)
        return flue_fail(error, FLUE_INVALID, "token %zu has %zu bytes, limit %d",
                         values->count + 1, token.size, TOKEN_SIZE_MOST);
    struct flue_block *block = flue_block_new(NULL, word.size + 1 + token.size);
    if (!block)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for tokens");
    if (word.size) {
        memcpy(block->data, word.data, word.size);
        block->data[word.size] = ' ';
        block->size = word.size + 1;
    }
    memcpy(block->data + block->size, token.data, token.size);
    block->size += token.size;
    flue_block_finish(block);
    values->items[values->count++] = block;
    return FLUE_OK;
}

static struct values *new_values(struct flue_error *error)
{
    struct values *values = calloc(1, sizeof *values + TOKENS_MOST * sizeof values->items[0]);
    if (!values)
        flue_fail(error, FLUE_NO_MEMORY, "no memory for tokens");
    return values;
}

static void put(struct bearer *bearer, struct values *fresh)
{
    pthread_mutex_lock(&bearer->lock);
    struct values *old = bearer->values;
    bearer->values = fresh;
    pthread_mutex_unlock(&bearer->lock);
    free_values(old);
}

static enum flue_code take_file(void *arg, struct flue_bytes content, struct flue_error *error)
{
    struct bearer *bearer = arg;
    struct values *fresh = new_values(error);
    enum flue_code code = fresh ? FLUE_OK : FLUE_NO_MEMORY;
    while (!code && content.size) {
        struct flue_bytes line = flue_bytes_first(content, flue_bytes_find(content, '\n'));
        content = flue_bytes_from(content, line.size + 1);
        if (line.size && line.data[line.size - 1] == '\r')
            line.size--;
        line = flue_bytes_trim(line);
        if (line.size)
            code = add(fresh, bearer->config->scheme, line, error);
    }
    if (!code && fresh->count == 0)
        code = flue_fail(error, FLUE_INVALID, "there is no token in \"%s\"",
                         bearer->config->filename);
    if (code)
        free_values(fresh);
    else
        put(bearer, fresh);
    return code;
}

/* ---- the authenticator ---------------------------------------------------------------------- */

/* Every token is compared, whichever fits. */
static enum flue_auth_answer look(struct flue_auth *auth, struct flue_bytes credentials,
                                  struct flue_error *error)
{
    struct bearer *bearer = (struct bearer *)(void *)auth;
    bool found = false;
    if (!credentials.size) {
        flue_fail(error, FLUE_UNAUTHENTICATED, "missing or empty authorization header: %s",
                  bearer->config->header);
        return FLUE_AUTH_NO;
    }
    pthread_mutex_lock(&bearer->lock);
    for (size_t i = 0; bearer->values && i < bearer->values->count; i++)
        found |= flue_auth_equal(credentials, flue_block_bytes(bearer->values->items[i]));
    pthread_mutex_unlock(&bearer->lock);
    if (found)
        return FLUE_AUTH_YES;
    flue_fail(error, FLUE_UNAUTHENTICATED, "scheme or token does not match");
    return FLUE_AUTH_NO;
}

static struct flue_block *credentials(struct flue_auth *auth, struct flue_error *error)
{
    struct bearer *bearer = (struct bearer *)(void *)auth;
    struct flue_block *block = NULL;
    pthread_mutex_lock(&bearer->lock);
    if (bearer->values && bearer->values->count)
        block = flue_block_ref(bearer->values->items[0]);
    pthread_mutex_unlock(&bearer->lock);
    if (!block)
        flue_fail(error, FLUE_UNAVAILABLE, "bearertokenauth has no token yet");
    return block;
}

/* ---- life ----------------------------------------------------------------------------------- */

static bool set(const char *text)
{
    return text && *text;
}

static void check(const void *bound, struct flue_check *check)
{
    const struct bearer_config *config = bound;
    if (!set(config->token) && !set(config->filename) && config->tokens.count == 0)
        flue_check_fail(check, "", "no bearer token: give token, tokens or filename");
    if (set(config->token) && config->tokens.count)
        flue_check_fail(check, "tokens", "give either token or tokens");
    if (set(config->filename) && (set(config->token) || config->tokens.count))
        flue_check_warn(check, "filename", "token and tokens have no effect beside filename");
    if (!set(config->header))
        flue_check_fail(check, "header", "the header has no name");
    for (const char *c = config->header; c && *c; c++)
        if (!(*c == '-' || *c == '_' || (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') ||
              (*c >= 'A' && *c <= 'Z'))) {
            flue_check_fail(check, "header", "\"%.64s\" is not the name of a header",
                            config->header);
            break;
        }
    for (const char *c = config->scheme; c && *c; c++)
        if (*c < ' ' || *c >= 0x7f) {
            flue_check_fail(check, "scheme", "it holds a control character");
            break;
        }
}

static enum flue_code take_configured(struct bearer *bearer, struct flue_error *error)
{
    const struct bearer_config *config = bearer->config;
    struct values *fresh = new_values(error);
    enum flue_code code = fresh ? FLUE_OK : FLUE_NO_MEMORY;
    for (size_t i = 0; !code && i < config->tokens.count; i++)
        code = add(fresh, config->scheme,
                   flue_bytes_of(((const char *const *)config->tokens.items)[i]), error);
    if (!code && config->tokens.count == 0)
        code = add(fresh, config->scheme, flue_bytes_of(config->token), error);
    if (code)
        free_values(fresh);
    else
        put(bearer, fresh);
    return code;
}

static enum flue_code create(const struct flue_create *create, void **instance,
                             struct flue_error *error)
{
    const struct bearer_config *config = create->config;
    struct bearer *bearer = flue_arena_zalloc(create->arena, 1, sizeof *bearer);
    char *header = flue_arena_string(create->arena, flue_bytes_of(config->header));
    const char *scheme = set(config->scheme) ? config->scheme : "Bearer";
    if (!bearer || !header)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an extension");
    for (char *c = header; *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c |= 0x20;
    bearer->config = config;
    bearer->loops = create->loops;
    pthread_mutex_init(&bearer->lock, NULL);
    bearer->auth = (struct flue_auth){
        .tag = flue_auth_tag, .header = header, .challenge = scheme, .look = look,
        .credentials = credentials};
    bearer->file =
        (struct flue_auth_file){.path = config->filename, .take = take_file, .arg = bearer};
    *instance = bearer;
    return set(config->filename) ? FLUE_OK : take_configured(bearer, error);
}

static enum flue_code start(void *instance, struct flue_error *error)
{
    struct bearer *bearer = instance;
    if (!set(bearer->config->filename))
        return FLUE_OK;
    return flue_auth_file_start(&bearer->file, bearer->loops->items[0], error);
}

static void destroy(void *instance)
{
    struct bearer *bearer = instance;
    flue_auth_file_stop(&bearer->file);
    put(bearer, NULL);
    pthread_mutex_destroy(&bearer->lock);
}

const struct flue_component flue_extension_bearertokenauth = {
    .kind = FLUE_EXTENSION,
    .name = "bearertokenauth",
    .alias = "bearer_token_auth",
    .stability = FLUE_BETA,
    .summary = "bearer tokens, of those who send here and of what is sent from here",
    .config_size = sizeof(struct bearer_config),
    .fields = bearer_fields,
    .check = check,
    .create = create,
    .start = start,
    .destroy = destroy,
};
