/* svg.c: see render.h. A tree of the stacks, drawn without recursion. */
#include <inttypes.h>
#include <stdlib.h>
#include "archive/read/frames.h"
#include "archive/read/render.h"
#include "collector/base/hash.h"

#define WIDTH     1200.0
#define MARGIN    10.0
#define ROW       17.0
#define TOP       44.0
#define BOTTOM    26.0
#define FONT      12.0
#define CHARACTER 7.3  /* of the font, at most */
#define SMALLEST  0.25 /* pixels: narrower frames are not drawn */
#define NODES_MAX 4000000u
#define DEPTH_MAX 512

struct node {
    struct flue_bytes name;
    uint32_t parent, first_child, sibling, depth;
    int64_t total;
};
struct tree {
    struct flue_arena arena;
    struct node *nodes; /* 0: all */
    size_t count, room;
    struct flue_table table; /* (parent, name) to node */
};
struct wanted {
    uint32_t parent;
    struct flue_bytes name;
};

static bool same(const void *rows, uint32_t row, const void *key)
{
    const struct node *node = (const struct node *)rows + row;
    const struct wanted *wanted = key;
    return node->parent == wanted->parent && flue_bytes_equal(node->name, wanted->name);
}

static uint32_t child(struct tree *tree, uint32_t parent, struct flue_bytes name)
{
    struct wanted wanted = {parent, name};
    uint64_t hash = flue_hash_join(flue_hash(name), parent);
    uint32_t row = flue_table_find(&tree->table, hash, same, tree->nodes, &wanted);

    if (row != FLUE_TABLE_NONE)
        return row;
    struct node node = {.name = name, .parent = parent, .depth = tree->nodes[parent].depth + 1};
    row = (uint32_t)tree->count;
    if (tree->count >= NODES_MAX ||
        !FLUE_ARENA_PUSH(&tree->arena, tree->nodes, tree->count, tree->room, node) ||
        !flue_table_insert(&tree->table, hash, row))
        return UINT32_MAX;
    return row;
}

static enum flue_code grow(struct tree *tree, struct flue_frames *frames, uint32_t value,
                           struct flue_error *error)
{
    const struct node all = {.name = FLUE_BYTES("all")};
    enum flue_code code = FLUE_OK;

    flue_arena_init(&tree->arena, (size_t)2 << 30, 0);
    if (!flue_table_init(&tree->table, &tree->arena, 1024) ||
        !FLUE_ARENA_PUSH(&tree->arena, tree->nodes, tree->count, tree->room, all))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a flame graph");
    for (uint32_t i = 0; !code && i < frames->document.sample_count; i++) {
        struct flue_bytes *names;
        size_t count;
        uint32_t at = 0;
        int64_t v = flue_frames_value(frames, i, value);
        if (v <= 0 || (code = flue_frames_stack(frames, i, &names, &count, error)))
            continue;
        tree->nodes[0].total += v;
        for (size_t k = 0; k < count && k < DEPTH_MAX; k++) {
            at = child(tree, at, names[k]);
            if (at == UINT32_MAX)
                return flue_fail(error, FLUE_TOO_LARGE,
                                 "over %u different frames: use --format pprof", NODES_MAX);
            tree->nodes[at].total += v;
        }
    }
    return code;
}

static struct node *sorting; /* one flame graph at a time: a command */

static int by_name(const void *left, const void *right)
{
    const struct node *a = &sorting[*(const uint32_t *)left],
                      *b = &sorting[*(const uint32_t *)right];
    if (a->parent != b->parent)
        return a->parent < b->parent ? -1 : 1;
    size_t least = a->name.size < b->name.size ? a->name.size : b->name.size;
    int order = least ? memcmp(a->name.data, b->name.data, least) : 0;
    return order ? order : (a->name.size > b->name.size) - (a->name.size < b->name.size);
}

/* The deepest frame that is wide enough to be drawn. */
static uint32_t drawn_depth(const struct tree *tree)
{
    double scale = (WIDTH - 2 * MARGIN) / (double)tree->nodes[0].total;
    uint32_t depth = 0;

    for (size_t i = 0; i < tree->count; i++)
        if ((double)tree->nodes[i].total * scale >= SMALLEST && tree->nodes[i].depth > depth)
            depth = tree->nodes[i].depth;
    return depth;
}

/* Children in the order of their names, so that equal profiles look equal. */
static bool order_children(struct tree *tree)
{
    uint32_t *rows = flue_arena_alloc(&tree->arena, tree->count * sizeof *rows);

    if (!rows)
        return false;
    for (uint32_t i = 1; i < tree->count; i++)
        rows[i - 1] = i;
    sorting = tree->nodes;
    if (tree->count > 1)
        qsort(rows, tree->count - 1, sizeof *rows, by_name);
    for (size_t i = tree->count - 1; i-- > 0;) {
        struct node *node = &tree->nodes[rows[i]];
        node->sibling = tree->nodes[node->parent].first_child;
        tree->nodes[node->parent].first_child = rows[i];
    }
    return true;
}

/* Valid UTF-8 without control characters, as XML text; at most `characters` of it. */
static void escape(struct flue_buffer *out, struct flue_bytes text, size_t characters)
{
    uint8_t *repaired = NULL;
    size_t size = text.size, shown = 0;

    if (!flue_utf8_valid(text)) {
        size = flue_utf8_repaired_size(text);
        repaired = malloc(size + 1);
        if (!repaired)
            return;
        flue_utf8_repair(text, repaired);
        text = flue_bytes(repaired, size);
    }
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = text.data[i];
        if ((byte & 0xC0) != 0x80 && ++shown > characters) {
            flue_buffer_text(out, "\xE2\x80\xA6"); /* an ellipsis */
            break;
        }
        if (byte == '<')
            flue_buffer_text(out, "&lt;");
        else if (byte == '>')
            flue_buffer_text(out, "&gt;");
        else if (byte == '&')
            flue_buffer_text(out, "&amp;");
        else if (byte == '"')
            flue_buffer_text(out, "&quot;");
        else if (byte == '\'')
            flue_buffer_text(out, "&#39;");
        else
            flue_buffer_byte(out, byte < 0x20 || byte == 0x7f ? ' ' : byte);
    }
    free(repaired);
}

static void amount(struct flue_buffer *out, int64_t value, struct flue_bytes unit)
{
    static const char *const sizes[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)value;
    unsigned k = 0;

    if (flue_bytes_is(unit, "nanoseconds")) {
        if (v >= 1e9)
            flue_buffer_printf(out, "%.2f s", v / 1e9);
        else if (v >= 1e6)
            flue_buffer_printf(out, "%.2f ms", v / 1e6);
        else
            flue_buffer_printf(out, "%.2f \xC2\xB5s", v / 1e3);
    } else if (flue_bytes_is(unit, "bytes")) {
        while (v >= 1024 && k < 5) {
            v /= 1024;
            k++;
        }
        flue_buffer_printf(out, "%.*f %s", k ? 2 : 0, v, sizes[k]);
    } else {
        flue_buffer_printf(out, "%" PRId64 " ", value);
        escape(out, unit, 40);
    }
}

/* Warm colours by name: the same function has the same colour in every graph. */
static void colour(struct flue_buffer *out, struct flue_bytes name)
{
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < name.size; i++)
        h = (h ^ name.data[i]) * 16777619u;
    flue_buffer_printf(out, "rgb(%u,%u,%u)", 225 + h % 30, 105 + (h >> 8) % 110,
                       45 + (h >> 16) % 45);
}

static void draw(struct flue_buffer *out, const struct tree *tree, const struct node *node,
                 double x, double width, double height, struct flue_bytes unit)
{
    double y = height - BOTTOM - (node->depth + 1) * ROW;
    size_t fits = (size_t)((width - 6) / CHARACTER);

    flue_buffer_printf(out, "<g class=\"f\" data-x=\"%.3f\" data-w=\"%.3f\"><title>", x, width);
    escape(out, node->name, 1000);
    flue_buffer_text(out, " (");
    amount(out, node->total, unit);
    flue_buffer_printf(out,
                       ", %.2f%%)</title><rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" "
                       "height=\"%.0f\" rx=\"2\" fill=\"",
                       (double)node->total * 100 / (double)tree->nodes[0].total, x, y, width,
                       ROW - 1);
    colour(out, node->name);
    flue_buffer_printf(out, "\"/><text x=\"%.2f\" y=\"%.1f\">", x + 3, y + 12);
    if (width > 26)
        escape(out, node->name, fits > 1 ? fits - 1 : 1);
    flue_buffer_text(out, "</text></g>\n");
}

static const char script[] =
    "<script><![CDATA[\n"
    "(function(){var W=1200,M=10,C=7.3,f=document.querySelectorAll('g.f');\n"
    "function show(a,w){f.forEach(function(g){var x=+g.dataset.x,v=+g.dataset.w,"
    "r=g.querySelector('rect'),t=g.querySelector('text'),s=(W-2*M)/w,n=M+(x-a)*s,z=v*s;\n"
    "if(n<M){z-=M-n;n=M}if(n+z>W-M)z=W-M-n;\n"
    "if(z<0.2){g.style.display='none';return}g.style.display='';\n"
    "r.setAttribute('x',n);r.setAttribute('width',z);t.setAttribute('x',n+3);\n"
    "var name=g.querySelector('title').textContent.replace(/ \\([^(]*\\)$/,''),"
    "c=Math.floor((z-6)/C);\n"
    "t.textContent=z>26?(name.length<=c?name:name.slice(0,Math.max(1,c-1))+'\\u2026'):''})}\n"
    "f.forEach(function(g){g.addEventListener('click',function(){"
    "show(+g.dataset.x,+g.dataset.w)})});\n"
    "document.getElementById('all').addEventListener('click',function(){show(M,W-2*M)});\n"
    "function label(g){return g.querySelector('title').textContent."
    "replace(/ \\([^(]*\\)$/,'').toLowerCase()}\n"
    "function mark(q){var spans=[],sum=0,end=0;f.forEach(function(g){var "
    "hit=q&&label(g).includes(q);"
    "g.classList.toggle('hit',!!hit);if(hit)spans.push([+g.dataset.x,+g.dataset.x+ "
    "+g.dataset.w])});\n"
    "spans.sort(function(a,b){return a[0]-b[0]}).forEach(function(s){if(s[1]>end){"
    "sum+=s[1]-Math.max(s[0],end);end=s[1]}});\n"
    "document.getElementById('found').textContent=q?'found in "
    "'+(100*sum/(W-2*M)).toFixed(2)+'%':''}\n"
    "function ask(){var q=prompt('part of a name; empty: none');"
    "if(q!==null)mark(q.trim().toLowerCase())}\n"
    "document.getElementById('search').addEventListener('click',ask);\n"
    "document.addEventListener('keydown',function(e){if(e.key==='/'){e.preventDefault();ask()}"
    "else if(e.key==='Escape')mark('')});\n"
    "})();\n]]></script>\n";

static enum flue_code draw_all(const struct tree *tree, struct flue_bytes unit, double height,
                               struct flue_buffer *out, struct flue_error *error)
{
    struct place {
        uint32_t node;
        double x;
    } *stack = calloc(tree->count + 1, sizeof *stack);
    double scale = (WIDTH - 2 * MARGIN) / (double)tree->nodes[0].total;
    size_t count = 0;

    if (!stack)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a flame graph");
    stack[count++] = (struct place){0, MARGIN};
    while (count) {
        struct place at = stack[--count];
        const struct node *node = &tree->nodes[at.node];
        double width = (double)node->total * scale;
        if (width < SMALLEST)
            continue;
        draw(out, tree, node, at.x, width, height, unit);
        for (uint32_t next = node->first_child; next; next = tree->nodes[next].sibling) {
            stack[count++] = (struct place){next, at.x};
            at.x += (double)tree->nodes[next].total * scale;
        }
    }
    free(stack);
    return FLUE_OK;
}

enum flue_code flue_render_svg(struct flue_bytes raw, uint32_t value, const char *title,
                               struct flue_buffer *out, struct flue_error *error)
{
    struct tree tree = {.count = 0};
    struct flue_frames frames;
    enum flue_code code = flue_frames_open(&frames, raw, error);

    if (!code)
        code = grow(&tree, &frames, value, error);
    if (!code && tree.nodes[0].total == 0)
        code = flue_fail(error, FLUE_NOT_FOUND, "no sample has a value of this type");
    if (!code && !order_children(&tree))
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for a flame graph");
    if (!code) {
        double height = TOP + (drawn_depth(&tree) + 1) * ROW + BOTTOM;
        const struct flue_pprof_value_type *type = &frames.document.types[value];
        struct flue_bytes unit = frames.document.strings[type->unit];
        flue_buffer_printf(
            out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" "
            "width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\">\n<style>text{font:%.0fpx "
            "ui-monospace,Menlo,Consolas,\"DejaVu Sans Mono\",monospace;fill:#1a1a1a;"
            "pointer-events:none}.f{cursor:pointer}.f:hover rect{stroke:#1a1a1a;stroke-width:1}"
            ".hit rect{fill:#d85bd8}#title{font:600 17px system-ui,sans-serif}"
            "#all,#search{cursor:pointer;pointer-events:all;fill:#0b57a4}</style>\n<rect "
            "width=\"100%%\" height=\"100%%\" fill=\"#fffdf8\"/>\n"
            "<text id=\"title\" x=\"%.0f\" y=\"25\">",
            WIDTH, height, WIDTH, height, FONT, MARGIN);
        escape(out, flue_bytes_of(title), 110);
        flue_buffer_printf(out,
                           "</text>\n<text id=\"all\" x=\"%.0f\" y=\"%.1f\">reset zoom</text>\n"
                           "<text id=\"search\" x=\"%.0f\" y=\"%.1f\">search</text>\n"
                           "<text id=\"found\" x=\"%.0f\" y=\"%.1f\"/>\n"
                           "<text x=\"%.0f\" y=\"%.1f\">",
                           WIDTH - MARGIN - 75, height - 9, WIDTH - MARGIN - 140, height - 9,
                           WIDTH - MARGIN - 290, height - 9, MARGIN, height - 9);
        escape(out, frames.document.strings[type->type], 60);
        flue_buffer_text(out, ", total ");
        amount(out, tree.nodes[0].total, unit);
        flue_buffer_text(out, "</text>\n");
        code = draw_all(&tree, unit, height, out, error);
        flue_buffer_text(out, script);
        flue_buffer_text(out, "</svg>\n");
        if (!code && out->failed)
            code = flue_fail(error, FLUE_NO_MEMORY, "the picture is over %zu bytes", out->maximum);
    }
    flue_arena_destroy(&tree.arena);
    flue_frames_close(&frames);
    return code;
}
