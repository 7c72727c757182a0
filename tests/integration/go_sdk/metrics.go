package main

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
)

func metricExporter(ctx context.Context, s settings) (sdkmetric.Exporter, error) {
	selector := sdkmetric.DefaultTemporalitySelector
	if s.delta {
		selector = sdkmetric.DeltaTemporalitySelector
	}
	if s.protocol == "grpc" {
		return otlpmetricgrpc.New(ctx,
			otlpmetricgrpc.WithEndpointURL(s.endpoint),
			otlpmetricgrpc.WithCompressor("gzip"),
			otlpmetricgrpc.WithTemporalitySelector(selector))
	}
	return otlpmetrichttp.New(ctx,
		otlpmetrichttp.WithEndpointURL(s.endpoint+"/v1/metrics"),
		otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression),
		otlpmetrichttp.WithTemporalitySelector(selector))
}

// summaries adds the one metric kind that the SDK's own instruments cannot make, as a bridge from another library does.
type summaries struct{ settings settings }

func (p summaries) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	return []metricdata.ScopeMetrics{{
		Scope: instrumentation.Scope{Name: scopeName, Version: scopeVers, SchemaURL: schemaURL},
		Metrics: []metricdata.Metrics{{
			Name: "sent.summary", Description: "Quantiles", Unit: "ms",
			Data: metricdata.Summary{DataPoints: []metricdata.SummaryDataPoint{{
				Attributes:     attribute.NewSet(attribute.String("kind", "a")),
				StartTime:      p.settings.at(0),
				Time:           p.settings.at(1_000_000_007),
				Count:          9,
				Sum:            99.5,
				QuantileValues: []metricdata.QuantileValue{{Quantile: 0.5, Value: 10}, {Quantile: 0.99, Value: 20.25}},
			}}},
		}},
	}}, nil
}

func view(name string, aggregation sdkmetric.Aggregation, filter attribute.Filter) sdkmetric.View {
	return sdkmetric.NewView(
		sdkmetric.Instrument{Name: name}, sdkmetric.Stream{Aggregation: aggregation, AttributeFilter: filter})
}

// sendMetrics records inside the span of ctx, so that exemplars carry its ids.
func sendMetrics(ctx context.Context, s settings, res *resource.Resource) error {
	exporter, err := metricExporter(ctx, s)
	if err != nil {
		return err
	}
	exponential := sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}
	provider := sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(res),
		// Only the shutdown exports.
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(
			exporter, sdkmetric.WithInterval(10*time.Minute), sdkmetric.WithProducer(summaries{s}))),
		sdkmetric.WithView(
			view("sent.latency", exponential, nil),
			view("sent.signed", exponential, nil),
			view("sent.size", sdkmetric.AggregationExplicitBucketHistogram{Boundaries: []float64{1, 10, 100}},
				attribute.NewDenyKeysFilter("request")),
		),
	)
	meter := provider.Meter(
		scopeName,
		metric.WithInstrumentationVersion(scopeVers),
		metric.WithSchemaURL(schemaURL),
		metric.WithInstrumentationAttributes(scopeAttributes...),
	)
	keys := []attribute.KeyValue{
		attribute.String("kind", "a"), attribute.Int("n", 1), attribute.Float64("ratio", 0.5), attribute.Bool("flag", true),
	}
	labels := metric.WithAttributes(keys...)

	items, e1 := meter.Int64Counter("sent.items", metric.WithDescription("Items sent"), metric.WithUnit("{item}"))
	seconds, e2 := meter.Float64Counter("sent.seconds", metric.WithDescription("Time spent"), metric.WithUnit("s"))
	balance, e3 := meter.Int64UpDownCounter("sent.balance", metric.WithUnit("{item}"))
	level, e4 := meter.Float64Gauge("sent.level", metric.WithUnit("Cel"))
	depth, e5 := meter.Int64Gauge("sent.depth", metric.WithUnit("m"))
	_, e6 := meter.Float64ObservableGauge("sent.observed", metric.WithUnit("1"),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(0.75, labels)
			return nil
		}))
	size, e7 := meter.Float64Histogram("sent.size", metric.WithDescription("Sizes"), metric.WithUnit("By"))
	latency, e8 := meter.Float64Histogram("sent.latency", metric.WithDescription("Latencies"), metric.WithUnit("s"))
	signed, e9 := meter.Float64Histogram("sent.signed", metric.WithUnit("1"))
	if err := errors.Join(e1, e2, e3, e4, e5, e6, e7, e8, e9); err != nil {
		return err
	}

	items.Add(ctx, 3, labels)
	items.Add(ctx, 4, labels)
	items.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", "b")))
	seconds.Add(ctx, 0.5, labels)
	balance.Add(ctx, 5, labels)
	balance.Add(ctx, -7, labels)
	level.Record(ctx, 20.5, labels)
	depth.Record(ctx, -12, labels)
	for _, value := range []float64{0.5, 5, 50, 500} {
		size.Record(ctx, value, metric.WithAttributes(append(keys[:4:4], attribute.Int("request", 77))...))
	}
	for _, value := range []float64{0, 0.001, 0.002, 0.004} {
		latency.Record(ctx, value, labels)
	}
	for _, value := range []float64{-2, -1, 4} {
		signed.Record(ctx, value, labels)
	}
	stop, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return provider.Shutdown(stop)
}
