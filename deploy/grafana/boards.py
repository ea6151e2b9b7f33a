"""The dashboards, panel by panel."""

from deploy.grafana.panel import Board, Panel, mean, quantile, rate, share
from deploy.prometheus.slo import FAULTS, OBJECTIVES

_CALL = "grpc_service, grpc_method"
_FAULTS = f'{{grpc_code=~"{FAULTS}"}}'

_OVERVIEW = Board(
    "aisle-overview",
    "Aisle: mesh",
    (
        Panel("Calls started", rate("grpc_server_started_total", _CALL), "reqps",
              "Load, by method.", "A drop at the gateway is the callers', one behind it the gateway's.",
              "{{grpc_method}}"),
        Panel("Faults", share(f"grpc_server_handled_total{_FAULTS}", "grpc_server_handled_total", "grpc_service"),
              "percentunit", "Share of calls that end with a fault of the service.",
              "runbooks/availability.md", "{{grpc_service}}"),
        Panel("Calls ended, by code", rate("grpc_server_handled_total", "grpc_service, grpc_code") + " > 0", "reqps",
              "How calls end.", "INVALID_ARGUMENT that rises is a caller's new release.",
              "{{grpc_service}} {{grpc_code}}"),
        Panel("Latency, 99 of 100", quantile(0.99, "grpc_server_handling_seconds", _CALL), "s",
              "What slow calls take on the server.", "runbooks/latency.md", "{{grpc_method}}"),
        Panel("Latency, median", quantile(0.5, "grpc_server_handling_seconds", _CALL), "s",
              "What calls take as a rule.", "Compare with the release before.", "{{grpc_method}}"),
        Panel("Calls between services, 99 of 100", quantile(0.99, "grpc_client_handling_seconds", _CALL), "s",
              "What the gateway waits for.", "Far above the server's own time: network, or a queue before the handler.",
              "{{grpc_method}}"),
        Panel("Calls between services, faults",
              share(f"grpc_client_handled_total{_FAULTS}", "grpc_client_started_total", "grpc_service"), "percentunit",
              "Share of calls to a dependency that fail.", "runbooks/not-serving.md", "{{grpc_service}}"),
        Panel("Serving", "min by (grpc_service) (aisle_health_serving)", "short",
              "1 while every replica serves.", "runbooks/not-serving.md", "{{grpc_service}}"),
        Panel("CPU", "sum by (service) (rate(process_cpu_seconds_total[$__rate_interval]))", "short",
              "Cores used.", "At the limit of its pods, a service wants more replicas.", "{{service}}"),
        Panel("Memory", "sum by (service) (process_resident_memory_bytes)", "bytes",
              "Resident memory.", "A line that only rises wants a look before the limit ends the pod.", "{{service}}"),
    ),
)  # fmt: skip

_ENCODERS = Board(
    "aisle-encoders",
    "Aisle: encoders and re-ranker",
    (
        Panel("Queue", "sum by (model, priority, service) (aisle_engine_queue_items)", "short",
              "Inputs that wait.", "runbooks/engine-refuses.md", "{{service}} {{priority}}"),
        Panel("Wait in the queue, 99 of 100", quantile(0.99, "aisle_engine_queue_seconds", "service, priority"), "s",
              "From being let in to being run.", "More replicas where it nears callers' deadlines.",
              "{{service}} {{priority}}"),
        Panel("Forward pass, 99 of 100", quantile(0.99, "aisle_engine_forward_seconds", "service"), "s",
              "What the model takes for a batch.", "Risen without larger batches: another tenant has the cores.",
              "{{service}}"),
        Panel("Inputs in a batch", mean("aisle_engine_batch_items", "service"), "short",
              "How much is run at once.", "1 under load: the queue is never long, all is well.", "{{service}}"),
        Panel("Tokens in a batch", mean("aisle_engine_batch_tokens", "service"), "short",
              "Padding included.", "Near batch_tokens, the device is full.", "{{service}}"),
        Panel("Padding", mean("aisle_engine_padding_share", "service"), "percentunit",
              "Share of the work that is thrown away.", "Above a quarter: lengths are mixed; look at who sends what.",
              "{{service}}"),
        Panel("Tokens", rate("aisle_engine_tokens_total", "service"), "short",
              "Real tokens a second: what the device gives.", "The number to size by.", "{{service}}"),
        Panel("Refused", rate("aisle_engine_refused_total", "service, reason"), "short",
              "Inputs turned away.", "runbooks/engine-refuses.md", "{{service}} {{reason}}",
              "none has been refused"),
        Panel("Dropped unrun", rate("aisle_engine_dropped_total", "service, reason"), "short",
              "Inputs whose caller's time was up, or who left.", "Longer deadlines, or more replicas.",
              "{{service}} {{reason}}", "none has been dropped"),
        Panel("Failed alone", rate("aisle_engine_failed_total", "service"), "short",
              "Inputs that the model cannot process.", "The log says of which type the failure is.", "{{service}}"),
        Panel("Query cache hits",
              share('aisle_engine_cache_requests_total{outcome="hit"}', "aisle_engine_cache_requests_total", "service"),
              "percentunit", "Share of queries that need no model.", "Low for weeks: a larger cache_bytes.",
              "{{service}}"),
        Panel("Query cache", "sum by (service) (aisle_engine_cache_bytes)", "bytes",
              "What it holds.", "At its bound it forgets the oldest.", "{{service}}"),
        Panel("GPU in use", "avg by (gpu, Hostname) (DCGM_FI_DEV_GPU_UTIL) / 100", "percentunit",
              "By NVIDIA's DCGM exporter.", "Low while the queue is long: batches are too small.",
              "{{Hostname}} {{gpu}}", "needs a GPU and the DCGM exporter"),
        Panel("GPU memory", "sum by (gpu, Hostname) (DCGM_FI_DEV_FB_USED) * 1048576", "bytes",
              "By NVIDIA's DCGM exporter.", "Near the device's: a smaller batch_tokens.", "{{Hostname}} {{gpu}}",
              "needs a GPU and the DCGM exporter"),
    ),
)  # fmt: skip

_RETRIEVAL = Board(
    "aisle-retrieval",
    "Aisle: retrieval",
    (
        Panel("Store, 99 of 100", quantile(0.99, "aisle_retrieval_store_seconds", "operation"), "s",
              "What Milvus takes.", "runbooks/latency.md", "{{operation}}"),
        Panel("Store, operations", rate("aisle_retrieval_store_seconds_count", "operation"), "ops",
              "What is asked of Milvus.", "Searches far above those of the gateway: filters that need many rounds.",
              "{{operation}}"),
        Panel("Items", "max by (generation) (aisle_retrieval_items)", "short",
              "In each generation in use.", "A drop: runbooks/zero-results.md", "{{generation}}"),
        Panel("Generations", "max by (generation, model_version, role) (aisle_retrieval_generation_info)", "short",
              "Which is live, being built, or previous.", "Two that are live: replicas have not heard of a promotion.",
              "{{role}} {{generation}} {{model_version}}"),
        Panel("Recall", "min by (generation) (aisle_retrieval_recall)", "percentunit",
              "Of the true neighbours, at the last verification.", "runbooks/recall-low.md", "{{generation}}",
              "no generation has been verified since the service started"),
        Panel("Write lag, 9 of 10", quantile(0.9, "aisle_retrieval_write_lag_seconds", ""), "s",
              "From an item's change to being searched.", "Look at the importer's queue, then at the item encoder."),
    ),
)  # fmt: skip

_PLACE = "surface, position"
_QUALITY = Board(
    "aisle-quality",
    "Aisle: ranking quality and business",
    (
        Panel("Click-through by position",
              share("aisle_events_items_clicked_total", "aisle_events_items_shown_total", _PLACE), "percentunit",
              "Share of what known shoppers were shown that they clicked.",
              "A first place that is clicked less than the second: the order is wrong.", "{{surface}} {{position}}"),
        Panel("Shown", rate("aisle_events_items_shown_total", "surface"), "short",
              "Items a second.", "Far below answers: impressions are lost or sampled.", "{{surface}}"),
        Panel("Without a result",
              share("aisle_gateway_zero_results_total", 'aisle_gateway_stage_seconds_count{stage="total"}', "method"),
              "percentunit",
              "Share of answers.", "runbooks/zero-results.md", "{{method}}"),
        Panel("Degraded", rate("aisle_gateway_degraded_total", "method, reason"), "reqps",
              "Answers that left something out.", "runbooks/degraded.md", "{{method}} {{reason}}"),
        Panel("Candidates, median", quantile(0.5, "aisle_gateway_candidates", "method"), "short",
              "From how many an answer was chosen.", "Few: filters are narrow.", "{{method}}"),
        Panel("Stages, 99 of 100", quantile(0.99, "aisle_gateway_stage_seconds", "method, stage"), "s",
              "Where the time goes.", "runbooks/latency.md", "{{method}} {{stage}}"),
        Panel("Events stored", rate("aisle_events_stored_total", "type"), "short",
              "What shoppers do.", "A type that stops: the shop's page no longer sends it.", "{{type}}"),
        Panel("Events stored before", "sum(rate(aisle_events_duplicate_total[$__rate_interval]))", "short",
              "Sent twice, kept once.", "As many as are stored: a sender that does not take yes for an answer."),
        Panel("Events refused", rate("aisle_events_refused_total", "reason"), "short",
              "Not kept.", "The answer to the sender names field and remedy.", "{{reason}}", "none has been refused"),
        Panel("Events not attributed", "sum(rate(aisle_events_unattributed_total[$__rate_interval]))", "short",
              "Stored with a token that is not the mesh's.", "Gateway and log have different attribution_keys."),
        Panel("Events deleted", rate("aisle_events_deleted_total", "reason"), "short",
              "Forgotten, or too old.", "Much at once: who asked?", "{{reason}}", "none has been deleted"),
        Panel("Events waiting", "sum(aisle_events_waiting)", "short",
              "To be written.", "runbooks/events-not-stored.md"),
        Panel("Commit, 99 of 100", quantile(0.99, "aisle_events_commit_seconds", ""), "s",
              "What a transaction takes.", "runbooks/events-not-stored.md"),
        Panel("Events in a commit", mean("aisle_events_commit_events", "service"), "short",
              "How many share a transaction.", "Rises under load by itself.", "{{service}}"),
        Panel("Impressions lost", rate("aisle_gateway_impressions_dropped_total", "reason"), "short",
              "Pages shown that the log does not know of.", "runbooks/events-not-stored.md", "{{reason}}"),
    ),
)  # fmt: skip

_SLO = Board(
    "aisle-slo",
    "Aisle: objectives",
    (
        *(
            Panel(f"Budget left: {one.name.replace('_', ' ')}",
                  f'1 - aisle:slo_errors:ratio_rate3d{{slo="{one.name}"}} / {one.budget:.6g}', "percentunit",
                  f"{one.promise}: what is left, going by the last three days.",
                  f"runbooks/{one.name.replace('_', '-')}.md")
            for one in OBJECTIVES
        ),
        Panel("Missed, last hour", "aisle:slo_errors:ratio_rate1h", "percentunit",
              "Share of calls or answers that miss each objective.", "The runbook of the objective.", "{{slo}}"),
        Panel("Missed, last 5 minutes", "aisle:slo_errors:ratio_rate5m", "percentunit",
              "Whether it goes on.", "The runbook of the objective.", "{{slo}}"),
        Panel("Alerts", 'ALERTS{alertname=~"Aisle.*",alertstate="firing"}', "short",
              "What fires now.", "The runbook that the alert names.", "{{alertname}} {{severity}}", "none fires"),
    ),
)  # fmt: skip

BOARDS = (_OVERVIEW, _ENCODERS, _RETRIEVAL, _QUALITY, _SLO)
