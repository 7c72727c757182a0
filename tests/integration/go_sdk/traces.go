package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// sequence numbers the spans, so that a run's ids are known before it.
type sequence struct {
	traceID trace.TraceID
	last    uint64
}

func (q *sequence) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	q.last++
	var id trace.SpanID
	binary.BigEndian.PutUint64(id[:], q.last)
	return id
}

func (q *sequence) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	return q.traceID, q.NewSpanID(ctx, q.traceID)
}

func traceExporter(ctx context.Context, s settings) (sdktrace.SpanExporter, error) {
	if s.protocol == "grpc" {
		return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(s.endpoint), otlptracegrpc.WithCompressor("gzip"))
	}
	return otlptrace.New(ctx, otlptracehttp.NewClient(
		otlptracehttp.WithEndpointURL(s.endpoint+"/v1/traces"),
		otlptracehttp.WithEncoding(s.encoding()),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
	))
}

func remote(traceID, spanID, state string) (trace.SpanContext, error) {
	t, err := trace.TraceIDFromHex(traceID)
	if err != nil {
		return trace.SpanContext{}, err
	}
	id, err := trace.SpanIDFromHex(spanID)
	if err != nil {
		return trace.SpanContext{}, err
	}
	parsed, err := trace.ParseTraceState(state)
	if err != nil {
		return trace.SpanContext{}, err
	}
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: t, SpanID: id, TraceFlags: trace.FlagsSampled, TraceState: parsed, Remote: true,
	}), nil
}

// sendTraces returns the root span's context and the span ids by name.
func sendTraces(ctx context.Context, s settings, res *resource.Resource) (trace.SpanContext, map[string]string, error) {
	none := trace.SpanContext{}
	exporter, err := traceExporter(ctx, s)
	if err != nil {
		return none, nil, err
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(res),
		sdktrace.WithIDGenerator(&sequence{traceID: s.runID, last: 0x1000000000000000}),
		sdktrace.WithBatcher(exporter),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
			AttributeValueLengthLimit:   -1,
			AttributeValueDepthLimit:    -1,
			AttributeCountLimit:         20,
			EventCountLimit:             2,
			LinkCountLimit:              1,
			AttributePerEventCountLimit: 3,
			AttributePerLinkCountLimit:  2,
		}),
	)
	tracer := provider.Tracer(
		scopeName,
		trace.WithInstrumentationVersion(scopeVers),
		trace.WithSchemaURL(schemaURL),
		trace.WithInstrumentationAttributes(scopeAttributes...),
	)
	parent, err := remote(s.runID.String(), "00f067aa0ba902b7", "vendor=state,other=1")
	if err != nil {
		return none, nil, err
	}
	other, err := remote("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "linked=yes")
	if err != nil {
		return none, nil, err
	}

	inRoot, root := tracer.Start(
		trace.ContextWithRemoteSpanContext(ctx, parent),
		"root ünïcode €",
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithTimestamp(s.at(123)),
		trace.WithAttributes(
			attribute.String("string", "text é € 𝄞"),
			attribute.String("string.empty", ""),
			attribute.Int64("int", 42),
			attribute.Int64("int.negative", -7),
			attribute.Int64("int.max", math.MaxInt64),
			attribute.Float64("double", 0.25),
			attribute.Float64("double.tiny", 5e-324),
			attribute.Float64("double.whole", 3),
			attribute.Bool("true", true),
			attribute.Bool("false", false),
			attribute.StringSlice("strings", []string{"x", "", "z"}),
			attribute.Int64Slice("ints", []int64{1, -2, 3}),
			attribute.Float64Slice("doubles", []float64{0.5, -1.25}),
			attribute.BoolSlice("bools", []bool{true, false}),
			attribute.StringSlice("array.empty", []string{}),
			attribute.ByteSlice("bytes", []byte{0, 1, 254, 255}),
			attribute.Slice("mixed", attribute.StringValue("mixed"), attribute.IntValue(1), attribute.BoolValue(true)),
			attribute.Map("map",
				attribute.Map("inner", attribute.Int64Slice("deep", []int64{1, 2})), attribute.String("s", "x")),
		),
		trace.WithLinks(trace.Link{
			SpanContext: other,
			Attributes:  []attribute.KeyValue{attribute.Int("link.n", 1), attribute.String("link.s", "why")},
		}),
	)
	root.AddEvent("first", trace.WithTimestamp(s.at(1_000_000_001)), trace.WithAttributes(
		attribute.Int("n", 1), attribute.String("s", "x"), attribute.Bool("b", true)))
	root.AddEvent("second", trace.WithTimestamp(s.at(1_000_000_002)))
	root.SetStatus(codes.Error, "it failed: naïvely")
	spanIDs := map[string]string{"root": root.SpanContext().SpanID().String()}

	for _, child := range []struct {
		name string
		kind trace.SpanKind
	}{
		{"internal", trace.SpanKindInternal},
		{"client", trace.SpanKindClient},
		{"producer", trace.SpanKindProducer},
		{"consumer", trace.SpanKindConsumer},
	} {
		_, span := tracer.Start(inRoot, child.name, trace.WithSpanKind(child.kind), trace.WithTimestamp(s.at(2_000)))
		if child.name == "client" {
			span.SetStatus(codes.Ok, "")
		}
		span.End(trace.WithTimestamp(s.at(3_000)))
		spanIDs[child.name] = span.SpanContext().SpanID().String()
	}

	_, limited := tracer.Start(inRoot, "limited", trace.WithTimestamp(s.at(5_000)))
	for i := range 24 {
		limited.SetAttributes(attribute.Int(fmt.Sprintf("a%02d", i), i))
	}
	three := []attribute.KeyValue{attribute.Int("a", 1), attribute.Int("b", 2), attribute.Int("c", 3)}
	for i := range 5 {
		limited.AddEvent(
			fmt.Sprintf("event %d", i),
			trace.WithTimestamp(s.at(6_000+int64(i))),
			trace.WithAttributes(append(three[:3:3], attribute.Int("d", 4), attribute.Int("e", 5))...),
		)
	}
	for range 3 {
		limited.AddLink(trace.Link{SpanContext: other, Attributes: three})
	}
	limited.End(trace.WithTimestamp(s.at(7_000)))
	spanIDs["limited"] = limited.SpanContext().SpanID().String()
	root.End(trace.WithTimestamp(s.at(1_500_000_912)))

	stop, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return root.SpanContext(), spanIDs, provider.Shutdown(stop)
}
