/* What every test of config/ begins with: an arena, a check, and its text. */
#ifndef CONFIG_TEST_H
#define CONFIG_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/bind.h"
#include "config/load.h"
#include "config/print.h"

struct fixture {
    struct flue_arena arena;
    struct flue_check check;
    struct flue_tree tree;
    struct flue_buffer text;
};

static inline void fixture_init(struct fixture *f)
{
    flue_arena_init(&f->arena, 64u << 20, 0);
    flue_check_init(&f->check, &f->arena);
    f->tree = (struct flue_tree){.arena = &f->arena};
    flue_buffer_init(&f->text, 16u << 20);
}

static inline void fixture_destroy(struct fixture *f)
{
    flue_buffer_destroy(&f->text);
    flue_arena_destroy(&f->arena);
}

/* All mistakes as printed. */
static inline const char *said(struct fixture *f)
{
    flue_buffer_clear(&f->text);
    flue_check_print(&f->check, &f->text);
    return f->text.data ? f->text.data : "";
}

static inline struct flue_node *parse(struct fixture *f, const char *yaml)
{
    return flue_yaml_parse(&f->tree, "c.yaml", flue_bytes_of(yaml), NULL, &f->check);
}

/* Canonical YAML, secrets shown. */
static inline const char *printed(struct fixture *f, const struct flue_node *node)
{
    flue_buffer_clear(&f->text);
    flue_node_print_yaml(node, false, &f->text);
    return f->text.data;
}

#endif
