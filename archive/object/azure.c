/* azure.c: the Azure Blob store: accounts, signatures, and what an answer means. See azure.h.
 *
 * Bodies carry x-ms-content-crc64 (the polynomial of NVM Express, little-endian), which the service
 * checks; where it does not know that, Content-MD5. Suffix ranges do not exist there: the size is
 * asked for first.
 *
 * Sources: Azure Storage REST reference (Put Blob, Put Block, Put Block List, Get Blob, List
 * Blobs), azure-sdk-for-go bloberror. */
#include "archive/object/azure_inside.h"
#include "archive/object/azure_sign.h"
#include "archive/object/url.h"
#include "collector/base/base64.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

#define VERSION "2021-12-02"

static const char *const types[] = {
    "environment",           "connection_string", "service_principal", "system_managed_identity",
    "user_managed_identity", "workload_identity", "anonymous",         NULL};
static const struct flue_field auth_fields[] = {
    FLUE_ENUM(struct flue_azure_auth, type, .choices = types, .def = "environment",
              .help = "how requests are authorized"),
    FLUE_SECRET(struct flue_azure_auth, connection_string,
                .help = "as the portal shows it; also with a SharedAccessSignature"),
    FLUE_STRING(struct flue_azure_auth, tenant_id, .help = "of the principal or workload identity"),
    FLUE_STRING(struct flue_azure_auth, client_id, .help = "of the principal or identity"),
    FLUE_SECRET(struct flue_azure_auth, client_secret, .help = "of the principal"),
    FLUE_STRING(struct flue_azure_auth, federated_token_file, .help = "of the workload identity"),
    FLUE_FIELDS_END};
const struct flue_field flue_azure_fields[] = {
    FLUE_STRING(struct flue_azure_config, url,
                .help =
                    "https://ACCOUNT.blob.core.windows.net/, with a SAS as its query if need be"),
    FLUE_STRING(struct flue_azure_config, container, .required = true, .help = "of the blobs"),
    FLUE_STRING(struct flue_azure_config, access_tier, .help = "Hot, Cool, Cold or Archive"),
    FLUE_BLOCK(struct flue_azure_config, auth, struct flue_azure_auth, auth_fields,
               .help = "credentials"),
    FLUE_BLOCK(struct flue_azure_config, tls, struct flue_tls_client_config, flue_tls_client_fields,
               .help = "TLS towards the endpoint"),
    FLUE_FIELDS_END};

/* ---- what is sent --------------------------------------------------------------------------- */

static enum flue_code authorize(struct azure *azure, struct object_call *call,
                                struct flue_bytes path, struct flue_error *error)
{
    struct flue_bytes authorization = {0};
    if (azure->tokens) {
        authorization = flue_bytes_of(
            flue_arena_printf(&call->arena, "Bearer %s", azure->store.identity.secret.token));
    } else if (azure->key.size) {
        const struct flue_azure_sign sign = {.account = azure->account,
                                             .key = azure->key,
                                             .method = call->http.method,
                                             .path = path,
                                             .query = call->query,
                                             .query_count = call->query_count,
                                             .headers = call->sent,
                                             .header_count = call->sent_count,
                                             .content_length = call->body ? call->body->total : 0};
        enum flue_code code =
            flue_azure_sign(&sign, &call->arena, &call->canonical, &authorization, error);
        if (code)
            return code;
    } else {
        return FLUE_OK;
    }
    if (!authorization.size)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
    object_call_send_field(call, "authorization", (const char *)authorization.data);
    return FLUE_OK;
}

static enum flue_code prepare(struct object_call *call, struct flue_error *error)
{
    struct azure *azure = azure_of(call->store);
    struct flue_buffer path;
    char date[30], crc[16];
    flue_buffer_init(&path, 16 * 1024);
    flue_buffer_add(&path, azure->base);
    flue_buffer_byte(&path, '/');
    flue_url_escape(&path, flue_bytes_of(azure->config->container), false);
    if (call->key.size) {
        flue_buffer_byte(&path, '/');
        flue_url_escape(&path, call->key, true);
    }
    struct flue_bytes clean = flue_arena_copy(&call->arena, flue_buffer_bytes(&path));
    if (call->query_count || azure->sas.size)
        flue_buffer_byte(&path, '?');
    flue_url_query(&path, call->query, call->query_count);
    if (call->query_count && azure->sas.size)
        flue_buffer_byte(&path, '&');
    flue_buffer_add(&path, azure->sas);
    call->http.path = flue_arena_copy(&call->arena, flue_buffer_bytes(&path));
    bool failed = path.failed || !call->http.path.data || !clean.data;
    flue_buffer_destroy(&path);
    if (failed)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");
    object_rfc1123(object_now(call->store), date);
    object_call_send_field(call, "x-ms-date", date);
    object_call_send_field(call, "x-ms-version", VERSION);
    if (call->body && azure->md5) {
        char text[48];
        if (!(call->digest.which & FLUE_DIGEST_MD5) &&
            flue_digest_make(call->body, FLUE_DIGEST_MD5, &call->digest, error))
            return FLUE_NO_MEMORY;
        flue_digest_base64(&call->digest, FLUE_DIGEST_MD5, text);
        object_call_send_field(call, "content-md5", text);
    } else if (call->body) {
        uint8_t little[8];
        for (unsigned i = 0; i < 8; i++)
            little[i] = (uint8_t)(call->digest.crc64nvme >> 8 * i);
        flue_base64_encode(flue_bytes(little, 8), crc);
        crc[12] = 0;
        object_call_send_field(call, "x-ms-content-crc64", crc);
    }
    call->http.client = azure->client;
    return authorize(azure, call, clean, error);
}

/* ---- what an answer means ------------------------------------------------------------------- */

static bool judge(struct object_call *call)
{
    static const char *const held[] = {"AuthenticationFailed",
                                       "AuthorizationFailure",
                                       "AuthorizationPermissionMismatch",
                                       "AuthorizationProtocolMismatch",
                                       "AuthorizationResourceTypeMismatch",
                                       "AuthorizationServiceMismatch",
                                       "AuthorizationSourceIPMismatch",
                                       "ContainerNotFound",
                                       "ContainerBeingDeleted",
                                       "ContainerDisabled",
                                       "AccountIsDisabled",
                                       "AccountBeingCreated",
                                       "InsufficientAccountPermissions",
                                       "NoAuthenticationInformation",
                                       "InvalidAuthenticationInfo",
                                       "PublicAccessNotPermitted",
                                       "ResourceNotFound",
                                       NULL};
    static const char *const later[] = {
        "InternalError",    "OperationTimedOut",  "Md5Mismatch", "Crc64Mismatch",
        "InvalidBlockList", "InvalidBlobOrBlock", NULL};
    struct azure *azure = azure_of(call->store);
    struct flue_bytes code = flue_call_header(&call->http, "x-ms-error-code");
    unsigned status = call->http.status;
    bool put = call->op->kind == OBJECT_PUT;
    uint32_t wait_ms = 0;
    enum flue_code what;
    if (object_status_ok(call))
        return false;
    if (flue_bytes_is(code, "FeatureNotSupported") && call->body && !call->condition_tried) {
        call->condition_tried = true; /* the emulator has no CRC64 */
        azure->md5 = true;
        return true;
    }
    if (status == 403 && object_take_date(call))
        return true;
    if (azure->tokens && !call->identity_tried &&
        (status == 401 || flue_bytes_is(code, "AuthenticationFailed"))) {
        call->identity_tried = true;
        object_identity_drop(&call->store->identity, call->identity_version);
        return true;
    }
    if (call->op->kind == OBJECT_DELETE && status == 404 &&
        !flue_bytes_is(code, "ContainerNotFound"))
        return false; /* gone is gone */
    if (flue_bytes_is(code, "BlobAlreadyExists") ||
        (put && status == 412 && call->op->request->create == FLUE_OBJECT_CREATE)) {
        call->existed = true;
        flue_fail(&call->error, FLUE_REFUSED, "%s: the object exists already", call->store->label);
        return false;
    }
    if (status == 429 || flue_bytes_is(code, "ServerBusy")) {
        what = FLUE_RATE_LIMITED;
        wait_ms = 2000;
    } else if (object_is_one_of(code, later) || status >= 500 || status == 408) {
        what = FLUE_UNAVAILABLE;
    } else if (object_is_one_of(code, held) || status == 401 || status == 403 ||
               (put && status == 404)) {
        what = put             ? FLUE_UNAVAILABLE
               : status == 404 ? FLUE_NOT_FOUND
               : status == 401 ? FLUE_UNAUTHENTICATED
               : status == 403 ? FLUE_FORBIDDEN
                               : FLUE_REFUSED;
        wait_ms = put ? OBJECT_HELD_MS : 0;
    } else {
        what = status == 404   ? FLUE_NOT_FOUND
               : status == 413 ? FLUE_TOO_LARGE
               : status == 416 ? FLUE_INVALID
                               : FLUE_REFUSED;
    }
    flue_fail(&call->error, what, "%s answered HTTP %u %s (request id %s)", call->store->label,
              status, object_printable(call, code),
              object_printable(call, flue_call_header(&call->http, "x-ms-request-id")));
    uint32_t asked = flue_call_retry_after_ms(&call->http);
    call->error.retry_after_ms = asked ? asked : wait_ms;
    return false;
}

/* ---- the account ---------------------------------------------------------------------------- */

struct account {
    struct flue_bytes name, key, sas, url; /* url: without query */
};

static struct flue_bytes setting(struct flue_bytes text, const char *name)
{
    while (text.size) {
        size_t end = flue_bytes_find(text, ';');
        struct flue_bytes one = flue_bytes_first(text, end == SIZE_MAX ? text.size : end);
        text = flue_bytes_from(text, end == SIZE_MAX ? text.size : end + 1);
        size_t equals = flue_bytes_find(one, '=');
        if (equals != SIZE_MAX &&
            flue_bytes_equal_nocase(flue_bytes_trim(flue_bytes_first(one, equals)),
                                    flue_bytes_of(name)))
            return flue_bytes_trim(flue_bytes_from(one, equals + 1));
    }
    return (struct flue_bytes){0};
}

static void read_connection_string(const char *text, struct flue_arena *arena,
                                   struct account *account)
{
    struct flue_bytes all = flue_bytes_of(text), blob = setting(all, "BlobEndpoint");
    struct flue_bytes scheme = setting(all, "DefaultEndpointsProtocol");
    struct flue_bytes suffix = setting(all, "EndpointSuffix");
    account->name = setting(all, "AccountName");
    account->key = setting(all, "AccountKey");
    account->sas = setting(all, "SharedAccessSignature");
    if (flue_bytes_is(setting(all, "UseDevelopmentStorage"), "true")) { /* Azurite's own */
        account->name = FLUE_BYTES("devstoreaccount1");
        account->key = FLUE_BYTES("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/"
                                  "K1SZFPTOtr/KBHBeksoGMGw==");
        blob = FLUE_BYTES("http://127.0.0.1:10000/devstoreaccount1");
    }
    if (blob.size)
        account->url = blob;
    else if (account->name.size)
        account->url = flue_bytes_of(flue_arena_printf(
            arena, "%s://%.*s.blob.%.*s", flue_bytes_is(scheme, "http") ? "http" : "https",
            FLUE_PRI(account->name), suffix.size ? (int)suffix.size : 16,
            suffix.size ? (const char *)suffix.data : "core.windows.net"));
}

static enum flue_code find_account(struct azure *azure, struct account *account,
                                   struct flue_error *error)
{
    const struct flue_azure_config *config = azure->config;
    struct flue_bytes url = flue_bytes_of(config->url);
    const char *connection = config->auth.connection_string;
    const char *name = object_environment("AZURE_STORAGE_ACCOUNT"),
               *key = object_environment("AZURE_STORAGE_KEY"),
               *sas = object_environment("AZURE_STORAGE_SAS_TOKEN");
    size_t mark = flue_bytes_find(url, '?');
    *account = (struct account){0};
    if (mark != SIZE_MAX) {
        account->sas = flue_bytes_from(url, mark + 1);
        url = flue_bytes_first(url, mark);
    }
    bool from_environment = config->auth.type == FLUE_AZURE_AUTH_ENVIRONMENT && !account->sas.size;
    if (from_environment && (!connection || !*connection))
        connection = object_environment("AZURE_STORAGE_CONNECTION_STRING");
    if ((from_environment || config->auth.type == FLUE_AZURE_AUTH_CONNECTION_STRING) &&
        connection && *connection) {
        read_connection_string(connection, &azure->arena, account);
    } else if (config->auth.type == FLUE_AZURE_AUTH_CONNECTION_STRING) {
        return flue_fail(error, FLUE_INVALID, "auth.connection_string is missing");
    } else if (from_environment && key) {
        account->key = flue_bytes_of(key);
    } else if (from_environment && sas) {
        account->sas = flue_bytes_of(sas);
    }
    if (account->sas.size && account->sas.data[0] == '?')
        account->sas = flue_bytes_from(account->sas, 1);
    if (url.size)
        account->url = url;
    if (!account->name.size)
        account->name = flue_bytes_of(name);
    if (!account->url.size && account->name.size)
        account->url = flue_bytes_of(flue_arena_printf(
            &azure->arena, "https://%.*s.blob.core.windows.net", FLUE_PRI(account->name)));
    if (!account->url.size)
        return flue_fail(error, FLUE_INVALID,
                         "no account: set url, auth.connection_string or AZURE_STORAGE_ACCOUNT");
    return FLUE_OK;
}

/* scheme://host[:port][/base]; the account is the base's last part, else the host's first. */
static enum flue_code take_account(struct azure *azure, const struct account *account,
                                   struct flue_error *error)
{
    struct flue_bytes url = account->url, host, name = account->name;
    const uint8_t *found = memmem(url.data, url.size, "://", 3);
    if (!found)
        return flue_fail(error, FLUE_INVALID, "url is not https://ACCOUNT.blob.core.windows.net/");
    size_t from = (size_t)(found - url.data) + 3;
    host = flue_bytes_from(url, from);
    size_t slash = flue_bytes_find(host, '/');
    struct flue_bytes base =
        slash == SIZE_MAX ? (struct flue_bytes){0} : flue_bytes_from(host, slash);
    host = flue_bytes_first(host, slash == SIZE_MAX ? host.size : slash);
    while (base.size && base.data[base.size - 1] == '/')
        base.size--;
    if (!name.size && base.size > 1) {
        const uint8_t *last = memrchr(base.data, '/', base.size);
        name = flue_bytes_from(base, (size_t)(last - base.data) + 1);
    } else if (!name.size) {
        size_t dot = flue_bytes_find(host, '.');
        name = flue_bytes_first(host, dot == SIZE_MAX ? host.size : dot);
    }
    uint8_t *key = flue_arena_alloc(&azure->arena, flue_base64_room(account->key.size));
    size_t size = 0;
    azure->endpoint = flue_arena_string(&azure->arena, flue_bytes_first(url, from + host.size));
    azure->base = flue_arena_copy(&azure->arena, base);
    azure->account = flue_arena_string(&azure->arena, name);
    azure->sas = flue_arena_copy(&azure->arena, account->sas);
    if (!azure->endpoint || !azure->account || !key)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a store");
    if (account->key.size && (!flue_base64_decode(account->key, key, &size) || size == 0))
        return flue_fail(error, FLUE_INVALID, "the account key is not base64");
    for (size_t i = 0; i < azure->sas.size; i++)
        if (azure->sas.data[i] <= ' ' || azure->sas.data[i] >= 0x7f)
            return flue_fail(error, FLUE_INVALID, "the SAS has a character that no URL has");
    azure->key = flue_bytes(key, size);
    return FLUE_OK;
}

/* ---- the store ------------------------------------------------------------------------------ */

static void disconnect(struct flue_object_store *store)
{
    flue_client_destroy(azure_of(store)->client);
}

static void destroy(struct flue_object_store *store)
{
    struct azure *azure = azure_of(store);
    object_oauth_destroy(&azure->oauth);
    if (azure->key.size)
        OPENSSL_cleanse((void *)(uintptr_t)azure->key.data, azure->key.size);
    flue_arena_destroy(&azure->arena);
    free(azure);
}

static const struct object_driver driver = {.vendor = "azure",
                                            .begin = object_azure_begin,
                                            .prepare = prepare,
                                            .judge = judge,
                                            .disconnect = disconnect,
                                            .destroy = destroy};

static void check(const void *raw, struct flue_check *check)
{
    static const char *const tiers[] = {"Hot", "Cool", "Cold", "Archive", "", NULL};
    const struct flue_azure_config *config = raw;
    struct flue_error error;
    size_t size = config->container ? strlen(config->container) : 3;
    if (size < 3 || size > 63 || (config->container && strchr(config->container, '/')))
        flue_check_fail(check, "container", "is not the name of a container (3 to 63 characters)");
    if (config->url && *config->url && flue_client_endpoint_check(config->url, true, &error))
        flue_check_fail(check, "url", "%s", error.text);
    if (config->access_tier && !object_is_one_of(flue_bytes_of(config->access_tier), tiers))
        flue_check_fail(check, "access_tier", "is Hot, Cool, Cold or Archive");
    if (config->auth.type == FLUE_AZURE_AUTH_CONNECTION_STRING &&
        (!config->auth.connection_string || !*config->auth.connection_string))
        flue_check_fail(check, "auth.connection_string", "is missing");
    flue_tls_check(&config->tls.common, "tls", check);
}

static enum flue_code open_store(const void *raw, struct flue_loop *loop,
                                 struct flue_metrics *metrics, struct flue_object_store **out,
                                 struct flue_error *error)
{
    const struct flue_azure_config *config = raw;
    struct account account;
    if (!config->container || !*config->container)
        return flue_fail(error, FLUE_INVALID, "container is missing");
    struct azure *azure = calloc(1, sizeof *azure);
    if (!azure)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a store");
    azure->config = config;
    flue_arena_init(&azure->arena, 128 * 1024, 1024);
    object_store_init(&azure->store, &driver, loop, metrics, "Azure container", config->container);
    object_oauth_init(&azure->oauth, &azure->store.identity, object_microsoft_plan, config);
    enum flue_code code = find_account(azure, &account, error);
    if (!code)
        code = take_account(azure, &account, error);
    azure->tokens =
        !azure->key.size && !azure->sas.size && config->auth.type != FLUE_AZURE_AUTH_ANONYMOUS;
    if (!azure->tokens)
        azure->store.identity.renew = NULL;
    if (!code)
        code = object_client_new(loop, azure->endpoint, &config->tls, &azure->client, error);
    return object_store_opened(&azure->store, code, out);
}

/* az://account/container/prefix, or with ?url=… az:///container/prefix. */
static enum flue_code from_url(const char *url, struct flue_arena *arena, void *raw,
                               struct flue_bytes *prefix, struct flue_error *error)
{
    struct flue_azure_config *config = raw;
    struct object_url parts;
    enum flue_code code = object_url_read(url, "az", flue_azure_fields, raw, arena, &parts, error);
    if (code)
        return code;
    size_t slash = flue_bytes_find(parts.rest, '/');
    config->container = flue_arena_string(
        arena, flue_bytes_first(parts.rest, slash == SIZE_MAX ? parts.rest.size : slash));
    if (!config->container || !*config->container)
        return flue_fail(error, FLUE_INVALID,
                         "the URL names no container (az://account/container/prefix)");
    for (size_t i = 0; i < parts.name.size; i++) {
        uint8_t c = parts.name.data[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
            return flue_fail(error, FLUE_INVALID,
                             "the account of the URL has small letters and "
                             "digits only");
    }
    if (parts.name.size && (!config->url || !*config->url))
        config->url =
            flue_arena_printf(arena, "https://%.*s.blob.core.windows.net", FLUE_PRI(parts.name));
    *prefix = slash == SIZE_MAX ? (struct flue_bytes){0} : flue_bytes_from(parts.rest, slash + 1);
    return FLUE_OK;
}

static const char *const schemes[] = {"az", NULL};
const struct flue_object_vendor flue_object_azure = {.name = "azure",
                                                     .schemes = schemes,
                                                     .config_size =
                                                         sizeof(struct flue_azure_config),
                                                     .fields = flue_azure_fields,
                                                     .check = check,
                                                     .open = open_store,
                                                     .from_url = from_url};
