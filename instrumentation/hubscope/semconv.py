"""Every name that travels: attributes, spans, metrics, events. Each stands once, here.

OpenTelemetry semantic conventions v1.44 where they exist, `hub.*` where they do not. Constants are plain
strings, so that using one costs nothing; the tuples at the end hold type, unit, stability and meaning, and
docs/reference/names.md is generated from them. `column` marks a hot attribute: one that shipped queries group
or filter by, and that therefore also stands as a column of its own in the lake.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"


class Attribute(NamedTuple):
    """An attribute of spans, points, events or the resource."""

    name: str
    type: str  # string | int | double | boolean | string[]
    brief: str
    unit: str = ""
    stability: str = "development"
    column: str = ""


class Span(NamedTuple):
    """A span that we make: its name, its kind (as the SDK names it) and the attributes that are its own."""

    name: str  # may hold {placeholders}
    kind: str
    brief: str
    attributes: tuple[str, ...]


class Metric(NamedTuple):
    """A metric, with its UCUM unit and the attributes that tell its series apart.

    `sender` is "hubscope" where something of ours measures it, and "application" where the name is reserved for an
    application (or its user interface) that does.
    """

    name: str
    instrument: str  # histogram | counter | updowncounter | gauge | observable_gauge
    unit: str
    brief: str
    attributes: tuple[str, ...]
    sender: str = "hubscope"


class Event(NamedTuple):
    """A log record with an event name."""

    name: str
    brief: str
    attributes: tuple[str, ...]


_attributes: list[Attribute] = []
_spans: list[Span] = []
_metrics: list[Metric] = []
_events: list[Event] = []


def _attribute(
    name: str, type: str, brief: str, *, unit: str = "", stability: str = "development", column: str = ""
) -> str:
    _attributes.append(Attribute(name, type, brief, unit, stability, column))
    return name


def _span(name: str, kind: str, brief: str, *attributes: str) -> str:
    _spans.append(Span(name, kind, brief, attributes))
    return name


def _metric(name: str, instrument: str, unit: str, brief: str, *attributes: str, sender: str = "hubscope") -> str:
    _metrics.append(Metric(name, instrument, unit, brief, attributes, sender))
    return name


def _event(name: str, brief: str, *attributes: str) -> str:
    _events.append(Event(name, brief, attributes))
    return name


# --- resource -----------------------------------------------------------------------------------------------
SERVICE_NAME = _attribute("service.name", "string", "The application.", stability="stable")
SERVICE_VERSION = _attribute(
    "service.version",
    "string",
    "The application's version: what `hubscope compare` groups by.",
    stability="stable",
    column="ServiceVersion",
)
SERVICE_INSTANCE_ID = _attribute(
    "service.instance.id",
    "string",
    "One run of the application: the unit of every statistic.",
    stability="stable",
    column="ServiceInstanceId",
)
HOST_NAME = _attribute("host.name", "string", "The machine's name.")
HOST_ARCH = _attribute("host.arch", "string", "Its processor: `amd64`, `arm64`, …")
OS_TYPE = _attribute("os.type", "string", "`linux`, `darwin` or `windows`.")
OS_DESCRIPTION = _attribute("os.description", "string", "The operating system with its version, as a person reads it.")

# --- what the collector adds --------------------------------------------------------------------------------
HUB_REDACTED = _attribute(
    "hub.redacted",
    "string[]",
    "Where the collector replaced secrets in this span, log record or resource: attribute keys and names of fields.",
)
HUB_SAMPLING_ADJUSTED_COUNT = _attribute(
    "hub.sampling.adjusted_count",
    "double",
    "How many spans this one stands for, where a share of the traces was kept; absent, it is itself alone.",
)

# --- start --------------------------------------------------------------------------------------------------
HUB_STARTUP_TYPE = _attribute("hub.startup.type", "string", "`cold` or `warm`.")
HUB_STARTUP_ORIGIN = _attribute(
    "hub.startup.origin",
    "string",
    "How the start time was known: `launcher` (its clock: of `hubscope run`, or of `opentelemetry-instrument` when it "
    "turns itself into the application), `proc_stat`, `psutil` or `sdk_load`.",
)
HUB_STARTUP_PARENT = _attribute(
    "hub.startup.parent", "string", "Of a worker: the service.instance.id of the process that started it."
)
HUB_STARTUP_PHASE = _attribute("hub.startup.phase", "string", "The name of a start-up phase.", column="StartupPhase")
HUB_STARTUP_MAJOR_FAULTS = _attribute(
    "hub.startup.major_faults",
    "int",
    "Major page faults until interactive: with the bytes read from disk, what a cold start is judged by.",
    unit="{fault}",
)
HUB_STARTUP_END = _attribute(
    "hub.startup.end",
    "string",
    "What ended the start: `interactive` (said), `listening` or `first_request` (seen), or `exit` (never said).",
)
HUB_IMPORT_MODULE = _attribute("code.namespace", "string", "The imported module.", column="CodeNamespace")
HUB_IMPORT_SELF_TIME = _attribute(
    "hub.import.self_time", "double", "Import time of the module without the modules it imports.", unit="s"
)
HUB_IMPORT_USED_BEFORE_INTERACTIVE = _attribute(
    "hub.import.used_before_interactive",
    "boolean",
    "Whether any code of the module ran between its import and interactive.",
)

# --- queries ------------------------------------------------------------------------------------------------
DB_SYSTEM_NAME = _attribute(
    "db.system.name",
    "string",
    "The database: `sqlite`, `postgresql`, …",
    stability="stable",
    column="DbSystem",
)
DB_NAMESPACE = _attribute(
    "db.namespace", "string", "The database's name, or its file's.", stability="stable", column="DbNamespace"
)
DB_COLLECTION_NAME = _attribute(
    "db.collection.name",
    "string",
    "Table, collection or vector index.",
    stability="stable",
    column="DbCollection",
)
DB_OPERATION_NAME = _attribute(
    "db.operation.name", "string", "`SELECT`, `INSERT`, `search`, …", stability="stable", column="DbOperation"
)
DB_QUERY_TEXT = _attribute(
    "db.query.text",
    "string",
    "The statement with its literals replaced; parameters never.",
    stability="stable",
)
DB_QUERY_SUMMARY = _attribute(
    "db.query.summary",
    "string",
    "The statement's shape, as `SELECT memories #4f1c9a`: what queries are grouped by.",
    stability="stable",
    column="DbQuerySummary",
)
DB_RESPONSE_RETURNED_ROWS = _attribute("db.response.returned_rows", "int", "Rows the caller fetched.", unit="{row}")
DB_RESPONSE_STATUS_CODE = _attribute(
    "db.response.status_code", "string", "The database's own error code.", stability="stable"
)
DB_OPERATION_BATCH_SIZE = _attribute(
    "db.operation.batch.size", "int", "Items in one batched write, vectors in one batched search.", stability="stable"
)
ERROR_TYPE = _attribute("error.type", "string", "The exception's class.", stability="stable")

# --- requests -----------------------------------------------------------------------------------------------
HTTP_REQUEST_METHOD = _attribute("http.request.method", "string", "`GET`, `POST`, …", stability="stable")
HTTP_RESPONSE_STATUS_CODE = _attribute("http.response.status_code", "int", "The answer's status.", stability="stable")
HTTP_ROUTE = _attribute(
    "http.route", "string", "The route that the framework matched; absent where it tells none.", stability="stable"
)
URL_PATH = _attribute(
    "url.path", "string", "The path asked for; the query string is never recorded.", stability="stable"
)
URL_TEMPLATE = _attribute(
    "url.template", "string", "The path with identifiers replaced by `{…}`, where no route was told."
)

# --- vectors ------------------------------------------------------------------------------------------------
HUB_VECTOR_TOP_K = _attribute("hub.vector.top_k", "int", "Neighbours asked for.")
HUB_VECTOR_DIMENSIONS = _attribute("hub.vector.dimensions", "int", "Length of a vector.")
HUB_VECTOR_METRIC = _attribute("hub.vector.metric", "string", "`cosine`, `l2`, `ip`, …")
HUB_VECTOR_INDEX_TYPE = _attribute("hub.vector.index_type", "string", "`flat`, `hnsw`, `ivf`, …")
HUB_VECTOR_SIZE = _attribute("hub.vector.size", "int", "Vectors in the index when it was searched.")
HUB_VECTOR_FILTERED = _attribute("hub.vector.filtered", "boolean", "Whether the search had a filter.")

# --- plugins ------------------------------------------------------------------------------------------------
HUB_PLUGIN_ID = _attribute("hub.plugin.id", "string", "The plugin.", column="PluginId")
HUB_PLUGIN_HOOK = _attribute("hub.plugin.hook", "string", "The hook or tool that was called.", column="PluginHook")
HUB_PLUGIN_TIER = _attribute("hub.plugin.tier", "string", "`premium` or `standard`: which quota holds.")
HUB_PLUGIN_VERSION = _attribute("hub.plugin.version", "string", "The plugin's version.")
HUB_PLUGIN_ISOLATION = _attribute("hub.plugin.isolation", "string", "`in_process` or `process`.")
HUB_PLUGIN_CPU_TIME = _attribute(
    "hub.plugin.cpu_time", "double", "CPU time of the calling thread during the call.", unit="s"
)
HUB_PLUGIN_MEMORY_DELTA = _attribute(
    "hub.plugin.memory_delta", "int", "Growth of resident memory during the call.", unit="By"
)
HUB_PLUGIN_DISK_BYTES = _attribute("hub.plugin.disk_bytes", "int", "Bytes written to disk during the call.", unit="By")
HUB_PLUGIN_NETWORK_BYTES = _attribute(
    "hub.plugin.network_bytes", "int", "Bytes sent and received during the call.", unit="By"
)
HUB_PLUGIN_PERMISSIONS = _attribute(
    "hub.plugin.permissions", "string[]", "What the plugin was allowed: `network`, `filesystem`."
)

# --- tasks, memory, personas --------------------------------------------------------------------------------
HUB_TASK_NAME = _attribute("hub.task.name", "string", "The user's task.", column="TaskName")
HUB_TASK_FIRST_ACTION = _attribute("hub.task.first_action", "boolean", "True on the first task after interactive.")
HUB_PERSONA_ID = _attribute("hub.persona.id", "string", "The persona a memory or task belongs to.", column="PersonaId")
GEN_AI_OPERATION_NAME = _attribute("gen_ai.operation.name", "string", "`execute_tool`, `search_memory`, …")
GEN_AI_TOOL_NAME = _attribute("gen_ai.tool.name", "string", "The tool that was called.")
MCP_METHOD_NAME = _attribute("mcp.method.name", "string", "The method of a Model Context Protocol request.")
GEN_AI_MEMORY_STORE_ID = _attribute("gen_ai.memory.store.id", "string", "The memory store.")
HUB_RATING = _attribute("hub.satisfaction.rating", "double", "An explicit rating between 0 and 1.")

# --- caches and processes -----------------------------------------------------------------------------------
HUB_CACHE_NAME = _attribute("hub.cache.name", "string", "The cache.")
HUB_CACHE_TIER = _attribute("hub.cache.tier", "string", "`hot`, `warm` or `cold`.")
HUB_CACHE_RESULT = _attribute("hub.cache.result", "string", "`hit` or `miss`.")
HUB_CACHE_CAPACITY = _attribute("hub.cache.capacity", "int", "Items the cache may hold.")
HUB_CACHE_KEYS = _attribute(
    "hub.cache.keys",
    "string",
    "Access log: 64-bit key hashes in order, hex, comma-separated.",
)
HUB_CACHE_ONE_IN = _attribute(
    "hub.cache.one_in", "int", "Access log: one in so many keys is in it, with all its look-ups; absent where all are."
)
HUB_CACHE_HITS = _attribute("hub.cache.hits", "string", "Access log: `1` (hit) or `0` (miss) a look-up.")
CPU_MODE = _attribute("cpu.mode", "string", "`user` or `system`.")
OTEL_COMPONENT_TYPE = _attribute(
    "otel.component.type",
    "string",
    "Of an exporter's own counts: `otlp_http_span_exporter`, `otlp_grpc_log_exporter`, …",
)
SERVER_ADDRESS = _attribute(
    "server.address", "string", "Of an exporter's own counts: host and port it sends to.", stability="stable"
)
CPYTHON_GC_GENERATION = _attribute("cpython.gc.generation", "int", "The garbage collector's generation, 0 to 2.")

# --- KPIs and quotas ----------------------------------------------------------------------------------------
HUB_KPI_NAME = _attribute("hub.kpi.name", "string", "The KPI's name in kpis.toml.")
HUB_KPI_AGGREGATE = _attribute("hub.kpi.aggregate", "string", "How the value was aggregated: `p95`, `max`, `ratio`, …")
HUB_KPI_TARGET = _attribute("hub.kpi.target", "string", "The target it is held against, or absent.")
HUB_KPI_STATUS = _attribute(
    "hub.kpi.status",
    "string",
    "`pass`, `fail`, or `unknown`: no target, or a start that misses it by hubscope's own set-up only.",
)
HUB_ALERT_NAME = _attribute("hub.alert.name", "string", "The alert's name in kpis.toml.")
HUB_ALERT_THRESHOLD = _attribute("hub.alert.threshold", "double", "The threshold that was crossed.")
HUB_ALERT_OBSERVED = _attribute("hub.alert.observed", "double", "The value that crossed it.")
HUB_QUOTA_RESOURCE = _attribute(
    "hub.quota.resource", "string", "`memory`, `cpu`, `network`, `execution` or `filesystem`."
)
HUB_QUOTA_LIMIT = _attribute("hub.quota.limit", "double", "The limit, in the resource's unit.")
HUB_QUOTA_OBSERVED = _attribute("hub.quota.observed", "double", "What was used, in the resource's unit.")
HUB_QUOTA_UNIT = _attribute("hub.quota.unit", "string", "Unit of limit and observed.")
HUB_QUOTA_WINDOW = _attribute(
    "hub.quota.window", "double", "Length of the window that was judged; 0 is a single call.", unit="s"
)
HUB_QUOTA_ACTION = _attribute("hub.quota.action", "string", "`observed`, `throttled` or `terminated`.")

# --- spans --------------------------------------------------------------------------------------------------
SPAN_STARTUP = _span(
    "hub.startup",
    "INTERNAL",
    "The application's start, from process creation to interactive. Root of its trace.",
    HUB_STARTUP_TYPE,
    HUB_STARTUP_ORIGIN,
    HUB_STARTUP_MAJOR_FAULTS,
    HUB_STARTUP_END,
)
SPAN_WORKER_STARTUP = _span(
    "hub.startup.worker",
    "INTERNAL",
    "The start of a process that a measured one started (`HUBSCOPE_INSTRUMENT_CHILDREN`); of a forked one a mark "
    "of no length beside its first span. No start of the application.",
    HUB_STARTUP_ORIGIN,
    HUB_STARTUP_PARENT,
    HUB_STARTUP_END,
)
SPAN_PHASE = _span("hub.startup.phase {name}", "INTERNAL", "A phase of the start.", HUB_STARTUP_PHASE)
OWN_PHASE = "instrumentation"  # the phase of a start that the measuring's own set-up takes
SPAN_FIRST_RENDER = _span("hub.startup.first_render", "INTERNAL", "From process creation to the first render.")
SPAN_IMPORT = _span(
    "import {module}",
    "INTERNAL",
    "The application's import of a module, above the threshold; not those of the launcher and the measuring.",
    HUB_IMPORT_MODULE,
    HUB_IMPORT_SELF_TIME,
    HUB_IMPORT_USED_BEFORE_INTERACTIVE,
    ERROR_TYPE,
)
SPAN_QUERY = _span(
    "{operation} {collection}",
    "CLIENT",
    "A query; INTERNAL where the database runs in process.",
    DB_SYSTEM_NAME,
    DB_NAMESPACE,
    DB_COLLECTION_NAME,
    DB_OPERATION_NAME,
    DB_QUERY_TEXT,
    DB_QUERY_SUMMARY,
    DB_RESPONSE_RETURNED_ROWS,
    DB_RESPONSE_STATUS_CODE,
    ERROR_TYPE,
)
SPAN_REQUEST = _span(
    "{method} {template}",
    "SERVER",
    "A request that uvicorn serves. `*` stands for a path that was not found, or beyond 200 templates.",
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
    URL_PATH,
    URL_TEMPLATE,
    ERROR_TYPE,
)
SPAN_VECTOR_SEARCH = _span(
    "search {index}",
    "INTERNAL",
    "A vector search; CLIENT where the store is another process.",
    DB_SYSTEM_NAME,
    DB_COLLECTION_NAME,
    DB_OPERATION_NAME,
    HUB_VECTOR_TOP_K,
    HUB_VECTOR_DIMENSIONS,
    HUB_VECTOR_METRIC,
    HUB_VECTOR_INDEX_TYPE,
    HUB_VECTOR_SIZE,
    HUB_VECTOR_FILTERED,
    DB_OPERATION_BATCH_SIZE,
)
SPAN_VECTOR_UPSERT = _span(
    "upsert {index}",
    "INTERNAL",
    "A vector or memory write.",
    DB_SYSTEM_NAME,
    DB_COLLECTION_NAME,
    DB_OPERATION_NAME,
    DB_OPERATION_BATCH_SIZE,
)
SPAN_MEMORY = _span(
    "{operation}_memory {store}",
    "INTERNAL",
    "A memory-store operation of the hub: create, search, update, delete.",
    GEN_AI_OPERATION_NAME,
    GEN_AI_MEMORY_STORE_ID,
    HUB_PERSONA_ID,
)
SPAN_PLUGIN = _span(
    "plugin {id} {hook}",
    "INTERNAL",
    "One plugin's part of a hook call, or a tool call.",
    HUB_PLUGIN_ID,
    HUB_PLUGIN_HOOK,
    HUB_PLUGIN_TIER,
    HUB_PLUGIN_VERSION,
    HUB_PLUGIN_ISOLATION,
    HUB_PLUGIN_CPU_TIME,
    HUB_PLUGIN_MEMORY_DELTA,
    HUB_PLUGIN_DISK_BYTES,
    HUB_PLUGIN_NETWORK_BYTES,
    HUB_PLUGIN_PERMISSIONS,
)
SPAN_MCP = _span(
    "{method} {tool}",
    "SERVER",
    "A request of the Model Context Protocol; CLIENT where it is sent. Of mcp 1; mcp 2 has spans of its own.",
    MCP_METHOD_NAME,
    GEN_AI_OPERATION_NAME,
    GEN_AI_TOOL_NAME,
    ERROR_TYPE,
)
SPAN_TASK = _span(
    "task {name}",
    "INTERNAL",
    "A user's task; its outcome is the span's status.",
    HUB_TASK_NAME,
    HUB_TASK_FIRST_ACTION,
    HUB_PERSONA_ID,
)
SPAN_CACHE_LOAD = _span(
    "load {cache}",
    "INTERNAL",
    "A cache miss: computing or fetching the value.",
    HUB_CACHE_NAME,
    HUB_CACHE_TIER,
    HUB_CACHE_RESULT,
)

# --- metrics ------------------------------------------------------------------------------------------------
_EXPORTED = (
    "that are done with, with OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED; `error.type` is absent for those that arrived, "
    "else `refused`, `rejected` (of an accepted request), `dropped` (from a full spool) or `lost`."
)
METRIC_EXPORTED_SPANS = _metric(
    "otel.sdk.exporter.span.exported",
    "counter",
    "{span}",
    f"Spans {_EXPORTED}",
    OTEL_COMPONENT_TYPE,
    SERVER_ADDRESS,
    ERROR_TYPE,
)
METRIC_EXPORTED_POINTS = _metric(
    "otel.sdk.exporter.metric_data_point.exported",
    "counter",
    "{data_point}",
    f"Data points {_EXPORTED}",
    OTEL_COMPONENT_TYPE,
    SERVER_ADDRESS,
    ERROR_TYPE,
)
METRIC_EXPORTED_LOGS = _metric(
    "otel.sdk.exporter.log.exported",
    "counter",
    "{log_record}",
    f"Log records {_EXPORTED}",
    OTEL_COMPONENT_TYPE,
    SERVER_ADDRESS,
    ERROR_TYPE,
)
METRIC_DB_DURATION = _metric(
    "db.client.operation.duration",
    "histogram",
    "s",
    "Duration of queries.",
    DB_SYSTEM_NAME,
    DB_COLLECTION_NAME,
    DB_OPERATION_NAME,
    DB_QUERY_SUMMARY,
    ERROR_TYPE,
)
METRIC_DB_ROWS = _metric(
    "db.client.response.returned_rows",
    "histogram",
    "{row}",
    "Rows fetched by a query.",
    DB_SYSTEM_NAME,
    DB_COLLECTION_NAME,
)
METRIC_STARTUP_DURATION = _metric(
    "hub.startup.duration", "histogram", "s", "Process creation to interactive.", HUB_STARTUP_TYPE
)
METRIC_STARTUP_MEMORY = _metric("hub.startup.memory", "gauge", "By", "Resident memory at interactive.")
METRIC_IMPORT_DURATION = _metric(
    "hub.import.duration", "histogram", "s", "All imports of the application in its start together."
)
METRIC_VECTOR_SEARCH_DURATION = _metric(
    "hub.vector.search.duration",
    "histogram",
    "s",
    "Duration of vector searches.",
    DB_SYSTEM_NAME,
    DB_COLLECTION_NAME,
    HUB_VECTOR_INDEX_TYPE,
)
METRIC_VECTOR_INDEX_DURATION = _metric(
    "hub.vector.index.duration",
    "histogram",
    "s",
    "Duration of vector and memory writes.",
    DB_SYSTEM_NAME,
    DB_COLLECTION_NAME,
)
METRIC_VECTOR_INDEX_SIZE = _metric(
    "hub.vector.index.size", "gauge", "{vector}", "Vectors in an index.", DB_COLLECTION_NAME
)
METRIC_PLUGIN_DURATION = _metric(
    "hub.plugin.call.duration", "histogram", "s", "Duration of plugin calls.", HUB_PLUGIN_ID, HUB_PLUGIN_HOOK
)
METRIC_MCP_SERVER_DURATION = _metric(
    "mcp.server.operation.duration",
    "histogram",
    "s",
    "Duration of MCP requests that were answered here.",
    MCP_METHOD_NAME,
    GEN_AI_TOOL_NAME,
    ERROR_TYPE,
)
METRIC_MCP_CLIENT_DURATION = _metric(
    "mcp.client.operation.duration",
    "histogram",
    "s",
    "Duration of MCP requests that were sent from here.",
    MCP_METHOD_NAME,
    GEN_AI_TOOL_NAME,
    ERROR_TYPE,
)
METRIC_TOOL_DURATION = _metric(
    "gen_ai.execute_tool.duration",
    "histogram",
    "s",
    "Duration of the tools that an MCP server runs.",
    GEN_AI_TOOL_NAME,
    ERROR_TYPE,
)
METRIC_PLUGIN_OVERHEAD = _metric(
    "hub.plugin.overhead",
    "histogram",
    "s",
    "Time that plugins added to one task, request or root operation.",
    HUB_PLUGIN_ID,
)
METRIC_PLUGIN_USAGE_MEMORY = _metric(
    "hub.plugin.usage.memory",
    "gauge",
    "By",
    "Memory attributed to a plugin.",
    HUB_PLUGIN_ID,
    HUB_PLUGIN_TIER,
    sender="application",
)
METRIC_PLUGIN_USAGE_CPU = _metric(
    "hub.plugin.usage.cpu",
    "gauge",
    "1",
    "Share of one CPU used by a plugin.",
    HUB_PLUGIN_ID,
    HUB_PLUGIN_TIER,
    sender="application",
)
METRIC_PLUGIN_USAGE_NETWORK = _metric(
    "hub.plugin.usage.network",
    "gauge",
    "By/s",
    "Network use of a plugin.",
    HUB_PLUGIN_ID,
    HUB_PLUGIN_TIER,
    sender="application",
)
METRIC_PLUGIN_USAGE_DISK = _metric(
    "hub.plugin.usage.disk",
    "gauge",
    "By",
    "Bytes a plugin keeps on disk.",
    HUB_PLUGIN_ID,
    HUB_PLUGIN_TIER,
    sender="application",
)
METRIC_PLUGINS_INSTALLED = _metric("hub.plugins.installed", "gauge", "{plugin}", "Plugins installed at the same time.")
METRIC_QUOTA_VIOLATIONS = _metric(
    "hub.quota.violations",
    "counter",
    "{violation}",
    "Quota violations.",
    HUB_PLUGIN_ID,
    HUB_PLUGIN_TIER,
    HUB_QUOTA_RESOURCE,
    HUB_QUOTA_ACTION,
)
METRIC_CACHE_REQUESTS = _metric(
    "hub.cache.requests",
    "counter",
    "{request}",
    "Look-ups.",
    HUB_CACHE_NAME,
    HUB_CACHE_TIER,
    HUB_CACHE_RESULT,
)
METRIC_CACHE_LOAD_DURATION = _metric(
    "hub.cache.load.duration",
    "histogram",
    "s",
    "What a miss cost: the time to compute or fetch the value.",
    HUB_CACHE_NAME,
    HUB_CACHE_TIER,
)
METRIC_CACHE_SIZE = _metric(
    "hub.cache.size", "gauge", "{item}", "Items held.", HUB_CACHE_NAME, HUB_CACHE_TIER, HUB_CACHE_CAPACITY
)
METRIC_CACHE_EVICTIONS = _metric(
    "hub.cache.evictions",
    "counter",
    "{item}",
    "Items that the cache put out for want of room; of diskcache also those that had expired.",
    HUB_CACHE_NAME,
    HUB_CACHE_TIER,
)
METRIC_COMPRESSION_RATIO = _metric(
    "hub.cache.compression.ratio",
    "gauge",
    "1",
    "Bytes before over bytes after compression.",
    HUB_CACHE_NAME,
    sender="application",
)
METRIC_POOL_IN_USE = _metric("hub.pool.in_use", "gauge", "{object}", "Pooled objects in use.", sender="application")
METRIC_POOL_CREATED = _metric(
    "hub.pool.created", "counter", "{object}", "Pooled objects created.", sender="application"
)
METRIC_EVENT_LOOP_LAG = _metric(
    "hub.event_loop.lag", "histogram", "s", "How late the event loop ran a timer.", sender="application"
)
METRIC_FRAME_DURATION = _metric(
    "hub.ui.frame.duration", "histogram", "s", "Time between two frames.", sender="application"
)
METRIC_TASK_DURATION = _metric("hub.task.duration", "histogram", "s", "Duration of user tasks.", HUB_TASK_NAME)
METRIC_SATISFACTION = _metric("hub.satisfaction", "histogram", "1", "Explicit ratings between 0 and 1.")
METRIC_MEMORY_DATASET = _metric(
    "hub.memory.dataset", "gauge", "By", "Size of the memory store.", GEN_AI_MEMORY_STORE_ID, sender="application"
)
METRIC_PERSONAS = _metric(
    "hub.personas", "gauge", "{persona}", "Personas in use at the same time.", sender="application"
)
METRIC_SEARCH_RESULTS = _metric(
    "hub.search.results", "histogram", "{item}", "Items one search could page through.", sender="application"
)
METRIC_KPI = _metric(
    "hub.kpi.value",
    "gauge",
    "1",
    "A derived KPI, in the KPI's own unit.",
    HUB_KPI_NAME,
    HUB_KPI_AGGREGATE,
    HUB_KPI_TARGET,
    HUB_KPI_STATUS,
)
METRIC_PROCESS_CPU_UTILIZATION = _metric(
    "process.cpu.utilization", "gauge", "1", "CPU used since the last measurement, over all CPUs."
)
METRIC_PROCESS_CPU_TIME = _metric("process.cpu.time", "counter", "s", "CPU time of the process.", CPU_MODE)
METRIC_PROCESS_MEMORY_USAGE = _metric("process.memory.usage", "updowncounter", "By", "Resident memory.")
METRIC_PROCESS_MEMORY_VIRTUAL = _metric("process.memory.virtual", "updowncounter", "By", "Virtual memory.")
METRIC_PROCESS_THREADS = _metric("process.thread.count", "updowncounter", "{thread}", "Threads.")
METRIC_PROCESS_FDS = _metric(
    "process.unix.file_descriptor.count", "updowncounter", "{file_descriptor}", "Open file descriptors."
)
METRIC_GC_COLLECTIONS = _metric(
    "cpython.gc.collections", "counter", "{collection}", "Garbage collections.", CPYTHON_GC_GENERATION
)

# --- events -------------------------------------------------------------------------------------------------
EVENT_INTERACTIVE = _event("hub.interactive", "The application said that it answers its user.")
EVENT_FIRST_RENDER = _event("hub.first_render", "The application showed something for the first time.")
EVENT_QUOTA_VIOLATION = _event(
    "hub.quota.violation",
    "A plugin used more than its quota.",
    HUB_PLUGIN_ID,
    HUB_PLUGIN_TIER,
    HUB_QUOTA_RESOURCE,
    HUB_QUOTA_LIMIT,
    HUB_QUOTA_OBSERVED,
    HUB_QUOTA_UNIT,
    HUB_QUOTA_WINDOW,
    HUB_QUOTA_ACTION,
)
EVENT_ALERT = _event(
    "hub.alert",
    "An alert threshold of the KPIs was crossed.",
    HUB_ALERT_NAME,
    HUB_KPI_NAME,
    HUB_ALERT_THRESHOLD,
    HUB_ALERT_OBSERVED,
)
EVENT_CACHE_ACCESS = _event(
    "hub.cache.access",
    "A stretch of a cache's access log, for hit-rate predictions.",
    HUB_CACHE_NAME,
    HUB_CACHE_TIER,
    HUB_CACHE_CAPACITY,
    HUB_CACHE_KEYS,
    HUB_CACHE_HITS,
    HUB_CACHE_ONE_IN,
)
EVENT_RATING = _event("hub.rating", "A user's explicit rating.", HUB_RATING, HUB_TASK_NAME)

ATTRIBUTES: Final[tuple[Attribute, ...]] = tuple(_attributes)
SPANS: Final[tuple[Span, ...]] = tuple(_spans)
METRICS: Final[tuple[Metric, ...]] = tuple(_metrics)
EVENTS: Final[tuple[Event, ...]] = tuple(_events)

# attribute name -> lake column, for the attributes that have one
HOT_COLUMNS: Final[dict[str, str]] = {a.name: a.column for a in ATTRIBUTES if a.column}
