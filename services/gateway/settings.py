"""Settings of the gateway."""

from pydantic import Field, SecretStr

from services.gateway.admission import AdmissionPolicy
from services.gateway.budgets import StageBudget
from services.gateway.catalog import CatalogPolicy
from services.gateway.importing import ImportPolicy
from services.gateway.ports import LATE_INTERACTION
from services.gateway.recommend import RecommendPolicy
from services.gateway.retry import Patience
from services.gateway.search import SearchPolicy
from services.gateway.settings_behaviour import BehaviourSettings
from services.gateway.similar import SimilarPolicy
from shared.settings import Port, settings_config

_ENCODE_SHARE = 0.25
"""A query encoder that hangs costs a quarter of the deadline; the rest is enough to search by words."""
_LOOKUP_SHARE = 0.4
_RETRIEVE_SHARE = 0.7
"""An index that hangs is reported while the caller still has the time to do something about it."""
_RERANK_SHARE = 0.9
_RERANK_RESERVE_S = 0.05
"""What a re-ranker that hangs must leave: enough to cut a page, serialise it, and cross a busy network."""
_WRITE_ENCODE_SHARE = 0.6
_WRITE_SHARE = 0.9
_GOOD_TIME_SHARE = 0.5
"""The other half is for what makes some requests slower than others, and for those that wait."""
_WAIT_SHARE = 0.25
"""A caller that waited for a quarter of its deadline can still be answered within the rest."""


class GatewaySettings(BehaviourSettings):
    """What the gateway can be told."""

    model_config = settings_config("gateway")

    port: Port = Field(50051, description="Port of Gateway and Catalog.")
    metrics_port: Port = Field(9101, description="Port of /metrics.")

    query_encoder_target: str = Field("127.0.0.1:50052", description="gRPC target of query_encoder.")
    item_encoder_target: str = Field("127.0.0.1:50053", description="gRPC target of item_encoder.")
    vector_retrieval_target: str = Field("127.0.0.1:50054", description="gRPC target of vector_retrieval.")
    reranker_target: str = Field("127.0.0.1:50055", description="gRPC target of reranker.")

    max_running: int = Field(
        64,
        ge=1,
        description="Searches, recommendations and the like worked on at once, at most: as many as a gateway, which is "
        "one event loop, answers in about 0.2 s. Fewer are let in by themselves where they take too long.",
    )
    least_running: int = Field(
        4, ge=1, description="Requests worked on however long they take: enough to notice that they no longer do."
    )
    good_time_s: float = Field(
        1.0,
        gt=0,
        description="Seconds an answer should take, and half of its deadline where that is less. Where it takes "
        "longer, fewer requests are worked on at once and others are refused.",
    )
    max_waiting: int = Field(
        32,
        ge=0,
        description="Requests beyond those worked on that wait for their turn; more are refused. Half as many as are "
        "worked on at most: so the last waits about half as long as a request takes.",
    )
    wait_cap_s: float = Field(
        0.5,
        gt=0,
        description="Seconds a request waits for its turn, and never more than a quarter of its deadline: a caller "
        "that hears soon that it is refused can ask another replica.",
    )
    client_balancing: bool = Field(
        True,
        description="Whether the gateway itself spreads calls over the replicas of a target, watches the health of "
        "each, leaves out those that fail, and retries. Off where a proxy in between does (Envoy, a service mesh): "
        "twice would multiply retries. See docs/balancing.md.",
    )

    candidate_count: int = Field(
        100,
        ge=1,
        le=1000,
        description="Candidates retrieved for a request that does not say how many: ten pages of the default size.",
    )
    dense_weight: float = Field(
        0.96,
        ge=0,
        le=1,
        description="Weight of a cosine in a hybrid search; a BM25 score, 5 to 30 for a good hit, has the rest. "
        "With all-MiniLM-L6-v2: within 1 % of the best weight on Home Depot's train queries (0.92), and as good as "
        "vectors alone on Icecat, where they find more than words.",
    )
    rerank_count: int = Field(
        32,
        ge=0,
        le=1000,
        description="Candidates that are re-ranked, best first; 0 = never. Three pages of the default size; 32 "
        "items of 45 tokens take about 140 ms on two CPU cores (int8), so raise it with the hardware.",
    )
    rerank_weight_late_interaction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of a late-interaction re-ranker in the final score. NDCG@10 at 0 / 0.25 / 0.5 / 1, over "
        "candidates fused by scores that were scaled by the query's best: 0.391, 0.389, 0.384, 0.352 on Home Depot; "
        "0.911, 0.922, 0.934, 0.933 on Icecat. An equal say loses little where words decide and wins where meaning "
        "does.",
    )
    rerank_weight_cross_encoder: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Share of a cross-encoder in the final score. NDCG@10 at 0 / 0.3 / 0.5 / 0.8 / 1 of a small one "
        "that a shop's own judgements trained: 0.435, 0.445, 0.446, 0.423, 0.399 on other queries of that shop (0.432, "
        "0.439, 0.435, 0.416, 0.385 on those it was chosen by); 0.930, 0.916, 0.902, 0.869, 0.852 in a shop it had "
        "never seen. Held-out queries chose 0.2 and 0.3 for two that learnt from four times as many: measure yours.",
    )

    encode_cap_s: float = Field(
        0.5, gt=0, description="Seconds a query may take to encode, ten times what a busy CPU needs; then by words."
    )
    retrieve_cap_s: float = Field(
        3.0,
        gt=0,
        description="Seconds a retrieval may take. Embedded stores need hundreds of milliseconds for a filter on a "
        "large catalogue; beyond this a shopper has left.",
    )
    rerank_cap_s: float = Field(
        1.0, gt=0, description="Seconds re-ranking may take; a better order is not worth a longer wait."
    )
    read_cap_s: float = Field(1.0, gt=0, description="Seconds that reading one item may take: a look-up by key.")
    write_cap_s: float = Field(
        10.0, gt=0, description="Seconds that each step (encode, store) of a unary write may take: 100 items at most."
    )

    import_chunk_items: int = Field(
        128,
        ge=1,
        le=256,
        description="Items an import encodes and stores at once: enough to fill the model's batches, few enough "
        "that encoding one chunk overlaps with storing another. item_encoder takes 256 at most.",
    )
    import_chunk_bytes: int = Field(
        2 * 1024 * 1024,
        ge=64 * 1024,
        le=3 * 1024 * 1024,
        description="Bytes of items in a chunk: with their vectors they stay below gRPC's 4 MiB.",
    )
    import_window: int = Field(
        3, ge=1, le=32, description="Chunks of one import in memory: one being stored, two being encoded."
    )
    import_step_cap_s: float = Field(
        60.0,
        gt=0,
        description="Seconds that encoding or storing one chunk may take: 128 items of full length take about 5 on "
        "two CPU cores, and bulk work yields to shoppers.",
    )
    import_patience_s: float = Field(
        60.0,
        ge=0,
        description="Seconds an import waits for a dependency that is busy or away before it fails: a pod is "
        "replaced in less.",
    )

    breaker_failures: int = Field(
        3, ge=1, description="Failures in a row after which a dependency is left alone: one can be chance."
    )
    breaker_open_s: float = Field(
        1.0,
        gt=0,
        description="Seconds a dependency is left alone before a call probes it: the channel reconnects in as many.",
    )
    breaker_patience_s: float = Field(
        0.1,
        gt=0,
        description="Seconds without an answer that speak against a dependency; after fewer, a caller's deadline was "
        "too short.",
    )

    page_token_key: SecretStr = Field(
        SecretStr("aisle"),
        description="Signs page tokens; the same on every replica. A token holds no more than digests of ids, so "
        "the default guards against mistakes; set a secret to guard against forgery.",
    )

    def admission_policy(self) -> AdmissionPolicy:
        """How many requests are let in."""
        return AdmissionPolicy(
            running=self.max_running,
            least_running=self.least_running,
            waiting=self.max_waiting,
            patience=StageBudget(self.wait_cap_s, _WAIT_SHARE),
            good_time=StageBudget(self.good_time_s, _GOOD_TIME_SHARE),
        )

    def search_policy(self) -> SearchPolicy:
        """How searches are run."""
        return SearchPolicy(
            candidate_count=self.candidate_count,
            rerank_count=self.rerank_count,
            rerank_weights={
                LATE_INTERACTION: self.rerank_weight_late_interaction,
                "cross-encoder": self.rerank_weight_cross_encoder,
            },
            default_rerank_weight=self.rerank_weight_late_interaction,
            encode=StageBudget(self.encode_cap_s, _ENCODE_SHARE),
            retrieve=StageBudget(self.retrieve_cap_s, _RETRIEVE_SHARE),
            rerank=StageBudget(self.rerank_cap_s, _RERANK_SHARE, _RERANK_RESERVE_S),
            history=self.history_budget(),
            personalization_weight=self.personalization_weight,
        )

    def similar_policy(self) -> SimilarPolicy:
        """How similar items are found."""
        return SimilarPolicy(
            candidate_count=self.candidate_count,
            lookup=StageBudget(self.read_cap_s, _LOOKUP_SHARE),
            retrieve=StageBudget(self.retrieve_cap_s, _RETRIEVE_SHARE),
        )

    def recommend_policy(self) -> RecommendPolicy:
        """How recommendations are made."""
        return RecommendPolicy(
            candidate_count=self.recommend_candidate_count,
            weights=self.context_weights(),
            diversity=self.diversity,
            exploration_share=self.exploration_share,
            history=self.history_budget(),
            encode=StageBudget(self.encode_cap_s, _ENCODE_SHARE),
            lookup=StageBudget(self.read_cap_s, _LOOKUP_SHARE),
            retrieve=StageBudget(self.retrieve_cap_s, _RETRIEVE_SHARE),
        )

    def catalog_policy(self) -> CatalogPolicy:
        """How the catalogue's unary calls are run."""
        return CatalogPolicy(
            read=StageBudget(self.read_cap_s, _RETRIEVE_SHARE),
            encode=StageBudget(self.write_cap_s, _WRITE_ENCODE_SHARE),
            write=StageBudget(self.write_cap_s, _WRITE_SHARE),
        )

    def import_policy(self) -> ImportPolicy:
        """How imports are run."""
        return ImportPolicy(
            chunk_items=self.import_chunk_items,
            chunk_bytes=self.import_chunk_bytes,
            window=self.import_window,
            encode=StageBudget(self.import_step_cap_s),
            write=StageBudget(self.import_step_cap_s),
            patience=Patience(self.import_patience_s),
        )
