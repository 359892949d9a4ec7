/* tsan.h: librdkafka's threads under ThreadSanitizer. The library makes them by C11's thrd_create,
 * which the sanitizer does not know: such a thread ends with a crash at its first malloc. So the
 * test makes them by pthread_create instead (its symbols come before libc's; CMake exports them).
 * What the library does between its own C11 mutexes is not seen, so it is not judged.
 */
#ifndef TESTS_KAFKA_TSAN_H
#define TESTS_KAFKA_TSAN_H

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KAFKA_UNDER_TSAN 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define KAFKA_UNDER_TSAN 1
#endif

#ifdef KAFKA_UNDER_TSAN
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

struct thrd_start {
    thrd_start_t run;
    void *arg;
};

static void *thrd_run(void *arg)
{
    struct thrd_start start = *(struct thrd_start *)arg;
    free(arg);
    return (void *)(intptr_t)start.run(start.arg);
}

int thrd_create(thrd_t *thread, thrd_start_t run, void *arg)
{
    struct thrd_start *start = malloc(sizeof *start);

    if (!start)
        return thrd_nomem;
    *start = (struct thrd_start){run, arg};
    return pthread_create(thread, NULL, thrd_run, start) ? thrd_error : thrd_success;
}

int thrd_join(thrd_t thread, int *result)
{
    void *value;

    if (pthread_join(thread, &value))
        return thrd_error;
    if (result)
        *result = (int)(intptr_t)value;
    return thrd_success;
}

/* A delivery report (on_event) writes into the record that was handed to the library. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:librdkafka.so.1\nrace_top:on_event\n";
}
#endif

#endif
