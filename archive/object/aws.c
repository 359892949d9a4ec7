/* aws.c: the credentials chain of AWS. See aws.h.
 *
 * A renewal: what is configured is looked up on the pool (a plan), then the plan's source is asked,
 * then each role of the plan is assumed at STS with what came before. */
#include "archive/object/aws.h"
#include "archive/object/ask.h"
#include "archive/object/offload.h"
#include "archive/object/sign.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FILE_LIMIT  (256u * 1024)
#define TOKEN_LIMIT (32u * 1024)
#define MOST_ROLES  5
#define BUDGET      (2u * 1024 * 1024)

enum source { SOURCE_NONE, SOURCE_STATIC, SOURCE_WEB, SOURCE_CONTAINER, SOURCE_INSTANCE };

struct role {
    const char *arn, *session, *external_id, *duration;
};

struct object_aws {
    struct object_identity *identity;
    const char *region, *role_arn;
    struct flue_arena arena; /* of one renewal; wiped behind it */
    struct object_offload offload;
    struct object_ask ask;
    struct flue_error error;
    /* the plan */
    enum source source;
    const char *via; /* for messages */
    struct object_secret secret;
    struct role web;
    struct flue_bytes web_token;
    const char *container_url, *container_token;
    struct role roles[MOST_ROLES]; /* in the order in which they are assumed */
    unsigned role_count, next_role;
    const char *sts, *instance;
    struct flue_bytes instance_token;
    bool clock_tried;
};

/* ---- the plan, on the pool ------------------------------------------------------------------ */

struct files {
    struct flue_bytes config, credentials;
};

static const char *home_file(struct object_aws *aws, const char *variable, const char *name)
{
    const char *path = object_environment(variable), *home = object_environment("HOME");
    if (path && strncmp(path, "~/", 2) == 0 && home)
        return flue_arena_printf(&aws->arena, "%s/%s", home, path + 2);
    return path ? path : home ? flue_arena_printf(&aws->arena, "%s/.aws/%s", home, name) : NULL;
}

static void read_files(struct object_aws *aws, struct files *files)
{
    const char *config = home_file(aws, "AWS_CONFIG_FILE", "config");
    const char *credentials = home_file(aws, "AWS_SHARED_CREDENTIALS_FILE", "credentials");
    *files = (struct files){0};
    if (config && access(config, F_OK) == 0)
        object_read_file(config, FILE_LIMIT, &aws->arena, &files->config, &aws->error);
    if (credentials && access(credentials, F_OK) == 0)
        object_read_file(credentials, FILE_LIMIT, &aws->arena, &files->credentials, &aws->error);
}

struct profile {
    struct object_ini config, credentials;
    bool found;
};

static void read_profile(const struct files *files, const char *name, struct profile *out)
{
    char section[160];
    bool fallback = strcmp(name, "default") == 0;
    snprintf(section, sizeof section, "%s%s", fallback ? "" : "profile ", name);
    out->found = object_ini_read(files->config, section, &out->config);
    if (!out->found && fallback)
        out->found = object_ini_read(files->config, "profile default", &out->config);
    out->found |= object_ini_read(files->credentials, name, &out->credentials);
}

static const char *key(struct object_aws *aws, const struct profile *profile, const char *name)
{
    struct flue_bytes value = object_ini_find(&profile->credentials, name);
    if (value.size == 0)
        value = object_ini_find(&profile->config, name);
    return value.size ? flue_arena_string(&aws->arena, value) : NULL;
}

static bool take_static(struct object_aws *aws, const struct object_ini *ini, const char *via)
{
    struct flue_bytes id = object_ini_find(ini, "aws_access_key_id");
    struct flue_bytes secret = object_ini_find(ini, "aws_secret_access_key");
    struct flue_bytes token = object_ini_find(ini, "aws_session_token");
    if (id.size == 0 || secret.size == 0)
        return false;
    aws->source = SOURCE_STATIC;
    aws->via = via;
    aws->secret =
        (struct object_secret){.id = flue_arena_string(&aws->arena, id),
                               .secret = flue_arena_string(&aws->arena, secret),
                               .token = token.size ? flue_arena_string(&aws->arena, token) : NULL};
    return true;
}

static bool from_environment(struct object_aws *aws)
{
    const char *id = object_environment("AWS_ACCESS_KEY_ID");
    const char *secret = object_environment("AWS_SECRET_ACCESS_KEY");
    const char *token = object_environment("AWS_SESSION_TOKEN");
    const char *ends = object_environment("AWS_CREDENTIAL_EXPIRATION");
    if (!id)
        return false;
    aws->via = "environment";
    aws->source = SOURCE_STATIC;
    if (!secret)
        flue_fail(&aws->error, FLUE_UNAVAILABLE,
                  "AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not");
    aws->secret =
        (struct object_secret){.id = id,
                               .secret = secret,
                               .token = token ? token : object_environment("AWS_SECURITY_TOKEN")};
    if (ends && !object_iso_date(flue_bytes_of(ends), &aws->secret.ends))
        flue_fail(&aws->error, FLUE_UNAVAILABLE, "AWS_CREDENTIAL_EXPIRATION is not a time");
    return true;
}

static bool from_web(struct object_aws *aws, const char *file, const char *arn, const char *session)
{
    if (!file || !arn)
        return false;
    aws->via = "web identity";
    aws->source = SOURCE_WEB;
    aws->web = (struct role){.arn = arn, .session = session};
    if (object_read_file(file, TOKEN_LIMIT, &aws->arena, &aws->web_token, &aws->error))
        aws->web_token = flue_bytes_trim(aws->web_token);
    while (aws->web_token.size && aws->web_token.data[aws->web_token.size - 1] == '\n')
        aws->web_token.size--;
    return true;
}

static bool from_container(struct object_aws *aws)
{
    const char *relative = object_environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = object_environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    const char *file = object_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *token = object_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    if (!relative && !full)
        return false;
    aws->via = "container";
    aws->source = SOURCE_CONTAINER;
    aws->container_url =
        relative ? flue_arena_printf(&aws->arena, "http://169.254.170.2%s", relative) : full;
    if (file) {
        struct flue_bytes text;
        if (object_read_file(file, TOKEN_LIMIT, &aws->arena, &text, &aws->error))
            token = (const char *)text.data;
    }
    if (token && strpbrk(token, "\r\n"))
        flue_fail(&aws->error, FLUE_UNAVAILABLE,
                  "the container's authorization token has a line break in it");
    aws->container_token = token;
    return true;
}

static bool from_instance(struct object_aws *aws)
{
    const char *off = object_environment("AWS_EC2_METADATA_DISABLED");
    if (off && strcasecmp(off, "true") == 0)
        return false;
    aws->via = "instance metadata";
    aws->source = SOURCE_INSTANCE;
    return true;
}

static bool from_source_name(struct object_aws *aws, const char *name)
{
    if (strcmp(name, "Environment") == 0)
        return from_environment(aws);
    if (strcmp(name, "EcsContainer") == 0)
        return from_container(aws);
    return strcmp(name, "Ec2InstanceMetadata") == 0 && from_instance(aws);
}

/* True: the profile says where credentials come from (or aws->error why not). */
static bool from_profile(struct object_aws *aws, const struct files *files, const char *name,
                         bool named)
{
    char printable[80];
    const char *seen[MOST_ROLES];
    unsigned depth = 0;
    for (;;) {
        struct profile *profile = flue_arena_alloc(&aws->arena, sizeof *profile);
        if (!profile) {
            flue_fail(&aws->error, FLUE_NO_MEMORY, "no memory for a profile");
            return true;
        }
        flue_printable(flue_bytes_of(name), printable, sizeof printable);
        read_profile(files, name, profile);
        if (!profile->found) {
            if (!named && depth == 0)
                return false;
            flue_fail(&aws->error, FLUE_UNAVAILABLE,
                      "the profile \"%s\" stands neither in the config nor in the credentials file",
                      printable);
            return true;
        }
        const char *arn = key(aws, profile, "role_arn");
        const char *source = key(aws, profile, "source_profile");
        const char *credential_source = key(aws, profile, "credential_source");
        const char *web = key(aws, profile, "web_identity_token_file");
        if (from_web(aws, web, arn, key(aws, profile, "role_session_name")))
            return true;
        bool again = false;
        for (unsigned i = 0; i < depth; i++)
            again |= strcmp(seen[i], name) == 0;
        if (arn && (source || credential_source) && !again) {
            if (depth == MOST_ROLES - 1) {
                flue_fail(&aws->error, FLUE_UNAVAILABLE, "profiles over %u deep at \"%s\"", depth,
                          printable);
                return true;
            }
            if (key(aws, profile, "mfa_serial")) {
                flue_fail(&aws->error, FLUE_UNAVAILABLE,
                          "the profile \"%s\" wants mfa_serial, which nobody can enter", printable);
                return true;
            }
            seen[depth++] = name;
            /* The outermost is assumed last. */
            memmove(aws->roles + 1, aws->roles, aws->role_count * sizeof aws->roles[0]);
            aws->role_count++;
            aws->roles[0] = (struct role){.arn = arn,
                                          .session = key(aws, profile, "role_session_name"),
                                          .external_id = key(aws, profile, "external_id"),
                                          .duration = key(aws, profile, "duration_seconds")};
            if (source) {
                name = source;
                continue;
            }
            if (!from_source_name(aws, credential_source) && !aws->error.code)
                flue_fail(&aws->error, FLUE_UNAVAILABLE,
                          "credential_source of the profile \"%s\" gives nothing", printable);
            return true;
        }
        if (take_static(aws, &profile->credentials, "credentials file"))
            return true;
        const char *process = key(aws, profile, "credential_process");
        if (!process && !key(aws, profile, "sso_session") && !key(aws, profile, "sso_start_url") &&
            take_static(aws, &profile->config, "config file"))
            return true;
        if (depth || process || key(aws, profile, "sso_session") ||
            key(aws, profile, "sso_start_url")) {
            flue_fail(&aws->error, FLUE_UNAVAILABLE,
                      process ? "the profile \"%s\" uses credential_process, which is not run here"
                              : "the profile \"%s\" has no keys (SSO is not done here)",
                      printable);
            return true;
        }
        return false;
    }
}

static void plan(void *user)
{
    struct object_aws *aws = user;
    const char *profile = object_environment("AWS_PROFILE");
    struct files files;
    if (!profile)
        profile = object_environment("AWS_DEFAULT_PROFILE");
    aws->sts = object_environment("AWS_ENDPOINT_URL_STS");
    aws->instance = object_environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    const char *mode = object_environment("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
    if (!aws->instance)
        aws->instance = mode && strcasecmp(mode, "ipv6") == 0 ? "http://[fd00:ec2::254]"
                                                              : "http://169.254.169.254";
    if (!profile && from_environment(aws))
        return;
    read_files(aws, &files);
    if (aws->error.code)
        return;
    /* Web identity stands before keys in files, behind a profile that assumes a role. */
    if (!profile) {
        struct profile *fallback = flue_arena_alloc(&aws->arena, sizeof *fallback);
        if (fallback)
            read_profile(&files, "default", fallback);
        if ((!fallback || !fallback->found || !key(aws, fallback, "role_arn")) &&
            from_web(aws, object_environment("AWS_WEB_IDENTITY_TOKEN_FILE"),
                     object_environment("AWS_ROLE_ARN"),
                     object_environment("AWS_ROLE_SESSION_NAME")))
            return;
    }
    if (from_profile(aws, &files, profile ? profile : "default", profile != NULL))
        return;
    if (from_container(aws) || from_instance(aws))
        return;
    flue_fail(
        &aws->error, FLUE_UNAVAILABLE,
        "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a web "
        "identity, or run where a container or an instance has a role");
}

/* ---- carrying it out ------------------------------------------------------------------------ */

static void wipe(struct object_aws *aws)
{
    /* Text that holds secrets and was made here; what the environment has stays there. */
    if (aws->web_token.size)
        OPENSSL_cleanse((void *)(uintptr_t)aws->web_token.data, aws->web_token.size);
    if (aws->instance_token.size)
        OPENSSL_cleanse((void *)(uintptr_t)aws->instance_token.data, aws->instance_token.size);
    aws->web_token = aws->instance_token = (struct flue_bytes){0};
    flue_arena_reset(&aws->arena);
}

static void end(struct object_aws *aws)
{
    struct object_identity *identity = aws->identity;
    if (aws->error.code) {
        if (aws->via)
            flue_fail_prefix(&aws->error, "AWS credentials (%s)", aws->via);
        object_identity_renewed(identity, NULL, &aws->error);
    } else {
        object_identity_renewed(identity, &aws->secret, NULL);
    }
    wipe(aws);
}

static void fail(struct object_aws *aws, enum flue_code code, const char *text)
{
    flue_fail(&aws->error, code, "%s", text);
    end(aws);
}

static void ask(struct object_aws *aws, const char *endpoint, const char *method,
                struct flue_bytes path, void (*done)(struct object_ask *ask))
{
    struct object_ask *a = &aws->ask;
    a->loop = aws->identity->loop;
    a->endpoint = endpoint;
    a->method = method;
    a->path = path;
    a->done = done;
    a->user = aws;
    a->timeout_ms = a->timeout_ms ? a->timeout_ms : 5000;
    a->tries = a->tries ? a->tries : 3;
    a->wait_ms = a->wait_ms ? a->wait_ms : 500;
    object_ask(a);
}

static void fresh(struct object_aws *aws)
{
    aws->ask = (struct object_ask){0};
}

static void next_role(struct object_aws *aws);
static void assume_role(struct object_aws *aws);

static bool idp_trouble(const struct object_ask *a)
{
    return a->status == 400 && a->response.size &&
           memmem(a->response.data, a->response.size, "IDPCommunicationError", 21);
}

static void on_sts(struct object_ask *a)
{
    struct object_aws *aws = a->user;
    if (!a->error.code && a->status >= 400 && a->status < 500 && aws->next_role &&
        !aws->clock_tried &&
        object_identity_take_date(aws->identity, flue_call_header(&a->call, "date"), "AWS STS")) {
        aws->clock_tried = true; /* it was signed for a time that is none there */
        assume_role(aws);
        return;
    }
    if (a->error.code)
        aws->error = a->error;
    else
        object_aws_sts(a->response, a->status, &aws->arena, &aws->secret, &aws->error);
    if (aws->error.code) {
        aws->error.code = FLUE_UNAVAILABLE;
        end(aws);
        return;
    }
    next_role(aws);
}

/* POST of a form; signed with aws->secret unless it is the exchange of a web identity. */
static void ask_sts(struct object_aws *aws, const char *action, const struct role *role)
{
    struct flue_buffer form;
    const char *session = role->session ? role->session : "flue";
    bool web = aws->web_token.size > 0;
    char *endpoint =
        aws->sts ? flue_arena_string(&aws->arena, flue_bytes_of(aws->sts))
                 : flue_arena_printf(&aws->arena, "https://sts.%s.amazonaws.com%s", aws->region,
                                     strncmp(aws->region, "cn-", 3) == 0 ? ".cn" : "");
    fresh(aws);
    flue_buffer_init(&form, 128 * 1024);
    const struct flue_url_pair pairs[] = {
        {FLUE_BYTES("Action"), flue_bytes_of(action)},
        {FLUE_BYTES("DurationSeconds"), flue_bytes_of(role->duration ? role->duration : "3600")},
        {FLUE_BYTES("RoleArn"), flue_bytes_of(role->arn)},
        {FLUE_BYTES("RoleSessionName"), flue_bytes_of(session)},
        {FLUE_BYTES("Version"), FLUE_BYTES("2011-06-15")},
        {web ? FLUE_BYTES("WebIdentityToken") : FLUE_BYTES("ExternalId"),
         web ? aws->web_token : flue_bytes_of(role->external_id)}};
    flue_url_query(&form, pairs, web || role->external_id ? 6 : 5);
    aws->ask.body = flue_arena_copy(&aws->arena, flue_buffer_bytes(&form));
    if (form.size)
        OPENSSL_cleanse(form.data, form.size);
    bool good = !form.failed && aws->ask.body.data && endpoint;
    flue_buffer_destroy(&form);
    if (!good) {
        fail(aws, FLUE_NO_MEMORY, "no memory for a request to STS");
        return;
    }
    object_ask_field(&aws->ask, "content-type",
                     FLUE_BYTES("application/x-www-form-urlencoded; charset=utf-8"));
    if (!web) {
        char *date = flue_arena_alloc(&aws->arena, FLUE_SIGN_DATE_SIZE);
        uint8_t hash[32];
        char hex[64];
        struct flue_digest digest;
        struct flue_slices body = {.items = &aws->ask.body, .count = 1};
        struct flue_bytes authorization = {0}, host = flue_bytes_of(endpoint);
        const uint8_t *slashes = memmem(host.data, host.size, "//", 2);
        if (slashes)
            host = flue_bytes_from(host, (size_t)(slashes - host.data) + 2);
        size_t slash = flue_bytes_find(host, '/');
        host = slash == SIZE_MAX ? host : flue_bytes_first(host, slash);
        uint64_t now = object_identity_now(aws->identity);
        if (!date || flue_digest_make(&body, FLUE_DIGEST_SHA256, &digest, &aws->error)) {
            fail(aws, FLUE_NO_MEMORY, "no memory for a request to STS");
            return;
        }
        memcpy(hash, digest.sha256, 32);
        flue_hex(flue_bytes(hash, 32), hex);
        flue_sign_date(now, date);
        object_ask_field(&aws->ask, "host", host);
        object_ask_field(&aws->ask, "x-amz-date", flue_bytes(date, 16));
        if (aws->secret.token)
            object_ask_field(&aws->ask, "x-amz-security-token", flue_bytes_of(aws->secret.token));
        const struct flue_sign_v4 sign = {.key_id = aws->secret.id,
                                          .secret = aws->secret.secret,
                                          .region = aws->region,
                                          .service = "sts",
                                          .time = now,
                                          .method = FLUE_BYTES("POST"),
                                          .path = FLUE_BYTES("/"),
                                          .headers = aws->ask.fields,
                                          .header_count = aws->ask.field_count,
                                          .payload = flue_bytes(hex, 64)};
        if (flue_sign_v4(&sign, &aws->arena, &authorization, NULL, &aws->error)) {
            end(aws);
            return;
        }
        object_ask_field(&aws->ask, "authorization", authorization);
    }
    aws->ask.again = idp_trouble;
    ask(aws, endpoint, "POST", FLUE_BYTES("/"), on_sts);
}

static void next_role(struct object_aws *aws)
{
    if (aws->web_token.size) {
        OPENSSL_cleanse((void *)(uintptr_t)aws->web_token.data, aws->web_token.size);
        aws->web_token = (struct flue_bytes){0};
    }
    if (aws->next_role == aws->role_count) {
        end(aws);
        return;
    }
    aws->next_role++;
    assume_role(aws);
}

static void assume_role(struct object_aws *aws)
{
    ask_sts(aws, "AssumeRole", &aws->roles[aws->next_role - 1]);
}

/* A JSON answer with keys, of a container or an instance. */
static void on_json(struct object_ask *a)
{
    struct object_aws *aws = a->user;
    if (a->error.code)
        aws->error = a->error;
    else if (a->status != 200)
        flue_fail(&aws->error, FLUE_UNAVAILABLE, "HTTP %u", a->status);
    else
        object_aws_json(a->response, &aws->arena, &aws->secret, &aws->error);
    if (aws->error.code)
        end(aws);
    else
        next_role(aws);
}

static void ask_container(struct object_aws *aws)
{
    struct flue_bytes url = flue_bytes_of(aws->container_url);
    bool plain = flue_bytes_starts_with(url, FLUE_BYTES("http://"));
    size_t from = plain ? 7 : 8;
    if (!plain && !flue_bytes_starts_with(url, FLUE_BYTES("https://"))) {
        fail(aws, FLUE_UNAVAILABLE, "AWS_CONTAINER_CREDENTIALS_FULL_URI is not an HTTP URL");
        return;
    }
    struct flue_bytes authority = flue_bytes_from(url, from), path = FLUE_BYTES("/");
    for (size_t i = 0; i < authority.size; i++)
        if (authority.data[i] == '/' || authority.data[i] == '?') {
            path = flue_bytes_from(authority, i);
            authority = flue_bytes_first(authority, i);
        }
    struct flue_bytes host = authority;
    const uint8_t *colon = host.size ? memrchr(host.data, ':', host.size) : NULL;
    if (colon && (host.data[0] != '[' || colon[-1] == ']'))
        host = flue_bytes_first(host, (size_t)(colon - host.data));
    if (plain && !object_aws_plain_allowed(host)) {
        fail(aws, FLUE_UNAVAILABLE,
             "AWS_CONTAINER_CREDENTIALS_FULL_URI without TLS may only be a local address");
        return;
    }
    fresh(aws);
    if (aws->container_token)
        object_ask_field(&aws->ask, "authorization", flue_bytes_of(aws->container_token));
    object_ask_field(&aws->ask, "accept", FLUE_BYTES("application/json"));
    aws->ask.timeout_ms = 2000;
    aws->ask.wait_ms = 1000;
    char *endpoint = flue_arena_printf(&aws->arena, "%s%.*s", plain ? "http://" : "https://",
                                       FLUE_PRI(authority));
    if (!endpoint) {
        fail(aws, FLUE_NO_MEMORY, "no memory for a request");
        return;
    }
    ask(aws, endpoint, "GET", path, on_json);
}

#define INSTANCE_PATH "/latest/meta-data/iam/security-credentials/"

static void ask_instance(struct object_aws *aws, const char *role,
                         void (*done)(struct object_ask *ask))
{
    struct flue_buffer path;
    fresh(aws);
    flue_buffer_init(&path, 4096);
    flue_buffer_text(&path, INSTANCE_PATH);
    flue_url_escape(&path, flue_bytes_of(role), false);
    struct flue_bytes copy = flue_arena_copy(&aws->arena, flue_buffer_bytes(&path));
    bool good = !path.failed && copy.data;
    flue_buffer_destroy(&path);
    if (!good) {
        fail(aws, FLUE_NO_MEMORY, "no memory for a request");
        return;
    }
    object_ask_field(&aws->ask, "x-aws-ec2-metadata-token", aws->instance_token);
    aws->ask.timeout_ms = 1000;
    ask(aws, aws->instance, "GET", copy, done);
}

static void on_role_name(struct object_ask *a)
{
    struct object_aws *aws = a->user;
    struct flue_bytes role = a->response;
    size_t line = flue_bytes_find(role, '\n');
    role = flue_bytes_trim(flue_bytes_first(role, line == SIZE_MAX ? role.size : line));
    if (a->error.code) {
        aws->error = a->error;
        end(aws);
    } else if (a->status != 200 || role.size == 0 || role.size > 512) {
        flue_fail(&aws->error, FLUE_UNAVAILABLE, "the instance has no role (HTTP %u)", a->status);
        end(aws);
    } else {
        const char *copy = flue_arena_string(&aws->arena, role);
        if (copy)
            ask_instance(aws, copy, on_json);
        else
            fail(aws, FLUE_NO_MEMORY, "no memory for a request");
    }
}

static void on_instance_token(struct object_ask *a)
{
    struct object_aws *aws = a->user;
    if (a->error.code) {
        aws->error = a->error;
        flue_fail_prefix(&aws->error,
                         "no token (in a container the hop limit of the instance must be 2)");
    } else if (a->status != 200 || a->response.size == 0 || a->response.size > 4096) {
        flue_fail(&aws->error, FLUE_UNAVAILABLE,
                  "the token request was answered HTTP %u (version 2 of the service is needed)",
                  a->status);
    } else {
        aws->instance_token = flue_arena_copy(&aws->arena, a->response);
        if (!aws->instance_token.data)
            flue_fail(&aws->error, FLUE_NO_MEMORY, "no memory for a token");
    }
    if (aws->error.code)
        end(aws);
    else
        ask_instance(aws, "", on_role_name);
}

static void on_planned(void *user)
{
    struct object_aws *aws = user;
    if (!aws->error.code && aws->role_arn && *aws->role_arn)
        aws->roles[aws->role_count++] = (struct role){.arn = aws->role_arn};
    if (!aws->error.code && aws->source == SOURCE_STATIC &&
        (!aws->secret.id || !aws->secret.secret))
        flue_fail(&aws->error, FLUE_NO_MEMORY, "no memory for credentials");
    if (aws->error.code) {
        end(aws);
        return;
    }
    switch (aws->source) {
    case SOURCE_STATIC:
        next_role(aws);
        break;
    case SOURCE_WEB:
        if (aws->web_token.size == 0)
            fail(aws, FLUE_UNAVAILABLE, "the token file is empty");
        else
            ask_sts(aws, "AssumeRoleWithWebIdentity", &aws->web);
        break;
    case SOURCE_CONTAINER:
        ask_container(aws);
        break;
    default:
        fresh(aws);
        aws->ask.timeout_ms = 1000;
        aws->ask.tries = 2;
        object_ask_field(&aws->ask, "x-aws-ec2-metadata-token-ttl-seconds", FLUE_BYTES("21600"));
        ask(aws, aws->instance, "PUT", FLUE_BYTES("/latest/api/token"), on_instance_token);
    }
}

static void renew(struct object_identity *identity)
{
    struct object_aws *aws = identity->user;
    flue_arena_reset(&aws->arena);
    aws->error = (struct flue_error){0};
    aws->source = SOURCE_NONE;
    aws->via = NULL;
    aws->secret = (struct object_secret){0};
    aws->web_token = aws->instance_token = (struct flue_bytes){0};
    aws->container_url = aws->container_token = NULL;
    aws->role_count = aws->next_role = 0;
    aws->clock_tried = false;
    aws->offload = (struct object_offload){
        .loop = identity->loop, .work = plan, .done = on_planned, .user = aws};
    object_offload(&aws->offload);
}

static void stop(struct object_identity *identity)
{
    struct object_aws *aws = identity->user;
    object_offload_stop(&aws->offload);
    object_ask_stop(&aws->ask);
}

enum flue_code object_aws_new(struct object_identity *identity, const char *region,
                              const char *role_arn, struct object_aws **out,
                              struct flue_error *error)
{
    struct object_aws *aws = calloc(1, sizeof *aws);
    if (!aws)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for credentials");
    aws->identity = identity;
    aws->region = region;
    aws->role_arn = role_arn;
    flue_arena_init(&aws->arena, BUDGET, 4096);
    identity->renew = renew;
    identity->stop = stop;
    identity->user = aws;
    *out = aws;
    return FLUE_OK;
}

void object_aws_destroy(struct object_aws *aws)
{
    if (!aws)
        return;
    wipe(aws);
    flue_arena_destroy(&aws->arena);
    free(aws);
}
