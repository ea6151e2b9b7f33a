"""What `vector_retrieval` can be told."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from shared.settings import Port, ServiceSettings, settings_config

_SCHEMES = ("http://", "https://")

Seconds = Annotated[float, Field(gt=0)]


class VectorRetrievalSettings(ServiceSettings):
    """Flags and environment variables (`AISLE_VECTOR_RETRIEVAL_…`) of the service."""

    model_config = settings_config("vector_retrieval")

    port: Port = Field(50054, description="Port of the gRPC service.")
    metrics_port: Port = Field(9104, description="Port of /metrics.")

    uri: str = Field(
        "build/mesh/milvus.db",
        min_length=1,
        description="Where the vectors live: a path (Milvus Lite inside this process, one process a path), or "
        "http(s)://host:port of a Milvus server or cluster.",
    )
    user: str = Field("", description="Milvus user; empty where the server asks for none.")
    password: SecretStr = Field(SecretStr(""), description="Password of `user`.")
    token: SecretStr = Field(SecretStr(""), description="API key, used instead of user and password.")
    database: str = Field("", description="Milvus database; empty means the default one. Milvus Lite has one only.")
    index: str = Field(
        "items",
        pattern=r"^[a-z][a-z0-9_]{0,62}$",
        description="Alias of the live generation, and what the names of its collections begin with. Shops that "
        "share a Milvus database have one each.",
    )
    tls_ca_file: Path | None = Field(
        None, description="PEM file with the authority that signed the server's certificate (https:// only)."
    )
    tls_server_name: str = Field("", description="Name in the server's certificate, where it is not the host of `uri`.")

    connect_timeout_s: Seconds = Field(
        1.0, description="Seconds to wait for a connection. Short: callers wait for it when the store is down."
    )
    search_timeout_s: Seconds = Field(
        2.0, description="Most seconds a read may take; the caller's deadline may allow less."
    )
    write_timeout_s: Seconds = Field(
        30.0, description="Most seconds a write may take. A write that has begun is finished even if nobody waits."
    )

    hnsw_m: int = Field(
        32,
        ge=4,
        le=64,
        description="HNSW links a node; for new generations. Under a filter the walk needs them: recall@100 among a "
        "random tenth of 50,000 384-d embeddings is 0.91, 0.95 and 0.97 with 16, 32 and 48. 32 costs a twelfth more "
        "memory than 16; 48 takes twice as long to build as 32.",
    )
    hnsw_ef_construction: int = Field(
        200,
        ge=8,
        le=2048,
        description="Candidates looked at for each node while building. Above 200 recall hardly rises, and "
        "building slows in proportion.",
    )
    ivf_nlist: int = Field(
        1024,
        ge=1,
        le=65_536,
        description="Lists that vectors are sorted into; for new generations of index type IVF_FLAT. Over 50,000 384-d "
        "embeddings an eighth of all are compared with 1,024, for recall@100 0.985, and a third with 128, for 0.992.",
    )
    hnsw_ef: int = Field(
        256,
        ge=16,
        le=4096,
        description="Candidates looked at in a search without a filter, raised to the number of hits asked for where "
        "that is more; under a filter eight times as many. recall@100 over 50,000 384-d embeddings is 0.970 with 128 "
        "and 0.990 with 256, which takes 0.3 ms more. IVF_FLAT looks at the square root of ivf_nlist, divided by 64, "
        "lists for each.",
    )
    bm25_k1: float = Field(
        0.2,
        gt=0,
        le=3,
        description="How much more a word counts that an item repeats; for new generations. Repeating one says "
        "little of a product. NDCG@10 at 1.5 (Milvus Lite's own) / 0.6 / 0.2: Home Depot's train queries 0.375, 0.388, "
        "0.392 by words alone and 0.392, 0.402, 0.408 with vectors; Icecat's judged items with vectors 0.903, 0.920, "
        "0.928.",
    )
    bm25_b: float = Field(
        0.75,
        ge=0,
        le=1,
        description="How much the words of a long item count less; for new generations. The usual value; 0.4 measured "
        "the same.",
    )
    fusion_depth: int = Field(
        100,
        ge=1,
        le=1000,
        description="Hits each half of a hybrid search contributes at least, so that a short answer is fused "
        "from more than its own length.",
    )

    searches_under_way: int = Field(
        4,
        ge=1,
        le=1000,
        description="Calls of the store at a time that differ in nothing but their queries; searches that come "
        "meanwhile share the next one. On two cores 16 callers get 1.2 times the searches/s that they get with a call "
        "each, and 48 callers 1.3 times; 1 and 2 delay a few callers, 8 brings less. More, where the store has many "
        "cores.",
    )

    deletes_kept_days: float = Field(
        7.0,
        gt=0,
        description="Days for which it is known that an item was deleted, so that an upsert with an older updated_at "
        "does not bring it back: longer than a change of the catalogue is on its way. About 100 bytes a delete.",
    )

    cut_over_hold_s: Seconds = Field(
        5.0,
        description="Most seconds that writes wait while a re-index loads its last items, so that a shop which never "
        "stops writing can change its model. Shorter than callers' deadlines for writes.",
    )

    lite_flush_rows: int = Field(
        2000,
        ge=1,
        description="Milvus Lite only: rows after which new ones are moved out of its unindexed write buffer, which "
        "searches scan row by row (about 50 microseconds each).",
    )
    lite_flush_quiet_s: Seconds = Field(
        1.0, description="Milvus Lite only: seconds without a write after which the buffer is moved anyway."
    )

    @property
    def is_server(self) -> bool:
        """Whether `uri` names a Milvus server rather than a path for Milvus Lite."""
        return self.uri.startswith(_SCHEMES)

    @model_validator(mode="after")
    def _check_uri(self) -> Self:
        if "://" in self.uri and not self.is_server:
            raise ValueError("uri must be a path, http://host:port or https://host:port")
        if self.tls_ca_file is not None and not self.uri.startswith("https://"):
            raise ValueError("tls_ca_file needs an https:// uri")
        return self
