/* Which place a profile gets: sources, their order, trust, conflicts, host names, headers. */
#include "tests/unit/processors/resource/actions_test.h"
#include "processors/cdn/config.h"

extern const struct flue_component flue_processor_cdn;

static char folder[] = "/tmp/flue-cdn-XXXXXX";
static const char *table(const char *name, const char *content)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(content, file);
    fclose(file);
    return path;
}

/* One resource with `attributes`, sent by `peer` with one header. */
static const char *from(const char *yaml, const char *attributes, const char *peer,
                        const char *header, const char *value)
{
    static struct bench bench;
    static char result[sizeof bench.attributes];
    const struct flue_attribute headers[] = {
        {flue_bytes_of(header), {.type = FLUE_VALUE_STRING, .text = flue_bytes_of(value)}}};
    const struct flue_origin origin = {.peer_address = flue_bytes_of(peer),
                                       .headers = headers,
                                       .header_count = header ? 1 : 0};
    struct flue_origin *own = flue_origin_new(&origin);

    bench_start(&bench, &flue_processor_cdn, yaml);
    bench_push(&bench, otlp_with(&bench.account, attributes), own);
    if (bench.outcome.error.code)
        fail_msg("%s", bench.outcome.error.text);
    memcpy(result, bench.attributes, sizeof result);
    flue_origin_unref(own);
    bench_stop(&bench);
    assert_int_equal(bench.account.used, 0);
    return result;
}
#define HOST(name) ATTRIBUTE("host.name", name)

static void host_names(void **state)
{
    static const char yaml[] =
        "patterns: [{host: 'edge-{pop:alpha3}{site:digits?}-{node}.{region}.cdn.example.net',"
        " set: {cdn.tier: edge, cdn.provider: acme}},"
        " {host: 'cache-{pop:alpha3}-{site:alnum4}{:digits}-{x:=pop}', set: {cdn.provider: fastly}}]";
    assert_string_equal(
        edit(&flue_processor_cdn, yaml, HOST("edge-ams03-17.eu.cdn.example.net")),
        "host.name=edge-ams03-17.eu.cdn.example.net\ncdn.provider=acme\ncdn.region=eu\ncdn.pop=ams\n"
        "cdn.site=03\ncdn.tier=edge\n");
    assert_non_null(strstr(edit(&flue_processor_cdn, yaml, HOST("EDGE-FRA-1.us.CDN.example.net")),
                           "cdn.pop=FRA\n"));
    assert_non_null(strstr(edit(&flue_processor_cdn, yaml, HOST("cache-ams-eham8680062-AMS")),
                           "cdn.provider=fastly\ncdn.pop=ams\ncdn.site=eham\n"));
    /* not the whole name, another code at the end, a code of four letters */
    static const char *const others[] = {HOST("xedge-ams03-17.eu.cdn.example.net"),
                                         HOST("edge-ams03-17.eu.cdn.example.net.evil.org"),
                                         HOST("cache-ams-eham8680062-FRA"),
                                         HOST("edge-amst-17.eu.cdn.example.net"), HOST("")};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_null(strstr(edit(&flue_processor_cdn, yaml, others[i]), "\ncdn."));
}

static void dictionaries(void **state)
{
    static const char yaml[] = "dictionaries: [{name: company, codes: {ams3: AMS, fra1: FRA}}]\n"
                               "patterns: [{host: '{pop:name}.example.net', dictionary: company}]\n"
                               "pops: [{pop: AMS, set: {cdn.region: eu-west, "
                               "geo.country.iso_code: nl, geo.location.lat: '52.3'}}]";
    assert_string_equal(edit(&flue_processor_cdn, yaml, HOST("ams3.example.net")),
                        "host.name=ams3.example.net\ncdn.region=eu-west\ncdn.pop=AMS\n"
                        "geo.country.iso_code=NL\ngeo.location.lat=double 52.3\n");
    assert_string_equal(edit(&flue_processor_cdn, yaml, HOST("ash1.example.net")),
                        "host.name=ash1.example.net\n");
}

static void two_patterns_that_differ_give_nothing(void **state)
{
    assert_string_equal(edit(&flue_processor_cdn,
                             "patterns: [{host: '{pop:alpha3}-{:alpha3}'}, {host: '{:alpha3}-{pop:alpha3}'}]",
                             HOST("ams-fra")),
                        "host.name=ams-fra\n");
}

static void order_and_override(void **state)
{
    static const char patterns[] = "patterns: [{host: '{region:alpha2}-{node}'}]";
    char yaml[512];
#define BOTH HOST("eu-1") "," ATTRIBUTE("cdn.region", "us")
    assert_non_null(strstr(edit(&flue_processor_cdn, patterns, BOTH), "cdn.region=us\n"));
    snprintf(yaml, sizeof yaml, "%s\noverride: true", patterns);
    assert_non_null(strstr(edit(&flue_processor_cdn, yaml, BOTH), "cdn.region=eu\n"));
    snprintf(yaml, sizeof yaml, "%s\nlocked: [cdn.region]", patterns);
    assert_non_null(strstr(edit(&flue_processor_cdn, yaml, BOTH), "cdn.region=eu\n"));
    assert_string_equal(edit(&flue_processor_cdn, "locked: [cdn.tier, cdn.region]",
                             ATTRIBUTE("cdn.tier", "edge") "," ATTRIBUTE("a", "b")),
                        "a=b\n");
    /* label first: the same attribute from two sources, the stated order decides */
    static const char labels[] =
        "node_labels: [{label: topology.kubernetes.io/region, attribute: cdn.region}]\n"
        "patterns: [{host: '{region:alpha2}-{node}'}]\nsources: [%s]";
#define LABELLED                                                                                   \
    HOST("eu-1") "," ATTRIBUTE("k8s.node.label.topology.kubernetes.io/region", "from-label")
    snprintf(yaml, sizeof yaml, labels, "node_labels, host");
    assert_non_null(strstr(edit(&flue_processor_cdn, yaml, LABELLED), "cdn.region=from-label\n"));
    snprintf(yaml, sizeof yaml, labels, "host, node_labels");
    assert_non_null(strstr(edit(&flue_processor_cdn, yaml, LABELLED), "cdn.region=eu\n"));
}

static void networks(void **state)
{
    char yaml[512];
    const char *path = table("networks.csv", "network,cdn_region,cdn_pop,cdn_asn\n"
                                             "10.0.0.0/8,core,,64500\n10.1.0.0/16,edge,AMS,\n"
                                             "10.1.2.0/24,\\N,,\n10.3.0.0/16,a,,\n10.3.0.0/16,b,,\n");
    snprintf(yaml, sizeof yaml, "networks: [{path: %s, set: {cdn.provider: acme}}]\n"
                                "relays: [10.9.0.0/16]", path);
    assert_string_equal(from(yaml, "", "10.1.7.7", NULL, NULL),
                        "cdn.provider=acme\ncdn.region=edge\ncdn.pop=AMS\n");
    assert_string_equal(from(yaml, "", "10.2.7.7", NULL, NULL),
                        "cdn.provider=acme\ncdn.region=core\ncdn.asn=int 64500\n");
    assert_string_equal(from(yaml, "", "10.1.2.7", NULL, NULL), "cdn.provider=acme\n");
    assert_string_equal(from(yaml, "", "10.3.2.7", NULL, NULL), ""); /* in dispute */
    assert_string_equal(from(yaml, "", "10.9.2.7", NULL, NULL), ""); /* a relay */
    assert_string_equal(from(yaml, "", "192.0.2.1", NULL, NULL), "");
    assert_string_equal(from(yaml, "", "unix", NULL, NULL), "");
    /* what the resource says of its machine comes before who sent it */
    assert_string_equal(from(yaml, ATTRIBUTE("host.ip", "10.1.0.1"), "10.2.7.7", NULL, NULL),
                        "host.ip=10.1.0.1\ncdn.provider=acme\ncdn.region=edge\ncdn.pop=AMS\n");
}

static void headers_are_for_trusted_peers(void **state)
{
    static const char yaml[] =
        "trusted_peers: [10.0.0.0/8]\nheaders: [{name: CF-Ray, format: cf_ray},"
        " {name: X-Pop, attribute: cdn.pop}, {name: X-Forwarded-Server,"
        " format: fastly_forwarded_server}, {name: X-Served-By, format: fastly_served_by},"
        " {name: X-Amz-Cf-Pop, format: cloudfront_pop}, {name: Server, format: bunny_server}]";
    assert_string_equal(from(yaml, "", "10.0.0.1", "cf-ray", "230b030023ae2822-SJC"),
                        "cdn.provider=cloudflare\ncdn.pop=SJC\n");
    assert_string_equal(from(yaml, "", "192.0.2.1", "cf-ray", "230b030023ae2822-SJC"), "");
    assert_string_equal(from(yaml, "", "10.0.0.1", "cf-ray", "230b030023ae2822-SJ1"), "");
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-pop", " ams "), "cdn.pop=ams\n");
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-pop", "a\nb"), "");
    /* one names the edge first, the other last */
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-forwarded-server",
                             "Server1, cache-hnd18734-HND, cache-hkg17928-HKG"),
                        "cdn.provider=fastly\ncdn.pop=HND\n");
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-served-by",
                             "cache-ams21041-AMS, cache-jfk8127-JFK"),
                        "cdn.provider=fastly\ncdn.pop=JFK\n");
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-served-by", "cache-ams21041-JFK"), "");
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-amz-cf-pop", "AMS54-C1"),
                        "cdn.provider=cloudfront\ncdn.pop=AMS\ncdn.site=AMS54\n");
    assert_string_equal(from(yaml, "", "10.0.0.1", "server", "BunnyCDN-DE1-723"),
                        "cdn.provider=bunny\ncdn.pop=DE1\n");
}

static void the_address_behind_proxies(void **state)
{
    char yaml[512];
    const char *path =
        table("peers.csv", "network,cdn_pop\n192.0.2.0/24,AMS\n198.51.100.0/24,FRA\n10.0.0.0/8,X\n");
    snprintf(yaml, sizeof yaml,
             "networks: [{path: %s}]\ntrusted_peers: [10.0.0.0/8]\nforwarded_for: true", path);
    /* the right-most that is not trusted; what stands left of it anyone can write */
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-forwarded-for",
                             "198.51.100.1, 192.0.2.7:4711, 10.0.0.2"),
                        "cdn.pop=AMS\n");
    /* a trusted peer that sends of its own accord */
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-other", "y"), "cdn.pop=X\n");
}

/* The connection is a balancer's or a gateway's: its place is nobody's, a viewer's even less. */
static void nobody_who_passes_on_is_the_machine(void **state)
{
    char yaml[512];
    const char *path =
        table("peers.csv", "network,cdn_pop\n192.0.2.0/24,AMS\n198.51.100.0/24,FRA\n10.0.0.0/8,X\n");
    snprintf(yaml, sizeof yaml,
             "networks: [{path: %s}]\ntrusted_peers: [10.0.0.0/8]\nforwarded_for: true", path);
    /* the chain ends before it names the sender */
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-forwarded-for", "198.51.100.1, unknown"), "");
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-forwarded-for", "10.0.0.7"), "");
    /* whoever says that it passes on, and is not trusted: neither it nor what it names */
    assert_string_equal(from(yaml, "", "192.0.2.1", "x-forwarded-for", "198.51.100.1"), "");
    snprintf(yaml, sizeof yaml, "networks: [{path: %s}]", path);
    static const char *const signs[] = {"x-forwarded-for", "forwarded", "via"};
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(from(yaml, "", "192.0.2.1", signs[i], "198.51.100.1"), "");
    assert_string_equal(from(yaml, "", "192.0.2.1", NULL, NULL), "cdn.pop=AMS\n");
    /* a relay behind the trusted peers */
    snprintf(yaml, sizeof yaml, "networks: [{path: %s}]\ntrusted_peers: [10.0.0.0/8]\n"
             "forwarded_for: true\nrelays: [192.0.2.0/24]", path);
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-forwarded-for", "192.0.2.7"), "");
    assert_string_equal(from(yaml, "", "10.0.0.1", "x-forwarded-for", "198.51.100.7"),
                        "cdn.pop=FRA\n");
    /* what speaks of viewers is no source */
    static const char *const viewers[] = {"cloudfront-viewer-address", "cf-connecting-ip",
                                          "x-azure-clientip", "true-client-ip", "x-real-ip"};
    for (size_t i = 0; i < sizeof viewers / sizeof viewers[0]; i++)
        assert_string_equal(from(yaml, "", "10.0.0.1", viewers[i], "198.51.100.7"), "cdn.pop=X\n");
    assert_string_equal(edit(&flue_processor_cdn, yaml, ATTRIBUTE("client.address", "198.51.100.7")),
                        "client.address=198.51.100.7\n");
}

/* host.ip is an array by the conventions. */
#define ADDRESSES(list)                                                                            \
    "{\"key\":\"host.ip\",\"value\":{\"arrayValue\":{\"values\":[" list "]}}}"
#define TEXT(t) "{\"stringValue\":\"" t "\"}"

static void several_addresses(void **state)
{
    char yaml[512];
    const char *path = table("own.csv", "network,cdn_region,cdn_pop\n192.0.2.0/24,eu,AMS\n"
                                        "198.51.100.0/24,eu,FRA\n203.0.113.0/24,,\\N\n");
    snprintf(yaml, sizeof yaml, "networks: [{path: %s}]", path);
    /* what no table knows says nothing; the sender is not asked */
    assert_string_equal(from(yaml, ADDRESSES(TEXT("fe80::1") "," TEXT("192.0.2.1")), "198.51.100.1",
                             NULL, NULL),
                        "host.ip=?\ncdn.region=eu\ncdn.pop=AMS\n");
    /* in what they agree they count */
    assert_string_equal(from(yaml, ADDRESSES(TEXT("198.51.100.7") "," TEXT("192.0.2.1")),
                             "198.51.100.1", NULL, NULL),
                        "host.ip=?\ncdn.region=eu\n");
    assert_string_equal(from(yaml, ADDRESSES(TEXT("192.0.2.1") "," TEXT("203.0.113.1")),
                             "198.51.100.1", NULL, NULL),
                        "host.ip=?\ncdn.region=eu\n");
    assert_string_equal(from(yaml, ADDRESSES(""), "198.51.100.1", NULL, NULL),
                        "host.ip=?\ncdn.region=eu\ncdn.pop=FRA\n");
}

/* A sender cannot keep a locked attribute by giving it another type. */
static void locked_whatever_its_type(void **state)
{
    assert_string_equal(
        edit(&flue_processor_cdn, "locked: [cdn.tier, cdn.asn]",
             "{\"key\":\"cdn.tier\",\"value\":{\"arrayValue\":{\"values\":[" TEXT("edge") "," TEXT(
                 "x") "]}}},{\"key\":\"cdn.asn\",\"value\":{\"boolValue\":true}}"),
        "");
}

static void places_of_a_pop(void **state)
{
    static const char yaml[] =
        "pops: [{pop: AMS, provider: acme, set: {cdn.site: one}},"
        " {pop: AMS, set: {cdn.site: two, geo.locality.name: Amsterdam, cdn.asn: AS64500,"
        " geo.location.lon: '4.9'}}]";
    assert_string_equal(edit(&flue_processor_cdn, yaml,
                             ATTRIBUTE("cdn.pop", "ams") "," ATTRIBUTE("cdn.provider", "acme")),
                        "cdn.pop=ams\ncdn.provider=acme\ncdn.site=one\n");
    assert_string_equal(edit(&flue_processor_cdn, yaml, ATTRIBUTE("cdn.pop", "AMS")),
                        "cdn.pop=AMS\ncdn.site=two\ncdn.asn=int 64500\n"
                        "geo.locality.name=Amsterdam\ngeo.location.lon=double 4.9\n");
    assert_string_equal(edit(&flue_processor_cdn, yaml, ATTRIBUTE("cdn.pop", "AM")), "cdn.pop=AM\n");
}

/* Every source, and each in the metrics. */
static void every_source_is_counted(void **state)
{
    struct bench bench;
    struct flue_buffer page;
    char yaml[2048], networks_path[128], want[256];
    snprintf(networks_path, sizeof networks_path, "%s",
             table("n.csv", "network,cdn_pop,cdn_tier\n192.0.2.0/24,\\N,edge\n"));
    snprintf(yaml, sizeof yaml,
             "networks: [{path: %s}]\ndatabases: [{path: %s}]\ntrusted_peers: [192.0.2.9]\n"
             "headers: [{name: X-Site, attribute: cdn.site}]\n"
             "node_labels: [{label: region, attribute: cdn.region}]\n"
             "patterns: [{host: '{pop:alpha3}.x', set: {cdn.asn: '1'}}]\n"
             "cloud_regions: [{cloud_region: c1, cdn_region: other}]\n"
             "pops: [{pop: AMS, set: {geo.postal_code: '1'}}]",
             networks_path, table("d.csv", "192.0.2.0/24,NL,,,\n"));
    const struct flue_attribute headers[] = {
        {FLUE_BYTES("x-site"), {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("s1")}}};
    const struct flue_origin origin = {
        .peer_address = FLUE_BYTES("192.0.2.9"), .headers = headers, .header_count = 1};
    struct flue_origin *own = flue_origin_new(&origin);
    bench_start(&bench, &flue_processor_cdn, yaml);
    bench_push(&bench,
               otlp_with(&bench.account, HOST("ams.x") "," ATTRIBUTE("cdn.provider", "acme") "," ATTRIBUTE(
                                             "k8s.node.label.region", "eu") "," ATTRIBUTE("cloud.region", "c1")),
               own);
    flue_origin_unref(own);
    /* The PoP that the host's name has is retracted by a network, which is asked before. */
    assert_string_equal(bench.attributes,
                        "host.name=ams.x\ncdn.provider=acme\nk8s.node.label.region=eu\n"
                        "cloud.region=c1\ncdn.region=eu\ncdn.site=s1\ncdn.tier=edge\ncdn.asn=int 1\n"
                        "geo.country.iso_code=NL\n");
    flue_buffer_init(&page, 1 << 20);
    flue_metrics_print(bench.metrics, &page);
    static const char *const won[][2] = {
        {"cdn.provider", "attributes"}, {"cdn.site", "headers"}, {"cdn.region", "node_labels"},
        {"cdn.tier", "networks"},       {"cdn.asn", "host"},     {"geo.country.iso_code", "databases"}};
    for (size_t i = 0; i < sizeof won / sizeof won[0]; i++) {
        snprintf(want, sizeof want,
                 "processor_cdn_resolved_total{attribute=\"%s\",pipeline=\"profiles\",processor="
                 "\"cdn\",source=\"%s\"} 1\n",
                 won[i][0], won[i][1]);
        if (!strstr(page.data, want))
            fail_msg("%s is not in\n%s", want, (const char *)page.data);
    }
    assert_non_null(strstr(page.data, "processor_cdn_unknown_total{attribute=\"cdn.pop\",pipeline="
                                      "\"profiles\",processor=\"cdn\"} 1\n"));
    assert_non_null(strstr(page.data, "processor_cdn_conflicts_total{attribute=\"cdn.region\",loser="
                                      "\"cloud_region\",pipeline=\"profiles\",processor=\"cdn\","
                                      "winner=\"node_labels\"} 1\n"));
    assert_non_null(strstr(page.data, "processor_cdn_table_prefixes{"));
    flue_buffer_destroy(&page);
    bench_stop(&bench);
}

static void cloud_regions(void **state)
{
    static const char yaml[] = "cloud_regions: [{cloud_provider: aws, cloud_region: eu-west-1,"
                               " cdn_region: eu}, {cloud_region: us-east1, cdn_region: us}]";
    assert_non_null(strstr(edit(&flue_processor_cdn, yaml,
                                ATTRIBUTE("cloud.provider", "aws") "," ATTRIBUTE(
                                    "cloud.region", "eu-west-1")),
                           "cdn.region=eu\n"));
    assert_null(strstr(edit(&flue_processor_cdn, yaml,
                            ATTRIBUTE("cloud.provider", "gcp") "," ATTRIBUTE("cloud.region",
                                                                             "eu-west-1")),
                       "cdn.region"));
    assert_non_null(
        strstr(edit(&flue_processor_cdn, yaml, ATTRIBUTE("cloud.region", "us-east1")),
               "cdn.region=us\n"));
}

static void conflicts_are_counted(void **state)
{
    struct bench bench;
    struct flue_buffer page;
    bench_start(&bench, &flue_processor_cdn, "patterns: [{host: '{region:alpha2}-{node}'}]");
    bench_push(&bench, otlp_with(&bench.account, BOTH), NULL);
    bench_push(&bench, otlp_with(&bench.account, HOST("eu-2")), NULL);
    flue_buffer_init(&page, 1 << 20);
    flue_metrics_print(bench.metrics, &page);
    assert_non_null(strstr(page.data, "processor_cdn_conflicts_total{attribute=\"cdn.region\",loser="
                                      "\"host\",pipeline=\"profiles\",processor=\"cdn\",winner="
                                      "\"attributes\"} 1\n"));
    assert_non_null(strstr(page.data, "processor_cdn_resolved_total{attribute=\"cdn.region\","
                                      "pipeline=\"profiles\",processor=\"cdn\",source=\"host\"}"
                                      " 1\n"));
    assert_non_null(strstr(page.data, "processor_cdn_unknown_total{attribute=\"cdn.tier\",pipeline="
                                      "\"profiles\",processor=\"cdn\"} 2\n"));
    flue_buffer_destroy(&page);
    bench_stop(&bench);
}

static void mistakes(void **state)
{
#define WRONG(yaml, text) assert_int_equal(mistakes_of(&flue_processor_cdn, yaml, text), 1)
    WRONG("sources: [host, hosts]", "there is no source \"hosts\"");
    WRONG("sources: [host, host]", "stands there twice");
    WRONG("relays: [10.0.0.0/33]", "is no network");
    WRONG("locked: [cdn.regio]", "there is no attribute \"cdn.regio\"");
    WRONG("headers: [{name: x}]", "needs the attribute");
    WRONG("patterns: [{host: 'a{b'}]", "a { without its }");
    WRONG("patterns: [{host: '{a:beta}'}]", "there is no class \"beta\"");
    WRONG("patterns: [{host: '{a:name}{b:digits}'}]", "it cannot be told where {a} ends");
    WRONG("patterns: [{host: '{a:name}-x'}]", "it cannot be told where {a} ends");
    WRONG("patterns: [{host: '{a:=b}'}]", "no group before it");
    WRONG("patterns: [{host: x, dictionary: none}]", "there is no dictionary \"none\"");
    WRONG("pops: [{pop: a, set: {cdn.tier: middle}}]", "cannot be a cdn.tier");
    WRONG("networks: [{path: x, set: {a: b}}]", "there is no attribute \"a\"");
}

static int make_folder(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(host_names),
                                       cmocka_unit_test(dictionaries),
                                       cmocka_unit_test(two_patterns_that_differ_give_nothing),
                                       cmocka_unit_test(order_and_override),
                                       cmocka_unit_test(networks),
                                       cmocka_unit_test(headers_are_for_trusted_peers),
                                       cmocka_unit_test(the_address_behind_proxies),
                                       cmocka_unit_test(nobody_who_passes_on_is_the_machine),
                                       cmocka_unit_test(several_addresses),
                                       cmocka_unit_test(locked_whatever_its_type),
                                       cmocka_unit_test(places_of_a_pop),
                                       cmocka_unit_test(every_source_is_counted),
                                       cmocka_unit_test(cloud_regions),
                                       cmocka_unit_test(conflicts_are_counted),
                                       cmocka_unit_test(mistakes)};
    return cmocka_run_group_tests(tests, make_folder, NULL);
}
