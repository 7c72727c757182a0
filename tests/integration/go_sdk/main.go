// Command sdk sends one run of traces, metrics and logs with known contents by the OpenTelemetry SDK of Go.
//
//	sdk <grpc|http/protobuf|http/json> <endpoint> <run id: 32 hex digits> <base time: whole seconds since 1970> <delta|cumulative>
//
// The contents are those that ../test_sdks.py expects; the run id is the trace id and service.instance.id.
// Go's trace exporter can send JSON, its metric and log exporters cannot (1.47): with http/json they send protobuf.
// Prints one JSON line with the span ids, and exits 0 only if every export was answered with success.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/trace"
)

const (
	schemaURL = "https://opentelemetry.io/schemas/1.37.0"
	scopeName = "hubscope.sdk-test"
	scopeVers = "4.5.6"
)

// settings is the command line, checked.
type settings struct {
	protocol string
	endpoint string
	runID    trace.TraceID
	base     time.Time
	delta    bool
}

// at is the base time plus a number of nanoseconds.
func (s settings) at(nanos int64) time.Time { return s.base.Add(time.Duration(nanos)) }

func (s settings) encoding() otlptracehttp.Encoding {
	if s.protocol == "http/json" {
		return otlptracehttp.EncodingJSON
	}
	return otlptracehttp.EncodingProtobuf
}

// scopeAttributes stand on the scope of every signal.
var scopeAttributes = []attribute.KeyValue{attribute.String("scope.key", "scope value"), attribute.Int("scope.n", 7)}

func parse(args []string) (settings, error) {
	if len(args) != 5 {
		return settings{}, errors.New("usage: sdk <grpc|http/protobuf|http/json> <endpoint> <run id> <base seconds> <delta|cumulative>")
	}
	switch args[0] {
	case "grpc", "http/protobuf", "http/json":
	default:
		return settings{}, fmt.Errorf("protocol: want grpc, http/protobuf or http/json, got %q", args[0])
	}
	runID, err := trace.TraceIDFromHex(args[2])
	if err != nil {
		return settings{}, fmt.Errorf("run id: %w", err)
	}
	seconds, err := strconv.ParseInt(args[3], 10, 64)
	if err != nil {
		return settings{}, fmt.Errorf("base time: %w", err)
	}
	return settings{args[0], args[1], runID, time.Unix(seconds, 0), args[4] == "delta"}, nil
}

func run(ctx context.Context, s settings) (map[string]string, error) {
	res := resource.NewWithAttributes(
		schemaURL,
		attribute.String("service.name", "sdk-go"),
		attribute.String("service.version", "1.2.3"),
		attribute.String("service.instance.id", s.runID.String()),
		attribute.Bool("res.bool", true),
		attribute.Int64("res.int", 9007199254740991),
		attribute.Float64("res.double", 0.1),
		attribute.StringSlice("res.strings", []string{"a", "b"}),
	)
	root, spanIDs, err := sendTraces(ctx, s, res)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	// Metrics and logs are made inside the root span: exemplars and log records carry its ids.
	inRoot := trace.ContextWithSpanContext(ctx, root)
	if err := sendMetrics(inRoot, s, res); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if err := sendLogs(inRoot, s, res); err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	return spanIDs, nil
}

func main() {
	s, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	// The SDK hands a failed export (a partial success too) to this handler only.
	var failures []error
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { failures = append(failures, err) }))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	spanIDs, err := run(ctx, s)
	if err := errors.Join(append(failures, err)...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"span_ids": spanIDs}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
