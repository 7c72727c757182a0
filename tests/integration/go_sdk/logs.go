package main

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
)

func logExporter(ctx context.Context, s settings) (sdklog.Exporter, error) {
	if s.protocol == "grpc" {
		return otlploggrpc.New(ctx, otlploggrpc.WithEndpointURL(s.endpoint), otlploggrpc.WithCompressor("gzip"))
	}
	return otlploghttp.New(ctx,
		otlploghttp.WithEndpointURL(s.endpoint+"/v1/logs"), otlploghttp.WithCompression(otlploghttp.GzipCompression))
}

// sendLogs emits the first record inside the span of ctx, the others outside any.
func sendLogs(ctx context.Context, s settings, res *resource.Resource) error {
	exporter, err := logExporter(ctx, s)
	if err != nil {
		return err
	}
	provider := sdklog.NewLoggerProvider(
		sdklog.WithResource(res),
		sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)),
		sdklog.WithAttributeCountLimit(8),
		sdklog.WithAttributeValueDepthLimit(-1),
	)
	logger := provider.Logger(
		scopeName,
		log.WithInstrumentationVersion(scopeVers),
		log.WithSchemaURL(schemaURL),
		log.WithInstrumentationAttributes(scopeAttributes...),
	)

	var event log.Record
	event.SetEventName("sdk.event")
	event.SetTimestamp(s.at(11))
	event.SetObservedTimestamp(s.at(22))
	event.SetSeverity(log.SeverityWarn)
	event.SetSeverityText("WARN")
	event.SetBody(attribute.StringValue("plain text é € 𝄞"))
	event.AddAttributes(
		attribute.String("string", "text"),
		attribute.Int("int", -5),
		attribute.Float64("double", 2.5),
		attribute.Bool("bool", true),
		attribute.ByteSlice("bytes", []byte{0, 1, 254, 255}),
		attribute.Slice("array",
			attribute.StringValue("mixed"), attribute.IntValue(1), attribute.Float64Value(0.5), attribute.BoolValue(true)),
		attribute.Map("map",
			attribute.Map("inner", attribute.Int64Slice("deep", []int64{1, 2})), attribute.String("s", "x")),
	)
	logger.Emit(ctx, event)

	var failure log.Record
	failure.SetTimestamp(s.at(33))
	failure.SetObservedTimestamp(s.at(44))
	failure.SetSeverity(log.SeverityError4)
	failure.SetSeverityText("FATAL-ish")
	failure.SetBody(attribute.MapValue(
		attribute.Int("code", 7),
		attribute.Map("nested",
			attribute.Slice("list", attribute.StringValue("a"), attribute.BoolValue(true)),
			attribute.KeyValue{Key: "none"}),
	))
	for i := range 10 {
		failure.AddAttributes(attribute.Int(fmt.Sprintf("a%d", i), i))
	}
	logger.Emit(context.Background(), failure)

	var binary log.Record
	binary.SetTimestamp(s.at(55))
	binary.SetObservedTimestamp(s.at(66))
	binary.SetBody(attribute.ByteSliceValue([]byte{0xde, 0xad, 0xbe, 0xef}))
	logger.Emit(context.Background(), binary)

	stop, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return provider.Shutdown(stop)
}
