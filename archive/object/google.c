/* google.c: where Google's tokens come from. See gcs.h and oauth.h. Runs on the pool.
 *
 * Sources: RFC 7523; google-auth compute_engine/_metadata.py (GCE_METADATA_HOST, the flavor
 * header); AIP-4117 for external_account. */
#include "archive/object/aws.h"
#include "archive/object/gcs.h"
#include "archive/object/oauth.h"
#include "archive/object/sign.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#define FILE_LIMIT (256u * 1024)
#define SCOPE      "https://www.googleapis.com/auth/devstorage.read_write"
#define TOKEN_URL  "https://oauth2.googleapis.com/token"

static const char *text(json_t *root, const char *name, struct flue_arena *arena)
{
    const char *value = json_string_value(json_object_get(root, name));
    return value && *value ? flue_arena_string(arena, flue_bytes_of(value)) : NULL;
}

static void service_account(struct object_oauth *oauth, json_t *root)
{
    const char *email = text(root, "client_email", &oauth->arena);
    const char *key = text(root, "private_key", &oauth->arena);
    const char *key_id = text(root, "private_key_id", &oauth->arena);
    const char *uri = text(root, "token_uri", &oauth->arena);
    struct flue_bytes jwt;
    oauth->via = "service account";
    if (!uri)
        uri = TOKEN_URL;
    if (!email || !key || !object_oauth_url(oauth, uri)) {
        flue_fail(&oauth->error, FLUE_UNAVAILABLE,
                  "the file has no client_email, private_key or token_uri");
        return;
    }
    json_t *claims =
        json_pack("{s:s, s:s, s:s, s:I, s:I}", "iss", email, "scope", SCOPE, "aud", uri, "iat",
                  (json_int_t)oauth->now, "exp", (json_int_t)(oauth->now + 3600));
    json_t *header = json_pack("{s:s, s:s}", "alg", "RS256", "typ", "JWT");
    if (header && key_id)
        json_object_set_new(header, "kid", json_string(key_id));
    char *claims_text = claims ? json_dumps(claims, JSON_COMPACT) : NULL;
    char *header_text = header ? json_dumps(header, JSON_COMPACT) : NULL;
    if (!claims_text || !header_text)
        flue_fail(&oauth->error, FLUE_NO_MEMORY, "no memory for a token request");
    else if (!flue_sign_jwt(flue_bytes_of(key), header_text, claims_text, &oauth->arena, &jwt,
                            &oauth->error)) {
        const struct flue_url_pair form[] = {
            {FLUE_BYTES("grant_type"), FLUE_BYTES("urn:ietf:params:oauth:grant-type:jwt-bearer")},
            {FLUE_BYTES("assertion"), jwt}};
        object_oauth_form(oauth, form, 2);
    }
    free(claims_text);
    free(header_text);
    json_decref(claims);
    json_decref(header);
}

static void authorized_user(struct object_oauth *oauth, json_t *root)
{
    const char *id = text(root, "client_id", &oauth->arena);
    const char *secret = text(root, "client_secret", &oauth->arena);
    const char *refresh = text(root, "refresh_token", &oauth->arena);
    const char *uri = text(root, "token_uri", &oauth->arena);
    const struct flue_url_pair form[] = {{FLUE_BYTES("grant_type"), FLUE_BYTES("refresh_token")},
                                         {FLUE_BYTES("client_id"), flue_bytes_of(id)},
                                         {FLUE_BYTES("client_secret"), flue_bytes_of(secret)},
                                         {FLUE_BYTES("refresh_token"), flue_bytes_of(refresh)}};
    oauth->via = "authorized user";
    if (!id || !secret || !refresh || !object_oauth_url(oauth, uri ? uri : TOKEN_URL))
        flue_fail(&oauth->error, FLUE_UNAVAILABLE,
                  "the file has no client_id, client_secret or refresh_token");
    else
        object_oauth_form(oauth, form, 4);
}

/* Workload identity federation with a token file. */
static void external_account(struct object_oauth *oauth, json_t *root)
{
    json_t *source = json_object_get(root, "credential_source");
    json_t *format = json_object_get(source, "format");
    const char *file = text(source, "file", &oauth->arena);
    const char *kind = json_string_value(json_object_get(format, "type"));
    const char *field = json_string_value(json_object_get(format, "subject_token_field_name"));
    const char *audience = text(root, "audience", &oauth->arena);
    const char *type = text(root, "subject_token_type", &oauth->arena);
    const char *uri = text(root, "token_url", &oauth->arena);
    struct flue_bytes token = {0};
    oauth->via = "workload identity";
    oauth->impersonate = text(root, "service_account_impersonation_url", &oauth->arena);
    if (!file || !audience || !type ||
        !object_oauth_url(oauth, uri ? uri : "https://sts.googleapis.com/v1/token")) {
        flue_fail(&oauth->error, FLUE_UNAVAILABLE,
                  "the file has no audience, subject_token_type or credential_source.file (the "
                  "other sources are not done here)");
        return;
    }
    if (!object_read_file(file, FILE_LIMIT, &oauth->arena, &token, &oauth->error))
        return;
    if (kind && strcmp(kind, "json") == 0) {
        json_t *inner = json_loadb((const char *)token.data, token.size, 0, NULL);
        const char *value = field ? text(inner, field, &oauth->arena) : NULL;
        token = flue_bytes_of(value);
        json_decref(inner);
    }
    while (token.size && (token.data[token.size - 1] == '\n' || token.data[token.size - 1] == ' '))
        token.size--;
    if (token.size == 0) {
        flue_fail(&oauth->error, FLUE_UNAVAILABLE, "the token file holds no token");
        return;
    }
    const struct flue_url_pair form[] = {
        {FLUE_BYTES("grant_type"), FLUE_BYTES("urn:ietf:params:oauth:grant-type:token-exchange")},
        {FLUE_BYTES("audience"), flue_bytes_of(audience)},
        {FLUE_BYTES("scope"), oauth->impersonate
                                  ? FLUE_BYTES("https://www.googleapis.com/auth/cloud-platform")
                                  : FLUE_BYTES(SCOPE)},
        {FLUE_BYTES("requested_token_type"),
         FLUE_BYTES("urn:ietf:params:oauth:token-type:access_token")},
        {FLUE_BYTES("subject_token"), token},
        {FLUE_BYTES("subject_token_type"), flue_bytes_of(type)}};
    object_oauth_form(oauth, form, 6);
}

static void metadata_server(struct object_oauth *oauth)
{
    const char *host = object_environment("GCE_METADATA_HOST");
    oauth->via = "metadata server";
    oauth->metadata = true;
    oauth->endpoint =
        flue_arena_printf(&oauth->arena, "http://%s", host ? host : "metadata.google.internal");
    oauth->path = FLUE_BYTES("/computeMetadata/v1/instance/service-accounts/default/token");
    object_ask_field(&oauth->ask, "metadata-flavor", FLUE_BYTES("Google"));
    if (!oauth->endpoint)
        flue_fail(&oauth->error, FLUE_NO_MEMORY, "no memory for a token request");
}

static const char *own_file(struct object_oauth *oauth)
{
    const char *folder = object_environment("CLOUDSDK_CONFIG"), *home = object_environment("HOME");
    const char *path =
        folder ? flue_arena_printf(&oauth->arena, "%s/application_default_credentials.json", folder)
        : home ? flue_arena_printf(&oauth->arena,
                                   "%s/.config/gcloud/application_default_credentials.json", home)
               : NULL;
    return path && access(path, F_OK) == 0 ? path : NULL;
}

void object_google_plan(struct object_oauth *oauth)
{
    const struct flue_gcs_config *config = oauth->config;
    const char *path = config->credentials_file && *config->credentials_file
                           ? config->credentials_file
                           : object_environment("GOOGLE_APPLICATION_CREDENTIALS");
    struct flue_bytes json;
    if (!path)
        path = own_file(oauth);
    if (!path) {
        metadata_server(oauth);
        return;
    }
    oauth->via = "credentials file";
    if (!object_read_file(path, FILE_LIMIT, &oauth->arena, &json, &oauth->error))
        return;
    json_t *root = json_loadb((const char *)json.data, json.size, 0, NULL);
    const char *type = json_string_value(json_object_get(root, "type"));
    if (type && strcmp(type, "service_account") == 0)
        service_account(oauth, root);
    else if (type && strcmp(type, "authorized_user") == 0)
        authorized_user(oauth, root);
    else if (type && strcmp(type, "external_account") == 0)
        external_account(oauth, root);
    else
        flue_fail(&oauth->error, FLUE_UNAVAILABLE,
                  "it is not JSON of type service_account, authorized_user or external_account");
    json_decref(root);
}
