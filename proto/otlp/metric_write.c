/* metric_write.c: the writer of metric_payload.h. */
#include "proto/otlp/index.h"
#include "proto/otlp/metric_payload.h"
#include "proto/wire/writer.h"

#define SCOPE "flue"

static void head(struct flue_buffer *to, uint32_t field, size_t size)
{
    uint8_t bytes[20];
    flue_buffer_add(to,
                    flue_bytes(bytes, (size_t)(flue_write_len_head(bytes, field, size) - bytes)));
}

static void text(struct flue_buffer *to, uint32_t field, struct flue_bytes content)
{
    head(to, field, content.size);
    if (content.size)
        flue_buffer_add(to, content);
}

static void fixed(struct flue_buffer *to, uint32_t field, const void *eight)
{
    flue_buffer_byte(to, (uint8_t)flue_tag(field, FLUE_FIXED64));
    flue_buffer_add(to, flue_bytes(eight, 8));
}

/* KeyValue: key 1, value 2 (AnyValue: string 1). */
static void attribute(struct flue_buffer *to, uint32_t field, const struct flue_attribute *a)
{
    size_t any = flue_otlp_value_size(&a->value);
    uint8_t value[512], *at = value;
    if (a->value.type != FLUE_VALUE_STRING && any > sizeof value)
        return;
    head(to, field, flue_len_field_size(1, a->key.size) + flue_len_field_size(2, any));
    text(to, 1, a->key);
    head(to, 2, any);
    if (a->value.type == FLUE_VALUE_STRING) {
        text(to, 1, a->value.text);
        return;
    }
    at = flue_otlp_value_write(value, &a->value);
    flue_buffer_add(to, flue_bytes(value, (size_t)(at - value)));
}

void flue_metric_writer_init(struct flue_metric_writer *writer, size_t maximum)
{
    *writer = (struct flue_metric_writer){.in_resource = false};
    flue_buffer_init(&writer->resource, maximum);
    flue_buffer_init(&writer->metrics, maximum);
    flue_buffer_init(&writer->points, maximum);
    flue_buffer_init(&writer->point, maximum);
    flue_buffer_init(&writer->out, maximum);
}

/* Metric: name 1, description 2, unit 3, sum 7 (data points 1, temporality 2 with 2 for cumulative,
 * monotonic 3). */
static void end_metric(struct flue_metric_writer *w)
{
    static const uint8_t cumulative[] = {2 << 3, 2, 3 << 3, 1};
    size_t sum = w->points.size + sizeof cumulative;
    if (!w->in_metric)
        return;
    w->in_metric = false;
    if (!w->points.size)
        return;
    head(&w->metrics, 2,
         flue_len_field_size(1, w->name.size) + flue_len_field_size(2, w->description.size) +
             flue_len_field_size(3, w->unit.size) + flue_len_field_size(7, sum));
    text(&w->metrics, 1, w->name);
    text(&w->metrics, 2, w->description);
    text(&w->metrics, 3, w->unit);
    head(&w->metrics, 7, sum);
    flue_buffer_add(&w->metrics, flue_buffer_bytes(&w->points));
    flue_buffer_add(&w->metrics, flue_bytes(cumulative, sizeof cumulative));
    flue_buffer_clear(&w->points);
}

/* ResourceMetrics: resource 1, scope metrics 2 (scope 1 (name 1), metrics 2). */
static void end_resource(struct flue_metric_writer *w)
{
    struct flue_bytes scope = FLUE_BYTES(SCOPE);
    size_t size;
    end_metric(w);
    if (!w->in_resource)
        return;
    w->in_resource = false;
    if (!w->metrics.size) {
        flue_buffer_clear(&w->resource);
        return;
    }
    size = flue_len_field_size(1, flue_len_field_size(1, scope.size)) + w->metrics.size;
    head(&w->out, 1, flue_len_field_size(1, w->resource.size) + flue_len_field_size(2, size));
    head(&w->out, 1, w->resource.size);
    if (w->resource.size)
        flue_buffer_add(&w->out, flue_buffer_bytes(&w->resource));
    head(&w->out, 2, size);
    head(&w->out, 1, flue_len_field_size(1, scope.size));
    text(&w->out, 1, scope);
    flue_buffer_add(&w->out, flue_buffer_bytes(&w->metrics));
    flue_buffer_clear(&w->resource);
    flue_buffer_clear(&w->metrics);
}

void flue_metric_writer_resource(struct flue_metric_writer *w,
                                 const struct flue_attribute *attributes, size_t count)
{
    end_resource(w);
    w->in_resource = true;
    for (size_t i = 0; i < count; i++)
        attribute(&w->resource, 1, &attributes[i]);
}

void flue_metric_writer_sum(struct flue_metric_writer *w, struct flue_bytes name,
                            struct flue_bytes unit, struct flue_bytes description)
{
    end_metric(w);
    w->in_metric = true;
    w->name = name;
    w->unit = unit;
    w->description = description;
}

/* NumberDataPoint: start 2, time 3, as_double 4, attributes 7. */
void flue_metric_writer_point(struct flue_metric_writer *w, const struct flue_attribute *attributes,
                              size_t count, uint64_t start_ns, uint64_t time_ns, double value)
{
    fixed(&w->point, 2, &start_ns);
    fixed(&w->point, 3, &time_ns);
    fixed(&w->point, 4, &value);
    for (size_t i = 0; i < count; i++)
        attribute(&w->point, 7, &attributes[i]);
    head(&w->points, 1, w->point.size);
    flue_buffer_add(&w->points, flue_buffer_bytes(&w->point));
    flue_buffer_clear(&w->point);
}

enum flue_code flue_metric_writer_finish(struct flue_metric_writer *w, struct flue_account *account,
                                         struct flue_payload **out, struct flue_counts *counts,
                                         struct flue_error *error)
{
    enum flue_code code = FLUE_OK;
    struct flue_block *block;
    *out = NULL;
    end_resource(w);
    if (w->resource.failed || w->metrics.failed || w->points.failed || w->point.failed ||
        w->out.failed) {
        code = flue_fail(error, FLUE_NO_MEMORY, "metrics of over %zu bytes, or no memory for them",
                         w->out.maximum);
    } else if (w->out.size) {
        block = flue_block_copy(account, flue_buffer_bytes(&w->out));
        code = block ? flue_metric_payload_read(block, out, counts, error)
                     : flue_fail(error, FLUE_NO_MEMORY, "no memory for metrics");
    }
    flue_buffer_destroy(&w->resource);
    flue_buffer_destroy(&w->metrics);
    flue_buffer_destroy(&w->points);
    flue_buffer_destroy(&w->point);
    flue_buffer_destroy(&w->out);
    return code;
}
