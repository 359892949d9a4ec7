/* xml.h: a strict little reader of the XML that object stores answer with.
 *
 * Elements, character data, the five named entities and numeric ones, CDATA, comments and
 * processing instructions. No document type (refused), at most 16 elements deep. Attributes are
 * checked and skipped; a namespace prefix is dropped. No recursion.
 */
#ifndef FLUE_ARCHIVE_XML_H
#define FLUE_ARCHIVE_XML_H

#include "collector/base/arena.h"

#define FLUE_XML_DEPTH 16

enum flue_xml_event { FLUE_XML_OPEN, FLUE_XML_CLOSE, FLUE_XML_END, FLUE_XML_BAD };
struct flue_xml {
    struct flue_bytes in; /* what is left */
    struct flue_arena *arena;
    /* After OPEN: names[depth - 1] is the element. After CLOSE: `name` was closed, names[depth - 1]
     * is its parent, `text` its character data (empty for one with elements inside). */
    struct flue_bytes names[FLUE_XML_DEPTH], full[FLUE_XML_DEPTH];
    unsigned depth;
    struct flue_bytes name, text;
    struct flue_bytes attributes; /* after OPEN: as they stand in the tag */
    const char *wrong;            /* after BAD */
    /* its own */
    bool leaf, empty, begun, ended;
    uint8_t *data;
    size_t size, room;
};

void flue_xml_init(struct flue_xml *xml, struct flue_bytes in, struct flue_arena *arena);
enum flue_xml_event flue_xml_next(struct flue_xml *xml);
/* Is the element just closed `name` within `parent`? */
bool flue_xml_closed(const struct flue_xml *xml, const char *parent, const char *name);
/* The same bytes where XML needs them escaped; for what is sent. */
struct flue_buffer;
void flue_xml_escape(struct flue_buffer *out, struct flue_bytes b);

#endif
