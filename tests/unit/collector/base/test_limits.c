/* Limits of cgroups in both versions, read from trees like those of a kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "collector/base/limits.h"

static char root[64];

static int setup(void **state)
{
    snprintf(root, sizeof root, "/tmp/flue-limits-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static int teardown(void **state)
{
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *path, const char *text)
{
    char full[512];
    FILE *file;

    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        mkdir(full, 0700);
        *at = '/';
    }
    file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void nothing_there(void **state)
{
    struct flue_limits limits;

    flue_limits_read(root, &limits);
    assert_true(limits.memory == INT64_MAX && limits.cpus == INT64_MAX);
}

static void version_2(void **state)
{
    struct flue_limits limits;

    put("/proc/self/cgroup", "0::/pods/one/box\n");
    put("/sys/fs/cgroup/pods/one/box/memory.max", "max\n");
    put("/sys/fs/cgroup/pods/one/memory.max", "536870912\n");
    put("/sys/fs/cgroup/pods/memory.max", "1073741824\n");
    put("/sys/fs/cgroup/pods/one/box/cpu.max", "150000 100000\n");
    put("/sys/fs/cgroup/pods/cpu.max", "max 100000\n");
    flue_limits_read(root, &limits);
    assert_int_equal(limits.memory, 536870912);
    assert_int_equal(limits.cpus, 1500);
}

/* In a container the root of the tree it sees is its own group, whatever the file says. */
static void version_2_own_view(void **state)
{
    struct flue_limits limits;

    put("/proc/self/cgroup", "0::/../../elsewhere\n");
    put("/sys/fs/cgroup/memory.max", "1048576\n");
    put("/sys/fs/cgroup/cpu.max", "50000 100000\n");
    flue_limits_read(root, &limits);
    assert_int_equal(limits.memory, 1048576);
    assert_int_equal(limits.cpus, 500);
}

static void version_1(void **state)
{
    struct flue_limits limits;

    put("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/a/b\n2:cpu,cpuacct:/a\n0::/\n");
    put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2097152\n");
    put("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "200000\n");
    put("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    flue_limits_read(root, &limits);
    assert_int_equal(limits.memory, 2097152);
    assert_int_equal(limits.cpus, 2000);
}

static void this_machine(void **state)
{
    assert_true(flue_usable_cpus() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_there, setup, teardown),
        cmocka_unit_test_setup_teardown(version_2, setup, teardown),
        cmocka_unit_test_setup_teardown(version_2_own_view, setup, teardown),
        cmocka_unit_test_setup_teardown(version_1, setup, teardown),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
