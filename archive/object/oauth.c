/* oauth.c: see oauth.h. */
#include "archive/object/oauth.h"

#include <jansson.h>
#include <openssl/crypto.h>

bool object_oauth_url(struct object_oauth *oauth, const char *url)
{
    struct flue_bytes all = flue_bytes_of(url);
    bool tls = flue_bytes_starts_with(all, FLUE_BYTES("https://"));
    if (!tls && !flue_bytes_starts_with(all, FLUE_BYTES("http://")))
        return false;
    size_t from = tls ? 8 : 7, end = from;
    while (end < all.size && all.data[end] != '/' && all.data[end] != '?')
        end++;
    oauth->endpoint = flue_arena_string(&oauth->arena, flue_bytes_first(all, end));
    oauth->path = end < all.size ? flue_bytes_from(all, end) : FLUE_BYTES("/");
    return oauth->endpoint != NULL && end > from;
}

void object_oauth_form(struct object_oauth *oauth, const struct flue_url_pair *pairs, size_t count)
{
    struct flue_buffer form;
    flue_buffer_init(&form, 256 * 1024);
    flue_url_query(&form, pairs, count);
    oauth->body = flue_arena_copy(&oauth->arena, flue_buffer_bytes(&form));
    oauth->method = "POST";
    if (form.failed || !oauth->body.data)
        flue_fail(&oauth->error, FLUE_NO_MEMORY, "no memory for a token request");
    if (form.size)
        OPENSSL_cleanse(form.data, form.size);
    flue_buffer_destroy(&form);
    object_ask_field(&oauth->ask, "content-type", FLUE_BYTES("application/x-www-form-urlencoded"));
}

/* A number, or a string that holds one (Azure). */
static bool number(json_t *value, uint64_t *out)
{
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *out = (uint64_t)json_integer_value(value);
        return true;
    }
    return json_is_string(value) && flue_parse_u64(flue_bytes_of(json_string_value(value)), out);
}

enum flue_code object_oauth_read(struct flue_bytes json, uint64_t now, struct flue_arena *arena,
                                 struct object_secret *out, struct flue_error *error)
{
    json_t *root = json_loadb((const char *)json.data, json.size, 0, NULL);
    json_t *plain = json_object_get(root, "access_token");
    const char *token = json_string_value(plain ? plain : json_object_get(root, "accessToken"));
    const char *until = json_string_value(json_object_get(root, "expireTime"));
    const char *why = json_string_value(json_object_get(root, "error_description"));
    char text[200];
    uint64_t seconds = 0;
    *out = (struct object_secret){0};
    if (!why)
        why = json_string_value(json_object_get(root, "error"));
    if (token && *token && strpbrk(token, "\r\n") == NULL)
        out->token = flue_arena_string(arena, flue_bytes_of(token));
    if (number(json_object_get(root, "expires_in"), &seconds))
        out->ends = now + seconds;
    else if (number(json_object_get(root, "expires_on"), &seconds))
        out->ends = seconds;
    else if (!until || !object_iso_date(flue_bytes_of(until), &out->ends))
        out->ends = now + 300; /* not said: believed for five minutes */
    if (!out->token)
        flue_fail(error, FLUE_UNAVAILABLE, "the answer holds no token%s%s", why ? ": " : "",
                  why ? flue_printable(flue_bytes_of(why), text, sizeof text) : "");
    json_decref(root);
    return out->token ? FLUE_OK : FLUE_UNAVAILABLE;
}

static void clear(struct object_oauth *oauth)
{
    if (oauth->body.size)
        OPENSSL_cleanse((void *)(uintptr_t)oauth->body.data, oauth->body.size);
    oauth->body = (struct flue_bytes){0};
    flue_arena_reset(&oauth->arena);
}

static void end(struct object_oauth *oauth, const struct object_secret *secret)
{
    if (oauth->error.code && oauth->via)
        flue_fail_prefix(&oauth->error, "credentials (%s)", oauth->via);
    object_identity_renewed(oauth->identity, oauth->error.code ? NULL : secret, &oauth->error);
    clear(oauth);
}

static bool updating(const struct object_ask *ask)
{
    return ask->status == 404 || ask->status == 410; /* Azure's metadata service while it updates */
}

static void on_answer(struct object_ask *ask);
static void begin(struct object_oauth *oauth);

static void send_ask(struct object_oauth *oauth)
{
    struct object_ask *ask = &oauth->ask;
    ask->loop = oauth->identity->loop;
    ask->endpoint = oauth->endpoint;
    ask->method = oauth->method ? oauth->method : "GET";
    ask->path = oauth->path;
    ask->body = oauth->body;
    ask->timeout_ms = 5000;
    ask->tries = 3;
    ask->wait_ms = 500;
    ask->done = on_answer;
    ask->user = oauth;
    object_ask(ask);
}

/* iamcredentials' generateAccessToken, with the token of the exchange. */
static void impersonate(struct object_oauth *oauth, const struct object_secret *secret)
{
    const char *url = oauth->impersonate;
    char *bearer = flue_arena_printf(&oauth->arena, "Bearer %s", secret->token);
    oauth->impersonate = NULL;
    oauth->ask = (struct object_ask){0};
    oauth->method = "POST";
    oauth->body = flue_arena_copy(
        &oauth->arena,
        FLUE_BYTES("{\"scope\":[\"https://www.googleapis.com/auth/devstorage.read_write\"]}"));
    if (!bearer || !oauth->body.data || !object_oauth_url(oauth, url)) {
        flue_fail(&oauth->error, FLUE_UNAVAILABLE, "service_account_impersonation_url is no URL");
        end(oauth, NULL);
        return;
    }
    object_ask_field(&oauth->ask, "authorization", flue_bytes_of(bearer));
    object_ask_field(&oauth->ask, "content-type", FLUE_BYTES("application/json"));
    send_ask(oauth);
}

static void on_answer(struct object_ask *ask)
{
    struct object_oauth *oauth = ask->user;
    struct object_secret secret = {0};
    struct flue_error inner = {0};
    if (!ask->error.code && (ask->status == 400 || ask->status == 401) && !oauth->clock_tried &&
        object_identity_take_date(oauth->identity, flue_call_header(&ask->call, "date"),
                                  oauth->via)) {
        oauth->clock_tried = true; /* an assertion was signed for a time that is none there */
        begin(oauth);
        return;
    }
    if (ask->error.code) {
        oauth->error = ask->error;
        oauth->error.code = FLUE_UNAVAILABLE;
    } else if (oauth->metadata &&
               !flue_bytes_is(flue_call_header(&ask->call, "metadata-flavor"), "Google")) {
        flue_fail(&oauth->error, FLUE_UNAVAILABLE,
                  "something else answers where the metadata server should");
    } else {
        object_oauth_read(ask->response, object_identity_now(oauth->identity), &oauth->arena,
                          &secret, &inner);
        if (ask->status != 200 || inner.code)
            flue_fail(&oauth->error, FLUE_UNAVAILABLE, "HTTP %u: %s", ask->status,
                      inner.code ? inner.text : "with a token");
    }
    if (!oauth->error.code && oauth->impersonate)
        impersonate(oauth, &secret);
    else
        end(oauth, &secret);
}

static void on_planned(void *user)
{
    struct object_oauth *oauth = user;
    if (oauth->error.code)
        end(oauth, NULL);
    else
        send_ask(oauth);
}

static void plan(void *user)
{
    struct object_oauth *oauth = user;
    oauth->plan(oauth);
}

static void begin(struct object_oauth *oauth)
{
    clear(oauth);
    oauth->error = (struct flue_error){0};
    oauth->via = oauth->endpoint = oauth->method = oauth->impersonate = NULL;
    oauth->path = (struct flue_bytes){0};
    oauth->metadata = false;
    oauth->now = object_identity_now(oauth->identity);
    oauth->ask = (struct object_ask){.again = updating};
    oauth->offload = (struct object_offload){
        .loop = oauth->identity->loop, .work = plan, .done = on_planned, .user = oauth};
    object_offload(&oauth->offload);
}

static void renew(struct object_identity *identity)
{
    struct object_oauth *oauth = identity->user;
    oauth->clock_tried = false;
    begin(oauth);
}

static void stop(struct object_identity *identity)
{
    struct object_oauth *oauth = identity->user;
    object_offload_stop(&oauth->offload);
    object_ask_stop(&oauth->ask);
}

void object_oauth_init(struct object_oauth *oauth, struct object_identity *identity,
                       void (*plan_of)(struct object_oauth *oauth), const void *config)
{
    *oauth = (struct object_oauth){.identity = identity, .plan = plan_of, .config = config};
    flue_arena_init(&oauth->arena, 1024 * 1024, 4096);
    identity->renew = renew;
    identity->stop = stop;
    identity->user = oauth;
}

void object_oauth_destroy(struct object_oauth *oauth)
{
    flue_arena_destroy(&oauth->arena);
}
