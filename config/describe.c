/* describe.c: rows of the reference, from the tables alone. */
#include "config/describe.h"

#include <stdio.h>

#include "config/bind.h"
#include "config/scalar.h"

#define MAX_DEPTH 16

static const char *type_name(enum flue_field_type type)
{
    switch (type) {
    case FLUE_FIELD_BOOL:
        return "true or false";
    case FLUE_FIELD_INT:
        return "whole number";
    case FLUE_FIELD_SIZE:
        return "size";
    case FLUE_FIELD_FLOAT:
        return "number";
    case FLUE_FIELD_DURATION:
        return "duration";
    case FLUE_FIELD_STRING:
        return "string";
    case FLUE_FIELD_SECRET:
        return "secret string";
    case FLUE_FIELD_ENDPOINT:
        return "host:port";
    case FLUE_FIELD_BLOCK:
        return "block";
    case FLUE_FIELD_OPTIONAL:
        return "optional block";
    case FLUE_FIELD_LIST:
        return "list of blocks";
    case FLUE_FIELD_STRINGS:
        return "list of strings";
    case FLUE_FIELD_MAP:
        return "map of strings";
    case FLUE_FIELD_SECRETS:
        return "map of secret strings";
    case FLUE_FIELD_VALUE:
        return "string, number or boolean";
    case FLUE_FIELD_IGNORED:
        return "ignored";
    default:
        return "";
    }
}

static void type_text(const struct flue_field *f, bool markdown, struct flue_buffer *out)
{
    if (f->type != FLUE_FIELD_ENUM) {
        flue_buffer_text(out, type_name(f->type));
        return;
    }
    for (int i = 0; f->choices[i]; i++) {
        const char *quote = markdown ? "`" : "", *name = f->choices[i];
        flue_buffer_printf(out, "%s%s%s%s",
                           !i         ? ""
                           : markdown ? ", "
                                      : " | ",
                           quote, *name ? name : "\"\"", quote);
    }
}

static bool is_block(const struct flue_field *f)
{
    return f->type == FLUE_FIELD_BLOCK || f->type == FLUE_FIELD_OPTIONAL ||
           f->type == FLUE_FIELD_LIST;
}

static void default_text(const struct flue_field *f, struct flue_buffer *out)
{
    if (f->required)
        flue_buffer_text(out, "required");
    else if (f->type == FLUE_FIELD_OPTIONAL)
        flue_buffer_text(out, f->def ? "on" : "off");
    else if (f->type == FLUE_FIELD_BLOCK || f->type == FLUE_FIELD_IGNORED)
        flue_buffer_text(out, "");
    else if (f->def)
        flue_buffer_text(out, *f->def ? f->def : "\"\"");
    else if (f->type == FLUE_FIELD_BOOL)
        flue_buffer_text(out, "false");
    else if (f->type == FLUE_FIELD_ENUM)
        flue_buffer_text(out, *f->choices[0] ? f->choices[0] : "\"\"");
    else if (f->type == FLUE_FIELD_INT || f->type == FLUE_FIELD_SIZE || f->type == FLUE_FIELD_FLOAT)
        flue_buffer_text(out, "0");
    else if (f->type == FLUE_FIELD_DURATION)
        flue_buffer_text(out, "0s");
}

static void bounds_text(const struct flue_field *f, struct flue_buffer *out)
{
    char low[64], high[64];
    if (f->minimum == 0 && f->maximum == 0) {
        if (f->unit)
            flue_buffer_printf(out, " (%s)", f->unit);
    } else if (f->maximum == INT64_MAX) {
        flue_buffer_printf(out, " (at least %s)", flue_bound_text(f, f->minimum, low, sizeof low));
    } else {
        struct flue_field bare = *f;
        bare.unit = NULL;
        flue_buffer_printf(out, " (%s to %s)", flue_bound_text(&bare, f->minimum, low, sizeof low),
                           flue_bound_text(f, f->maximum, high, sizeof high));
    }
}

typedef void (*row_function)(const struct flue_field *field, const char *path,
                             struct flue_buffer *out);

static void each(const struct flue_field *fields, const struct flue_squash *outer,
                 const char *prefix, row_function row, struct flue_buffer *out, unsigned depth)
{
    const struct flue_squash here = {fields, outer};
    for (const struct flue_field *f = fields; f->type != FLUE_FIELD_END; f++) {
        char path[512];
        if (!f->name) {
            each(f->fields, &here, prefix, row, out, depth);
            continue;
        }
        if (flue_field_hidden(outer, f->name))
            continue;
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", f->name);
        row(f, path, out);
        if (is_block(f) && depth < MAX_DEPTH) {
            if (f->type == FLUE_FIELD_LIST)
                snprintf(path, sizeof path, "%s%s%s[]", prefix, *prefix ? "." : "", f->name);
            each(f->fields, NULL, path, row, out, depth + 1);
        }
    }
}

static void help_text(const struct flue_field *f, struct flue_buffer *out)
{
    flue_buffer_text(out, f->help ? f->help : "");
    if (f->alias)
        flue_buffer_printf(out, "%sold name: %s", f->help ? "; " : "", f->alias);
}

static void text_row(const struct flue_field *f, const char *path, struct flue_buffer *out)
{
    struct flue_buffer facts;
    flue_buffer_init(&facts, 4096);
    default_text(f, &facts);
    flue_buffer_printf(out, "  %s: ", path);
    type_text(f, false, out);
    bounds_text(f, out);
    if (facts.size)
        flue_buffer_printf(out, f->required ? ", %s" : ", default %s", facts.data);
    flue_buffer_byte(out, '\n');
    flue_buffer_destroy(&facts);
    if (f->help || f->alias) {
        flue_buffer_text(out, "      ");
        help_text(f, out);
        flue_buffer_byte(out, '\n');
    }
}

/* "|" and "<" mean something within a Markdown table. */
static void cell(const char *text, struct flue_buffer *out)
{
    for (const char *c = text; *c; c++) {
        if (*c == '|')
            flue_buffer_text(out, "\\|");
        else if (*c == '<')
            flue_buffer_text(out, "&lt;");
        else
            flue_buffer_byte(out, (uint8_t)*c);
    }
}

static void markdown_row(const struct flue_field *f, const char *path, struct flue_buffer *out)
{
    struct flue_buffer facts;
    flue_buffer_printf(out, "| `%s` | ", path);
    type_text(f, true, out);
    bounds_text(f, out);
    flue_buffer_text(out, " | ");
    flue_buffer_init(&facts, 4096);
    default_text(f, &facts);
    bool word = f->required || f->type == FLUE_FIELD_OPTIONAL;
    if (facts.size)
        flue_buffer_printf(out, word ? "%s" : "`%s`", facts.data);
    flue_buffer_clear(&facts);
    flue_buffer_text(out, " | ");
    help_text(f, &facts);
    cell(facts.data ? facts.data : "", out);
    flue_buffer_destroy(&facts);
    flue_buffer_text(out, " |\n");
}

void flue_fields_text(const struct flue_field *fields, const char *prefix, struct flue_buffer *out)
{
    each(fields, NULL, prefix, text_row, out, 0);
}

void flue_fields_markdown(const struct flue_field *fields, const char *prefix,
                          struct flue_buffer *out)
{
    each(fields, NULL, prefix, markdown_row, out, 0);
}
