"""Every metric Aisle exports, each declared once.

gRPC names and labels are those of go-grpc-middleware's Prometheus providers, so that existing dashboards fit.
`docs/metrics.md` is made from this module: `make docs`.
"""

from shared.telemetry.registry import Registry

REGISTRY = Registry()

LATENCY_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Seconds. From a cached embedding (0.5 ms) to the default deadline (10 s)."""

# --- gRPC, of every service -----------------------------------------------------------------------------------------

_RPC = ("grpc_type", "grpc_service", "grpc_method")

SERVER_STARTED = REGISTRY.counter("grpc_server_started_total", "calls", "RPCs started on the server.", _RPC)
SERVER_HANDLED = REGISTRY.counter(
    "grpc_server_handled_total", "calls", "RPCs completed on the server, by status code.", (*_RPC, "grpc_code")
)
SERVER_HANDLING_SECONDS = REGISTRY.histogram(
    "grpc_server_handling_seconds",
    "seconds",
    "From an RPC's start on the server to its end.",
    _RPC,
    buckets=LATENCY_BUCKETS,
)
CLIENT_STARTED = REGISTRY.counter("grpc_client_started_total", "calls", "RPCs started by this process.", _RPC)
CLIENT_HANDLED = REGISTRY.counter(
    "grpc_client_handled_total", "calls", "RPCs of this process that ended, by status code.", (*_RPC, "grpc_code")
)
CLIENT_HANDLING_SECONDS = REGISTRY.histogram(
    "grpc_client_handling_seconds",
    "seconds",
    "From the start of an RPC of this process to its end, retries included.",
    _RPC,
    buckets=LATENCY_BUCKETS,
)
HEALTH_SERVING = REGISTRY.gauge(
    "aisle_health_serving",
    "0 or 1",
    "1 while grpc.health.v1 says SERVING for the service, else 0.",
    ("grpc_service",),
)

# --- gateway --------------------------------------------------------------------------------------------------------

DEGRADED = REGISTRY.counter(
    "aisle_gateway_degraded_total",
    "answers",
    "Answers that left something out, by reason; COLD_START where nothing was known of a shopper.",
    ("method", "reason"),
)
ANSWERS_DEGRADED = REGISTRY.counter(
    "aisle_gateway_answers_degraded_total",
    "answers",
    "Answers that left something out, each counted once however many reasons it had; COLD_START alone does not count.",
    ("method",),
)
STAGE_SECONDS = REGISTRY.histogram(
    "aisle_gateway_stage_seconds",
    "seconds",
    "What a stage of a request took; `total` is the whole.",
    ("method", "stage"),
    buckets=LATENCY_BUCKETS,
)
CANDIDATES = REGISTRY.histogram(
    "aisle_gateway_candidates",
    "items",
    "Candidates from which an answer was chosen, after filters.",
    ("method",),
    buckets=(0, 1, 10, 25, 50, 100, 200, 400, 600, 1000),
)
ZERO_RESULTS = REGISTRY.counter("aisle_gateway_zero_results_total", "answers", "Answers without a result.", ("method",))
REQUESTS_RUNNING = REGISTRY.gauge(
    "aisle_gateway_requests_running", "requests", "Searches, recommendations and the like being worked on."
)
REQUESTS_PLACES = REGISTRY.gauge(
    "aisle_gateway_requests_places",
    "requests",
    "How many are worked on at most: fewer than `max_running` where answers took too long.",
)
REQUESTS_WAITING = REGISTRY.gauge(
    "aisle_gateway_requests_waiting", "requests", "Requests that wait for their turn: as many are worked on as may be."
)
REQUESTS_REFUSED = REGISTRY.counter(
    "aisle_gateway_requests_refused_total",
    "requests",
    "Requests refused: `QUEUE_FULL` at once, unread; `QUEUE_TIMEOUT` after waiting.",
    ("method", "reason"),
)
IMPRESSIONS_DROPPED = REGISTRY.counter(
    "aisle_gateway_impressions_dropped_total",
    "pages",
    "Pages shown that could not be told to the log, by reason.",
    ("reason",),
)

# --- engine: query encoder, item encoder, re-ranker -----------------------------------------------------------------

_MODEL = ("model", "model_version")

ENGINE_QUEUE_ITEMS = REGISTRY.gauge(
    "aisle_engine_queue_items", "inputs", "Inputs waiting for the model, by priority.", (*_MODEL, "priority")
)
ENGINE_QUEUE_SECONDS = REGISTRY.histogram(
    "aisle_engine_queue_seconds",
    "seconds",
    "How long an input waited before its batch started.",
    (*_MODEL, "priority"),
    buckets=LATENCY_BUCKETS,
)
ENGINE_BATCH_ITEMS = REGISTRY.histogram(
    "aisle_engine_batch_items", "inputs", "Inputs in a batch.", _MODEL, buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
ENGINE_BATCH_TOKENS = REGISTRY.histogram(
    "aisle_engine_batch_tokens",
    "tokens",
    "Tokens in a batch, padding included.",
    _MODEL,
    buckets=(16, 64, 256, 1024, 2048, 4096, 8192, 16384, 65536),
)
ENGINE_PADDING_SHARE = REGISTRY.histogram(
    "aisle_engine_padding_share",
    "share",
    "Share of a batch's tokens that are padding, 0 to 1.",
    _MODEL,
    buckets=(0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75),
)
ENGINE_FORWARD_SECONDS = REGISTRY.histogram(
    "aisle_engine_forward_seconds", "seconds", "What a forward pass took.", _MODEL, buckets=LATENCY_BUCKETS
)
ENGINE_TOKENS = REGISTRY.counter("aisle_engine_tokens_total", "tokens", "Tokens run, padding excluded.", _MODEL)
ENGINE_REFUSED = REGISTRY.counter(
    "aisle_engine_refused_total", "inputs", "Inputs refused, by reason.", (*_MODEL, "reason")
)
ENGINE_DROPPED = REGISTRY.counter(
    "aisle_engine_dropped_total", "inputs", "Inputs dropped unrun: `deadline` or `cancelled`.", (*_MODEL, "reason")
)
ENGINE_FAILED = REGISTRY.counter(
    "aisle_engine_failed_total", "inputs", "Inputs the model could not process, each found alone.", _MODEL
)
ENGINE_CACHE = REGISTRY.counter(
    "aisle_engine_cache_requests_total",
    "look-ups",
    "Look-ups in the query cache by outcome: hit (joining an equal query that already runs included) or miss.",
    (*_MODEL, "outcome"),
)
ENGINE_CACHE_BYTES = REGISTRY.gauge("aisle_engine_cache_bytes", "bytes", "What the query cache holds.", _MODEL)
ENGINE_SWITCHES = REGISTRY.counter(
    "aisle_engine_switches_total",
    "looks",
    "Looks at a registry's channel that led to another version (`switched`) or to none, for the channel could not be "
    "read or its version not be loaded (`failed`: the one before goes on answering).",
    ("outcome",),
)

# --- vector retrieval -----------------------------------------------------------------------------------------------

STORE_SECONDS = REGISTRY.histogram(
    "aisle_retrieval_store_seconds",
    "seconds",
    "What the store took for an operation, failed ones included.",
    ("operation",),
    buckets=LATENCY_BUCKETS,
)
STORE_SEARCH_QUERIES = REGISTRY.histogram(
    "aisle_retrieval_search_queries",
    "queries",
    "Queries in one search of the store: those of a batch, and of callers who share it.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
GENERATION_INFO = REGISTRY.gauge(
    "aisle_retrieval_generation_info",
    "1",
    "1 for each generation in use, by what it is for: `live`, `building` or `previous`.",
    ("generation", "model_version", "role"),
)
GENERATION_ITEMS = REGISTRY.gauge(
    "aisle_retrieval_items", "items", "Items in a generation, counted a few times a minute.", ("generation",)
)
GENERATION_RECALL = REGISTRY.gauge(
    "aisle_retrieval_recall",
    "share",
    "Share of the true nearest neighbours that the index found when a generation was last verified, 0 to 1.",
    ("generation",),
)
WRITE_LAG_SECONDS = REGISTRY.histogram(
    "aisle_retrieval_write_lag_seconds",
    "seconds",
    "From when an item changed (its `updated_at`; its arrival where it has none) to when it was durable in the index.",
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 86400),
)

# --- user events ----------------------------------------------------------------------------------------------------

EVENTS_WAITING = REGISTRY.gauge("aisle_events_waiting", "events", "Events that wait to be written.")
EVENTS_COMMIT_SECONDS = REGISTRY.histogram(
    "aisle_events_commit_seconds", "seconds", "What a transaction that stores events took.", buckets=LATENCY_BUCKETS
)
EVENTS_COMMIT_EVENTS = REGISTRY.histogram(
    "aisle_events_commit_events",
    "events",
    "Events in a transaction.",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000),
)
EVENTS_STORED = REGISTRY.counter("aisle_events_stored_total", "events", "Events stored, by type.", ("type",))
EVENTS_DUPLICATE = REGISTRY.counter(
    "aisle_events_duplicate_total", "events", "Events accepted that were stored before."
)
EVENTS_REFUSED = REGISTRY.counter("aisle_events_refused_total", "events", "Events refused, by reason.", ("reason",))
EVENTS_UNATTRIBUTED = REGISTRY.counter(
    "aisle_events_unattributed_total", "events", "Events stored whose attribution token was not the mesh's own."
)
EVENTS_DELETED = REGISTRY.counter(
    "aisle_events_deleted_total", "events", "Events deleted, by reason: `retention` or `forgotten`.", ("reason",)
)
_PLACE = ("surface", "position")
ITEMS_SHOWN = REGISTRY.counter(
    "aisle_events_items_shown_total",
    "items",
    "Items that known shoppers were shown, by surface and position from 0; sampled impressions count for all they "
    "stand for.",
    _PLACE,
)
ITEMS_CLICKED = REGISTRY.counter(
    "aisle_events_items_clicked_total",
    "items",
    "Items among those of aisle_events_items_shown_total that were clicked; divided by it, the click-through rate.",
    _PLACE,
)
