"""Settings of the re-ranker."""

from pydantic import Field

from shared.inference import Storage
from shared.serving.settings import ModelServiceSettings
from shared.settings import Port, settings_config


class RerankerSettings(ModelServiceSettings):
    """Read from `AISLE_RERANKER_…` and flags. The bundle's kind decides how it scores."""

    model_config = settings_config("reranker")

    port: Port = Field(50055, description="Port of the gRPC service.")
    metrics_port: Port = Field(9105, description="Port of /metrics.")
    item_cache_bytes: int = Field(
        256 * 1024 * 1024,
        ge=0,
        description="Late interaction only: bytes of item token vectors kept; 0 = none. One item takes some "
        "20 kB in int8 at 384 dimensions, so 256 MiB holds 13,000.",
    )
    item_cache_storage: Storage = Field(
        Storage.INT8, description="Late interaction only: how cached token vectors are stored."
    )
