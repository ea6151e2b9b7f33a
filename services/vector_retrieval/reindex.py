"""`python -m services.vector_retrieval.reindex`: from the live generation to one of another model, while shops search
and write.

    create     a generation for the model that the item encoder runs; one begun before is gone on with, and the
               previous one is gone back to where it is of that model
    load       items the new generation lacks: listed, encoded at BULK priority, loaded, until there are none
    verify     recall, by searching both ways
    promote    with writes held for a moment, should some come in between each time
    sweep      items that other replicas were writing to the old generation at that moment

Nothing is kept between runs: what is missing tells where to go on. What is in memory is a few batches of items.

Start the new model in an item encoder of its own, run this, then give the new model to the query encoder and to the
item encoder that the gateway uses. Until then the old generation goes on answering; writes are refused from the
promotion until their encoder is changed.

With an item encoder of the model before, this is the way back: the previous generation lacks what was added since, and
that alone is encoded. An item that was changed since keeps the vector of its text before.
"""

import asyncio
import math
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from services.vector_retrieval.clients import (
    Encoded,
    EncoderClient,
    IndexClient,
    IndexType,
    Known,
    KnownRoles,
    Listed,
    Seen,
)
from services.vector_retrieval.lifecycle import BEHIND, DEFAULT_MIN_RECALL
from services.vector_retrieval.progress import Progress
from shared.errors import (
    AisleError,
    DeadlineError,
    FailedPreconditionError,
    OverloadedError,
    UnavailableError,
    VersionMismatchError,
)
from shared.rpc.client import Dependency
from shared.settings import MtlsSettings, settings_config

_MOST_SHOWN = 5

Result = TypeVar("Result")


class ReindexSettings(MtlsSettings):
    """Flags and environment variables (`AISLE_REINDEX_…`) of the job."""

    model_config = SettingsConfigDict(
        **{**settings_config("reindex"), "cli_prog_name": "python -m services.vector_retrieval.reindex"}
    )

    retrieval: str = Field("127.0.0.1:50054", description="Address of vector_retrieval.")
    encoder: str = Field("127.0.0.1:50053", description="Address of an item encoder that runs the new model.")
    index_type: IndexType = Field(
        "hnsw",
        description="How the new generation finds vectors: by a graph, by comparing all (exact; for small shops), or "
        "by lists. One that was begun before keeps its own.",
    )
    batch_items: int = Field(
        64, ge=1, le=256, description="Items encoded at once: keeps a CPU busy for about half a second."
    )
    window: int = Field(
        3, ge=1, le=64, description="Batches under way at once, so that loading one overlaps with encoding the next."
    )
    min_recall: float = Field(
        DEFAULT_MIN_RECALL, ge=0, le=1, description="Share of exact hits that the new generation must find."
    )
    patience_s: float = Field(
        300.0, gt=0, description="Seconds that a busy or restarting service is waited for before the job gives up."
    )
    sweep_s: float = Field(
        3.0,
        ge=0,
        description="Seconds after the promotion at which late writes are looked for: longer than a write takes that "
        "another replica of vector_retrieval had begun before.",
    )
    force: bool = Field(False, description="Promote although some items cannot be encoded or stored.")

    @classmethod
    def parse(cls, argv: Sequence[str] | None = None) -> "ReindexSettings":
        """Raises `SystemExit` with a message naming each setting at fault."""
        try:
            return cls(_cli_parse_args=list(argv) if argv is not None else True)  # type: ignore[call-arg]
        except ValidationError as error:
            lines = [f"  {'_'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise SystemExit("\n".join(["settings are not valid:", *lines])) from None


class Index(Protocol):
    """What the job asks of vector_retrieval: see `IndexClient`."""

    async def roles(self) -> KnownRoles: ...  # noqa: D102
    async def create(self, model_version: str, dimensions: int, index_type: IndexType) -> Known: ...  # noqa: D102
    async def lacking(self, target: str, source: str, size: int, token: str) -> Listed: ...  # noqa: D102
    async def load(self, target: str, encoded: Encoded) -> tuple[int, dict[str, str]]: ...  # noqa: D102
    async def verify(self, name: str, min_recall: float) -> Seen: ...  # noqa: D102
    async def promote(self, name: str, min_recall: float, *, force: bool) -> None: ...  # noqa: D102


class Encoder(Protocol):
    """What the job asks of an item encoder: see `EncoderClient`."""

    async def model(self) -> tuple[str, int]: ...  # noqa: D102
    async def encode(self, items: Sequence[Any]) -> Encoded: ...  # noqa: D102


@dataclass(slots=True)
class Summary:
    """What came of a run."""

    generation: str = ""
    model_version: str = ""
    loaded: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Ids of items that could not be encoded or stored, with why."""


class Reindex:
    """One run of the job."""

    def __init__(self, index: Index, encoder: Encoder, settings: ReindexSettings, progress: Progress) -> None:
        self._index = index
        self._encoder = encoder
        self._settings = settings
        self._progress = progress
        self._summary = Summary()

    async def run(self) -> Summary:
        """Raises `FailedPreconditionError` saying what stands in the way, or what a service answered last."""
        version, dimensions = await self._patiently(self._encoder.model)
        roles = await self._patiently(self._index.roles)
        if roles.live is None:
            raise FailedPreconditionError("the index is empty: there is nothing to encode anew")
        self._summary.model_version = version
        if roles.live.model_version == version and roles.building is None:
            self._progress.say(f"generation {roles.live.name} is of model {version} already")
            await self._sweep(roles.live.name, roles.previous)
            return self._summary
        target = await self._target(roles, roles.live, version, dimensions)
        self._summary.generation = target.name
        self._progress.begin(roles.live.items, target.items)
        # Until there is nothing, or no less than before: what a busy shop writes meanwhile, for which the promotion
        # holds its writes.
        before, loaded = math.inf, await self._catch_up(target.name, "")
        while 0 < loaded < before / 2:
            before, loaded = loaded, await self._catch_up(target.name, "")
        seen = await self._patiently(self._index.verify, target.name, self._settings.min_recall)
        # While some are missing, writes are under way, and one between the two searches of a look is lost recall: the
        # promotion looks again.
        if not seen.missing:
            self._refuse_if_unfit(target.name, seen)
        await self._promote(target.name, seen)
        self._progress.say(f"generation {target.name} of model {version} is live")
        await asyncio.sleep(self._settings.sweep_s)
        await self._sweep(target.name, roles.live)
        return self._summary

    async def _target(self, roles: KnownRoles, live: Known, version: str, dimensions: int) -> Known:
        building, previous = roles.building, roles.previous
        if building is not None and building.model_version == version:
            self._progress.say(f"going on with generation {building.name}, which has {building.items:,} items")
            return building
        if previous is not None and previous.model_version == version != live.model_version:
            self._progress.say(
                f"going back to generation {previous.name} of model {version}, which has {previous.items:,} items: "
                "only what it lacks is encoded"
            )
            return previous
        if building is not None:
            raise FailedPreconditionError(
                f"generation {building.name} is being built for model {building.model_version!r} and the encoder runs "
                f"{version!r}: give the encoder that model, or drop the generation"
            )
        return await self._index.create(version, dimensions, self._settings.index_type)

    async def _promote(self, name: str, seen: Seen) -> None:
        give_up = time.monotonic() + self._settings.patience_s
        while True:
            try:
                await self._patiently(self._index.promote, name, self._settings.min_recall, force=False)
            except FailedPreconditionError as error:
                if error.reason != BEHIND or time.monotonic() > give_up:
                    raise
                if await self._catch_up(name, "") or not self._summary.failed:
                    continue
                if not self._settings.force:
                    raise FailedPreconditionError(self._failures()) from None
                # Not looked at anew: writes are held.
                self._refuse_if_unfit(name, seen)
                await self._patiently(self._index.promote, name, self._settings.min_recall, force=True)
            return

    def _refuse_if_unfit(self, name: str, seen: Seen) -> None:
        least = self._settings.min_recall
        if seen.recall < least:
            raise FailedPreconditionError(
                f"generation {name} is not fit to be live: recall is {seen.recall:.3f}, below {least:g}"
            )

    async def _sweep(self, live: str, before: Known | None) -> None:
        if before is not None:
            await self._catch_up(live, before.name)

    async def _catch_up(self, target: str, source: str) -> int:
        """Loads what `target` lacks of `source` (empty: the live one) now; returns how many items that was."""
        loaded = 0
        running: set[asyncio.Task[int]] = set()
        try:
            async for items in self._lacking(target, source):
                if len(running) == self._settings.window:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    loaded += sum(task.result() for task in done)
                running.add(asyncio.create_task(self._bring(target, items)))
            loaded += sum(await asyncio.gather(*running))
        finally:
            for task in running:
                task.cancel()
        return loaded

    async def _lacking(self, target: str, source: str) -> AsyncIterator[Sequence[Any]]:
        token = ""
        while True:
            page = await self._patiently(self._index.lacking, target, source, self._settings.batch_items, token)
            # One that could not be brought stays lacking; it is not asked for again and again.
            items = [item for item in page.items if item.id not in self._summary.failed]
            if items:
                yield items
            token = page.token
            if not token:
                return

    async def _bring(self, target: str, items: Sequence[Any]) -> int:
        encoded = await self._patiently(self._encoder.encode, items)
        if encoded.model_version != self._summary.model_version:
            raise VersionMismatchError(encoded.model_version, self._summary.model_version)
        loaded, refused = 0, dict[str, str]()
        if encoded.items:
            loaded, refused = await self._patiently(self._index.load, target, encoded)
        self._summary.failed.update({**encoded.failed, **refused})
        self._summary.loaded += loaded
        self._progress.advance(loaded)
        return loaded

    def _failures(self) -> str:
        failed = self._summary.failed
        shown = "; ".join(f"{item_id!r}: {why}" for item_id, why in list(failed.items())[:_MOST_SHOWN])
        more = f" and {len(failed) - _MOST_SHOWN:,} more" if len(failed) > _MOST_SHOWN else ""
        return f"{len(failed):,} items cannot be brought over ({shown}{more}): mend or delete them, or use --force"

    async def _patiently(self, call: Callable[..., Awaitable[Result]], *arguments: Any, **options: Any) -> Result:
        """The result of `call`, which must be safe to repeat, however busy the service is for a while."""
        give_up = time.monotonic() + self._settings.patience_s
        delay = 0.1
        while True:
            try:
                return await call(*arguments, **options)
            except (UnavailableError, OverloadedError, DeadlineError) as error:
                delay = min(2 * max(delay, getattr(error, "retry_after_s", 0.0)), 5.0)
                if time.monotonic() + delay > give_up:
                    raise
                self._progress.say(f"waiting: {error.message}")
            await asyncio.sleep(delay)


async def run(settings: ReindexSettings, progress: Progress) -> Summary:
    """The job, over gRPC."""
    tls = settings.mtls()
    retrieval = Dependency("vector_retrieval", "aisle.retrieval.v1.VectorRetrieval", settings.retrieval, tls)
    encoder = Dependency("item_encoder", "aisle.encoder.v1.ItemEncoder", settings.encoder, tls)
    try:
        return await Reindex(IndexClient(retrieval), EncoderClient(encoder), settings, progress).run()
    finally:
        await retrieval.close()
        await encoder.close()


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the model that the encoder runs is live."""
    settings = ReindexSettings.parse(argv)
    progress = Progress(sys.stderr)
    try:
        summary = asyncio.run(run(settings, progress))
    except AisleError as error:
        progress.say(f"reindex: {error.message}")
        return 1
    except KeyboardInterrupt:
        progress.say("reindex: stopped; run it again to go on from here")
        return 130
    progress.say(f"{summary.loaded:,} items encoded and loaded, {len(summary.failed):,} left behind")
    return 0


if __name__ == "__main__":
    # Ends it as Ctrl-C does; before this line, while modules are still being read, without a word.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
