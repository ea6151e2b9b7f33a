"""python -m services.item_encoder: serves `aisle.encoder.v1.ItemEncoder`."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc

from services.item_encoder.servicer import ItemEncoderServicer
from services.item_encoder.settings import ItemEncoderSettings
from shared.bundles import Bundle, BundleKind, Tower
from shared.inference import BiEncoder
from shared.rpc.server import ServedService, main
from shared.serving.encoder import open_encoder
from shared.serving.follow import open_model


async def build(settings: ItemEncoderSettings, stack: AsyncExitStack) -> Sequence[ServedService]:
    async def open_(bundle: Bundle) -> BiEncoder:
        return await open_encoder(settings, bundle, name="item_encoder", tower=Tower.ITEM)

    models = await open_model(settings, stack, open_, BundleKind.BI_ENCODER)
    servicer = ItemEncoderServicer(models, settings.backend)

    return [
        ServedService(
            item_encoder_pb2.DESCRIPTOR.services_by_name["ItemEncoder"].full_name,
            lambda server: item_encoder_pb2_grpc.add_ItemEncoderServicer_to_server(servicer, server),
            models.health,
        )
    ]


if __name__ == "__main__":
    main("item_encoder", ItemEncoderSettings, build)
