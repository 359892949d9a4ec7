/* page.c: the metrics page on our own server. */
#include "collector/telemetry/page.h"

#include "collector/base/metrics.h"
#include "config/bind.h"

const struct flue_server_config *flue_plain_server(struct flue_arena *arena, const char *endpoint,
                                                   struct flue_error *error)
{
    struct flue_check check;
    struct flue_server_config *config = flue_arena_zalloc(arena, 1, sizeof *config);
    struct flue_binding binding = {flue_server_http_fields, config};
    struct flue_tree tree = {.arena = arena};
    struct flue_position at = {"", 0, 0};
    flue_check_init(&check, arena);
    struct flue_node *map = flue_node_new(&tree, FLUE_NODE_MAP, &at);
    struct flue_node *value = flue_node_new(&tree, FLUE_NODE_STRING, &at);
    if (!config || !map || !value || !flue_node_put(&tree, map, "endpoint", &at, value)) {
        flue_fail(error, FLUE_NO_MEMORY, "no memory for the server of %s", endpoint);
        return NULL;
    }
    value->text = endpoint;
    if (!flue_bind(&check, map, "", at, &binding, 1)) {
        flue_fail(error, FLUE_INVALID, "%s", check.count ? check.items[0].text : endpoint);
        return NULL;
    }
    return config;
}

static void answer(struct flue_request *request, void *arg)
{
    struct flue_metrics_page *page = arg;
    static const struct flue_header headers[] = {
        {FLUE_BYTES_INIT("content-type"),
         FLUE_BYTES_INIT("text/plain; version=0.0.4; charset=utf-8")},
    };
    struct flue_buffer text;
    flue_buffer_init(&text, FLUE_METRICS_PAGE_MAX);
    flue_metrics_print(page->metrics, &text);
    struct flue_response response = {
        .status = 200, .headers = headers, .header_count = 1, .body = flue_buffer_bytes(&text)};
    if (text.failed) {
        response.status = 503;
        response.body = FLUE_BYTES("the metrics page does not fit into memory or 32 MiB\n");
    }
    flue_respond(request, &response);
    flue_buffer_destroy(&text);
}

enum flue_code flue_metrics_page_add(struct flue_server_set *set, struct flue_arena *arena,
                                     struct flue_metrics *metrics, const char *endpoint,
                                     struct flue_error *error)
{
    struct flue_metrics_page *page = flue_arena_zalloc(arena, 1, sizeof *page);
    const struct flue_server_config *config = flue_plain_server(arena, endpoint, error);
    if (!config)
        return error ? error->code : FLUE_NO_MEMORY;
    if (!page)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for the metrics page");
    page->metrics = metrics;
    page->config = *config;
    page->route =
        (struct flue_route){.method = "GET", .path = "/metrics", .arg = page, .head = answer};
    return flue_server_add(set, "telemetry", &page->config, &page->route, 1, error);
}
