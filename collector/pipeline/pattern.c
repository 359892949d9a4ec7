/* pattern.c: from the regular expressions of a Collector file to POSIX extended ones. */
#include "collector/pipeline/actions.h"
#include <ctype.h>
#include <stdio.h>

struct translation {
    const char *at;
    struct flue_pattern *out;
    size_t size;
    struct flue_error *error;
};

static bool put(struct translation *t, const char *text)
{
    size_t size = strlen(text);
    if (t->size + size >= sizeof t->out->text) {
        (void)flue_fail(t->error, FLUE_INVALID, "the pattern is longer than %zu bytes",
                        sizeof t->out->text - 1);
        return false;
    }
    memcpy(t->out->text + t->size, text, size + 1);
    t->size += size;
    return true;
}

static bool put_char(struct translation *t, char c)
{
    return put(t, (const char[]){c, 0});
}

static bool refuse(struct translation *t, const char *what)
{
    (void)flue_fail(t->error, FLUE_INVALID,
                    "%s is not supported in a pattern (POSIX extended syntax with named groups)",
                    what);
    return false;
}

static bool escape(struct translation *t)
{
    char c = *++t->at;

    if (c)
        t->at++;
    switch (c) {
    case 'd':
        return put(t, "[0-9]");
    case 'D':
        return put(t, "[^0-9]");
    case 'w':
        return put(t, "[[:alnum:]_]");
    case 'W':
        return put(t, "[^[:alnum:]_]");
    case 's':
        return put(t, "[[:space:]]");
    case 'S':
        return put(t, "[^[:space:]]");
    case 't':
        return put(t, "\t");
    case 'n':
        return put(t, "\n");
    case 'b':
    case 'B':
        return put_char(t, '\\') && put_char(t, c);
    case 0:
        return refuse(t, "a backslash at the end");
    default:
        if (isalnum((unsigned char)c))
            return refuse(t, (const char[]){'\\', c, 0});
        return put_char(t, '\\') && put_char(t, c);
    }
}

/* A bracket expression, in which POSIX takes a backslash for itself. */
static bool bracket(struct translation *t)
{
    char late[4] = "", text[3] = "";

    if (!put_char(t, *t->at++))
        return false;
    if (*t->at == '^' && !put_char(t, *t->at++))
        return false;
    if (*t->at == ']' && !put_char(t, *t->at++))
        return false;
    while (*t->at && *t->at != ']') {
        if (t->at[0] == '[' && t->at[1] == ':') {
            const char *end = strstr(t->at, ":]");
            if (!end)
                return refuse(t, "an open [: class");
            while (t->at < end + 2)
                if (!put_char(t, *t->at++))
                    return false;
            continue;
        }
        if (*t->at != '\\') {
            if (!put_char(t, *t->at++))
                return false;
            continue;
        }
        char c = *++t->at;
        if (c)
            t->at++;
        bool ok = c == 'd'   ? put(t, "0-9")
                  : c == 'w' ? put(t, "[:alnum:]_")
                  : c == 's' ? put(t, "[:space:]")
                  : c == 't' ? put(t, "\t")
                  : c == 'n' ? put(t, "\n")
                  : c == '-' ? (memcpy(late, "-", 2), true) /* is itself at the end only */
                  : c == 0 || isalnum((unsigned char)c) || c == ']' || c == '^'
                      ? (snprintf(text, sizeof text, "\\%c", c), refuse(t, text))
                      : put_char(t, c);
        if (!ok)
            return false;
    }
    if (!*t->at)
        return refuse(t, "a bracket that is not closed");
    t->at++;
    return put(t, late) && put_char(t, ']');
}

static bool group(struct translation *t)
{
    struct flue_pattern *out = t->out;
    char *name;
    size_t size = 0;

    if (out->groups + 1 >= FLUE_PATTERN_GROUPS)
        return refuse(t, "more than 31 groups");
    name = out->names[++out->groups];
    t->at++;
    if (t->at[0] == '*' || t->at[0] == '+')
        return refuse(t, "a quantifier at the begin of a group");
    if (t->at[0] != '?')
        return put_char(t, '(');
    if (t->at[1] == ':') {
        t->at += 2;
        return put_char(t, '(');
    }
    if (t->at[1] == 'P' && t->at[2] == '<')
        t->at += 3;
    else if (t->at[1] == '<' && t->at[2] != '=' && t->at[2] != '!')
        t->at += 2;
    else
        return refuse(t, "(?...) other than named groups, (?:...) and a leading (?i)");
    while (*t->at && *t->at != '>') {
        if (size + 1 >= sizeof out->names[0] || (!isalnum((unsigned char)*t->at) && *t->at != '_'))
            return refuse(t, "such a group name");
        name[size++] = *t->at++;
    }
    if (!*t->at || !size)
        return refuse(t, "a group name that is empty or not closed");
    t->at++;
    name[size] = 0;
    return put_char(t, '(');
}

enum flue_code flue_pattern_translate(const char *pattern, struct flue_pattern *out,
                                      struct flue_error *error)
{
    struct translation t = {.at = pattern, .out = out, .error = error};

    memset(out, 0, sizeof *out);
    if (strncmp(t.at, "(?i)", 4) == 0) {
        out->ignore_case = true;
        t.at += 4;
    }
    while (*t.at) {
        bool ok;
        switch (*t.at) {
        case '\\':
            ok = escape(&t);
            break;
        case '[':
            ok = bracket(&t);
            break;
        case '(':
            ok = group(&t);
            break;
        case '*':
        case '+':
        case '?':
        case '}':
            ok = put_char(&t, *t.at++);
            if (ok && (*t.at == '?' || *t.at == '+'))
                ok = refuse(&t, "a lazy or possessive quantifier");
            break;
        default:
            ok = put_char(&t, *t.at++);
        }
        if (!ok)
            return FLUE_INVALID;
    }
    return FLUE_OK;
}
