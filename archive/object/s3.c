/* s3.c: the S3 store: addresses, signature, and what an answer means. See s3.h.
 *
 * Every body is signed by its SHA-256 (over TLS with a checksum of its own: UNSIGNED-PAYLOAD), so
 * that nothing is chunked and every S3-compatible store takes it, also without TLS.
 *
 * Sources: Amazon S3 API reference (error responses, conditional writes), botocore utils.py
 * (S3RegionRedirectorv2), _retry.json and retries/standard.py. */
#include "archive/object/s3_inside.h"
#include "archive/object/sign.h"
#include "archive/object/url.h"
#include "archive/object/xml.h"
#include "collector/base/log.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const checksums[] = {"none", "md5", "crc32c", "crc64nvme", NULL};
const struct flue_field flue_s3_fields[] = {
    FLUE_STRING(struct flue_s3_config, region, .def = "us-east-1",
                .help = "region of the bucket; a wrong one is found out and followed"),
    FLUE_STRING(struct flue_s3_config, s3_bucket, .required = true, .help = "name of the bucket"),
    FLUE_STRING(struct flue_s3_config, endpoint,
                .help = "URL of an S3-compatible store; default: Amazon's of the region"),
    FLUE_BOOL(struct flue_s3_config, s3_force_path_style,
              .help = "the bucket stands in the path, not in the host name"),
    FLUE_BOOL(struct flue_s3_config, disable_ssl,
              .help = "plain HTTP where the endpoint has no scheme"),
    FLUE_STRING(struct flue_s3_config, role_arn,
                .help = "role to assume with the credentials that are found"),
    FLUE_STRING(struct flue_s3_config, acl, .def = "private",
                .help = "canned ACL of objects; private is S3's own default and not sent"),
    FLUE_STRING(struct flue_s3_config, storage_class, .def = "STANDARD",
                .help = "storage class; STANDARD is S3's own default and not sent"),
    FLUE_STRING(struct flue_s3_config, server_side_encryption,
                .help = "AES256, aws:kms or aws:kms:dsse; default: as the bucket is set"),
    FLUE_STRING(struct flue_s3_config, sse_kms_key_id, .help = "key of aws:kms"),
    FLUE_ENUM(struct flue_s3_config, checksum, .choices = checksums, .def = "none",
              .help = "checksum sent beside the signed SHA-256 (some stores know none); over TLS "
                      "crc32c and crc64nvme replace the SHA-256"),
    FLUE_BLOCK(struct flue_s3_config, tls, struct flue_tls_client_config, flue_tls_client_fields,
               .help = "TLS towards the endpoint"),
    FLUE_FIELDS_END};

/* ---- addresses ------------------------------------------------------------------------------ */

static bool region_ok(struct flue_bytes region)
{
    if (region.size == 0 || region.size > 40)
        return false;
    for (size_t i = 0; i < region.size; i++) {
        uint8_t c = region.data[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
            return false;
    }
    return true;
}

/* May the bucket stand in a host name (with TLS: without dots, which no wildcard covers)? */
static bool host_label(const char *bucket, bool tls)
{
    size_t size = strlen(bucket);
    for (size_t i = 0; i < size; i++) {
        char c = bucket[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!letter && (i == 0 || i + 1 == size || (c != '-' && (c != '.' || tls))))
            return false;
    }
    return size >= 3 && size <= 63;
}

/* A bucket cannot stand before an address. */
static bool is_address(const char *endpoint)
{
    const char *slashes = strstr(endpoint, "://");
    const char *from = slashes ? slashes + 3 : endpoint;
    char host[64];
    struct in_addr four;
    size_t size = strcspn(from, ":/");
    if (from[0] == '[')
        return true;
    if (size >= sizeof host)
        return false;
    memcpy(host, from, size);
    host[size] = 0;
    return inet_pton(AF_INET, host, &four) == 1;
}

/* The client for the region of now. */
static struct s3_host *find_host(struct object_s3 *s3, struct flue_error *error)
{
    const struct flue_s3_config *config = s3->config;
    bool custom = config->endpoint && *config->endpoint;
    for (unsigned i = 0; i < s3->host_count; i++)
        if (custom || strcmp(s3->hosts[i].region, s3->region) == 0)
            return &s3->hosts[i];
    if (s3->host_count == S3_HOSTS) {
        flue_fail(error, FLUE_UNAVAILABLE, "%s is sent from region to region", s3->store.label);
        return NULL;
    }
    struct s3_host *host = &s3->hosts[s3->host_count];
    const char *scheme = s3->https ? "https" : "http", *authority;
    if (custom) {
        const char *slashes = strstr(config->endpoint, "://");
        struct flue_bytes rest = flue_bytes_of(slashes ? slashes + 3 : config->endpoint);
        size_t slash = flue_bytes_find(rest, '/');
        rest = flue_bytes_first(rest, slash == SIZE_MAX ? rest.size : slash);
        authority = flue_arena_string(&s3->arena, rest);
    } else {
        authority = flue_arena_printf(&s3->arena, "s3.%s.amazonaws.com%s", s3->region,
                                      strncmp(s3->region, "cn-", 3) == 0 ? ".cn" : "");
    }
    if (authority && !s3->path_style)
        authority = flue_arena_printf(&s3->arena, "%s.%s", config->s3_bucket, authority);
    host->endpoint = authority ? flue_arena_printf(&s3->arena, "%s://%s", scheme, authority) : NULL;
    if (!host->endpoint) {
        flue_fail(error, FLUE_NO_MEMORY, "no memory for an endpoint");
        return NULL;
    }
    /* The default port is not part of what is signed, nor of what is sent. */
    struct flue_bytes name = flue_bytes_of(authority);
    struct flue_bytes port = s3->https ? FLUE_BYTES(":443") : FLUE_BYTES(":80");
    if (flue_bytes_ends_with(name, port))
        name.size -= port.size;
    host->host = flue_arena_string(&s3->arena, name);
    for (char *c = host->host; c && *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c |= 0x20;
    if (!host->host) {
        flue_fail(error, FLUE_NO_MEMORY, "no memory for an endpoint");
        return NULL;
    }
    if (object_client_new(s3->store.loop, host->endpoint, &config->tls, &host->client, error)) {
        flue_fail_prefix(error, "endpoint");
        return NULL;
    }
    snprintf(host->region, sizeof host->region, "%s", s3->region);
    s3->host_count++;
    return host;
}

/* ---- what is sent --------------------------------------------------------------------------- */

static void add_checksum(struct object_s3 *s3, struct object_call *call)
{
    char text[48];
    if (!call->body || call->probe)
        return;
    switch (s3->config->checksum) {
    case FLUE_S3_MD5:
        flue_digest_base64(&call->digest, FLUE_DIGEST_MD5, text);
        object_call_send_field(call, "content-md5", text);
        break;
    case FLUE_S3_CRC32C:
        flue_digest_base64(&call->digest, FLUE_DIGEST_CRC32C, text);
        object_call_send_field(call, "x-amz-checksum-crc32c", text);
        break;
    case FLUE_S3_CRC64NVME:
        flue_digest_base64(&call->digest, FLUE_DIGEST_CRC64NVME, text);
        object_call_send_field(call, "x-amz-checksum-crc64nvme", text);
        break;
    default:
        break;
    }
}

static enum flue_code prepare(struct object_call *call, struct flue_error *error)
{
    struct object_s3 *s3 = (struct object_s3 *)call->store;
    const struct object_secret *secret = &s3->store.identity.secret;
    struct s3_host *host = find_host(s3, error);
    struct flue_buffer path, query;
    char date[FLUE_SIGN_DATE_SIZE], hash[65];
    if (!host)
        return error->code ? error->code : FLUE_NO_MEMORY;
    flue_buffer_init(&path, 16 * 1024);
    flue_buffer_init(&query, 16 * 1024);
    flue_buffer_byte(&path, '/');
    if (s3->path_style) {
        flue_url_escape(&path, flue_bytes_of(s3->config->s3_bucket), false);
        if (call->key.size && call->probe != S3_PROBE_REGION)
            flue_buffer_byte(&path, '/');
    }
    if (call->probe != S3_PROBE_REGION)
        flue_url_escape(&path, call->key, true);
    struct flue_bytes clean = flue_arena_copy(&call->arena, flue_buffer_bytes(&path));
    if (!call->probe && call->query_count)
        flue_url_query(&query, call->query, call->query_count);
    struct flue_bytes asked = flue_arena_copy(&call->arena, flue_buffer_bytes(&query));
    if (asked.size) {
        flue_buffer_byte(&path, '?');
        flue_buffer_add(&path, asked);
    }
    call->http.path = flue_arena_copy(&call->arena, flue_buffer_bytes(&path));
    bool failed = path.failed || query.failed || !call->http.path.data || !clean.data;
    flue_buffer_destroy(&path);
    flue_buffer_destroy(&query);
    if (failed)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a request");

    if (call->probe) { /* a HEAD of its own, none of the call's fields */
        call->http.method = FLUE_BYTES("HEAD");
        call->http.body = NULL;
        call->sent_count = 0;
        snprintf(hash, sizeof hash, "%s",
                 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    } else if (call->body && s3->https && s3->config->checksum >= FLUE_S3_CRC32C) {
        snprintf(hash, sizeof hash, "UNSIGNED-PAYLOAD");
    } else {
        flue_hex(flue_bytes(call->digest.sha256, 32), hash);
        hash[64] = 0;
    }
    add_checksum(s3, call);
    flue_sign_date(object_now(&s3->store), date);
    object_call_send_field(call, "host", host->host);
    object_call_send_field(call, "x-amz-content-sha256", hash);
    object_call_send_field(call, "x-amz-date", date);
    if (secret->token)
        object_call_send_field(call, "x-amz-security-token", secret->token);
    if (call->error.code)
        return call->error.code;
    struct flue_sign_v4 sign = {.key_id = secret->id,
                                .secret = secret->secret,
                                .region = s3->region,
                                .service = "s3",
                                .time = object_now(&s3->store),
                                .method = call->http.method,
                                .path = clean,
                                .query = asked,
                                .headers = call->sent,
                                .header_count = call->sent_count,
                                .payload = flue_bytes_of(hash),
                                .kept = &s3->kept,
                                .version = call->identity_version};
    struct flue_bytes authorization;
    enum flue_code code = flue_sign_v4(
        &sign, &call->arena, &authorization,
        flue_log_enabled(FLUE_DEBUG) && !secret->token ? &call->canonical : NULL, error);
    if (!code)
        object_call_send_field(call, "authorization", (const char *)authorization.data);
    call->http.client = host->client;
    return code;
}

/* ---- what an answer means ------------------------------------------------------------------- */

struct answer {
    struct flue_bytes code, message, region, server_time;
};

static void read_answer(struct object_call *call, struct answer *answer)
{
    struct flue_xml xml;
    enum flue_xml_event event;
    *answer = (struct answer){0};
    if (call->http.response.size == 0 || call->http.response.size > 64 * 1024)
        return;
    flue_xml_init(&xml, call->http.response, &call->arena);
    while ((event = flue_xml_next(&xml)) < FLUE_XML_END) {
        if (event != FLUE_XML_CLOSE || xml.depth != 1 || !flue_bytes_is(xml.names[0], "Error"))
            continue;
        if (flue_bytes_is(xml.name, "Code"))
            answer->code = flue_bytes_trim(xml.text);
        else if (flue_bytes_is(xml.name, "Message"))
            answer->message = xml.text;
        else if (flue_bytes_is(xml.name, "Region"))
            answer->region = flue_bytes_trim(xml.text);
        else if (flue_bytes_is(xml.name, "ServerTime"))
            answer->server_time = flue_bytes_trim(xml.text);
    }
}

static bool take_region(struct object_call *call, const struct answer *answer)
{
    static const char *const codes[] = {"PermanentRedirect",
                                        "TemporaryRedirect",
                                        "Redirect",
                                        "AuthorizationHeaderMalformed",
                                        "IllegalLocationConstraintException",
                                        "InvalidRegionName",
                                        NULL};
    struct object_s3 *s3 = (struct object_s3 *)call->store;
    unsigned status = call->http.status;
    bool head = flue_bytes_is(call->http.method, "HEAD");
    bool moved = status == 301 || status == 302 || status == 307 || status == 308 ||
                 object_is_one_of(answer->code, codes) || (head && status == 400) ||
                 call->probe == S3_PROBE_REGION; /* said to those who may not enter, too */
    struct flue_bytes region = flue_call_header(&call->http, "x-amz-bucket-region");
    if (!moved || call->region_tried)
        return false;
    if (!region_ok(region))
        region = answer->region;
    if (!region_ok(region)) {
        if (call->probe == S3_PROBE_REGION)
            return false;
        call->probe = S3_PROBE_REGION; /* ask the bucket itself */
        return true;
    }
    if (call->probe == S3_PROBE_REGION)
        call->probe = S3_PLAIN;
    call->region_tried = true;
    if (flue_bytes_is(region, s3->region))
        return false;
    flue_log(FLUE_WARN, "object store", "the bucket is in another region; set `region`",
             FLUE_S("store", s3->store.label), FLUE_S("configured", s3->region),
             FLUE_B("region", region), FLUE_LOG_END);
    snprintf(s3->region, sizeof s3->region, "%.*s", FLUE_PRI(region));
    return true;
}

static enum flue_code code_of(const struct object_call *call, const struct answer *answer,
                              uint32_t *wait_ms)
{
    static const char *const slower[] = {"SlowDown",
                                         "Throttling",
                                         "ThrottlingException",
                                         "ThrottledException",
                                         "RequestThrottled",
                                         "RequestThrottledException",
                                         "TooManyRequestsException",
                                         "RequestLimitExceeded",
                                         "BandwidthLimitExceeded",
                                         "ReduceRequestRate",
                                         NULL};
    static const char *const later[] = {"RequestTimeout",
                                        "RequestTimeoutException",
                                        "PriorRequestNotComplete",
                                        "BadDigest",
                                        "ConditionalRequestConflict",
                                        "OperationAborted",
                                        "XAmzContentSHA256Mismatch",
                                        "InternalError",
                                        "ServiceUnavailable",
                                        "NoSuchUpload",
                                        "EntityTooSmall",
                                        "InvalidPart",
                                        "InvalidPartOrder",
                                        "IncompleteBody",
                                        NULL};
    /* Only an operator can mend these: what is to be written is kept. */
    static const char *const held[] = {"AccessDenied",
                                       "NoSuchBucket",
                                       "AllAccessDisabled",
                                       "AccountProblem",
                                       "InvalidAccessKeyId",
                                       "SignatureDoesNotMatch",
                                       "ExpiredToken",
                                       "InvalidToken",
                                       "RequestTimeTooSkewed",
                                       "AuthorizationHeaderMalformed",
                                       "PermanentRedirect",
                                       "InvalidBucketName",
                                       "AccessControlListNotSupported",
                                       "InvalidStorageClass",
                                       "KMS.DisabledException",
                                       "KMS.NotFoundException",
                                       "InvalidSecurity",
                                       "NotSignedUp",
                                       "UserKeyMustBeSpecified",
                                       NULL};
    unsigned status = call->http.status;
    bool put = call->op->kind == OBJECT_PUT;
    if (object_is_one_of(answer->code, slower) || status == 429) {
        *wait_ms = 2000;
        return FLUE_RATE_LIMITED;
    }
    if (object_is_one_of(answer->code, later) || status >= 500 || status == 408)
        return status == 501 ? FLUE_REFUSED : FLUE_UNAVAILABLE;
    if (object_is_one_of(answer->code, held) || status == 401 || status == 403 ||
        (status >= 300 && status < 400 && status != 304)) {
        if (put) {
            *wait_ms = OBJECT_HELD_MS;
            return FLUE_UNAVAILABLE;
        }
        return flue_bytes_is(answer->code, "NoSuchBucket")         ? FLUE_NOT_FOUND
               : flue_bytes_is(answer->code, "InvalidAccessKeyId") ? FLUE_UNAUTHENTICATED
                                                                   : FLUE_FORBIDDEN;
    }
    if (status == 404) {
        *wait_ms = put ? OBJECT_HELD_MS : 0;
        return put ? FLUE_UNAVAILABLE : FLUE_NOT_FOUND;
    }
    if (status == 413 || flue_bytes_is(answer->code, "EntityTooLarge"))
        return FLUE_TOO_LARGE;
    if (status == 416)
        return FLUE_INVALID;
    return FLUE_REFUSED;
}

static bool looks_conditional(const struct object_call *call)
{
    for (size_t i = 0; i < call->field_count; i++)
        if (flue_bytes_is(call->fields[i].name, "if-none-match"))
            return true;
    return false;
}

/* The vendor does not know create-only writes: from now on, look before writing. */
static bool without_condition(struct object_call *call, const struct answer *answer)
{
    struct object_s3 *s3 = (struct object_s3 *)call->store;
    bool unknown = call->http.status == 501 || flue_bytes_is(answer->code, "NotImplemented");
    if (!unknown || !looks_conditional(call) || call->condition_tried)
        return false;
    call->condition_tried = true;
    s3->no_condition = true;
    for (size_t i = 0; i < call->field_count; i++)
        if (flue_bytes_is(call->fields[i].name, "if-none-match"))
            call->fields[i--] = call->fields[--call->field_count];
    call->probe = S3_PROBE_EXISTS;
    flue_log(FLUE_WARN, "object store",
             "the store does not know If-None-Match; it is asked for the object before each write",
             FLUE_S("store", s3->store.label), FLUE_LOG_END);
    return true;
}

static bool judge(struct object_call *call)
{
    static const char *const renewed[] = {"ExpiredToken",         "InvalidAccessKeyId",
                                          "InvalidToken",         "ExpiredTokenException",
                                          "TokenRefreshRequired", NULL};
    static const char *const there[] = {"FileAlreadyExists", "ObjectAlreadyExists", "FileImmutable",
                                        NULL}; /* Aliyun OSS, others */
    struct flue_object_store *store = call->store;
    unsigned status = call->http.status;
    struct answer answer;
    uint64_t theirs;
    uint32_t wait_ms = 0;
    if (object_status_ok(call)) {
        if (call->probe == S3_PROBE_REGION) { /* it is here after all */
            call->probe = S3_PLAIN;
            call->region_tried = true;
            return true;
        }
        if (call->probe == S3_PROBE_EXISTS) {
            call->existed = true;
            flue_fail(&call->error, FLUE_REFUSED, "%s: the object exists already", store->label);
        }
        return false;
    }
    read_answer(call, &answer);
    if (take_region(call, &answer))
        return true;
    if (call->probe == S3_PROBE_EXISTS && status == 404) {
        call->probe = S3_PLAIN;
        return true;
    }
    if (status == 403 && !call->skew_tried && flue_bytes_is(answer.code, "RequestTimeTooSkewed") &&
        object_iso_date(answer.server_time, &theirs)) {
        call->skew_tried = true;
        object_identity_set_clock(&store->identity, theirs, store->label);
        return true;
    }
    if (status == 403 && object_take_date(call))
        return true;
    if (object_is_one_of(answer.code, renewed) && !call->identity_tried) {
        call->identity_tried = true;
        object_identity_drop(&store->identity, call->identity_version);
        return true;
    }
    if (without_condition(call, &answer))
        return true;
    if (status == 404 && call->op->kind == OBJECT_DELETE &&
        !flue_bytes_is(answer.code, "NoSuchBucket"))
        return false; /* gone is gone */
    call->probe = S3_PLAIN;
    if (looks_conditional(call) && (status == 412 || status == 304))
        call->existed = true;
    if (status == 409 && object_is_one_of(answer.code, there))
        call->existed = true;
    if (call->existed) {
        flue_fail(&call->error, FLUE_REFUSED, "%s: the object exists already", store->label);
        return false;
    }
    enum flue_code code = code_of(call, &answer, &wait_ms);
    if (flue_bytes_is(answer.code, "SignatureDoesNotMatch") && call->canonical.size)
        flue_log(FLUE_DEBUG, "object store", "the store signs otherwise; this was signed",
                 FLUE_B("canonical", call->canonical), FLUE_LOG_END);
    flue_fail(&call->error, code, "%s answered HTTP %u %s%s%s (request id %s)", store->label,
              status, object_printable(call, answer.code), answer.message.size ? ": " : "",
              object_printable(call, answer.message),
              object_printable(call, flue_call_header(&call->http, "x-amz-request-id")));
    uint32_t asked = flue_call_retry_after_ms(&call->http);
    call->error.retry_after_ms = asked ? asked : wait_ms;
    return false;
}

/* ---- the store ------------------------------------------------------------------------------ */

static void disconnect(struct flue_object_store *store)
{
    struct object_s3 *s3 = (struct object_s3 *)store;
    for (unsigned i = 0; i < s3->host_count; i++) {
        struct flue_client *client = s3->hosts[i].client;
        flue_client_destroy(client);
    }
}

static void destroy(struct flue_object_store *store)
{
    struct object_s3 *s3 = (struct object_s3 *)store;
    object_aws_destroy(s3->aws);
    flue_arena_destroy(&s3->arena);
    OPENSSL_cleanse(&s3->kept, sizeof s3->kept);
    free(s3);
}

static const struct object_driver driver = {.vendor = "s3",
                                            .begin = object_s3_begin,
                                            .prepare = prepare,
                                            .judge = judge,
                                            .disconnect = disconnect,
                                            .destroy = destroy};

static void check(const void *raw, struct flue_check *check)
{
    static const char *const acls[] = {"private",
                                       "public-read",
                                       "public-read-write",
                                       "authenticated-read",
                                       "aws-exec-read",
                                       "bucket-owner-read",
                                       "bucket-owner-full-control",
                                       "",
                                       NULL};
    static const char *const encryptions[] = {"AES256", "aws:kms", "aws:kms:dsse", "", NULL};
    const struct flue_s3_config *config = raw;
    struct flue_error error;
    if (config->s3_bucket && (strchr(config->s3_bucket, '/') || strlen(config->s3_bucket) > 255 ||
                              !flue_utf8_valid(flue_bytes_of(config->s3_bucket))))
        flue_check_fail(check, "s3_bucket", "is not the name of a bucket");
    if (config->region && !region_ok(flue_bytes_of(config->region)))
        flue_check_fail(check, "region", "a region has small letters, digits and \"-\"");
    if (config->acl && !object_is_one_of(flue_bytes_of(config->acl), acls))
        flue_check_fail(check, "acl", "is not a canned ACL (private, bucket-owner-full-control …)");
    for (const char *c = config->storage_class; c && *c; c++)
        if (!(*c >= 'A' && *c <= 'Z') && !(*c >= '0' && *c <= '9') && *c != '_') {
            flue_check_fail(check, "storage_class", "is not a storage class (STANDARD_IA …)");
            break;
        }
    if (config->server_side_encryption &&
        !object_is_one_of(flue_bytes_of(config->server_side_encryption), encryptions))
        flue_check_fail(check, "server_side_encryption", "is AES256, aws:kms or aws:kms:dsse");
    if (config->endpoint && *config->endpoint && strstr(config->endpoint, "://") &&
        flue_client_endpoint_check(config->endpoint, true, &error))
        flue_check_fail(check, "endpoint", "%s", error.text);
    flue_tls_check(&config->tls.common, "tls", check);
}

static enum flue_code open_store(const void *raw, struct flue_loop *loop,
                                 struct flue_metrics *metrics, struct flue_object_store **out,
                                 struct flue_error *error)
{
    const struct flue_s3_config *config = raw;
    struct object_s3 *s3 = calloc(1, sizeof *s3);
    const char *endpoint = config->endpoint ? config->endpoint : "";
    const char *region = config->region && *config->region ? config->region : "us-east-1";
    if (!s3)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a store");
    if (!config->s3_bucket || !*config->s3_bucket || !region_ok(flue_bytes_of(region))) {
        free(s3);
        return flue_fail(error, FLUE_INVALID, "s3_bucket is missing, or region is not a region");
    }
    s3->config = config;
    flue_arena_init(&s3->arena, 64 * 1024, 1024);
    s3->https = strncmp(endpoint, "https://", 8) == 0 ||
                (strstr(endpoint, "://") == NULL && !config->disable_ssl);
    s3->path_style = config->s3_force_path_style || is_address(endpoint) ||
                     !host_label(config->s3_bucket, s3->https);
    snprintf(s3->region, sizeof s3->region, "%s", region);
    object_store_init(&s3->store, &driver, loop, metrics, "S3 bucket", config->s3_bucket);
    enum flue_code code =
        object_aws_new(&s3->store.identity, s3->region, config->role_arn, &s3->aws, error);
    if (!code && !find_host(s3, error))
        code = error && error->code ? error->code : FLUE_INVALID;
    return object_store_opened(&s3->store, code, out);
}

static enum flue_code from_url(const char *url, struct flue_arena *arena, void *raw,
                               struct flue_bytes *prefix, struct flue_error *error)
{
    struct flue_s3_config *config = raw;
    enum flue_code code =
        object_url_bucket(url, "s3", flue_s3_fields, raw, arena, &config->s3_bucket, prefix, error);
    if (code)
        return code;
    if (config->endpoint && *config->endpoint) {
        if (flue_client_endpoint_check(config->endpoint, strstr(config->endpoint, "://") != NULL,
                                       error))
            return FLUE_INVALID;
    } else {
        config->endpoint = object_environment("AWS_ENDPOINT_URL_S3");
        if (!config->endpoint)
            config->endpoint = object_environment("AWS_ENDPOINT_URL");
    }
    if (!strstr(url, "region=") && object_environment("AWS_REGION"))
        config->region = object_environment("AWS_REGION");
    return FLUE_OK;
}

static const char *const schemes[] = {"s3", NULL};
const struct flue_object_vendor flue_object_s3 = {.name = "s3",
                                                  .schemes = schemes,
                                                  .config_size = sizeof(struct flue_s3_config),
                                                  .fields = flue_s3_fields,
                                                  .check = check,
                                                  .open = open_store,
                                                  .from_url = from_url};
