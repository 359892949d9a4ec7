/* What is shared by all stores: identities that end, requests that are cancelled or outlive their
 * store, URLs, configuration. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>
#include <cmocka.h>

#include "archive/object/azure.h"
#include "archive/object/folder.h"
#include "archive/object/gcs.h"
#include "archive/object/identity.h"
#include "archive/object/s3.h"
#include "collector/base/clock.h"
#include "config/bind.h"

static struct flue_loops *loops;
static struct flue_loop *loop;
static struct flue_metrics *metrics;

static int setup(void **state)
{
    struct flue_error error;
    metrics = flue_metrics_new("flue_");
    assert_int_equal(flue_loops_new(1, &loops, &error), FLUE_OK);
    assert_int_equal(flue_loops_run(loops, &error), FLUE_OK);
    loop = loops->items[0];
    return 0;
}

static int teardown(void **state)
{
    flue_loops_destroy(loops);
    flue_metrics_destroy(metrics);
    return 0;
}

/* ---- identities -------------------------------------------------------------------------------
 */

static unsigned renewals;
static unsigned told, told_bad;

static void renew(struct object_identity *identity)
{
    renewals++;
}

static void on_ready(struct object_waiter *waiter, const struct flue_error *error)
{
    told++;
    told_bad += error != NULL;
}

static void give(struct object_identity *identity, const char *secret, int64_t seconds)
{
    struct object_secret fresh = {
        .id = "i",
        .secret = secret,
        .ends = seconds ? (uint64_t)((int64_t)(flue_wall_ns() / 1000000000) + seconds) : 0};
    object_identity_renewed(identity, &fresh, NULL);
}

static void refuse(struct object_identity *identity)
{
    struct flue_error error = {.code = FLUE_UNAVAILABLE, .text = "no"};
    object_identity_renewed(identity, NULL, &error);
}

static void identity_on_loop(struct flue_loop *on, void *arg)
{
    struct object_identity identity;
    struct object_waiter waiters[5];
    struct flue_error error;
    object_identity_init(&identity, on);
    identity.renew = renew;
    renewals = told = told_bad = 0;
    for (int i = 0; i < 5; i++) {
        waiters[i] = (struct object_waiter){.ready = on_ready};
        assert_int_equal(object_identity_get(&identity, &waiters[i], &error), OBJECT_IDENTITY_WAIT);
    }
    assert_int_equal(renewals, 1); /* one for all */
    object_identity_leave(&identity, &waiters[4]);
    object_identity_leave(&identity, &waiters[2]);
    object_identity_leave(&identity, &waiters[2]);
    give(&identity, "first", 3600);
    assert_int_equal(told, 3);
    assert_int_equal(told_bad, 0);
    assert_string_equal(identity.secret.secret, "first");

    /* An hour, less 45 minutes: renewed in the background, used meanwhile; failure is tolerated. */
    flue_clock_move(INT64_C(2800) * 1000000000);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error), OBJECT_IDENTITY_READY);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error), OBJECT_IDENTITY_READY);
    assert_int_equal(renewals, 2);
    refuse(&identity);
    assert_int_equal(told, 3);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error), OBJECT_IDENTITY_READY);
    assert_int_equal(renewals, 2); /* not again within the second */

    /* 10 minutes left: waited for; what lasts still serves when that fails. */
    flue_clock_move(INT64_C(300) * 1000000000);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error), OBJECT_IDENTITY_WAIT);
    assert_int_equal(renewals, 3);
    refuse(&identity);
    assert_int_equal(told, 4);
    assert_int_equal(told_bad, 0);
    flue_clock_move(INT64_C(2000) * 1000000000);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error), OBJECT_IDENTITY_WAIT);
    refuse(&identity);
    assert_int_equal(told_bad, 1);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error),
                     OBJECT_IDENTITY_FAILED); /* everybody's answer for a second */
    assert_string_equal(error.text, "no");
    assert_int_equal(renewals, 4);
    flue_clock_move(INT64_C(2) * 1000000000);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error), OBJECT_IDENTITY_WAIT);
    give(&identity, "second", 0);

    /* Refused by the vendor: renewed once, however many calls were refused. */
    uint64_t version = identity.version;
    object_identity_drop(&identity, version);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error), OBJECT_IDENTITY_WAIT);
    give(&identity, "third", 0);
    object_identity_drop(&identity, version);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error), OBJECT_IDENTITY_READY);
    assert_int_equal(renewals, 6);

    /* Handed out when it had ended: believed, and asked for again after ten minutes. */
    object_identity_drop(&identity, identity.version);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error), OBJECT_IDENTITY_WAIT);
    give(&identity, "stale", -5);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error), OBJECT_IDENTITY_READY);
    assert_int_equal(renewals, 7);
    flue_clock_move(INT64_C(721) * 1000000000);
    assert_int_equal(object_identity_get(&identity, &waiters[0], &error), OBJECT_IDENTITY_WAIT);
    object_identity_leave(&identity, &waiters[0]);
    object_identity_destroy(&identity);
}

static void credentials_that_end(void **state)
{
    flue_loop_call(loop, identity_on_loop, NULL);
}

/* ---- requests -----------------------------------------------------------------------------------
 */

/* A listener that takes connections (in its backlog) and never says a word. */
static int silent(unsigned short *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, size), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    *port = ntohs(at.sin_port);
    return fd;
}

struct bench {
    struct flue_object_store *store;
    struct flue_object_request requests[4];
    unsigned done, cancelled;
    bool inside;
    sem_t all;
    struct flue_slices body;
    struct flue_bytes slice;
    void (*act)(struct bench *bench);
    const struct flue_object_vendor *vendor;
    void *config;
};

static void on_done(struct flue_object_request *request)
{
    struct bench *bench = request->user;
    assert_false(bench->inside); /* never from within */
    bench->done++;
    bench->cancelled += request->error.code == FLUE_CANCELLED;
    flue_block_unref(request->data);
    if (bench->done == 4)
        sem_post(&bench->all);
}

static void start(struct bench *bench, uint64_t deadline_ns)
{
    bench->inside = true;
    for (unsigned i = 0; i < 4; i++) {
        bench->requests[i] = (struct flue_object_request){.store = bench->store,
                                                          .key = FLUE_BYTES("a/key"),
                                                          .body = &bench->body,
                                                          .deadline_ns = deadline_ns,
                                                          .done = on_done,
                                                          .user = bench};
        switch (i) {
        case 0:
            flue_object_put(&bench->requests[i]);
            break;
        case 1:
            flue_object_get(&bench->requests[i]);
            break;
        case 2:
            flue_object_list(&bench->requests[i]);
            break;
        default:
            flue_object_delete(&bench->requests[i]);
        }
    }
    bench->inside = false;
}

static void destroy_at_once(struct bench *bench)
{
    start(bench, 0);
    flue_object_store_destroy(bench->store);
    assert_int_equal(bench->done, 4);
}

static void cancel_at_once(struct bench *bench)
{
    start(bench, 0);
    bench->inside = true;
    for (unsigned i = 0; i < 4; i++) {
        flue_object_cancel(&bench->requests[i]);
        flue_object_cancel(&bench->requests[i]);
    }
    bench->inside = false;
}

static void with_a_deadline(struct bench *bench)
{
    start(bench, flue_monotonic_ns() + 100000000);
}

static void act(struct flue_loop *on, void *arg)
{
    struct bench *bench = arg;
    struct flue_error error = {0};
    assert_int_equal(bench->vendor->open(bench->config, on, metrics, &bench->store, &error),
                     FLUE_OK);
    bench->act(bench);
}

static void end(struct flue_loop *on, void *arg)
{
    flue_object_store_destroy(arg);
}

static struct bench *run(const struct flue_object_vendor *vendor, void *config, size_t size,
                         void (*what)(struct bench *bench))
{
    struct bench *bench = calloc(1, sizeof *bench);
    uint8_t *data = calloc(1, size);
    bench->vendor = vendor;
    bench->config = config;
    bench->act = what;
    bench->slice = flue_bytes(data, size);
    bench->body = (struct flue_slices){.items = &bench->slice, .count = 1, .total = size};
    sem_init(&bench->all, 0, 0);
    flue_loop_call(loop, act, bench);
    sem_wait(&bench->all);
    if (what != destroy_at_once)
        flue_loop_call(loop, end, bench->store);
    free(data); /* nothing reads it any more */
    return bench;
}

static void all_stores(void (*what)(struct bench *bench), unsigned least_cancelled)
{
    unsigned short port;
    char endpoint[64], folder[] = "/tmp/flue-object-XXXXXX";
    int fd = silent(&port);
    snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%u", port);
    assert_non_null(mkdtemp(folder));
    setenv("AWS_ACCESS_KEY_ID", "id", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    struct flue_s3_config s3 = {.region = "us-east-1", .s3_bucket = "bucket", .endpoint = endpoint};
    struct flue_gcs_config gcs = {.name = "bucket", .endpoint = endpoint, .anonymous = true};
    struct flue_azure_config azure = {
        .url = endpoint, .container = "container", .auth = {.type = FLUE_AZURE_AUTH_ANONYMOUS}};
    struct flue_folder_config local = {.path = folder, .directory_permissions = "0755"};
    struct {
        const struct flue_object_vendor *vendor;
        void *config;
    } stores[] = {{&flue_object_s3, &s3},
                  {&flue_object_gcs, &gcs},
                  {&flue_object_azure, &azure},
                  {&flue_object_folder, &local}};
    static const size_t sizes[] = {10, 3u << 20}; /* digested at once, and on the pool */
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 2; j++) {
            struct bench *bench = run(stores[i].vendor, stores[i].config, sizes[j], what);
            assert_int_equal(bench->done, 4);
            assert_true(bench->cancelled >= least_cancelled);
            for (unsigned k = 0; k < 4 && what == with_a_deadline && i < 3; k++)
                if (bench->requests[k].error.code != FLUE_TIMEOUT)
                    fail_msg("%s, request %u: %s", stores[i].vendor->name, k,
                             bench->requests[k].error.text);
            sem_destroy(&bench->all);
            free(bench);
        }
    close(fd);
    struct flue_buffer page;
    flue_buffer_init(&page, 1 << 20);
    flue_metrics_print(metrics, &page);
    assert_non_null(strstr(page.data, "flue_exporter_object_requests_total{"));
    assert_non_null(strstr(page.data, "operation=\"put\""));
    assert_non_null(strstr(page.data, "vendor=\"azure\""));
    flue_buffer_destroy(&page);
    char path[64];
    snprintf(path, sizeof path, "%s/a/key", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/a", folder);
    rmdir(path);
    rmdir(folder);
}

static void a_store_that_goes_cancels_what_is_open(void **state)
{
    all_stores(destroy_at_once, 4);
}

static void requests_are_cancelled_not_from_within(void **state)
{
    all_stores(cancel_at_once, 4);
}

static void deadlines_hold(void **state)
{
    all_stores(with_a_deadline, 0);
}

/* ---- URLs, configuration
 * -------------------------------------------------------------------------- */

static void urls(void **state)
{
    struct flue_arena arena;
    struct flue_bytes prefix;
    struct flue_error error;
    struct flue_s3_config s3 = {0};
    struct flue_azure_config azure = {0};
    struct flue_folder_config folder = {0};
    struct flue_gcs_config gcs = {0};
    unsetenv("AWS_REGION");
    unsetenv("AWS_ENDPOINT_URL");
    unsetenv("AWS_ENDPOINT_URL_S3");
    flue_arena_init(&arena, 1 << 20, 0);
    assert_int_equal(flue_object_s3.from_url("s3://my-bucket/a%20b/c?region=eu-west-1&endpoint="
                                             "https://h:9/&path_style=true&checksum=crc32c&"
                                             "tls.insecure_skip_verify=true",
                                             &arena, &s3, &prefix, &error),
                     FLUE_OK);
    assert_string_equal(s3.s3_bucket, "my-bucket");
    assert_true(flue_bytes_is(prefix, "a b/c"));
    assert_string_equal(s3.region, "eu-west-1");
    assert_string_equal(s3.storage_class, "STANDARD"); /* a default */
    assert_true(s3.s3_force_path_style && s3.tls.insecure_skip_verify);
    assert_int_equal(s3.checksum, FLUE_S3_CRC32C);
    assert_int_equal(flue_object_gcs.from_url("gs://b", &arena, &gcs, &prefix, &error), FLUE_OK);
    assert_int_equal(prefix.size, 0);
    assert_int_equal(
        flue_object_azure.from_url("az://acc/cont/x/y", &arena, &azure, &prefix, &error), FLUE_OK);
    assert_string_equal(azure.url, "https://acc.blob.core.windows.net");
    assert_string_equal(azure.container, "cont");
    assert_true(flue_bytes_is(prefix, "x/y"));
    assert_int_equal(flue_object_folder.from_url("file:///var/a%20b?fsync=false", &arena, &folder,
                                                 &prefix, &error),
                     FLUE_OK);
    assert_string_equal(folder.path, "/var/a b");
    assert_false(folder.fsync);
    assert_true(folder.create_directory);
    static const char *const bad[] = {"s3:/bucket",
                                      "s3://",
                                      "s3:///x",
                                      "s3://b?nope=1",
                                      "s3://b?x",
                                      "s3://b?checksum=sha9",
                                      "s3://b?path_style=yes",
                                      "s3://b%2",
                                      "s3://b%00c",
                                      "gs://b",
                                      "s3://b?region=a%00b",
                                      "s3://b?endpoint=http://"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        memset(&s3, 0, sizeof s3);
        if (flue_object_s3.from_url(bad[i], &arena, &s3, &prefix, &error) != FLUE_INVALID)
            fail_msg("taken: %s", bad[i]);
    }
    assert_int_equal(flue_object_azure.from_url("az://acc/c?auth.client_secret=hidden", &arena,
                                                &azure, &prefix, &error),
                     FLUE_INVALID);
    assert_non_null(strstr(error.text, "secret"));
    assert_null(strstr(error.text, "hidden"));
    assert_int_equal(flue_object_azure.from_url("az://a.evil/c", &arena, &azure, &prefix, &error),
                     FLUE_INVALID);
    assert_int_equal(flue_object_folder.from_url("file://host/x", &arena, &folder, &prefix, &error),
                     FLUE_INVALID);
    flue_arena_destroy(&arena);
}

static unsigned mistakes(const struct flue_object_vendor *vendor, const char *yaml)
{
    struct flue_arena arena;
    struct flue_check check;
    flue_arena_init(&arena, 1 << 20, 0);
    flue_check_init(&check, &arena);
    void *config = flue_bind_yaml(&check, yaml, vendor->fields, vendor->config_size);
    if (config)
        vendor->check(config, &check);
    unsigned count = (unsigned)check.mistakes;
    flue_arena_destroy(&arena);
    return count;
}

static void configuration_is_checked(void **state)
{
    assert_int_equal(mistakes(&flue_object_s3, "{s3_bucket: b}"), 0);
    assert_int_equal(mistakes(&flue_object_s3, "{}"), 1);
    assert_int_equal(mistakes(&flue_object_s3, "{s3_bucket: a/b}"), 1);
    assert_int_equal(mistakes(&flue_object_s3, "{s3_bucket: b, region: 'us east'}"), 1);
    assert_int_equal(mistakes(&flue_object_s3, "{s3_bucket: b, region: 'x.evil/'}"), 1);
    assert_int_equal(mistakes(&flue_object_s3, "{s3_bucket: b, acl: nobody}"), 1);
    assert_int_equal(mistakes(&flue_object_s3, "{s3_bucket: b, storage_class: cold}"), 1);
    assert_int_equal(mistakes(&flue_object_s3, "{s3_bucket: b, server_side_encryption: rot13}"), 1);
    assert_int_equal(mistakes(&flue_object_s3, "{s3_bucket: b, endpoint: 'ftp://x'}"), 1);
    assert_int_equal(mistakes(&flue_object_s3, "{s3_bucket: b, checksum: sum}"), 1);
    assert_int_equal(mistakes(&flue_object_gcs, "{name: b}"), 0);
    assert_int_equal(mistakes(&flue_object_gcs, "{name: b, endpoint: 'x'}"), 1);
    assert_int_equal(mistakes(&flue_object_azure, "{container: abc}"), 0);
    assert_int_equal(mistakes(&flue_object_azure, "{container: ab}"), 1);
    assert_int_equal(mistakes(&flue_object_azure, "{container: abc, access_tier: Frozen}"), 1);
    assert_int_equal(
        mistakes(&flue_object_azure, "{container: abc, auth: {type: connection_string}}"), 1);
    assert_int_equal(mistakes(&flue_object_folder, "{path: /x}"), 0);
    assert_int_equal(mistakes(&flue_object_folder, "{path: /x, directory_permissions: '0999'}"), 1);
    assert_int_equal(mistakes(&flue_object_folder, "{path: /x, directory_permissions: '0400'}"), 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {T(credentials_that_end),
                                       T(a_store_that_goes_cancels_what_is_open),
                                       T(requests_are_cancelled_not_from_within),
                                       T(deadlines_hold),
                                       cmocka_unit_test(urls),
                                       cmocka_unit_test(configuration_is_checked)};
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
