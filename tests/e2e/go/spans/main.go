// spans sends profiles by the unmodified Go SDK and traces by OpenTelemetry's, from one process, with
// Pyroscope's span processor between them. It prints the ids of the spans that were profiled.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	otelpyroscope "github.com/grafana/otel-profiling-go"
	"github.com/grafana/pyroscope-go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

//go:noinline
func encodeSegment(until time.Time) (x uint64) {
	for time.Now().Before(until) {
		for i := uint64(0); i < 1<<16; i++ {
			x = x*31 + i
		}
	}
	return x
}

func main() {
	profiles := flag.String("profiles", "", "server of profiles, a URL")
	traces := flag.String("traces", "", "OTLP/HTTP server of traces, host:port")
	seconds := flag.Int("seconds", 3, "how long")
	flag.Parse()
	p, err := pyroscope.Start(pyroscope.Config{
		ApplicationName: "abr.packager", ServerAddress: *profiles, UploadRate: time.Second,
		ProfileTypes: []pyroscope.ProfileType{pyroscope.ProfileCPU},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpoint(*traces), otlptracehttp.WithInsecure())
	if err != nil {
		log.Fatal(err)
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter),
		trace.WithResource(resource.NewSchemaless(attribute.String("service.name", "abr.packager"))))
	tracer := otelpyroscope.NewTracerProvider(provider).Tracer("segments")
	end := time.Now().Add(time.Duration(*seconds) * time.Second)
	for time.Now().Before(end) {
		rootCtx, root := tracer.Start(ctx, "segment")
		_, child := tracer.Start(rootCtx, "encode")
		encodeSegment(time.Now().Add(500 * time.Millisecond))
		fmt.Println(root.SpanContext().TraceID(), root.SpanContext().SpanID(), child.SpanContext().SpanID())
		child.End()
		root.End()
	}
	if err := provider.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		log.Fatal(err)
	}
}
