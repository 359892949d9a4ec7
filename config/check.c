/* check.c: collecting mistakes, finding the place of a path, and the nearest name. */
#include "config/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void flue_check_init(struct flue_check *check, struct flue_arena *arena)
{
    *check = (struct flue_check){.arena = arena, .path = "", .at = {"", 0, 0}};
}

void flue_check_enter(struct flue_check *check, const struct flue_node *node, const char *path,
                      struct flue_position at)
{
    check->node = node;
    check->path = path;
    check->at = at;
}

static void add(struct flue_check *check, struct flue_position position, bool warning,
                const char *path, const char *format, va_list args)
    __attribute__((format(printf, 5, 0)));

static void add(struct flue_check *check, struct flue_position position, bool warning,
                const char *path, const char *format, va_list args)
{
    if (warning)
        check->warnings++;
    else
        check->mistakes++;
    if (check->count >= FLUE_CHECK_MAX)
        return;
    char text[1024];
    vsnprintf(text, sizeof text, format, args);
    struct flue_mistake mistake = {
        .position = position, .warning = warning, .order = (uint32_t)check->count};
    mistake.text = *path ? flue_arena_printf(check->arena, "%s: %s", path, text)
                         : flue_arena_string(check->arena, flue_bytes_of(text));
    if (!mistake.text)
        mistake.text = "out of memory while this mistake was written down";
    FLUE_ARENA_PUSH(check->arena, check->items, check->count, check->room, mistake);
}

void flue_mistake_at(struct flue_check *check, struct flue_position position, const char *format,
                     ...)
{
    va_list args;
    va_start(args, format);
    add(check, position, false, "", format, args);
    va_end(args);
}

void flue_warning_at(struct flue_check *check, struct flue_position position, const char *format,
                     ...)
{
    va_list args;
    va_start(args, format);
    add(check, position, true, "", format, args);
    va_end(args);
}

/* The entry of `map` whose key is the longest beginning of `path` that ends at a separator. */
static const struct flue_node_entry *step(const struct flue_node *map, const char **path)
{
    const struct flue_node_entry *best = NULL;
    size_t best_size = 0;
    for (size_t i = 0; i < map->count; i++) {
        size_t size = strlen(map->entries[i].key);
        if (size && size > best_size && strncmp(*path, map->entries[i].key, size) == 0 &&
            ((*path)[size] == 0 || (*path)[size] == '.' || (*path)[size] == '[')) {
            best = &map->entries[i];
            best_size = size;
        }
    }
    *path += best_size;
    return best;
}

static struct flue_position locate(const struct flue_check *check, const char *path)
{
    struct flue_position at = check->at;
    const struct flue_node *node = check->node;
    while (node && *path) {
        if (*path == '.')
            path++;
        if (node->type == FLUE_NODE_MAP) {
            const struct flue_node_entry *entry = step(node, &path);
            if (!entry)
                break;
            at = flue_entry_position(entry);
            node = entry->node;
        } else if (node->type == FLUE_NODE_LIST) {
            if (*path == '[')
                path++;
            char *end;
            unsigned long index = strtoul(path, &end, 10);
            if (end == path || index >= node->count)
                break;
            path = *end == ']' ? end + 1 : end;
            node = node->items[index];
            at = node->position;
        } else {
            break;
        }
    }
    return at;
}

static void fail(struct flue_check *check, const char *path, bool warning, const char *format,
                 va_list args) __attribute__((format(printf, 4, 0)));

static void fail(struct flue_check *check, const char *path, bool warning, const char *format,
                 va_list args)
{
    const char *dot = *path && *check->path && *path != '[' ? "." : "";
    const char *full = flue_arena_printf(check->arena, "%s%s%s", check->path, dot, path);
    add(check, locate(check, path), warning, full ? full : path, format, args);
}

void flue_check_fail(struct flue_check *check, const char *path, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail(check, path, false, format, args);
    va_end(args);
}

void flue_check_warn(struct flue_check *check, const char *path, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail(check, path, true, format, args);
    va_end(args);
}

static int compare(const void *left, const void *right)
{
    const struct flue_mistake *a = left, *b = right;
    int files = strcmp(a->position.file, b->position.file);
    if (files)
        return files;
    if (a->position.line != b->position.line)
        return a->position.line < b->position.line ? -1 : 1;
    if (a->position.column != b->position.column)
        return a->position.column < b->position.column ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

void flue_check_print(struct flue_check *check, struct flue_buffer *out)
{
    if (check->count)
        qsort(check->items, check->count, sizeof *check->items, compare);
    for (size_t i = 0; i < check->count; i++) {
        const struct flue_mistake *m = &check->items[i];
        if (m->position.line)
            flue_buffer_printf(out, "%s:%u:%u: ", m->position.file, m->position.line,
                               m->position.column);
        else if (*m->position.file)
            flue_buffer_printf(out, "%s: ", m->position.file);
        flue_buffer_printf(out, "%s%s\n", m->warning ? "warning: " : "", m->text);
    }
    size_t left = check->mistakes + check->warnings - check->count;
    if (left)
        flue_buffer_printf(out, "%zu more are not shown\n", left);
}

/* ---- nearest name ---------------------------------------------------------------------------- */

#define WORD_MAX_SIZE 64

static char fold(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c + 32);
    return c == '-' ? '_' : c;
}

/* Edits (insert, delete, replace, swap of neighbours) between two words. */
static size_t distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);
    if (na > WORD_MAX_SIZE || nb > WORD_MAX_SIZE)
        return SIZE_MAX;
    uint8_t rows[3][WORD_MAX_SIZE + 1];
    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = (uint8_t)j;
    for (size_t i = 1; i <= na; i++) {
        uint8_t *now = rows[i % 3];
        const uint8_t *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        now[0] = (uint8_t)i;
        for (size_t j = 1; j <= nb; j++) {
            unsigned best = last[j - 1] + (fold(a[i - 1]) != fold(b[j - 1]));
            if (last[j] + 1u < best)
                best = last[j] + 1u;
            if (now[j - 1] + 1u < best)
                best = now[j - 1] + 1u;
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                fold(a[i - 2]) == fold(b[j - 1]) && before[j - 2] + 1u < best)
                best = before[j - 2] + 1u;
            now[j] = (uint8_t)best;
        }
    }
    return rows[na % 3][nb];
}

void flue_nearest_offer(struct flue_nearest *nearest, const char *candidate)
{
    size_t size = strlen(nearest->word);
    size_t edits = distance(nearest->word, candidate);
    size_t allowed = (size + 2) / 3;
    if (edits > allowed) {
        /* "retry" for "retry_on_failure": a beginning is meant, but anything nearer wins. */
        size_t other = strlen(candidate);
        size_t common = size < other ? size : other;
        if (common < 3 || strncmp(nearest->word, candidate, common) != 0)
            return;
        edits = WORD_MAX_SIZE;
    }
    if (!nearest->best || edits < nearest->distance) {
        nearest->best = candidate;
        nearest->distance = edits;
    }
}

const char *flue_nearest_hint(const struct flue_nearest *nearest, struct flue_arena *arena)
{
    if (!nearest->best)
        return "";
    const char *hint = flue_arena_printf(arena, " (did you mean \"%s\"?)", nearest->best);
    return hint ? hint : "";
}
