"""Settings of the query encoder."""

from pydantic import Field

from shared.serving.settings import ModelServiceSettings
from shared.settings import Port, settings_config


class QueryEncoderSettings(ModelServiceSettings):
    """Read from `AISLE_QUERY_ENCODER_…` and flags."""

    model_config = settings_config("query_encoder")

    port: Port = Field(50052, description="Port of the gRPC service.")
    metrics_port: Port = Field(9102, description="Port of /metrics.")
    cache_bytes: int = Field(
        64 * 1024 * 1024,
        ge=0,
        description="Bytes of query vectors kept; 0 = no cache. 64 MiB holds some 40,000 queries of 384 dimensions: "
        "the head of a shop's traffic.",
    )
