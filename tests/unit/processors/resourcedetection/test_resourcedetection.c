/* What the detectors without a network say, how they are merged and set; what is refused. */
#include <unistd.h>

#include "processors/resourcedetection/config.h"
#include "tests/unit/processors/resource/actions_test.h"

extern const struct flue_component flue_processor_resourcedetection;

static const char *run(const char *yaml, const char *attributes)
{
    return edit(&flue_processor_resourcedetection, yaml, attributes);
}

static void env_sets_attributes(void **state)
{
    setenv("OTEL_RESOURCE_ATTRIBUTES",
           " deployment.environment.name = production ,team=media%2Cedge,a%20b=c%3Dd,x=100%,last=%zz", 1);
    assert_string_equal(run("{}", ""), "deployment.environment.name=production\nteam=media,edge\n"
                                       "a b=c=d\nx=100%\nlast=%zz\n");
    unsetenv("OTEL_RESOURCE_ATTRIBUTES");
    setenv("OTEL_RESOURCE", "team=old", 1);
    assert_string_equal(run("{}", ""), "team=old\n");
    unsetenv("OTEL_RESOURCE");
    assert_string_equal(run("{}", ATTRIBUTE("team", "edge")), "team=edge\n");
}

static void env_that_is_wrong_sets_nothing(void **state)
{
    static const char *const wrong[] = {"team", "team=media,nonsense", "=media", "a=b,=c"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("OTEL_RESOURCE_ATTRIBUTES", wrong[i], 1);
        assert_string_equal(run("{}", ""), "");
    }
    setenv("OTEL_RESOURCE_ATTRIBUTES", "team=\xff\xfe,good=1", 1); /* not UTF-8 */
    assert_string_equal(run("{}", ""), "good=1\n");
    setenv("OTEL_RESOURCE_ATTRIBUTES", "team=media,", 1);
    assert_string_equal(run("{}", ""), "team=media\n");
    unsetenv("OTEL_RESOURCE_ATTRIBUTES");
}

static void override_decides(void **state)
{
    setenv("OTEL_RESOURCE_ATTRIBUTES", "team=media,site=ams", 1);
    assert_string_equal(run("override: true", ATTRIBUTE("team", "edge")), "team=media\nsite=ams\n");
    assert_string_equal(run("override: false", ATTRIBUTE("team", "edge")), "team=edge\nsite=ams\n");
    unsetenv("OTEL_RESOURCE_ATTRIBUTES");
}

static void the_first_detector_wins(void **state)
{
    char host[256], expected[600];
    gethostname(host, sizeof host);
    setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=from-env", 1);
    snprintf(expected, sizeof expected, "host.name=%s\nos.type=linux\n", host);
    assert_string_equal(
        run("{detectors: [system, env], system: {hostname_sources: [os]}}", ""), expected);
    assert_string_equal(
        run("{detectors: [env, system], system: {hostname_sources: [os]}}", ""),
        "host.name=from-env\nos.type=linux\n");
    unsetenv("OTEL_RESOURCE_ATTRIBUTES");
}

static void switches(void **state)
{
    char host[256], expected[600];
    gethostname(host, sizeof host);
    assert_string_equal(run("{detectors: [system], system: {hostname_sources: [os], "
                            "resource_attributes: {host.name: {enabled: false}}}}",
                            ""),
                        "os.type=linux\n");
    snprintf(expected, sizeof expected, "host.name=%s\n", host);
    assert_string_equal(run("{detectors: [system], system: {hostname_sources: [os], "
                            "resource_attributes: {os.type: {enabled: false}}}}",
                            ""),
                        expected);
    const char *all = run("{detectors: [system], system: {hostname_sources: [os], "
                          "resource_attributes: {host.arch: {enabled: true}, host.ip: {enabled: "
                          "true}, os.description: {enabled: true}, host.cpu.family: {enabled: "
                          "true}, host.id: {enabled: true}, host.mac: {enabled: true}}}}",
                          "");
    assert_non_null(strstr(all, "\nhost.arch="));
    assert_non_null(strstr(all, "\nos.description="));
    if (access("/etc/machine-id", R_OK) == 0)
        assert_non_null(strstr(all, "\nhost.id="));
}

static size_t mistakes(const char *yaml)
{
    const struct flue_component *component = &flue_processor_resourcedetection;
    struct flue_arena arena;
    struct flue_check check;
    flue_arena_init(&arena, 0, 0);
    flue_check_init(&check, &arena);
    void *config = flue_bind_yaml(&check, yaml, component->fields, component->config_size);
    if (config)
        component->check(config, &check);
    size_t count = check.mistakes;
    flue_arena_destroy(&arena);
    return count;
}

static void what_is_refused(void **state)
{
    assert_int_equal(mistakes("{}"), 0);
    assert_int_equal(mistakes("detectors: [env, system, docker, ec2, gcp, azure, eks, aks, "
                              "kubernetes_node, k8s_api, k8snode, consul]"),
                     0);
    assert_int_equal(mistakes("detectors: []"), 1);
    assert_int_equal(mistakes("detectors: [lambda]"), 1);
    assert_int_equal(mistakes("detectors: [env, env]"), 1);
    assert_int_equal(mistakes("{timeout: 0s}"), 1);
    assert_int_equal(mistakes("{timeout: 0s, retry: {max_elapsed_time: 1m}}"), 0);
    assert_int_equal(mistakes("system: {hostname_sources: [dns, os, cname, lookup]}"), 0);
    assert_int_equal(mistakes("system: {hostname_sources: [wins]}"), 1);
    assert_int_equal(mistakes("ec2: {tags: ['^a$']}"), 0);
    assert_int_equal(mistakes("ec2: {tags: ['^a$'], tags_from_imds: true}"), 0);
    assert_int_equal(mistakes("ec2: {tags: ['(a'], tags_from_imds: true}"), 1);
    assert_int_equal(mistakes("azure: {tags: ['a(?=b)']}"), 1);
    assert_int_equal(mistakes("gcp: {labels: ['^a$']}"), 0);
    assert_int_equal(mistakes("gcp: {labels: ['(a']}"), 1);
    assert_int_equal(mistakes("ec2: {resource_attributes: {k8s.pod.name: {enabled: true}}}"), 1);
    assert_int_equal(mistakes("consul: {address: 'consul:8500', token: x, meta: {rack: ''}}"), 0);
    assert_int_equal(mistakes("consul: {meta: {rack: , site: null}}"), 0);
    assert_int_equal(mistakes("timeout: -1s"), 1);
    assert_int_equal(mistakes("consul: {address: 'user@consul:8500'}"), 1);
    assert_int_equal(mistakes("kubernetes_node: {auth_type: password}"), 1);
    assert_int_equal(mistakes("k8snode: {auth_type: kubeConfig, node_from_env_var: NODE}"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(env_sets_attributes), cmocka_unit_test(env_that_is_wrong_sets_nothing),
        cmocka_unit_test(override_decides),    cmocka_unit_test(the_first_detector_wins),
        cmocka_unit_test(switches),            cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
