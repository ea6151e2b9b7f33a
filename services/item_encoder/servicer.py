"""`aisle.encoder.v1.ItemEncoder`: proto ↔ engine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import model_pb2, row_error_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc

from shared.errors import InvalidArgumentError
from shared.inference import BackendName, BiEncoder
from shared.items import Item, violations
from shared.rpc import embeddings
from shared.rpc.deadline import deadline
from shared.rpc.items import item_from_proto
from shared.serving import wire
from shared.serving.switch import Switch

MAX_ITEMS = 256
"""A few seconds of a CPU's work: small enough to retry, large enough that the call itself costs nothing."""


class ItemEncoderServicer(item_encoder_pb2_grpc.ItemEncoderServicer):
    """Serves one encoder at a time."""

    def __init__(self, models: Switch[BiEncoder], backend: BackendName) -> None:
        self._models = models
        self._backend = backend

    async def EncodeItems(
        self, request: item_encoder_pb2.EncodeItemsRequest, context: Any
    ) -> item_encoder_pb2.EncodeItemsResponse:
        """See the proto."""
        wire.check_count(len(request.items), "items", MAX_ITEMS)
        valid, errors = _valid(request.items)
        with self._models.use() as encoder:
            vectors = np.zeros((len(request.items), encoder.bundle.manifest.dimensions), np.float32)
            if valid:
                encoding = await encoder.encode_items(
                    [encoder.bundle.item_text(item) for item in valid.values()],
                    priority=wire.priority(request.priority),
                    deadline=deadline(),
                )
                rows = list(valid)
                vectors[rows] = encoding.vectors
                errors += [
                    wire.row_error(rows[index], error, item_id=valid[rows[index]].id)
                    for index, error in encoding.failures.items()
                ]
            return item_encoder_pb2.EncodeItemsResponse(
                embeddings=embeddings.pack(vectors, encoder.version),
                errors=sorted(errors, key=lambda error: error.row),
            )

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Any) -> model_pb2.GetModelResponse:
        """See the proto."""
        bundle = self._models.now.bundle
        return wire.encoder_model(bundle, self._backend, bundle.manifest.max_item_tokens)


def _valid(items: Sequence[item_pb2.Item]) -> tuple[dict[int, Item], list[row_error_pb2.RowError]]:
    """The items that keep the rules, by row, and a report of each that does not."""
    valid: dict[int, Item] = {}
    errors = []
    for row, pb in enumerate(items):
        try:
            valid[row] = _item(pb)
        except InvalidArgumentError as error:
            errors.append(wire.row_error(row, error, item_id=pb.id, field=error.violations[0].field))
    return valid, errors


def _item(pb: item_pb2.Item) -> Item:
    item = item_from_proto(pb, at="")
    if found := violations(item, at=""):
        raise InvalidArgumentError(found)
    return item
