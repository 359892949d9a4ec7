/* auth.c: see auth.h. RFC 7617, RFC 6750. */
#include "exporters/pyroscope/auth.h"
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/base64.h"
#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "config/load.h"

#define LOOK_EVERY_NS 10000000000ull
#define VALUE_MAX     8192u

static bool set(const char *text)
{
    return text && *text;
}

/* "Basic ..." or "Bearer ..." around the secret. */
static struct flue_block *make_value(const struct flue_pyroscope_config *config,
                                     struct flue_bytes secret)
{
    const struct flue_basic_auth_config *basic = config->basic_auth;
    size_t user = basic && basic->username ? strlen(basic->username) : 0;
    size_t plain = user + 1 + secret.size;
    struct flue_block *block =
        flue_block_new(NULL, 8 + (basic ? (plain + 2) / 3 * 4 : secret.size));
    uint8_t *pair;

    if (!block)
        return NULL;
    if (!basic) {
        memcpy(block->data, "Bearer ", 7);
        if (secret.size)
            memcpy(block->data + 7, secret.data, secret.size);
        block->size = 7 + secret.size;
        return block;
    }
    pair = malloc(plain);
    if (!pair) {
        flue_block_unref(block);
        return NULL;
    }
    if (user)
        memcpy(pair, basic->username, user);
    pair[user] = ':';
    if (secret.size)
        memcpy(pair + user + 1, secret.data, secret.size);
    memcpy(block->data, "Basic ", 6);
    flue_base64_encode(flue_bytes(pair, plain), (char *)block->data + 6);
    block->size = 6 + (plain + 2) / 3 * 4;
    explicit_bzero(pair, plain);
    free(pair);
    return block;
}

static enum flue_code read_value(const struct flue_push_auth *auth, struct flue_block **out,
                                 struct flue_error *error)
{
    struct flue_arena arena;
    struct flue_bytes secret;
    const char *reason;
    enum flue_code code = FLUE_OK;

    flue_arena_init(&arena, 8u << 20, 0);
    if (!flue_config_read_file(&arena, auth->path, &secret, &reason)) {
        code = flue_fail(error, FLUE_IO, "%s: %s", auth->path, reason);
    } else {
        while (secret.size &&
               (secret.data[secret.size - 1] == '\n' || secret.data[secret.size - 1] == '\r'))
            secret.size--;
        if (secret.size == 0 || secret.size > VALUE_MAX)
            code = flue_fail(error, FLUE_INVALID, "%s: has %zu bytes; 1 to %u make a secret",
                             auth->path, secret.size, VALUE_MAX);
        for (size_t i = 0; !code && i < secret.size; i++)
            if (secret.data[i] < 0x20 || secret.data[i] == 0x7f)
                code = flue_fail(error, FLUE_INVALID,
                                 "%s: byte %zu is a control character, which no secret has",
                                 auth->path, i);
        if (!code && !(*out = make_value(auth->config, secret)))
            code = flue_fail(error, FLUE_NO_MEMORY, "no memory for a header");
        explicit_bzero((void *)(uintptr_t)secret.data, secret.size);
    }
    flue_arena_destroy(&arena);
    return code;
}

enum flue_code flue_push_auth_init(struct flue_push_auth *auth,
                                   const struct flue_pyroscope_config *config, const char *exporter,
                                   struct flue_loop *loop, struct flue_error *error)
{
    const struct flue_basic_auth_config *basic = config->basic_auth;
    const char *secret = NULL;

    auth->config = config;
    auth->exporter = exporter;
    auth->loop = loop;
    auth->read_ns = flue_monotonic_ns();
    if (basic && set(basic->password_file))
        auth->path = basic->password_file;
    else if (set(config->bearer_token_file))
        auth->path = config->bearer_token_file;
    else if (basic)
        secret = basic->password ? basic->password : "";
    else if (set(config->bearer_token))
        secret = config->bearer_token;
    if (auth->path)
        return read_value(auth, &auth->value, error);
    if (secret && !(auth->value = make_value(config, flue_bytes_of(secret))))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a header");
    return FLUE_OK;
}

void flue_push_auth_destroy(struct flue_push_auth *auth)
{
    flue_block_unref(auth->value);
    flue_block_unref(auth->fresh);
    auth->value = auth->fresh = NULL;
}

static struct flue_push_auth *of_job(struct flue_job *job)
{
    return (struct flue_push_auth *)(void *)((char *)job - offsetof(struct flue_push_auth, job));
}

static void look(struct flue_job *job)
{
    struct flue_push_auth *auth = of_job(job);

    auth->error.code = FLUE_OK;
    read_value(auth, &auth->fresh, &auth->error);
}

static void looked(struct flue_job *job)
{
    struct flue_push_auth *auth = of_job(job);

    auth->reading = false;
    if (auth->error.code)
        flue_log(FLUE_WARN, auth->exporter,
                 "credentials could not be read again; the old ones stay",
                 FLUE_S("reason", auth->error.text), FLUE_LOG_END);
    if (!auth->fresh)
        return;
    flue_block_unref(auth->value);
    auth->value = auth->fresh;
    auth->fresh = NULL;
}

static void read_again(struct flue_push_auth *auth)
{
    auth->reading = true;
    auth->read_ns = flue_monotonic_ns();
    auth->job = (struct flue_job){.loop = auth->loop, .work = look, .done = looked};
    flue_pool_submit(auth->loop, &auth->job);
}

struct flue_block *flue_push_auth_take(struct flue_push_auth *auth)
{
    if (auth->path && !auth->reading && flue_monotonic_ns() - auth->read_ns > LOOK_EVERY_NS)
        read_again(auth);
    return auth->value ? flue_block_ref(auth->value) : NULL;
}

bool flue_push_auth_refused(struct flue_push_auth *auth)
{
    if (!auth->path)
        return false;
    if (!auth->reading)
        read_again(auth);
    return true;
}
