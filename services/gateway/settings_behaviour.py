"""Settings of what the gateway does with behaviour: users as vectors, recommendations, attribution."""

from pydantic import Field, SecretStr

from services.gateway.asks import Context
from services.gateway.blending import Weights
from services.gateway.budgets import StageBudget
from services.gateway.impressions import Impressions
from services.gateway.ports import RetrievalPort, UserEventsPort
from services.gateway.shoppers import ProfilePolicy
from services.gateway.sources import Sources
from shared.attribution import DEVELOPMENT_KEY
from shared.behaviour import HALF_LIFE_OCCASIONS
from shared.settings import ServiceSettings

_SHARE = 0.3
"""A log or an encoder that hangs costs a third of the deadline; the rest is enough to answer as for anybody."""
_DAY_S = 86_400.0
_IMPRESSIONS_EVERY_S = 0.5
"""Two small writes a second where little is shown, and what was shown is in the log before it can be clicked."""
_IMPRESSIONS_TIMEOUT_S = 5.0


class BehaviourSettings(ServiceSettings):
    """What the gateway can be told about behaviour."""

    user_events_target: str = Field("127.0.0.1:50056", description="gRPC target of user_events.")
    personalization_weight: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the user's history in the order of a search that does not say; 0 = none. Small, because "
        "who searches has said what they want; no public set has both queries and histories to measure it on.",
    )
    history_cap_s: float = Field(
        0.25,
        gt=0,
        description="Seconds that reading and encoding a history may take: three calls by key and one of a model. "
        "It runs beside the query's own encoding.",
    )
    history_events: int = Field(100, ge=1, le=200, description="Latest events of a user that count.")
    history_half_life_occasions: float = Field(
        HALF_LIFE_OCCASIONS,
        gt=0,
        description="Occasions after which an item of the history counts half as much for what others took with it. "
        "2 to 4 are as good on MovieLens and on Online Retail; decay by days does worse on both.",
    )
    profiles_kept: int = Field(
        10_000, ge=0, description="Users whose vectors are remembered: some 20 MB at 384 dimensions."
    )
    profiles_kept_s: float = Field(
        600.0,
        gt=0,
        description="Seconds a vector is remembered while its user does nothing; an event of theirs ends it at once. "
        "Bounds how long an item's old text counts.",
    )

    recommend_candidate_count: int = Field(
        200,
        ge=1,
        le=1000,
        description="Candidates of each source for a recommendation that does not say how many. Measured with 200.",
    )
    home_related_weight: float = Field(
        0.7,
        ge=0,
        le=1,
        description="HOME: share of what others took with the history's items. Chosen with the next two on the "
        "validation parts of MovieLens 100k and Online Retail.",
    )
    home_popularity_weight: float = Field(
        0.1, ge=0, le=1, description="HOME: share of what is popular; likeness to the user's vector has the rest."
    )
    similar_related_weight: float = Field(
        0.3, ge=0, le=1, description="SIMILAR_ITEMS: share of what others took with the item; likeness has the rest."
    )
    basket_related_weight: float = Field(
        0.8, ge=0, le=1, description="BASKET: share of what others took together; likeness to the basket has the rest."
    )
    context_user_weight: float = Field(
        0.1,
        ge=0,
        le=1,
        description="SIMILAR_ITEMS, BASKET, AFTER_SEARCH: what likeness to the user counts beside the others, which "
        "count 1 together. Small, as in a search.",
    )
    diversity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Recommendations that do not say: share of unlikeness in maximal marginal relevance. 0 until a "
        "shop has seen in an experiment what it costs and gains.",
    )
    exploration_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of places kept for items that were never shown in the last 30 days; 0 = off: it costs "
        "clicks today for knowledge tomorrow, which is the shop's to decide.",
    )
    popular_count: int = Field(
        200, ge=0, le=500, description="Popular items that are always candidates: as many as of the other sources."
    )
    popular_window_days: float = Field(
        30.0, gt=0, le=400, description="Days of behaviour that make an item popular: a month has a shop's rhythm."
    )

    impression_sample_one_in: int = Field(
        1,
        ge=0,
        description="One in how many pages shown to a known user is told to user_events; 0 = none. 1 as long as the "
        "log can take it: every page that is not told is a click that cannot be corrected for its position.",
    )
    impressions_waiting: int = Field(
        10_000, ge=1, description="Pages that wait to be told, at most: ten seconds of 1,000 requests/s."
    )
    attribution_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_KEY),
        description="Signs attribution tokens; the same on every replica and in user_events. Set a secret, or callers "
        "can make up what led to an event.",
    )

    def profile_policy(self) -> ProfilePolicy:
        """How users are read."""
        return ProfilePolicy(
            events=self.history_events,
            half_life_occasions=self.history_half_life_occasions,
            kept=self.profiles_kept,
            kept_s=self.profiles_kept_s,
        )

    def history_budget(self) -> StageBudget:
        """What reading a user may take."""
        return StageBudget(self.history_cap_s, _SHARE)

    def sources(self, retrieval: RetrievalPort, events: UserEventsPort) -> Sources:
        """Where candidates come from."""
        return Sources(
            retrieval=retrieval,
            events=events,
            popular_count=self.popular_count,
            popular_window_s=self.popular_window_days * _DAY_S,
        )

    def impressions(self, events: UserEventsPort) -> Impressions:
        """What tells the log of the pages shown."""
        return Impressions(
            events,
            sample_one_in=self.impression_sample_one_in,
            waiting=self.impressions_waiting,
            every_s=_IMPRESSIONS_EVERY_S,
            timeout_s=_IMPRESSIONS_TIMEOUT_S,
        )

    def context_weights(self) -> dict[Context, Weights]:
        """What counts how much where."""
        user = self.context_user_weight
        return {
            Context.HOME: Weights(
                likeness=max(1 - self.home_related_weight - self.home_popularity_weight, 0.0),
                related=self.home_related_weight,
                popularity=self.home_popularity_weight,
            ),
            Context.SIMILAR_ITEMS: Weights(
                likeness=1 - self.similar_related_weight, related=self.similar_related_weight, user=user
            ),
            Context.BASKET: Weights(
                likeness=1 - self.basket_related_weight, related=self.basket_related_weight, user=user
            ),
            Context.AFTER_SEARCH: Weights(likeness=1.0, related=user, user=user),
        }
