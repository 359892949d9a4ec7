/* What follows from names and paths: cgroups, images, workloads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include "kubernetes/cgroup.h"
#include "kubernetes/image.h"
#include "kubernetes/workload.h"

#define A     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1"
#define B     "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb2"
#define UID   "0f0a1b2c-1111-4222-8333-444455556666"
#define UND   "0f0a1b2c_1111_4222_8333_444455556666"
#define MD5   "0123456789abcdef0123456789abcdef"
#define SLICE "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UND ".slice"

static const struct {
    const char *path, *container, *pod;
} paths[] = {
    {SLICE "/cri-containerd-" A ".scope", A, UID},
    {"/kubepods/besteffort/pod" UID "/" A, A, UID},
    {"/system.slice/containerd.service/kubepods-besteffort-pod" UND ".slice:cri-containerd:" A, A,
     UID},
    {SLICE "/crio-" A ".scope", A, UID},
    {SLICE "/crio-" A ".scope/container", A, UID},
    {"/kubepods/burstable/pod" UID "/crio-" A, A, UID},
    {SLICE "/crio-conmon-" A ".scope", "", UID},
    {"/docker/" A, A, ""},
    {"/system.slice/docker-" A ".scope", A, ""},
    {"/system.slice/docker-" A ".scope/init", A, ""},
    {SLICE "/docker-" A ".scope", A, UID},
    {"/kubepods.slice/kubepods-pod" UND ".slice/cri-containerd-" A ".scope", A, UID},
    {"/kubepods/pod" MD5 "/" A, A, MD5},
    {"/kubepods.slice/kubepods-pod" MD5 ".slice/cri-containerd-" A ".scope", A, MD5},
    {"/docker/" A "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
     "kubelet-kubepods-burstable-pod" UND ".slice/cri-containerd-" B ".scope",
     B, UID},
    {"/system.slice/docker-" A ".scope/kubepods/burstable/pod" UID "/" B, B, UID},
    {"/machine.slice/libpod-" A ".scope", A, ""},
    {"/libpod_parent/libpod-" A, A, ""},
    {"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" A ".scope/container", A,
     ""},
    {"/ecs/" UID "/" A, A, ""},
    {"/ecs/" MD5 "-1234567890", MD5 "-1234567890", ""},
    {"/garden/" UID, UID, ""},
    {"/garden/6f26-2a3b-4c5d-6e7f-8a9b", "6f26-2a3b-4c5d-6e7f-8a9b", ""},
    {"/../cri-containerd-" A ".scope", A, ""},
    {"/../../pod" MD5 "/" A, A, MD5},
    {"/kubepods/burstable/pod" UID, "", UID},
    {"/", NULL, NULL},
    {"", NULL, NULL},
    {"/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-" UID ".scope", NULL, NULL},
    {"/../../user.slice/user-0.slice/session-3.scope", NULL, NULL},
    {"/system.slice/sshd.service", NULL, NULL},
    {"/docker/" A "0", NULL, NULL},
    {"/docker/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", NULL, NULL},
};

static void every_form_of_a_cgroup(void **state)
{
    for (unsigned i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct flue_kube_cgroup got;
        bool found = flue_kube_cgroup_path(flue_bytes_of(paths[i].path), &got);
        if (found != (paths[i].container != NULL))
            fail_msg("%s: %d %s %s", paths[i].path, found, got.container, got.pod);
        if (!found)
            continue;
        assert_string_equal(got.container, paths[i].container);
        assert_string_equal(got.pod, paths[i].pod);
    }
}

static void files_of_both_versions(void **state)
{
    struct flue_kube_cgroup got;
    static const char v1[] =
        "12:cpuset:/\n11:name=systemd:/docker/" B "\n10:memory:/docker/" A "\n0::/\n";
    assert_true(flue_kube_cgroup_file(flue_bytes_of(v1), &got));
    assert_string_equal(got.container, A);
    assert_true(flue_kube_cgroup_file(FLUE_BYTES("1:name=systemd:/docker/" B "\n0::/\n"), &got));
    assert_string_equal(got.container, B);
    assert_true(flue_kube_cgroup_file(FLUE_BYTES("0::" SLICE "/cri-containerd-" A ".scope"), &got));
    assert_string_equal(got.container, A);
    assert_false(flue_kube_cgroup_file(FLUE_BYTES("0::/\n"), &got));
    assert_false(flue_kube_cgroup_file(FLUE_BYTES("nonsense\n:\n::\n\n"), &got));
    assert_string_equal(got.container, "");
}

/* Any start and any end of any form: nothing is read or written beyond (the sanitizers judge). */
static void pieces_of_paths(void **state)
{
    for (unsigned i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        size_t size = strlen(paths[i].path);
        for (size_t from = 0; from <= size; from++)
            for (size_t to = from; to <= size; to += 3) {
                struct flue_kube_cgroup got;
                (void)flue_kube_cgroup_path(flue_bytes(paths[i].path + from, to - from), &got);
            }
    }
}

static const struct {
    const char *reference, *name, *tag, *digest;
} images[] = {
    {"nginx", "nginx", "latest", ""},
    {"nginx:1.2", "nginx", "1.2", ""},
    {"registry.example:5000/media/packager", "registry.example:5000/media/packager", "latest", ""},
    {"registry.example:5000/media/packager:4.2", "registry.example:5000/media/packager", "4.2", ""},
    {"r/x@sha256:" A, "r/x", "", "sha256:" A},
    {"r/x:1@sha256:" A, "r/x", "1", "sha256:" A},
    {"sha256:" A, NULL, NULL, NULL},
    {A, NULL, NULL, NULL},
    {"", NULL, NULL, NULL},
    {"x:", NULL, NULL, NULL},
    {"a b", NULL, NULL, NULL},
    {":1", NULL, NULL, NULL},
};

static void references_of_images(void **state)
{
    for (unsigned i = 0; i < sizeof images / sizeof images[0]; i++) {
        struct flue_kube_image got;
        bool good = flue_kube_image_read(flue_bytes_of(images[i].reference), &got);
        assert_int_equal(good, images[i].name != NULL);
        if (!good)
            continue;
        assert_true(flue_bytes_is(got.name, images[i].name));
        assert_true(flue_bytes_is(got.tag, images[i].tag));
        assert_true(flue_bytes_is(got.digest, images[i].digest));
    }
    assert_true(flue_bytes_is(flue_kube_image_digest(FLUE_BYTES("docker-pullable://r/x@sha256:" A)),
                              "r/x@sha256:" A));
    assert_int_equal(flue_kube_image_digest(FLUE_BYTES("sha256:" A)).size, 0);
    assert_int_equal(flue_kube_image_digest(FLUE_BYTES("r/x@sha256:abc")).size, 0);
}

static void names_of_workloads(void **state)
{
    struct flue_bytes hash = FLUE_BYTES("7d9c5b8f6d");
    assert_true(flue_bytes_is(flue_kube_deployment_name(FLUE_BYTES("packager-eu-7d9c5b8f6d"), hash),
                              "packager-eu"));
    assert_int_equal(flue_kube_deployment_name(FLUE_BYTES("bare"), hash).size, 0);
    assert_int_equal(flue_kube_deployment_name(FLUE_BYTES("-7d9c5b8f6d"), hash).size, 0);
    assert_int_equal(flue_kube_deployment_name(FLUE_BYTES("x7d9c5b8f6d"), hash).size, 0);
    assert_int_equal(
        flue_kube_deployment_name(FLUE_BYTES("bare-7d9c5b8f6d"), flue_bytes(NULL, 0)).size, 0);
    assert_true(flue_bytes_is(flue_kube_cronjob_name(FLUE_BYTES("reindex-29012345")), "reindex"));
    assert_int_equal(flue_kube_cronjob_name(FLUE_BYTES("step-2")).size, 0);
    assert_int_equal(flue_kube_cronjob_name(FLUE_BYTES("29012345")).size, 0);
    assert_int_equal(flue_kube_cronjob_name(FLUE_BYTES("-29012345")).size, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_of_a_cgroup), cmocka_unit_test(files_of_both_versions),
        cmocka_unit_test(pieces_of_paths),        cmocka_unit_test(references_of_images),
        cmocka_unit_test(names_of_workloads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
