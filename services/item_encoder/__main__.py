"""python -m services.item_encoder: serves `aisle.encoder.v1.ItemEncoder`."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc

from services.item_encoder.servicer import ItemEncoderServicer
from services.item_encoder.settings import ItemEncoderSettings
from shared.rpc.server import ServedService, main
from shared.serving.encoder import open_encoder


async def build(settings: ItemEncoderSettings, stack: AsyncExitStack) -> Sequence[ServedService]:
    encoder = await open_encoder(settings, stack, name="item_encoder")
    servicer = ItemEncoderServicer(encoder, settings.backend)

    async def check() -> str | None:
        health = encoder.batcher.health
        return None if health.ok else health.reason

    return [
        ServedService(
            item_encoder_pb2.DESCRIPTOR.services_by_name["ItemEncoder"].full_name,
            lambda server: item_encoder_pb2_grpc.add_ItemEncoderServicer_to_server(servicer, server),
            check,
        )
    ]


if __name__ == "__main__":
    main("item_encoder", ItemEncoderSettings, build)
