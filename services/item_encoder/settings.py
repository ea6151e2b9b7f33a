"""Settings of the item encoder."""

from pydantic import Field

from shared.serving.settings import ModelServiceSettings
from shared.settings import Port, settings_config


class ItemEncoderSettings(ModelServiceSettings):
    """Read from `AISLE_ITEM_ENCODER_…` and flags."""

    model_config = settings_config("item_encoder")

    port: Port = Field(50053, description="Port of the gRPC service.")
    metrics_port: Port = Field(9103, description="Port of /metrics.")
    default_timeout_s: float = Field(
        60.0, gt=0, description="Seconds a call may take when its caller set no deadline: a bulk batch queues."
    )
