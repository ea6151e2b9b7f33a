"""Settings of the query encoder."""

from pydantic import Field

from services.query_encoder.users import ActionType, MeanPolicy, UserModelName
from shared import behaviour
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
        description="Bytes of query vectors kept; 0 = no cache. 64 MiB holds some 40,000 queries of 384 dimensions, "
        "the head of a shop's traffic; some 7,600 of 8 tokens with the vectors of their tokens, which the gateway asks "
        "for where its re-ranker reads them (late interaction).",
    )
    user_model: UserModelName = Field(
        UserModelName.WEIGHTED_MEAN,
        description="How a history becomes a vector where the request does not say. The mean costs 0.5 ms for 50 "
        "actions and a forward pass for each search that is not in the cache; text costs some 40 ms (256 tokens, two "
        "CPU cores, int8).",
    )
    user_half_life_occasions: float = Field(
        1.0,
        gt=0,
        description="weighted-mean: occasions after which an action counts half. NDCG@10 by this vector alone, at 1 "
        "and at 3: 0.0228 and 0.0148 on MovieLens, 0.0331 and 0.0315 on Online Retail; 0.088 and 0.082 for "
        "new items of MovieLens. A mean blurs what it sums, so its memory is shorter than that of relations.",
    )
    user_weight_purchase: float = Field(
        behaviour.WEIGHTS["PURCHASE"],
        ge=0,
        description="weighted-mean: weight of a purchase. Purchase, cart and click stand as 6 : 3 : 1, as the OTTO "
        "challenge (Kaggle 2022, by the shop that gave the data) weighs them.",
    )
    user_weight_add_to_cart: float = Field(
        behaviour.WEIGHTS["ADD_TO_CART"], ge=0, description="weighted-mean: weight of putting into the cart."
    )
    user_weight_click: float = Field(
        behaviour.WEIGHTS["CLICK"], ge=0, description="weighted-mean: weight of choosing an item from a list."
    )
    user_weight_view: float = Field(
        behaviour.WEIGHTS["VIEW"],
        ge=0,
        description="weighted-mean: weight of looking at an item's page. Half a click: a view mostly follows one, and "
        "says less where it does not.",
    )
    user_weight_search: float = Field(
        1.0,
        ge=0,
        description="weighted-mean: weight of a search, by the vector of its words; 0 = searches do not count. That of "
        "a click: both say what is wanted now.",
    )
    user_searches: int = Field(
        5,
        ge=1,
        le=200,
        description="weighted-mean: latest searches of a user that are encoded. Each that is not in the cache costs a "
        "forward pass (1.3 ms on two CPU cores, int8).",
    )

    def mean_policy(self) -> MeanPolicy:
        """How much actions count in the weighted mean."""
        return MeanPolicy(
            weights={
                ActionType.PURCHASE: self.user_weight_purchase,
                ActionType.ADD_TO_CART: self.user_weight_add_to_cart,
                ActionType.CLICK: self.user_weight_click,
                ActionType.VIEW: self.user_weight_view,
                ActionType.SEARCH: self.user_weight_search,
            },
            half_life_occasions=self.user_half_life_occasions,
            searches=self.user_searches,
        )
