/* host_pattern.c: compiled once, matched in one pass. */
#include "processors/cdn/host_pattern.h"

#include <stdio.h>

enum { ALPHA2, ALPHA3, ALPHA4, ALNUM4, DIGITS, LABEL, NAME };
static const struct {
    const char *name;
    unsigned exactly; /* characters; 0: one or more */
} classes[] = {{"alpha2", 2}, {"alpha3", 3}, {"alpha4", 4}, {"alnum4", 4},
               {"digits", 0}, {"label", 0},  {"name", 0}};
#define CLASSES (sizeof classes / sizeof classes[0])

static char lower(uint8_t c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c | 32 : c);
}

static bool in_class(unsigned class, uint8_t byte)
{
    char c = lower(byte);
    bool letter = c >= 'a' && c <= 'z', digit = c >= '0' && c <= '9';
    switch (class) {
    case ALPHA2:
    case ALPHA3:
    case ALPHA4:
        return letter;
    case ALNUM4:
        return letter || digit;
    case DIGITS:
        return digit;
    case NAME:
        return letter || digit || c == '-';
    default:
        return c != '.' && byte > ' ' && byte < 0x7f;
    }
}

static enum flue_place_attribute attribute_of(struct flue_bytes name)
{
    if (flue_bytes_equal_nocase(name, FLUE_BYTES("region")))
        return FLUE_PLACE_REGION; /* of the CDN: no host is named after a subdivision's code */
    return flue_place_attribute_find(name);
}

static enum flue_code compile_group(struct flue_bytes inside, struct flue_host_pattern *out,
                                    struct flue_host_part *part, struct flue_error *error)
{
    size_t colon = flue_bytes_find(inside, ':');
    struct flue_bytes name = colon == SIZE_MAX ? inside : flue_bytes_first(inside, colon);
    struct flue_bytes class = colon == SIZE_MAX ? FLUE_BYTES("label")
                                                : flue_bytes_from(inside, colon + 1);

    part->text = name;
    part->attribute = name.size ? attribute_of(name) : FLUE_PLACE_ATTRIBUTES;
    if (class.size && class.data[0] == '=') {
        class = flue_bytes_from(class, 1);
        for (size_t i = 0; i < out->count; i++) {
            if (!out->parts[i].literal && flue_bytes_equal_nocase(out->parts[i].text, class)) {
                part->same = true;
                part->of = (uint8_t)i;
                part->attribute = FLUE_PLACE_ATTRIBUTES;
                return FLUE_OK;
            }
        }
        return flue_fail(error, FLUE_INVALID, "\"=%.*s\": no group before it has that name",
                         FLUE_PRI(class));
    }
    if (class.size && class.data[class.size - 1] == '?') {
        part->optional = true;
        class.size--;
    }
    for (unsigned i = 0; i < CLASSES; i++) {
        if (flue_bytes_is(class, classes[i].name)) {
            part->class = (uint8_t)i;
            return FLUE_OK;
        }
    }
    return flue_fail(error, FLUE_INVALID,
                     "there is no class \"%.*s\"; alpha2, alpha3, alpha4, alnum4, digits, label and "
                     "name are",
                     FLUE_PRI(class));
}

/* A run without a fixed length must end where the next part begins, or nobody could say where. */
static enum flue_code check_ambiguity(const struct flue_host_pattern *pattern,
                                      struct flue_error *error)
{
    for (size_t i = 0; i < pattern->count; i++) {
        const struct flue_host_part *part = &pattern->parts[i];
        if (part->literal || part->same || (classes[part->class].exactly && !part->optional))
            continue;
        for (size_t next = i + 1; next < pattern->count; next++) {
            const struct flue_host_part *other = &pattern->parts[next];
            bool clash = other->same;
            if (other->literal)
                clash = in_class(part->class, other->text.data[0]);
            else
                for (unsigned c = '-'; !clash && c <= 'z'; c++)
                    clash = in_class(part->class, (uint8_t)c) && in_class(other->class, (uint8_t)c);
            if (clash)
                return flue_fail(error, FLUE_INVALID,
                                 "it cannot be told where {%.*s} ends: what follows it may begin "
                                 "with the same characters",
                                 FLUE_PRI(part->text));
            if (other->literal || !other->optional)
                break;
        }
    }
    return FLUE_OK;
}

enum flue_code flue_host_pattern_compile(const char *text, struct flue_host_pattern *out,
                                         struct flue_error *error)
{
    memset(out, 0, sizeof *out);
    while (*text) {
        struct flue_host_part *part = &out->parts[out->count];
        if (out->count == FLUE_HOST_PATTERN_PARTS)
            return flue_fail(error, FLUE_TOO_LARGE, "more than %d parts", FLUE_HOST_PATTERN_PARTS);
        part->attribute = FLUE_PLACE_ATTRIBUTES;
        if (*text != '{') {
            size_t size = strcspn(text, "{}");
            if (text[size] == '}')
                return flue_fail(error, FLUE_INVALID, "a } without its {");
            part->literal = true;
            part->text = flue_bytes(text, size);
            text += size;
        } else {
            size_t size = strcspn(text + 1, "{}");
            if (text[1 + size] != '}')
                return flue_fail(error, FLUE_INVALID, "a { without its }");
            enum flue_code code = compile_group(flue_bytes(text + 1, size), out, part, error);
            if (code != FLUE_OK)
                return code;
            text += size + 2;
        }
        out->count++;
    }
    if (out->count == 0)
        return flue_fail(error, FLUE_INVALID, "empty");
    return check_ambiguity(out, error);
}

bool flue_host_pattern_match(const struct flue_host_pattern *pattern, struct flue_bytes host,
                             struct flue_bytes found[FLUE_PLACE_ATTRIBUTES])
{
    struct flue_bytes taken[FLUE_HOST_PATTERN_PARTS], own[FLUE_PLACE_ATTRIBUTES] = {{NULL, 0}};
    size_t at = 0;

    for (size_t i = 0; i < pattern->count; i++) {
        const struct flue_host_part *part = &pattern->parts[i];
        struct flue_bytes rest = flue_bytes_from(host, at), text = part->text;
        if (part->same)
            text = taken[part->of];
        if (part->literal || part->same) {
            if (!flue_bytes_equal_nocase(flue_bytes_first(rest, text.size), text))
                return false;
            taken[i] = flue_bytes_first(rest, text.size);
            at += text.size;
            continue;
        }
        unsigned exactly = classes[part->class].exactly;
        size_t size = 0;
        while (size < rest.size && (!exactly || size < exactly) &&
               in_class(part->class, rest.data[size]))
            size++;
        if (exactly ? size < exactly : size == 0) {
            if (!part->optional)
                return false;
            size = 0;
        }
        taken[i] = flue_bytes_first(rest, size);
        if (size && part->attribute != FLUE_PLACE_ATTRIBUTES)
            own[part->attribute] = taken[i];
        at += size;
    }
    if (at != host.size)
        return false;
    for (int i = 0; i < FLUE_PLACE_ATTRIBUTES; i++)
        if (own[i].size)
            found[i] = own[i];
    return true;
}
