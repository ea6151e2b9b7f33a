"""One version of the model, with the models of a user that are built on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.query_encoder.users import HistoryAsText, MeanPolicy, UserModel, UserModelName, WeightedMean
from shared.bundles import Bundle
from shared.inference import Batcher, BiEncoder


@dataclass(frozen=True, slots=True)
class QueryModel:
    """All of it is of one version."""

    encoder: BiEncoder
    users: Mapping[UserModelName, UserModel]

    @classmethod
    def of(cls, encoder: BiEncoder, policy: MeanPolicy) -> "QueryModel":
        """Every model of a user, on `encoder`."""
        return cls(
            encoder,
            {
                UserModelName.WEIGHTED_MEAN: WeightedMean(encoder, policy),
                UserModelName.TEXT: HistoryAsText(encoder),
            },
        )

    @property
    def bundle(self) -> Bundle:
        """The encoder's."""
        return self.encoder.bundle

    @property
    def batcher(self) -> Batcher[Any, Any]:
        """The encoder's."""
        return self.encoder.batcher

    async def close(self) -> None:
        """See `BiEncoder.close`."""
        await self.encoder.close()
