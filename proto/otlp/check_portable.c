/* check_portable.c: the fast walk for any machine. */
#include "proto/otlp/check.h"

#define WALK(name) name##_portable
#include "proto/otlp/check_walk.h"
