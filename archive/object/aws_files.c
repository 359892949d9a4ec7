/* aws_files.c: INI files, answers of credential services, small files. See aws.h. */
#include "archive/object/aws.h"
#include "archive/object/xml.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <unistd.h>

/* ---- INI ------------------------------------------------------------------------------------ */

static struct flue_bytes take_line(struct flue_bytes *text)
{
    size_t end = flue_bytes_find(*text, '\n');
    struct flue_bytes line = flue_bytes_first(*text, end == SIZE_MAX ? text->size : end);
    *text = flue_bytes_from(*text, end == SIZE_MAX ? text->size : end + 1);
    if (line.size && line.data[line.size - 1] == '\r')
        line.size--;
    return line;
}

static struct flue_bytes without_comment(struct flue_bytes b)
{
    for (size_t i = 1; i < b.size; i++)
        if ((b.data[i] == '#' || b.data[i] == ';') &&
            (b.data[i - 1] == ' ' || b.data[i - 1] == '\t'))
            return flue_bytes_first(b, i);
    return b;
}

/* "profile   x" and "profile x" are one. */
static bool same_section(struct flue_bytes head, const char *section)
{
    struct flue_bytes want = flue_bytes_of(section);
    head = flue_bytes_trim(head);
    if (flue_bytes_equal(head, want))
        return true;
    if (!flue_bytes_starts_with(want, FLUE_BYTES("profile ")) ||
        !flue_bytes_starts_with(head, FLUE_BYTES("profile")) || head.size < 8 ||
        (head.data[7] != ' ' && head.data[7] != '\t'))
        return false;
    return flue_bytes_equal(flue_bytes_trim(flue_bytes_from(head, 7)), flue_bytes_from(want, 8));
}

bool object_ini_read(struct flue_bytes text, const char *section, struct object_ini *out)
{
    bool inside = false, found = false;
    out->count = 0;
    while (text.size) {
        struct flue_bytes line = take_line(&text);
        if (line.size == 0 || line.data[0] == '#' || line.data[0] == ';')
            continue;
        if (line.data[0] == '[') {
            size_t end = flue_bytes_find(line, ']');
            inside = end != SIZE_MAX &&
                     same_section(flue_bytes_from(flue_bytes_first(line, end), 1), section);
            found |= inside;
            continue;
        }
        size_t equals = flue_bytes_find(line, '=');
        if (!inside || line.data[0] == ' ' || line.data[0] == '\t' || equals == SIZE_MAX ||
            out->count == OBJECT_INI_KEYS)
            continue;
        out->names[out->count] = flue_bytes_trim(flue_bytes_first(line, equals));
        out->values[out->count++] =
            flue_bytes_trim(without_comment(flue_bytes_from(line, equals + 1)));
    }
    return found;
}

struct flue_bytes object_ini_find(const struct object_ini *ini, const char *name)
{
    for (size_t i = ini->count; i > 0; i--) /* the last one wins */
        if (flue_bytes_equal_nocase(ini->names[i - 1], flue_bytes_of(name)))
            return ini->values[i - 1];
    return (struct flue_bytes){0};
}

/* ---- answers -------------------------------------------------------------------------------- */

static const char *member(json_t *root, const char *name, struct flue_arena *arena)
{
    const char *text = json_string_value(json_object_get(root, name));
    return text && *text ? flue_arena_string(arena, flue_bytes_of(text)) : NULL;
}

enum flue_code object_aws_json(struct flue_bytes text, struct flue_arena *arena,
                               struct object_secret *out, struct flue_error *error)
{
    json_t *root = json_loadb((const char *)text.data, text.size, 0, NULL);
    char printable[80];
    const char *message = json_string_value(json_object_get(root, "Message"));
    if (!message)
        message = json_string_value(json_object_get(root, "Code"));
    *out = (struct object_secret){.id = member(root, "AccessKeyId", arena),
                                  .secret = member(root, "SecretAccessKey", arena),
                                  .token = member(root, "Token", arena)};
    const char *ends = json_string_value(json_object_get(root, "Expiration"));
    bool dated = !ends || object_iso_date(flue_bytes_of(ends), &out->ends);
    if (!out->id || !out->secret || !dated)
        flue_fail(
            error, FLUE_UNAVAILABLE, "the answer holds no credentials%s%s", message ? ": " : "",
            message ? flue_printable(flue_bytes_of(message), printable, sizeof printable) : "");
    json_decref(root);
    return out->id && out->secret && dated ? FLUE_OK : FLUE_UNAVAILABLE;
}

enum flue_code object_aws_sts(struct flue_bytes text, unsigned status, struct flue_arena *arena,
                              struct object_secret *out, struct flue_error *error)
{
    struct flue_xml xml;
    struct flue_bytes code = {0}, message = {0};
    enum flue_xml_event event;
    bool dated = true;
    char a[64], b[160];
    *out = (struct object_secret){0};
    flue_xml_init(&xml, text, arena);
    while ((event = flue_xml_next(&xml)) < FLUE_XML_END) {
        if (event != FLUE_XML_CLOSE)
            continue;
        if (flue_xml_closed(&xml, "Credentials", "AccessKeyId"))
            out->id = flue_arena_string(arena, xml.text);
        else if (flue_xml_closed(&xml, "Credentials", "SecretAccessKey"))
            out->secret = flue_arena_string(arena, xml.text);
        else if (flue_xml_closed(&xml, "Credentials", "SessionToken"))
            out->token = flue_arena_string(arena, xml.text);
        else if (flue_xml_closed(&xml, "Credentials", "Expiration"))
            dated = object_iso_date(flue_bytes_trim(xml.text), &out->ends);
        else if (flue_xml_closed(&xml, "Error", "Code"))
            code = xml.text;
        else if (flue_xml_closed(&xml, "Error", "Message"))
            message = xml.text;
    }
    if (status == 200 && event == FLUE_XML_END && out->id && out->secret && out->token && dated)
        return FLUE_OK;
    return flue_fail(error, FLUE_UNAVAILABLE, "STS answered %u %s: %s", status,
                     flue_printable(code, a, sizeof a), flue_printable(message, b, sizeof b));
}

bool object_aws_plain_allowed(struct flue_bytes host)
{
    static const char *const allowed[] = {"localhost", "169.254.170.2", "169.254.170.23",
                                          "[fd00:ec2::23]", "[::1]"};
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++)
        if (flue_bytes_is(host, allowed[i]))
            return true;
    if (!flue_bytes_starts_with(host, FLUE_BYTES("127.")))
        return false;
    for (size_t i = 0; i < host.size; i++) /* "127.evil.example" is a name */
        if (host.data[i] != '.' && (host.data[i] < '0' || host.data[i] > '9'))
            return false;
    return true;
}

/* ---- files ---------------------------------------------------------------------------------- */

bool object_read_file(const char *path, size_t limit, struct flue_arena *arena,
                      struct flue_bytes *out, struct flue_error *error)
{
    char name[200];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    uint8_t *data = fd >= 0 ? flue_arena_alloc(arena, limit + 1) : NULL;
    size_t size = 0;
    ssize_t n = fd >= 0 ? 1 : -1;
    flue_printable(flue_bytes_of(path), name, sizeof name);
    while (data && size <= limit && n > 0) {
        n = read(fd, data + size, limit + 1 - size);
        if (n > 0)
            size += (size_t)n;
        else if (n < 0 && errno == EINTR)
            n = 1;
    }
    int saved = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0) {
        flue_fail(error, FLUE_UNAVAILABLE, "\"%s\" cannot be read: %s", name, strerror(saved));
        return false;
    }
    if (!data || size > limit) {
        flue_fail(error, FLUE_UNAVAILABLE,
                  data ? "\"%s\" has more than %zu bytes"
                       : "no memory to read \"%s\" of up to %zu bytes",
                  name, limit);
        return false;
    }
    data[size] = 0;
    *out = flue_bytes(data, size);
    return true;
}
