"""The services of the mesh as the code defines them, and who else has a place in it."""

from dataclasses import dataclass

OPERATOR = "operator"
"""Where certificates are asked for: these commands, tests, and whoever calls from outside the mesh."""
JOBS = "jobs"


@dataclass(frozen=True, slots=True)
class Kind:
    """One service as the code defines it. `health` is the full gRPC name of its primary service."""

    name: str
    health: str
    uses: tuple[str, ...] = ()
    has_bundle: bool = False
    store: tuple[str, ...] = ()
    """What its URI must start with for several processes to share its store; empty where it keeps nothing."""
    store_name: str = ""
    callers: tuple[str, ...] = (OPERATOR,)
    """Who else than services calls it, as certificates name them."""

    @property
    def prefix(self) -> str:
        """What the environment variables of its settings start with."""
        return f"AISLE_{self.name.upper()}_"


KINDS = (
    Kind("query_encoder", "aisle.encoder.v1.QueryEncoder", has_bundle=True),
    Kind("item_encoder", "aisle.encoder.v1.ItemEncoder", has_bundle=True, callers=(OPERATOR, JOBS)),
    Kind(
        "vector_retrieval",
        "aisle.retrieval.v1.VectorRetrieval",
        store=("http://", "https://"),
        store_name="a Milvus server",
        callers=(OPERATOR, JOBS),
    ),
    Kind("reranker", "aisle.rerank.v1.Reranker", has_bundle=True),
    Kind(
        "user_events",
        "aisle.events.v1.UserEvents",
        store=("postgresql",),
        store_name="PostgreSQL",
        callers=(OPERATOR, JOBS),
    ),
    Kind(
        "gateway",
        "aisle.gateway.v1.Gateway",
        uses=("query_encoder", "item_encoder", "vector_retrieval", "reranker", "user_events"),
    ),
)
"""Every service, in the order of starting; the front door comes last, and is the first to be stopped."""

PROXY = Kind("envoy", "")
"""Where one stands between the services: before each of them, and before the gateway."""
