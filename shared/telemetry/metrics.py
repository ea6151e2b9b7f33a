"""Every metric Aisle exports, each declared once.

gRPC names and labels are those of go-grpc-middleware's Prometheus providers, so that existing dashboards fit.
"""

from prometheus_client import Counter, Gauge, Histogram

LATENCY_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Seconds. From a cached embedding (0.5 ms) to the default deadline (10 s)."""

_RPC = ("grpc_type", "grpc_service", "grpc_method")

SERVER_STARTED = Counter("grpc_server_started_total", "RPCs started on the server.", _RPC)
SERVER_HANDLED = Counter(
    "grpc_server_handled_total", "RPCs completed on the server, by status code.", (*_RPC, "grpc_code")
)
SERVER_HANDLING_SECONDS = Histogram(
    "grpc_server_handling_seconds", "Seconds from an RPC's start to its end.", _RPC, buckets=LATENCY_BUCKETS
)
CLIENT_STARTED = Counter("grpc_client_started_total", "RPCs started by this process.", _RPC)
CLIENT_HANDLED = Counter(
    "grpc_client_handled_total", "RPCs of this process that ended, by status code.", (*_RPC, "grpc_code")
)
CLIENT_HANDLING_SECONDS = Histogram(
    "grpc_client_handling_seconds", "Seconds from an RPC's start to its end.", _RPC, buckets=LATENCY_BUCKETS
)

HEALTH_SERVING = Gauge(
    "aisle_health_serving", "1 while grpc.health.v1 says SERVING for the service, else 0.", ("grpc_service",)
)

DEGRADED = Counter("aisle_gateway_degraded_total", "Answers that left something out, by reason.", ("method", "reason"))
STAGE_SECONDS = Histogram(
    "aisle_gateway_stage_seconds",
    "Seconds a stage of a request took.",
    ("method", "stage"),
    buckets=LATENCY_BUCKETS,
)
IMPRESSIONS_DROPPED = Counter(
    "aisle_gateway_impressions_dropped_total", "Pages shown that could not be told to the log, by reason.", ("reason",)
)
ZERO_RESULTS = Counter("aisle_gateway_zero_results_total", "Answers without a result.", ("method",))

_MODEL = ("model", "model_version")

ENGINE_QUEUE_ITEMS = Gauge(
    "aisle_engine_queue_items", "Inputs waiting for the model, by priority.", (*_MODEL, "priority")
)
ENGINE_QUEUE_SECONDS = Histogram(
    "aisle_engine_queue_seconds",
    "Seconds an input waited before its batch started.",
    (*_MODEL, "priority"),
    buckets=LATENCY_BUCKETS,
)
ENGINE_BATCH_ITEMS = Histogram(
    "aisle_engine_batch_items", "Inputs in a batch.", _MODEL, buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
ENGINE_BATCH_TOKENS = Histogram(
    "aisle_engine_batch_tokens",
    "Tokens in a batch, padding included.",
    _MODEL,
    buckets=(16, 64, 256, 1024, 2048, 4096, 8192, 16384, 65536),
)
ENGINE_PADDING_SHARE = Histogram(
    "aisle_engine_padding_share",
    "Share of a batch's tokens that are padding, 0 to 1.",
    _MODEL,
    buckets=(0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75),
)
ENGINE_FORWARD_SECONDS = Histogram(
    "aisle_engine_forward_seconds", "Seconds a forward pass took.", _MODEL, buckets=LATENCY_BUCKETS
)
ENGINE_TOKENS = Counter("aisle_engine_tokens_total", "Tokens run, padding excluded.", _MODEL)
ENGINE_REFUSED = Counter("aisle_engine_refused_total", "Inputs refused, by reason.", (*_MODEL, "reason"))
ENGINE_DROPPED = Counter(
    "aisle_engine_dropped_total", "Inputs dropped unrun: expired or cancelled.", (*_MODEL, "reason")
)
ENGINE_FAILED = Counter("aisle_engine_failed_total", "Inputs the model could not process, each found alone.", _MODEL)
ENGINE_CACHE = Counter(
    "aisle_engine_cache_requests_total",
    "Look-ups in the query cache by outcome: hit (joining an equal query that already runs included) or miss.",
    (*_MODEL, "outcome"),
)
ENGINE_CACHE_BYTES = Gauge("aisle_engine_cache_bytes", "Bytes the query cache holds.", _MODEL)

STORE_SECONDS = Histogram(
    "aisle_retrieval_store_seconds",
    "Seconds the store took, by operation.",
    ("operation",),
    buckets=LATENCY_BUCKETS,
)

EVENTS_WAITING = Gauge("aisle_events_waiting", "Events that wait to be written.")
EVENTS_COMMIT_SECONDS = Histogram(
    "aisle_events_commit_seconds", "Seconds a transaction that stores events took.", buckets=LATENCY_BUCKETS
)
EVENTS_COMMIT_EVENTS = Histogram(
    "aisle_events_commit_events", "Events in a transaction.", buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)
)
EVENTS_STORED = Counter("aisle_events_stored_total", "Events stored, by type.", ("type",))
EVENTS_DUPLICATE = Counter("aisle_events_duplicate_total", "Events accepted that were stored before.")
EVENTS_REFUSED = Counter("aisle_events_refused_total", "Events refused, by reason.", ("reason",))
EVENTS_UNATTRIBUTED = Counter(
    "aisle_events_unattributed_total", "Events stored whose attribution token was not the mesh's own."
)
EVENTS_DELETED = Counter(
    "aisle_events_deleted_total", "Events deleted, by reason: retention or forgotten.", ("reason",)
)
