"""Settings of a service that runs a model."""

from pydantic import Field

from shared.bundles.registry import DEFAULT_CACHE
from shared.inference import BackendName, Limits, default_limits
from shared.settings import ServiceSettings


class ModelServiceSettings(ServiceSettings):
    """Which model, on what, with which bounds."""

    bundle: str = Field(
        "build/models/minilm",
        description="The model bundle: a path, a file:// URL, or registry:PATH#live for what a registry's channel "
        "points to, now and later (PATH may be a URL: registry:s3://bucket/encoder#live). While it switches, two "
        "models are in memory.",
    )
    bundle_poll_s: float = Field(
        10.0,
        gt=0,
        description="Seconds between looks at a registry's channel. A look reads one small file; ten seconds are "
        "little beside the minutes of a re-index, and some 8,600 reads a day and process of an object store.",
    )
    bundle_cache: str = Field(
        str(DEFAULT_CACHE),
        description="Folder that bundles are fetched to from a registry behind a URL. In a pod, a volume that it may "
        "write to.",
    )
    backend: BackendName = Field(
        BackendName.ONNX_INT8,
        description="Library, device and precision. int8 is the fastest on a CPU and passed the bundle's floors.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Threads of a forward pass; unset = as many as the CPU limit of the process's cgroup allows.",
    )
    spin: bool = Field(
        False,
        description="Let idle inference threads poll: a lone query is a third faster, the cores are not free for "
        "anything else. For a pod that has its cores to itself.",
    )
    queue_rows: int | None = Field(
        None, ge=1, description="Interactive inputs that may wait; more are refused. Unset = what suits the device."
    )
    bulk_queue_rows: int | None = Field(
        None, ge=1, description="Bulk inputs that may wait; more are refused. Unset = what suits the device."
    )
    batch_tokens: int | None = Field(
        None, ge=1, description="Tokens of a batch, padding included. Unset = what suits the device."
    )

    def limits(self) -> Limits:
        """The bounds in force: the device's, with what was set."""
        default = default_limits(self.backend)
        return Limits(
            rows=self.queue_rows or default.rows,
            bulk_rows=self.bulk_queue_rows or default.bulk_rows,
            batch_rows=default.batch_rows,
            batch_tokens=self.batch_tokens or default.batch_tokens,
        )
