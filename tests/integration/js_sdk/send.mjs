// Sends one run of traces, metrics and logs with known contents by the OpenTelemetry SDK of JavaScript.
//
//   node send.mjs <grpc|http/protobuf|http/json> <endpoint> <run id: 32 hex digits> <base time: whole seconds since 1970> <delta|cumulative>
//
// The contents are those that ../test_sdks.py expects; the run id is the trace id and service.instance.id.
// Prints one JSON line with the span ids, and exits 0 only if every
// export was answered with success.
import { context, createTraceState, SpanKind, SpanStatusCode, trace, ValueType } from '@opentelemetry/api';
import { SeverityNumber } from '@opentelemetry/api-logs';
import { OTLPLogExporter as GrpcLogs } from '@opentelemetry/exporter-logs-otlp-grpc';
import { OTLPLogExporter as JsonLogs } from '@opentelemetry/exporter-logs-otlp-http';
import { OTLPLogExporter as ProtoLogs } from '@opentelemetry/exporter-logs-otlp-proto';
import { OTLPMetricExporter as GrpcMetrics } from '@opentelemetry/exporter-metrics-otlp-grpc';
import { OTLPMetricExporter as JsonMetrics } from '@opentelemetry/exporter-metrics-otlp-http';
import { OTLPMetricExporter as ProtoMetrics } from '@opentelemetry/exporter-metrics-otlp-proto';
import { OTLPTraceExporter as GrpcTraces } from '@opentelemetry/exporter-trace-otlp-grpc';
import { OTLPTraceExporter as JsonTraces } from '@opentelemetry/exporter-trace-otlp-http';
import { OTLPTraceExporter as ProtoTraces } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { LoggerProvider, SimpleLogRecordProcessor } from '@opentelemetry/sdk-logs';
import { AggregationTemporalityPreference } from '@opentelemetry/exporter-metrics-otlp-http';
import { AggregationType, MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics';
import { BasicTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-base';

const SCHEMA_URL = 'https://opentelemetry.io/schemas/1.37.0';
const [protocol, endpoint, runId, baseSeconds, temporality] = process.argv.slice(2);
const base = Number(baseSeconds);
const at = (nanos) => [base + Math.floor(nanos / 1e9), nanos % 1e9]; // the SDK's exact time: [seconds, nanoseconds]

const exporters = {
  grpc: [GrpcTraces, GrpcMetrics, GrpcLogs],
  'http/protobuf': [ProtoTraces, ProtoMetrics, ProtoLogs],
  'http/json': [JsonTraces, JsonMetrics, JsonLogs],
}[protocol];
if (!exporters || !/^[0-9a-f]{32}$/.test(runId ?? '') || !Number.isInteger(base)) {
  console.error('usage: send.mjs <grpc|http/protobuf|http/json> <endpoint> <run id> <base seconds> <delta|cumulative>');
  process.exit(2);
}
const paths = ['/v1/traces', '/v1/metrics', '/v1/logs'];
const options = (i) => ({
  url: protocol === 'grpc' ? endpoint : endpoint + paths[i],
  timeoutMillis: 10_000,
  compression: protocol === 'http/json' ? 'none' : 'gzip',
});

const failures = [];
// The SDK reports a failed export to a log only; a test must know.
const watched = (exporter) => {
  const inner = exporter.export.bind(exporter);
  exporter.export = (items, done) =>
    inner(items, (result) => {
      if (result.code !== 0) failures.push(String(result.error ?? 'export failed'));
      done(result);
    });
  return exporter;
};

const resource = resourceFromAttributes(
  {
    'service.name': 'sdk-js',
    'service.version': '1.2.3',
    'service.instance.id': runId,
    'res.bool': true,
    'res.int': 9007199254740991,
    'res.double': 0.1,
    'res.strings': ['a', 'b'],
  },
  { schemaUrl: SCHEMA_URL },
);

// Traces
const spanIds = {};
let lastSpanId = 0x1000000000000000n;
const idGenerator = { generateTraceId: () => runId, generateSpanId: () => (++lastSpanId).toString(16) };
const tracerProvider = new BasicTracerProvider({
  resource,
  idGenerator,
  spanLimits: {
    attributeCountLimit: 20,
    eventCountLimit: 2,
    linkCountLimit: 1,
    attributePerEventCountLimit: 3,
    attributePerLinkCountLimit: 2,
  },
  spanProcessors: [new BatchSpanProcessor(watched(new exporters[0](options(0))))],
});
const tracer = tracerProvider.getTracer('hubscope.sdk-test', '4.5.6', { schemaUrl: SCHEMA_URL });

const remoteParent = {
  traceId: runId,
  spanId: '00f067aa0ba902b7',
  traceFlags: 1,
  isRemote: true,
  traceState: createTraceState('vendor=state,other=1'),
};
const otherTrace = {
  traceId: '0af7651916cd43dd8448eb211c80319c',
  spanId: 'b7ad6b7169203331',
  traceFlags: 1,
  isRemote: true,
  traceState: createTraceState('linked=yes'),
};
const remoteContext = trace.setSpanContext(context.active(), remoteParent);
const root = tracer.startSpan(
  'root ünïcode €',
  {
    kind: SpanKind.SERVER,
    startTime: at(123),
    attributes: {
      string: 'text é € 𝄞',
      'string.empty': '',
      int: 42,
      'int.negative': -7,
      'int.max': 9007199254740991,
      double: 0.25,
      'double.tiny': 5e-324,
      true: true,
      false: false,
      strings: ['x', '', 'z'],
      ints: [1, -2, 3],
      doubles: [0.5, -1.25],
      bools: [true, false],
      'array.empty': [],
    },
    links: [{ context: otherTrace, attributes: { 'link.n': 1, 'link.s': 'why' } }],
  },
  remoteContext,
);
root.addEvent('first', { n: 1, s: 'x', b: true }, at(1_000_000_001));
root.addEvent('second', {}, at(1_000_000_002));
root.setStatus({ code: SpanStatusCode.ERROR, message: 'it failed: naïvely' });
spanIds.root = root.spanContext().spanId;
const inRoot = trace.setSpan(remoteContext, root);

for (const [name, kind] of Object.entries({
  internal: SpanKind.INTERNAL,
  client: SpanKind.CLIENT,
  producer: SpanKind.PRODUCER,
  consumer: SpanKind.CONSUMER,
})) {
  const child = tracer.startSpan(name, { kind, startTime: at(2_000) }, inRoot);
  if (name === 'client') child.setStatus({ code: SpanStatusCode.OK });
  child.end(at(3_000));
  spanIds[name] = child.spanContext().spanId;
}

const limited = tracer.startSpan('limited', { startTime: at(5_000) }, inRoot);
for (let i = 0; i < 24; i++) limited.setAttribute(`a${String(i).padStart(2, '0')}`, i);
for (let i = 0; i < 5; i++) limited.addEvent(`event ${i}`, { a: 1, b: 2, c: 3, d: 4, e: 5 }, at(6_000 + i));
for (let i = 0; i < 3; i++) limited.addLink({ context: otherTrace, attributes: { a: 1, b: 2, c: 3 } });
limited.end(at(7_000));
spanIds.limited = limited.spanContext().spanId;
root.end(at(1_500_000_912));

// Metrics
const reader = new PeriodicExportingMetricReader({
  exporter: watched(
    new exporters[1]({
      ...options(1),
      temporalityPreference:
        temporality === 'delta' ? AggregationTemporalityPreference.DELTA : AggregationTemporalityPreference.CUMULATIVE,
    }),
  ),
  exportIntervalMillis: 600_000, // only the shutdown exports
});
const meterProvider = new MeterProvider({
  resource,
  readers: [reader],
  views: [
    { instrumentName: 'sent.latency', aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } },
    {
      instrumentName: 'sent.size',
      aggregation: { type: AggregationType.EXPLICIT_BUCKET_HISTOGRAM, options: { boundaries: [1, 10, 100] } },
    },
  ],
});
const meter = meterProvider.getMeter('hubscope.sdk-test', '4.5.6', { schemaUrl: SCHEMA_URL });
const labels = { kind: 'a', n: 1, ratio: 0.5, flag: true };
const integer = { valueType: ValueType.INT };
const items = meter.createCounter('sent.items', { description: 'Items sent', unit: '{item}', ...integer });
items.add(3, labels);
items.add(4, labels);
items.add(1, { kind: 'b' });
meter.createCounter('sent.seconds', { description: 'Time spent', unit: 's' }).add(0.5, labels);
const balance = meter.createUpDownCounter('sent.balance', { unit: '{item}', ...integer });
balance.add(5, labels);
balance.add(-7, labels);
meter.createGauge('sent.level', { unit: 'Cel' }).record(20.5, labels);
meter.createGauge('sent.depth', { unit: 'm', ...integer }).record(-12, labels);
meter.createObservableGauge('sent.observed', { unit: '1' }).addCallback((result) => result.observe(0.75, labels));
const size = meter.createHistogram('sent.size', { description: 'Sizes', unit: 'By' });
for (const value of [0.5, 5, 50, 500]) size.record(value, labels);
const latency = meter.createHistogram('sent.latency', { description: 'Latencies', unit: 's' });
for (const value of [0, 0.001, 0.002, 0.004]) latency.record(value, labels);

// Logs
const loggerProvider = new LoggerProvider({
  resource,
  logRecordLimits: { attributeCountLimit: 8 },
  processors: [new SimpleLogRecordProcessor({ exporter: watched(new exporters[2](options(2))) })],
});
const logger = loggerProvider.getLogger('hubscope.sdk-test', '4.5.6', {
  schemaUrl: SCHEMA_URL,
  attributes: { 'scope.key': 'scope value', 'scope.n': 7 },
});
logger.emit({
  eventName: 'sdk.event',
  timestamp: at(11),
  observedTimestamp: at(22),
  severityNumber: SeverityNumber.WARN,
  severityText: 'WARN',
  body: 'plain text é € 𝄞',
  context: inRoot,
  attributes: {
    string: 'text',
    int: -5,
    double: 2.5,
    bool: true,
    bytes: new Uint8Array([0, 1, 254, 255]),
    array: ['mixed', 1, 0.5, true],
    map: { inner: { deep: [1, 2] }, s: 'x' },
  },
});
logger.emit({
  timestamp: at(33),
  observedTimestamp: at(44),
  severityNumber: SeverityNumber.ERROR4,
  severityText: 'FATAL-ish',
  body: { code: 7, nested: { list: ['a', true], none: null } },
  attributes: Object.fromEntries([...Array(10).keys()].map((i) => [`a${i}`, i])),
});
logger.emit({ timestamp: at(55), observedTimestamp: at(66), body: new Uint8Array([222, 173, 190, 239]) });

const failed = (error) => failures.push(String(error));
await tracerProvider.forceFlush().catch(failed);
await loggerProvider.forceFlush().catch(failed);
// Of metrics only the export at shutdown: a flush before it would send the cumulative points twice.
for (const provider of [tracerProvider, meterProvider, loggerProvider]) await provider.shutdown().catch(failed);
if (failures.length) {
  console.error(failures.join('\n'));
  process.exit(1);
}
console.log(JSON.stringify({ span_ids: spanIds }));
