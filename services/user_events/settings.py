"""What `user_events` and its jobs can be told."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from shared import attribution
from shared.settings import Port, ServiceSettings, settings_config

DEVELOPMENT_KEY = "aisle"

Seconds = Annotated[float, Field(gt=0)]

_POSTGRES = "postgresql"


PiiPolicy = Literal["refuse", "drop"]
"""What becomes of properties that look like an e-mail address, a telephone or a card number."""


class DatabaseSettings(BaseSettings):
    """Where the events live: what the service and each of its jobs is told alike (`AISLE_USER_EVENTS_…`)."""

    model_config = settings_config("user_events")

    uri: str = Field(
        "build/mesh/events.db",
        min_length=1,
        description="Where the events live: a path (SQLite, on one machine) or postgresql://user@host:port/database. "
        "What else asyncpg takes stands behind a question mark (?ssl=verify-full).",
    )
    password: SecretStr = Field(SecretStr(""), description="Password of the user in `uri`.")
    connect_timeout_s: Seconds = Field(
        1.0, description="Seconds to wait for a connection. Short: callers wait for it when the database is down."
    )
    read_timeout_s: Seconds = Field(
        2.0, description="Most seconds a read may take; the caller's deadline may allow less."
    )
    write_timeout_s: Seconds = Field(
        5.0,
        description="Most seconds one transaction may take, waiting for locks included. A transaction that has begun "
        "is finished even if nobody waits.",
    )
    pool_size: int = Field(
        8, ge=1, le=100, description="Connections for reads; three more write. PostgreSQL allows 100 in all by default."
    )

    @property
    def is_server(self) -> bool:
        """Whether `uri` names a PostgreSQL server rather than a file for SQLite."""
        return "://" in self.uri

    @model_validator(mode="after")
    def _check_uri(self) -> Self:
        if not self.is_server:
            return self
        url = urlsplit(self.uri)
        if url.scheme != _POSTGRES or not url.path.strip("/"):
            raise ValueError("uri must be a path or postgresql://user@host:port/database")
        if url.password is not None:
            raise ValueError("uri must hold no password: give it in `password`, which is never printed")
        return self


class RetentionSettings(DatabaseSettings):
    """How long events are kept."""

    retention_days: int = Field(
        0,
        ge=0,
        description="Days after which an event is deleted, counted from when it occurred; 0 = kept for ever. Looked at "
        "daily.",
    )


class RelationsSettings(DatabaseSettings):
    """How the relations between items are learned."""

    relations_head_items: int = Field(
        5_000,
        ge=0,
        le=20_000,
        description="Most popular items whose relations are learned together (EASE); the rest get theirs by counting. "
        "Takes 16 bytes an item squared (400 MB for 5,000) and time by the cube (5 s of one core).",
    )
    relations_regularisation: float = Field(
        400.0,
        gt=0,
        description="Strength of EASE's L2 penalty, in interactions: larger trusts rare items less. 200 to 800 are "
        "within noise on MovieLens 100k and on Online Retail (docs/evaluation.md).",
    )
    relations_half_life_days: float = Field(
        90.0,
        gt=0,
        description="Days after which an interaction counts half: a season. The best of 90, 180 and no decay on two "
        "years of purchases; on half a year of ratings as good as none, where 30 was worse.",
    )
    relations_window_days: int = Field(
        400, ge=1, le=4_000, description="Days back from the newest event that are learned from: a year and a month."
    )


class UserEventsSettings(ServiceSettings, RetentionSettings, RelationsSettings):
    """Flags and environment variables (`AISLE_USER_EVENTS_…`) of the service."""

    model_config = settings_config("user_events")

    port: Port = Field(50056, description="Port of the gRPC service.")
    metrics_port: Port = Field(9106, description="Port of /metrics.")

    identity_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_KEY),
        min_length=1,
        description="Hashes the ids of users and sessions. Set a secret, and keep it: without it, whoever reads the "
        "database can try ids; with another one, nobody's history is found again.",
    )
    attribution_key: SecretStr = Field(
        SecretStr(attribution.DEVELOPMENT_KEY),
        min_length=1,
        description="Signs attribution tokens; the same as the gateway's.",
    )
    pii_policy: PiiPolicy = Field(
        "refuse",
        description="What becomes of an event with a property that looks like an e-mail address, a telephone or a card "
        "number: the event is refused, so that the caller learns of it, or the property is dropped.",
    )

    write_buffer_events: int = Field(
        10_000,
        ge=1_000,
        description="Events that may wait to be written, about 1 KB each; when it is full callers are asked to come "
        "back. Some seconds' worth.",
    )
    commit_events: int = Field(
        1_000,
        ge=1,
        le=10_000,
        description="Events written in one transaction, from whichever callers wait, but never a part of one request: "
        "beyond this a transaction only gets longer, not cheaper by the event.",
    )
    cache_s: float = Field(
        5.0,
        ge=0,
        description="Seconds that what many ask for alike (popular items, the shop's averages) is kept, longer where "
        "it takes long to count; 0 = not kept. Nothing about a user is.",
    )
    popularity_half_life_days: float = Field(
        7.0, gt=0, description="Days after which an event counts half in an item's popularity: a week has all its days."
    )
    relations_every_s: float = Field(
        3_600.0,
        ge=0,
        description="Seconds between runs of the `relations` job, which this service starts as a process of its own; "
        "0 = it starts none.",
    )

    @property
    def has_development_key(self) -> bool:
        """Whether anybody can compute the hashes."""
        return self.identity_key.get_secret_value() == DEVELOPMENT_KEY
