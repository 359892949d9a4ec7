/* queue_replay.c: dead letters, oldest first, each as one request. */
#include "collector/commands/queue_replay.h"
#include <curl/curl.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "collector/commands/command.h"

#define LETTER_MAX ((off_t)256 << 20)
#define ANSWER_MAX 400
#define TIMEOUT_S  60L
#define PATH_SIZE  4096

struct answer {
    char text[ANSWER_MAX + 1];
    size_t size;
};

static size_t take_answer(char *data, size_t one, size_t count, void *arg)
{
    struct answer *answer = arg;
    size_t size = one * count, room = ANSWER_MAX - answer->size;

    memcpy(answer->text + answer->size, data, size < room ? size : room);
    answer->size += size < room ? size : room;
    return size;
}

static int is_description(const struct dirent *entry)
{
    size_t size = strlen(entry->d_name);
    return size > 5 && size < 256 && strcmp(entry->d_name + size - 5, ".json") == 0;
}

static char *read_data(const char *path, size_t *size)
{
    struct stat facts;
    FILE *file = fopen(path, "rb");
    char *data = NULL;

    if (file && fstat(fileno(file), &facts) == 0 && facts.st_size <= LETTER_MAX &&
        (data = malloc((size_t)facts.st_size + 1))) {
        *size = fread(data, 1, (size_t)facts.st_size, file);
        if (*size != (size_t)facts.st_size) {
            free(data);
            data = NULL;
        }
    }
    if (file)
        (void)fclose(file);
    return data;
}

/* A header from what a file says: printable ASCII only, so that it cannot be another header. */
static struct curl_slist *tenant_header(struct curl_slist *headers, const json_t *about)
{
    const char *tenant = json_string_value(json_object_get(about, "tenant"));
    char line[512];

    if (!tenant || !*tenant || strlen(tenant) > 400)
        return headers;
    for (const char *c = tenant; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            return headers;
    (void)snprintf(line, sizeof line, "X-Scope-OrgID: %s", tenant);
    struct curl_slist *more = curl_slist_append(headers, line);
    return more ? more : headers;
}

static bool post(CURL *curl, const char *url, const json_t *about, const char *data, size_t size,
                 const char *name)
{
    struct answer answer = {.size = 0};
    char shown[ANSWER_MAX * 4 + 1];
    long status = 0;
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/x-protobuf");

    if (strstr(url, "/push.v1.")) {
        curl_slist_free_all(headers);
        headers = curl_slist_append(NULL, "Content-Type: application/proto");
    }
    headers = tenant_header(headers, about);
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, data);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_answer);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(headers);
    if (code == CURLE_OK && status >= 200 && status < 300)
        return true;
    if (code != CURLE_OK)
        fprintf(stderr, "flue queue replay: %s: %s: %s\n", name, url, curl_easy_strerror(code));
    else
        fprintf(stderr, "flue queue replay: %s: %s answered %ld: %s\n", name, url, status,
                flue_printable(flue_bytes(answer.text, answer.size), shown, sizeof shown));
    return false;
}

static const char *otlp_path(const json_t *about)
{
    const char *signal = json_string_value(json_object_get(about, "signal"));

    if (signal && strcmp(signal, "traces") == 0)
        return "/v1/traces";
    return signal && strcmp(signal, "metrics") == 0 ? "/v1/metrics" : "/v1development/profiles";
}

/* One letter, described by `name`. */
static bool replay_letter(CURL *curl, const char *directory, const char *name, const char *to)
{
    char path[PATH_SIZE], data_path[PATH_SIZE], url[PATH_SIZE];
    int stem = (int)strlen(name) - 5;
    size_t size = 0;

    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    json_t *about = json_load_file(path, 0, NULL);
    const char *form = json_string_value(json_object_get(about, "form"));
    bool pprof = form && strcmp(form, "pprof") == 0;
    (void)snprintf(data_path, sizeof data_path, "%s/%.*s.%s", directory, stem, name,
                   pprof ? "pprof" : "otlp");
    const char *base = to ? to : pprof ? "http://127.0.0.1:4040" : "http://127.0.0.1:4318";
    int base_size = (int)strlen(base);
    while (base_size && base[base_size - 1] == '/')
        base_size--;
    (void)snprintf(url, sizeof url, "%.*s%s", base_size, base,
                   pprof ? "/push.v1.PusherService/Push" : otlp_path(about));
    char *data = form ? read_data(data_path, &size) : NULL;
    bool good = data && post(curl, url, about, data, size, name);
    if (!data)
        fprintf(stderr, "flue queue replay: %s/%.200s: not a letter, or not to be read\n",
                directory, name);
    /* The description first: without it the data is no letter, and is not sent twice. */
    if (good && (unlink(path) != 0 || unlink(data_path) != 0))
        fprintf(stderr, "flue queue replay: %s was sent and cannot be removed: %s\n", path,
                strerror(errno));
    free(data);
    json_decref(about);
    return good;
}

int flue_queue_replay(const char *directory, const char *to)
{
    struct dirent **entries;
    unsigned sent = 0, left = 0;
    int count = scandir(directory, &entries, is_description, alphasort);

    if (count < 0) {
        fprintf(stderr, "flue queue replay: %s: %s\n", directory, strerror(errno));
        return FLUE_EXIT_FAILED;
    }
    CURL *curl = curl_easy_init();
    for (int i = 0; i < count; i++) {
        if (curl && replay_letter(curl, directory, entries[i]->d_name, to))
            sent++;
        else
            left++;
        free(entries[i]);
    }
    free(entries);
    curl_easy_cleanup(curl);
    printf("%u sent, %u left\n", sent, left);
    return left ? FLUE_EXIT_FAILED : FLUE_EXIT_OK;
}
