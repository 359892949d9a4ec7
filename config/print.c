/* print.c: canonical YAML and JSON. */
#include "config/print.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Plain style only for words that nobody could read otherwise. */
static bool plain(const char *text)
{
    struct flue_node probe = {.text = text};
    if (!*text || strlen(text) > 512)
        return false;
    flue_node_resolve(&probe);
    if (probe.type != FLUE_NODE_STRING)
        return false;
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_/";
    static const char others[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+";
    bool digit = *text >= '0' && *text <= '9';
    if (!digit && !strchr(letters, *text))
        return false;
    for (const char *c = text; *c; c++) {
        if (*c == ':' && c[1] && c[1] != ' ')
            continue; /* "localhost:4317", "http://x" */
        if (!strchr(others, *c))
            return false;
    }
    return true;
}

static void quote(const char *text, struct flue_buffer *out)
{
    flue_buffer_byte(out, '"');
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            flue_buffer_printf(out, "\\%c", *c);
        else if (*c == '\n')
            flue_buffer_text(out, "\\n");
        else if (*c == '\t')
            flue_buffer_text(out, "\\t");
        else if (*c < 0x20 || *c == 0x7f)
            flue_buffer_printf(out, "\\x%02x", *c);
        else if (c[0] == 0xc2 && c[1] < 0xa0) /* U+0080 to U+009F */
            flue_buffer_printf(out, "\\x%02x", *++c);
        else if (c[0] == 0xe2 && c[1] == 0x80 && (c[2] == 0xa8 || c[2] == 0xa9)) {
            flue_buffer_text(out, c[2] == 0xa8 ? "\\L" : "\\P"); /* line separators */
            c += 2;
        } else
            flue_buffer_byte(out, *c);
    }
    flue_buffer_byte(out, '"');
}

/* `value` with "$" doubled and, when redacting, without the password of an URL; NUL at the end. */
static void escape(const char *value, bool redact, bool dollars, struct flue_buffer *out)
{
    const char *scheme = redact ? strstr(value, "://") : NULL;
    const char *from = NULL, *to = NULL;
    if (scheme) {
        const char *end = scheme + 3 + strcspn(scheme + 3, "/?# ");
        const char *at = memchr(scheme + 3, '@', (size_t)(end - scheme - 3));
        for (const char *next = at; next; next = memchr(at + 1, '@', (size_t)(end - at - 1)))
            at = next;
        const char *colon = at ? memchr(scheme + 3, ':', (size_t)(at - scheme - 3)) : NULL;
        if (colon) {
            from = colon + 1;
            to = at;
        }
    }
    for (const char *c = value; *c; c++) {
        if (c == from && from < to) {
            flue_buffer_text(out, FLUE_REDACTED);
            c = to - 1;
            continue;
        }
        flue_buffer_byte(out, (uint8_t)*c);
        if (*c == '$' && dollars)
            flue_buffer_byte(out, '$');
    }
}

static void number(double value, struct flue_buffer *out, bool json)
{
    char text[40];
    if (isnan(value) || isinf(value)) {
        flue_buffer_text(out, json ? "null" : isnan(value) ? ".nan" : value < 0 ? "-.inf" : ".inf");
        return;
    }
    snprintf(text, sizeof text, "%.17g", value);
    double shorter;
    char small[40];
    snprintf(small, sizeof small, "%.15g", value);
    if (sscanf(small, "%lf", &shorter) == 1 && shorter == value)
        memcpy(text, small, sizeof text);
    flue_buffer_text(out, text);
    if (!strpbrk(text, ".e"))
        flue_buffer_text(out, ".0");
}

struct printer {
    struct flue_buffer *out;
    bool redact, json;
};

static void string(struct printer *p, const char *text)
{
    struct flue_buffer copy;
    flue_buffer_init(&copy, 8u << 20);
    escape(text, p->redact, !p->json, &copy);
    const char *value = copy.data ? copy.data : "";
    if (p->json)
        flue_buffer_json(p->out, flue_bytes_of(value));
    else if (plain(value))
        flue_buffer_text(p->out, value);
    else
        quote(value, p->out);
    p->out->failed |= copy.failed;
    flue_buffer_destroy(&copy);
}

static void scalar(struct printer *p, const struct flue_node *node, bool secret)
{
    if (p->redact && (secret || node->secret) && node->type != FLUE_NODE_NULL) {
        flue_buffer_text(p->out, "\"" FLUE_REDACTED "\"");
        return;
    }
    if (node->as_text && node->text) {
        string(p, node->text);
        return;
    }
    switch (node->type) {
    case FLUE_NODE_NULL:
        flue_buffer_text(p->out, "null");
        break;
    case FLUE_NODE_BOOL:
        flue_buffer_text(p->out, node->boolean ? "true" : "false");
        break;
    case FLUE_NODE_INT:
        flue_buffer_printf(p->out, "%lld", (long long)node->integer);
        break;
    case FLUE_NODE_FLOAT:
        number(node->number, p->out, p->json);
        break;
    default: /* a map where a string must stand has no text; its mistake is told elsewhere */
        string(p, node->text ? node->text : "");
        break;
    }
}

/* What no field vouches for (it stands under an ignored key) is judged by its name. */
static bool secret_name(const struct flue_node_entry *entry)
{
    static const char *const words[] = {"password", "secret", "token",  "credential",
                                        "key_pem",  "auth",   "api_key"};
    if (entry->node->as_text || entry->node->type != FLUE_NODE_STRING)
        return false;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strstr(entry->key, words[i]))
            return true;
    return false;
}

static bool is_scalar(const struct flue_node *node)
{
    return node->as_text ||
           !((node->type == FLUE_NODE_MAP || node->type == FLUE_NODE_LIST) && node->count);
}

static void line(struct printer *p, unsigned indent)
{
    for (unsigned i = 0; i < indent; i++)
        flue_buffer_text(p->out, "  ");
}

static void empty_or_scalar(struct printer *p, const struct flue_node *node, bool secret)
{
    if (!node->as_text && node->type == FLUE_NODE_MAP)
        flue_buffer_text(p->out, "{}");
    else if (!node->as_text && node->type == FLUE_NODE_LIST)
        flue_buffer_text(p->out, "[]");
    else
        scalar(p, node, secret);
}

/* `started`: the caller has written the indentation of the first line (behind "- "). */
static void yaml(struct printer *p, const struct flue_node *node, unsigned indent, bool started)
{
    for (size_t i = 0; i < node->count; i++) {
        if (i || !started)
            line(p, indent);
        const struct flue_node *child;
        bool secret = false, list = node->type == FLUE_NODE_LIST;
        if (list) {
            child = node->items[i];
            flue_buffer_text(p->out, "- ");
        } else {
            child = node->entries[i].node;
            secret = secret_name(&node->entries[i]);
            if (plain(node->entries[i].key))
                flue_buffer_text(p->out, node->entries[i].key);
            else
                quote(node->entries[i].key, p->out);
            flue_buffer_byte(p->out, ':');
        }
        if (is_scalar(child)) {
            if (!list)
                flue_buffer_byte(p->out, ' ');
            empty_or_scalar(p, child, secret);
            flue_buffer_byte(p->out, '\n');
        } else {
            if (!list)
                flue_buffer_byte(p->out, '\n');
            yaml(p, child, indent + 1, list);
        }
    }
}

static void json(struct printer *p, const struct flue_node *node, unsigned indent, bool secret)
{
    bool map = node->type == FLUE_NODE_MAP;
    if (is_scalar(node)) {
        empty_or_scalar(p, node, secret);
        return;
    }
    flue_buffer_text(p->out, map ? "{\n" : "[\n");
    for (size_t i = 0; i < node->count; i++) {
        line(p, indent + 1);
        if (map) {
            flue_buffer_json(p->out, flue_bytes_of(node->entries[i].key));
            flue_buffer_text(p->out, ": ");
            json(p, node->entries[i].node, indent + 1, secret_name(&node->entries[i]));
        } else {
            json(p, node->items[i], indent + 1, false);
        }
        flue_buffer_text(p->out, i + 1 < node->count ? ",\n" : "\n");
    }
    line(p, indent);
    flue_buffer_text(p->out, map ? "}" : "]");
}

void flue_node_print_yaml(const struct flue_node *node, bool redact, struct flue_buffer *out)
{
    struct printer p = {.out = out, .redact = redact};
    if (is_scalar(node)) {
        empty_or_scalar(&p, node, false);
        flue_buffer_byte(out, '\n');
    } else {
        yaml(&p, node, 0, false);
    }
}

void flue_node_print_json(const struct flue_node *node, bool redact, struct flue_buffer *out)
{
    struct printer p = {.out = out, .redact = redact, .json = true};
    json(&p, node, 0, false);
    flue_buffer_byte(out, '\n');
}
