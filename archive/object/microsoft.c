/* microsoft.c: where Entra's tokens for storage come from. See azure.h and oauth.h. On the pool.
 *
 * Sources: azidentity workload_identity.go; "How to use managed identities for Azure resources on
 * an Azure VM"; App Service "REST endpoint reference" (IDENTITY_ENDPOINT, IDENTITY_HEADER). */
#include "archive/object/aws.h"
#include "archive/object/azure.h"
#include "archive/object/oauth.h"

#include <stdlib.h>

#define TOKEN_LIMIT (32u * 1024)
#define RESOURCE    "https://storage.azure.com/"

static const char *either(const char *configured, const char *name)
{
    return configured && *configured ? configured : object_environment(name);
}

static void entra(struct object_oauth *oauth, const char *tenant, const char *client,
                  const char *secret, struct flue_bytes assertion)
{
    const char *authority = object_environment("AZURE_AUTHORITY_HOST");
    struct flue_buffer url;
    struct flue_url_pair form[5] = {{FLUE_BYTES("grant_type"), FLUE_BYTES("client_credentials")},
                                    {FLUE_BYTES("client_id"), flue_bytes_of(client)},
                                    {FLUE_BYTES("scope"), FLUE_BYTES(RESOURCE ".default")},
                                    {FLUE_BYTES("client_secret"), flue_bytes_of(secret)}};
    if (!secret) {
        form[3] = (struct flue_url_pair){
            FLUE_BYTES("client_assertion_type"),
            FLUE_BYTES("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")};
        form[4] = (struct flue_url_pair){FLUE_BYTES("client_assertion"), assertion};
    }
    if (!tenant || !client) {
        flue_fail(&oauth->error, FLUE_UNAVAILABLE,
                  "tenant_id and client_id are missing (or AZURE_TENANT_ID, AZURE_CLIENT_ID)");
        return;
    }
    flue_buffer_init(&url, 4096);
    flue_buffer_text(&url, authority ? authority : "https://login.microsoftonline.com");
    if (url.size && url.data[url.size - 1] != '/')
        flue_buffer_byte(&url, '/');
    flue_url_escape(&url, flue_bytes_of(tenant), false);
    flue_buffer_text(&url, "/oauth2/v2.0/token");
    const char *copy =
        url.failed ? NULL : flue_arena_string(&oauth->arena, flue_buffer_bytes(&url));
    flue_buffer_destroy(&url);
    if (!copy || !object_oauth_url(oauth, copy))
        flue_fail(&oauth->error, FLUE_UNAVAILABLE, "AZURE_AUTHORITY_HOST is not a URL");
    else
        object_oauth_form(oauth, form, secret ? 4 : 5);
}

static void workload(struct object_oauth *oauth, const struct flue_azure_auth *auth)
{
    const char *file = either(auth->federated_token_file, "AZURE_FEDERATED_TOKEN_FILE");
    struct flue_bytes token = {0};
    oauth->via = "workload identity";
    if (!file) {
        flue_fail(&oauth->error, FLUE_UNAVAILABLE,
                  "federated_token_file is missing (or AZURE_FEDERATED_TOKEN_FILE)");
        return;
    }
    if (!object_read_file(file, TOKEN_LIMIT, &oauth->arena, &token, &oauth->error))
        return;
    while (token.size && (token.data[token.size - 1] == '\n' || token.data[token.size - 1] == ' '))
        token.size--;
    entra(oauth, either(auth->tenant_id, "AZURE_TENANT_ID"),
          either(auth->client_id, "AZURE_CLIENT_ID"), NULL, token);
}

static void managed(struct object_oauth *oauth, const char *client)
{
    const char *endpoint = object_environment("IDENTITY_ENDPOINT");
    const char *header = object_environment("IDENTITY_HEADER");
    const char *host = object_environment("AZURE_POD_IDENTITY_AUTHORITY_HOST");
    bool service = endpoint && header;
    struct flue_url_pair query[3] = {
        {FLUE_BYTES("api-version"), service ? FLUE_BYTES("2019-08-01") : FLUE_BYTES("2018-02-01")},
        {FLUE_BYTES("resource"), FLUE_BYTES(RESOURCE)},
        {FLUE_BYTES("client_id"), flue_bytes_of(client)}};
    struct flue_buffer url;
    oauth->via = service ? "managed identity of App Service" : "managed identity";
    flue_buffer_init(&url, 8192);
    flue_buffer_printf(&url, "%s%s?",
                       service ? endpoint
                       : host  ? host
                               : "http://169.254.169.254",
                       service ? "" : "/metadata/identity/oauth2/token");
    flue_url_query(&url, query, client ? 3 : 2);
    const char *copy =
        url.failed ? NULL : flue_arena_string(&oauth->arena, flue_buffer_bytes(&url));
    flue_buffer_destroy(&url);
    if (!copy || !object_oauth_url(oauth, copy))
        flue_fail(&oauth->error, FLUE_UNAVAILABLE, "IDENTITY_ENDPOINT is not a URL");
    if (service)
        object_ask_field(&oauth->ask, "x-identity-header", flue_bytes_of(header));
    else
        object_ask_field(&oauth->ask, "metadata", FLUE_BYTES("true"));
}

static void principal(struct object_oauth *oauth, const struct flue_azure_auth *auth)
{
    const char *secret = either(auth->client_secret, "AZURE_CLIENT_SECRET");
    oauth->via = "service principal";
    if (!secret)
        flue_fail(&oauth->error, FLUE_UNAVAILABLE,
                  "client_secret is missing (or AZURE_CLIENT_SECRET)");
    else
        entra(oauth, either(auth->tenant_id, "AZURE_TENANT_ID"),
              either(auth->client_id, "AZURE_CLIENT_ID"), secret, (struct flue_bytes){0});
}

void object_microsoft_plan(struct object_oauth *oauth)
{
    const struct flue_azure_auth *auth = &((const struct flue_azure_config *)oauth->config)->auth;
    switch (auth->type) {
    case FLUE_AZURE_AUTH_SERVICE_PRINCIPAL:
        principal(oauth, auth);
        break;
    case FLUE_AZURE_AUTH_WORKLOAD_IDENTITY:
        workload(oauth, auth);
        break;
    case FLUE_AZURE_AUTH_SYSTEM_IDENTITY:
        managed(oauth, NULL);
        break;
    case FLUE_AZURE_AUTH_USER_IDENTITY:
        managed(oauth, either(auth->client_id, "AZURE_CLIENT_ID"));
        break;
    default:
        if (object_environment("AZURE_FEDERATED_TOKEN_FILE"))
            workload(oauth, auth);
        else if (object_environment("AZURE_CLIENT_SECRET"))
            principal(oauth, auth);
        else
            managed(oauth, object_environment("AZURE_CLIENT_ID"));
    }
}
