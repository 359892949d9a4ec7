/* xml.c: see xml.h. */
#include "archive/object/xml.h"
#include "collector/base/buffer.h"

static enum flue_xml_event bad(struct flue_xml *xml, const char *why)
{
    xml->wrong = why;
    xml->in.size = 0;
    xml->ended = false;
    xml->begun = true;
    return FLUE_XML_BAD;
}

void flue_xml_init(struct flue_xml *xml, struct flue_bytes in, struct flue_arena *arena)
{
    *xml = (struct flue_xml){.in = in, .arena = arena};
    if (flue_bytes_starts_with(in, FLUE_BYTES("\xef\xbb\xbf")))
        xml->in = flue_bytes_from(in, 3);
}

static bool blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool name_byte(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == ':' || c >= 0x80;
}

static bool starts(const struct flue_xml *xml, const char *text)
{
    return flue_bytes_starts_with(xml->in, flue_bytes_of(text));
}

static void skip(struct flue_xml *xml, size_t count)
{
    xml->in = flue_bytes_from(xml->in, count);
}

/* Up to and with `mark`; false: it does not come. */
static bool until(struct flue_xml *xml, const char *mark, struct flue_bytes *inside)
{
    size_t size = strlen(mark);
    const uint8_t *found = xml->in.size ? memmem(xml->in.data, xml->in.size, mark, size) : NULL;
    if (!found)
        return false;
    *inside = flue_bytes_first(xml->in, (size_t)(found - xml->in.data));
    skip(xml, inside->size + size);
    return true;
}

static bool put(struct flue_xml *xml, const uint8_t *data, size_t size)
{
    if (size > xml->room - xml->size) {
        size_t room = xml->room ? xml->room * 2 : 128;
        while (room < xml->size + size)
            room *= 2;
        uint8_t *larger = flue_arena_alloc(xml->arena, room);
        if (!larger)
            return false;
        if (xml->size)
            memcpy(larger, xml->data, xml->size);
        xml->data = larger;
        xml->room = room;
    }
    if (size)
        memcpy(xml->data + xml->size, data, size);
    xml->size += size;
    return true;
}

static bool put_character(struct flue_xml *xml, uint32_t c)
{
    uint8_t out[4];
    size_t size;
    if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return false;
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        size = 1;
    } else if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3f));
        size = 2;
    } else if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (c & 0x3f));
        size = 3;
    } else {
        out[0] = (uint8_t)(0xf0 | c >> 18);
        out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        out[3] = (uint8_t)(0x80 | (c & 0x3f));
        size = 4;
    }
    return put(xml, out, size);
}

/* "&...;" at the front. */
static bool entity(struct flue_xml *xml)
{
    static const struct {
        const char *name;
        char is;
    } named[] = {{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}};
    size_t end = flue_bytes_find(flue_bytes_first(xml->in, 12), ';');
    if (end == SIZE_MAX || end < 2)
        return false;
    struct flue_bytes name = flue_bytes(xml->in.data + 1, end - 1);
    skip(xml, end + 1);
    if (name.data[0] != '#') {
        for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
            if (flue_bytes_is(name, named[i].name))
                return put(xml, (const uint8_t *)&named[i].is, 1);
        return false;
    }
    bool hex = name.size > 1 && name.data[1] == 'x';
    uint32_t value = 0;
    size_t at = hex ? 2 : 1;
    if (at >= name.size)
        return false;
    for (; at < name.size; at++) {
        uint8_t c = name.data[at];
        uint32_t digit = c >= '0' && c <= '9'          ? (uint32_t)(c - '0')
                         : hex && c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : hex && c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                       : UINT32_MAX;
        if (digit == UINT32_MAX)
            return false;
        value = value * (hex ? 16 : 10) + digit;
        if (value > 0x10ffff)
            return false;
    }
    return put_character(xml, value);
}

/* Character data up to the next "<"; false: *wrong. */
static bool text(struct flue_xml *xml, const char **wrong)
{
    while (xml->in.size && xml->in.data[0] != '<') {
        size_t plain = 0;
        while (plain < xml->in.size && xml->in.data[plain] != '<' && xml->in.data[plain] != '&')
            plain++;
        if (plain == 0) {
            if (!entity(xml)) {
                *wrong = "an entity that is not known, or no memory";
                return false;
            }
            continue;
        }
        for (size_t i = 0; i < plain; i++) {
            uint8_t c = xml->in.data[i];
            if (c < ' ' && !blank(c)) {
                *wrong = "a control character";
                return false;
            }
            if (xml->depth == 0 && !blank(c)) {
                *wrong = "text outside of the element";
                return false;
            }
        }
        if (xml->depth && !put(xml, xml->in.data, plain)) {
            *wrong = "no memory";
            return false;
        }
        skip(xml, plain);
    }
    return true;
}

static struct flue_bytes take_name(struct flue_xml *xml)
{
    size_t size = 0;
    while (size < xml->in.size && name_byte(xml->in.data[size]))
        size++;
    struct flue_bytes name = flue_bytes_first(xml->in, size);
    skip(xml, size);
    return name;
}

static size_t take_blanks(struct flue_xml *xml)
{
    size_t size = 0;
    while (size < xml->in.size && blank(xml->in.data[size]))
        size++;
    skip(xml, size);
    return size;
}

/* Behind the name of an opening tag. */
static bool attributes(struct flue_xml *xml, bool *empty)
{
    for (;;) {
        size_t blanks = take_blanks(xml);
        if (starts(xml, "/>")) {
            *empty = true;
            skip(xml, 2);
            return true;
        }
        if (starts(xml, ">")) {
            skip(xml, 1);
            return true;
        }
        if (blanks == 0 || take_name(xml).size == 0)
            return false;
        take_blanks(xml);
        if (!starts(xml, "="))
            return false;
        skip(xml, 1);
        take_blanks(xml);
        if (!starts(xml, "\"") && !starts(xml, "'"))
            return false;
        const char quote[2] = {(char)xml->in.data[0], 0};
        struct flue_bytes value;
        skip(xml, 1);
        if (!until(xml, quote, &value) || flue_bytes_find(value, '<') != SIZE_MAX)
            return false;
    }
}

static struct flue_bytes local(struct flue_bytes name)
{
    size_t colon = flue_bytes_find(name, ':');
    return colon == SIZE_MAX ? name : flue_bytes_from(name, colon + 1);
}

static enum flue_xml_event close_element(struct flue_xml *xml)
{
    xml->name = xml->names[--xml->depth];
    xml->text = xml->leaf ? flue_bytes(xml->data, xml->size) : flue_bytes(NULL, 0);
    xml->data = NULL; /* the text stays with the caller */
    xml->size = xml->room = 0;
    xml->leaf = false;
    xml->ended = xml->depth == 0;
    return FLUE_XML_CLOSE;
}

enum flue_xml_event flue_xml_next(struct flue_xml *xml)
{
    struct flue_bytes inside;
    const char *wrong = NULL;
    if (xml->wrong)
        return FLUE_XML_BAD;
    if (xml->empty) { /* <x/> */
        xml->empty = false;
        return close_element(xml);
    }
    for (;;) {
        if (!text(xml, &wrong))
            return bad(xml, wrong);
        if (xml->in.size == 0)
            return xml->ended ? FLUE_XML_END : bad(xml, "it ends too early");
        if (starts(xml, "<!--")) {
            skip(xml, 4);
            if (!until(xml, "-->", &inside))
                return bad(xml, "a comment without an end");
        } else if (starts(xml, "<?")) {
            if (!until(xml, "?>", &inside))
                return bad(xml, "an instruction without an end");
        } else if (starts(xml, "<![CDATA[") && xml->depth) {
            skip(xml, 9);
            if (!until(xml, "]]>", &inside) || !put(xml, inside.data, inside.size))
                return bad(xml, "a CDATA section without an end, or no memory");
        } else if (starts(xml, "<!")) {
            return bad(xml, "a document type");
        } else if (starts(xml, "</")) {
            skip(xml, 2);
            struct flue_bytes name = take_name(xml);
            take_blanks(xml);
            if (!xml->depth || !flue_bytes_equal(name, xml->full[xml->depth - 1]) ||
                !starts(xml, ">"))
                return bad(xml, "a closing tag that fits nothing");
            skip(xml, 1);
            return close_element(xml);
        } else {
            skip(xml, 1);
            struct flue_bytes name = take_name(xml);
            if (xml->ended || name.size == 0 || xml->depth == FLUE_XML_DEPTH)
                return bad(xml, xml->depth == FLUE_XML_DEPTH ? "elements over 16 deep"
                                                             : "a tag where none may be");
            const uint8_t *from = xml->in.data;
            if (!attributes(xml, &xml->empty))
                return bad(xml, "a broken tag");
            xml->attributes = flue_bytes(from, (size_t)(xml->in.data - from));
            xml->full[xml->depth] = name;
            xml->names[xml->depth++] = local(name);
            xml->size = 0;
            xml->leaf = true;
            return FLUE_XML_OPEN;
        }
    }
}

bool flue_xml_closed(const struct flue_xml *xml, const char *parent, const char *name)
{
    return xml->depth && flue_bytes_is(xml->name, name) &&
           flue_bytes_is(xml->names[xml->depth - 1], parent);
}

void flue_xml_escape(struct flue_buffer *out, struct flue_bytes b)
{
    for (size_t i = 0; i < b.size; i++) {
        uint8_t c = b.data[i];
        if (c == '<' || c == '>' || c == '&' || c == '"' || c == '\'' || c < ' ')
            flue_buffer_printf(out, "&#%u;", c);
        else
            flue_buffer_byte(out, c);
    }
}
