"""Proto ↔ engine, for the model services."""

from aisle.common.v1 import model_pb2, priority_pb2, row_error_pb2

from shared.bundles import Bundle
from shared.errors import AisleError, FieldViolation, InvalidArgumentError
from shared.inference import BackendName, Priority

MAX_QUERY_CHARS = 2_000
"""Far beyond what any query model reads; bounds what tokenising one query can cost."""

_PRECISIONS = {
    BackendName.ONNX_INT8: "int8",
    BackendName.TORCH_CUDA: "bf16",
    BackendName.TORCH_CUDA_FP16: "fp16",
}


def priority(value: int) -> Priority:
    """The engine's class for a request's; unspecified is interactive, and an unknown one is refused."""
    match value:
        case priority_pb2.PRIORITY_UNSPECIFIED | priority_pb2.PRIORITY_INTERACTIVE:
            return Priority.INTERACTIVE
        case priority_pb2.PRIORITY_BULK:
            return Priority.BULK
    raise InvalidArgumentError.of("priority", "must be PRIORITY_INTERACTIVE or PRIORITY_BULK")


def check_count(count: int, field: str, most: int) -> None:
    """Raises `InvalidArgumentError` naming `field` unless it has 1 to `most` entries."""
    if not 1 <= count <= most:
        raise InvalidArgumentError.of(field, f"must have 1 to {most} entries, has {count}")


def query_violation(query: str, field: str) -> FieldViolation | None:
    """What is wrong with a query, or `None`."""
    if not query.strip():
        return FieldViolation(field, "must not be empty or blank")
    if len(query) > MAX_QUERY_CHARS:
        return FieldViolation(field, f"must be at most {MAX_QUERY_CHARS} characters, has {len(query)}")
    return None


def row_error(row: int, error: AisleError, item_id: str = "", field: str = "") -> row_error_pb2.RowError:
    """The report of one row that failed alone."""
    return row_error_pb2.RowError(row=row, item_id=item_id, field=field, reason=error.reason, message=error.message)


def encoder_model(bundle: Bundle, backend: BackendName, max_tokens: int) -> model_pb2.GetModelResponse:
    """What `GetModel` of an encoder answers; `max_tokens` of the texts that it reads."""
    manifest = bundle.manifest
    return model_pb2.GetModelResponse(
        model=model(bundle, backend, kind=manifest.kind, dimensions=manifest.dimensions, max_tokens=max_tokens)
    )


def model(bundle: Bundle, backend: BackendName, *, kind: str, dimensions: int, max_tokens: int) -> model_pb2.Model:
    """What `GetModel` answers."""
    library, _, device = backend.partition("-")
    return model_pb2.Model(
        version=bundle.version,
        name=bundle.manifest.name,
        kind=kind,
        dimensions=dimensions,
        max_tokens=max_tokens,
        backend=library,
        precision=_PRECISIONS.get(backend, "fp32"),
        device="cuda" if "cuda" in device else "cpu",
        base_model=bundle.manifest.base_model,
    )
