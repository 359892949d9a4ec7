/* check_avx2.c: the fast walk for machines with AVX2 and BMI; called only after asking the
 * processor. */
#include "proto/otlp/check.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,popcnt,lzcnt"))),                \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,bmi,bmi2,popcnt,lzcnt")
#endif

#define WALK_AVX2  1
#define WALK(name) name##_avx2
#include "proto/otlp/check_walk.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
