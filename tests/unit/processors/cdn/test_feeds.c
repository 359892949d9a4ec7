/* Every form of file, in lines as their publishers write them; what is wrong in them. */
#include "processors/cdn/feed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
/* after setjmp.h and stdarg.h */
#include <cmocka.h>

static char warnings[4096];
static void warn(void *arg, unsigned line, const char *text)
{
    size_t used = strlen(warnings);
    snprintf(warnings + used, sizeof warnings - used, "%u: %s\n", line, text);
}

/* Reads and gives every entry as "prefix attribute=value ...\n". */
static const char *read_text(const char *content, size_t size, const char *vrf, size_t max,
                             const char *form)
{
    static char out[8192];
    struct flue_feed feed;
    struct flue_error error;
    size_t used = 0;

    out[0] = warnings[0] = 0;
    assert_int_equal(flue_feed_init(&feed, max, &error), FLUE_OK);
    feed.warn = warn;
    feed.netbox_vrf = vrf;
    enum flue_code code = flue_feed_read(&feed, flue_bytes(content, size), &error);
    if (code != FLUE_OK) {
        snprintf(out, sizeof out, "%s", error.text);
        flue_feed_destroy(&feed);
        return out;
    }
    if (form)
        assert_string_equal(feed.form, form);
    for (size_t i = 0; i < feed.count; i++) {
        char text[64];
        assert_true(flue_address_text(&feed.items[i].address, text, sizeof text));
        used += (size_t)snprintf(out + used, sizeof out - used, "%s/%u", text,
                                 feed.items[i].length);
        for (int k = 0; k < FLUE_PLACE_ATTRIBUTES; k++) {
            uint32_t value = feed.places.rows[feed.items[i].place].values[k];
            if (value)
                used += (size_t)snprintf(
                    out + used, sizeof out - used, " %.*s=%.*s",
                    FLUE_PRI(flue_place_attribute_name((enum flue_place_attribute)k)),
                    value == FLUE_PLACE_RETRACTED ? 2 : (int)feed.places.texts[value].size,
                    value == FLUE_PLACE_RETRACTED ? "\\N"
                                                  : (const char *)feed.places.texts[value].data);
        }
        used += (size_t)snprintf(out + used, sizeof out - used, "\n");
    }
    flue_feed_destroy(&feed);
    return out;
}
#define READ(text, form) read_text(text, strlen(text), NULL, 1000, form)

static void ipfeed(void **state)
{
    assert_string_equal(
        READ("# ipfeed_version=1; publisher=AS64496\n"
             "network,cdn_provider,cdn_region,cdn_pop,cdn_tier,cdn_asn,country,region,city,"
             "latitude,longitude,isp\n"
             "192.0.2.0/25,acme,eu-west,AMS,Edge,AS64500,nl,NH,Amsterdam,52.37,4.9,whoever\n"
             "192.0.2.128/25,acme,\\N,\\N\n"
             "2001:db8::/32,\"ac,\"\"me\"\"\",,,,,\n",
             "ipfeed"),
        "192.0.2.0/25 cdn.provider=acme cdn.region=eu-west cdn.pop=AMS cdn.tier=edge cdn.asn=64500 "
        "geo.country.iso_code=NL geo.region.iso_code=NL-NH geo.locality.name=Amsterdam "
        "geo.location.lat=52.37 geo.location.lon=4.9\n"
        "192.0.2.128/25 cdn.provider=acme cdn.region=\\N cdn.pop=\\N\n"
        "2001:db8::/32 cdn.provider=ac,\"me\"\n");
    assert_string_equal(warnings, "");
    assert_non_null(strstr(READ("# ipfeed_version=2\nnetwork,city\n192.0.2.0/24,x\n", NULL),
                           "ipfeed_version is 2"));
}

static void ipfeed_mistakes(void **state)
{
    assert_string_equal(READ("network,cdn_tier,latitude,country\n"
                             "nonsense,edge,1,NL\n"
                             "192.0.2.1/24,middle,100,Netherlands\n"
                             "198.51.100.0/24,edge,,,,,\n"
                             "\"203.0.113.0/24,edge\n",
                             "ipfeed"),
                        "192.0.2.0/24\n198.51.100.0/24 cdn.tier=edge\n");
    assert_non_null(strstr(warnings, "2: \"nonsense\" is no prefix"));
    assert_non_null(strstr(warnings, "3: \"middle\" cannot be a cdn.tier"));
    assert_non_null(strstr(warnings, "3: \"100\" cannot be a geo.location.lat"));
    assert_non_null(strstr(warnings, "3: \"Netherlands\" cannot be a geo.country.iso_code"));
    assert_non_null(strstr(warnings, "3: \"192.0.2.1/24\" has bits behind its length"));
    assert_non_null(strstr(warnings, "4: 7 cells, but the header has 4"));
    assert_non_null(strstr(warnings, "5: a quote without its end"));
}

static void anycast(void **state)
{
    const char *out = READ("network,cdn_provider,cdn_pop,is_anycast\n"
                           "192.0.2.0/24,acme,AMS,true\n198.51.100.0/24,acme,AMS,false\n",
                           "ipfeed");
    assert_non_null(strstr(out, "192.0.2.0/24 cdn.provider=acme cdn.region=\\N cdn.pop=\\N"));
    assert_non_null(strstr(out, "198.51.100.0/24 cdn.provider=acme cdn.pop=AMS\n"));
}

static void geofeed(void **state)
{
    assert_string_equal(
        READ("\xef\xbb\xbf# a comment\r\n192.0.2.0/28,US,US-AL,Alabaster,\r\n\r\n"
             "2001:db8:cafe:f001::/64,us,us-mi,Ann Arbor,48104 # here\r\n198.51.100.7,,,,\r\n",
             "geofeed"),
        "192.0.2.0/28 geo.country.iso_code=US geo.region.iso_code=US-AL "
        "geo.locality.name=Alabaster\n"
        "2001:db8:cafe:f001::/64 geo.country.iso_code=US geo.region.iso_code=US-MI "
        "geo.locality.name=Ann Arbor geo.postal_code=48104\n"
        "198.51.100.7/32 geo.continent.code=\\N geo.country.iso_code=\\N geo.region.iso_code=\\N "
        "geo.locality.name=\\N geo.location.lat=\\N geo.location.lon=\\N geo.postal_code=\\N\n");
    assert_string_equal(READ("192.0.2.0/24\n2001:db8::/32\n", "list"),
                        "192.0.2.0/24\n2001:db8::/32\n");
}

static void netbox(void **state)
{
    static const char text[] = "Prefix,VRF,Tenant,Status,Role,Scope Type,Scope ID\n"
                               "10.1.0.0/16,,media,active,edge,dcim.site,ams3\n"
                               "10.1.0.0/16,lab,media,active,edge,dcim.site,fra1\n";
    assert_string_equal(READ(text, "netbox"), "10.1.0.0/16 cdn.site=ams3\n");
    assert_string_equal(read_text(text, sizeof text - 1, "lab", 10, "netbox"),
                        "10.1.0.0/16 cdn.site=fra1\n");
    /* an export of its own begins with what it likes, and lists hosts in their networks */
    assert_string_equal(READ("ID,Prefix,VRF,Site\n7,10.2.0.0/16,,ams3\n8\n", "netbox"),
                        "10.2.0.0/16 cdn.site=ams3\n");
    assert_string_equal(READ("IP Address,VRF,Status,DNS Name,cdn_pop\n10.1.0.5/24,,active,x,AMS\n"
                             "2001:db8::5/64,,active,y,FRA\n",
                             "netbox"),
                        "10.1.0.5/32 cdn.pop=AMS\n2001:db8::5/128 cdn.pop=FRA\n");
}

static void clouds(void **state)
{
    assert_string_equal(
        READ("{\"syncToken\":\"1\",\"prefixes\":["
             "{\"ip_prefix\":\"3.5.140.0/22\",\"region\":\"ap-northeast-2\",\"service\":\"AMAZON\","
             "\"network_border_group\":\"ap-northeast-2\"},"
             "{\"ip_prefix\":\"15.220.0.0/20\",\"region\":\"us-west-2\",\"service\":\"EC2\","
             "\"network_border_group\":\"us-west-2-lax-1\"},"
             "{\"ip_prefix\":\"13.32.0.0/15\",\"region\":\"GLOBAL\",\"service\":\"AMAZON\","
             "\"network_border_group\":\"GLOBAL\"},"
             "{\"ip_prefix\":\"13.32.0.0/15\",\"region\":\"GLOBAL\",\"service\":\"CLOUDFRONT\","
             "\"network_border_group\":\"GLOBAL\"}],\"ipv6_prefixes\":[]}",
             "aws"),
        "15.220.0.0/20 cloud.provider=aws cloud.region=us-west-2-lax-1\n"
        "13.32.0.0/15 cdn.provider=cloudfront cloud.provider=aws\n"
        "3.5.140.0/22 cloud.provider=aws cloud.region=ap-northeast-2\n");
    assert_string_equal(
        READ("{\"syncToken\":\"1\",\"prefixes\":[{\"ipv4Prefix\":\"34.1.208.0/20\",\"service\":"
             "\"Google Cloud\",\"scope\":\"africa-south1\"},{\"ipv6Prefix\":\"2600:1900::/35\"}]}",
             "google"),
        "34.1.208.0/20 cloud.provider=gcp cloud.region=africa-south1\n"
        "2600:1900::/35 cloud.provider=gcp\n");
    assert_string_equal(
        READ("{\"changeNumber\":1,\"cloud\":\"Public\",\"values\":["
             "{\"name\":\"AzureCloud\",\"properties\":{\"region\":\"\",\"addressPrefixes\":"
             "[\"20.1.0.0/16\",\"20.2.0.0/16\"]}},"
             "{\"name\":\"AzureCloud.eastus\",\"properties\":{\"region\":\"eastus\","
             "\"addressPrefixes\":[\"20.1.0.0/16\"]}},"
             "{\"name\":\"AzureFrontDoor.Backend\",\"properties\":{\"region\":\"\","
             "\"addressPrefixes\":[\"4.150.1.0/24\"]}}]}",
             "azure"),
        "4.150.1.0/24 cdn.provider=azure_front_door cloud.provider=azure\n"
        "20.1.0.0/16 cloud.provider=azure cloud.region=eastus\n"
        "20.2.0.0/16 cloud.provider=azure\n");
    assert_string_equal(READ("{\"addresses\":[\"23.235.32.0/20\"],\"ipv6_addresses\":[\"2a04:4e40::"
                             "/32\"]}",
                             "fastly"),
                        "23.235.32.0/20 cdn.provider=fastly\n2a04:4e40::/32 cdn.provider=fastly\n");
    assert_string_equal(READ("{\"result\":{\"ipv4_cidrs\":[\"173.245.48.0/20\"],\"ipv6_cidrs\":[],"
                             "\"jdcloud_cidrs\":[\"1.1.1.0/24\"]},\"success\":true}",
                             "cloudflare"),
                        "173.245.48.0/20 cdn.provider=cloudflare\n");
}

static void traffic_control(void **state)
{
    assert_string_equal(
        READ("{\"coverageZones\":{\"cache-group-01\":{\"network6\":[\"1234:5678::/64\"],\"network\":"
             "[\"192.168.8.0/24\"],\"coordinates\":{\"latitude\":\"1.5\",\"longitude\":2}}},"
             "\"revision\":\"1\"}",
             "traffic_control_zones"),
        "192.168.8.0/24 cdn.site=cache-group-01 geo.location.lat=1.5 geo.location.lon=2.000000\n"
        "1234:5678::/64 cdn.site=cache-group-01 geo.location.lat=1.5 geo.location.lon=2.000000\n");
    assert_non_null(strstr(warnings, "not where servers stand"));
    assert_string_equal(
        READ("{\"contentServers\":{\"e1\":{\"cacheGroup\":\"ams\",\"ip\":\"10.0.0.1\",\"ip6\":"
             "\"2001:db8::5/64\",\"type\":\"EDGE\"},\"m1\":{\"cacheGroup\":\"mid\",\"ip\":"
             "\"10.0.0.2\",\"ip6\":\"\",\"type\":\"MID\"}},\"edgeLocations\":{\"ams\":{\"lat\":52,"
             "\"lon\":5}}}",
             "traffic_control_config"),
        "10.0.0.1/32 cdn.site=ams cdn.tier=edge geo.location.lat=52.000000 "
        "geo.location.lon=5.000000\n"
        "2001:db8::5/128 cdn.site=ams cdn.tier=edge geo.location.lat=52.000000 "
        "geo.location.lon=5.000000\n"
        "10.0.0.2/32 cdn.site=mid cdn.tier=shield\n");
    assert_string_equal(
        READ("{\"footprints\":[{\"footprint-type\":\"footprintunion\",\"footprint-value\":[{"
             "\"footprint-type\":\"ipv4cidr\",\"footprint-value\":[\"192.0.2.0/24\"]},{"
             "\"footprint-type\":\"countrycode\",\"footprint-value\":[\"us\"]}]}]}",
             "footprints"),
        "192.0.2.0/24 geo.country.iso_code=US\n");
}

static void refused(void **state)
{
    assert_non_null(strstr(READ("{\"what\":1}", NULL), "none of the files that are known"));
    assert_non_null(strstr(READ("{\"prefixes\":[", NULL), "line 1"));
    assert_non_null(strstr(READ("", NULL), "no network in it"));
    assert_non_null(strstr(READ("hello\nworld\n", NULL), "no network in it"));
    assert_non_null(strstr(read_text("192.0.2.0/24\n198.51.100.0/24\n", 29, NULL, 1, NULL),
                           "more than 1 prefixes"));
    assert_non_null(strstr(read_text("abc\xab\xcd\xefMaxMind.com", 17, NULL, 1, NULL),
                           "metadata is damaged"));
}

/* A database that a real writer wrote, cut at every byte and with every bit turned: it is refused,
 * or what is read are whole prefixes with places that have their form. Nothing else happens. */
static size_t whole, refusals;
static void damaged_one(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1); /* so that a read behind its end is seen */
    struct flue_prefixes *prefixes = NULL;
    struct flue_error error = {0};
    struct flue_feed feed;

    assert_non_null(copy);
    memcpy(copy, data, size);
    assert_int_equal(flue_feed_init(&feed, 1000, &error), FLUE_OK);
    enum flue_code code = flue_feed_read(&feed, flue_bytes(copy, size), &error);
    free(copy);
    if (code != FLUE_OK) {
        assert_int_equal(error.code, code);
        assert_true(error.text[0]);
        refusals++;
    }
    for (size_t i = 0; code == FLUE_OK && i < feed.count; i++) {
        assert_in_range(feed.items[i].length, 0, feed.items[i].address.v6 ? 128 : 32);
        assert_in_range(feed.items[i].place, 0, feed.places.row_count - 1);
        for (int k = 0; k < FLUE_PLACE_ATTRIBUTES; k++) {
            char again[FLUE_PLACE_VALUE_MAX];
            uint32_t value = feed.places.rows[feed.items[i].place].values[k];
            size_t length;
            assert_in_range(value, 0, feed.places.text_count - 1);
            assert_true(value <= FLUE_PLACE_RETRACTED ||
                        flue_place_normalize((enum flue_place_attribute)k, feed.places.texts[value],
                                             again, &length));
        }
    }
    if (code == FLUE_OK) {
        assert_int_equal(flue_prefixes_build(feed.items, feed.count, FLUE_PLACE_DISPUTED, NULL, NULL,
                                             &prefixes, &error),
                         FLUE_OK);
        whole++;
    }
    flue_prefixes_destroy(prefixes);
    flue_feed_destroy(&feed);
}

static void damaged_databases(void **state)
{
    static uint8_t good[4096], bad[4096];
    FILE *file = fopen(FLUE_TEST_DATA "/cdn/small.mmdb", "rb");
    assert_non_null(file);
    size_t size = fread(good, 1, sizeof good, file);
    fclose(file);
    assert_in_range(size, 1000, sizeof good - 1);
    damaged_one(good, size);
    assert_int_equal(whole, 1);
    for (size_t cut = 0; cut < size; cut++)
        damaged_one(good, cut);
    assert_int_equal(whole, 1); /* none of them is taken for the whole */
    for (size_t bit = 0; bit < 8 * size; bit++) {
        memcpy(bad, good, size);
        bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
        damaged_one(bad, size);
    }
    assert_true(refusals > size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ipfeed),  cmocka_unit_test(ipfeed_mistakes), cmocka_unit_test(anycast),
        cmocka_unit_test(geofeed), cmocka_unit_test(netbox),          cmocka_unit_test(clouds),
        cmocka_unit_test(traffic_control), cmocka_unit_test(refused),
        cmocka_unit_test(damaged_databases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
