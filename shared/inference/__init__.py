"""The inference engine: queue, batcher, backends, encoder and scorers. Knows no transport and no metrics library."""

from shared.inference.backend import Backend, Output
from shared.inference.batcher import Batcher, Timing
from shared.inference.cache import QueryCache
from shared.inference.cpu import available_cpus, inference_threads, tune_interpreter
from shared.inference.cross_encoder import CrossEncoder
from shared.inference.encoder import BiEncoder, Encoding
from shared.inference.factory import BackendName, default_limits, open_backend, open_scorer
from shared.inference.late_interaction import LateInteraction, Storage
from shared.inference.observer import BatchTracer, EngineObserver, NoObserver
from shared.inference.queue import Limits, Priority
from shared.inference.scorer import Scorer, Scores
from shared.inference.watchdog import Health

__all__ = [
    "Backend",
    "BackendName",
    "BatchTracer",
    "Batcher",
    "BiEncoder",
    "CrossEncoder",
    "Encoding",
    "EngineObserver",
    "Health",
    "LateInteraction",
    "Limits",
    "NoObserver",
    "Output",
    "Priority",
    "QueryCache",
    "Scorer",
    "Scores",
    "Storage",
    "Timing",
    "available_cpus",
    "default_limits",
    "inference_threads",
    "open_backend",
    "open_scorer",
    "tune_interpreter",
]
