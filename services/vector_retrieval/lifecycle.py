"""From one generation to the next: compare, promote, roll back, drop."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random

import numpy as np

from services.vector_retrieval.capabilities import Capabilities
from services.vector_retrieval.generations import Generation, Generations
from services.vector_retrieval.halves import Ask, Halves
from services.vector_retrieval.lite import Gate
from services.vector_retrieval.scan import PAGE_ROWS, Scanner
from services.vector_retrieval.writes import Writer
from shared.errors import FailedPreconditionError, NotFoundError
from shared.telemetry import metrics

BEHIND = "GENERATION_BEHIND"
"""Reason of a refused promotion that is over once the items that are missing have been loaded."""

DEFAULT_SAMPLE = 50
DEFAULT_MIN_RECALL = 0.95
_RECALL_AT = 10
_PROBE_LASTS_S = 600.0
"""A probe that found enough is believed for so long: a promotion that is tried again need not search again. One that
did not may have been crossed by a write, between one of its two searches and the other."""
_WATCH_LASTS_S = 60.0
"""How long the writes of this process alone tell what to look at again. Another replica's show in the counts, and are
found by a full look."""
_MOST_HELD_FOR = 1_000
"""Items that a job encodes in a few seconds. With more missing, holding writes would not help."""

_MOST_LOOKED_AT = 100_000
"""Items looked at while writes are held: some seconds. In a larger index, what other replicas have written since the
last look is not waited for; the sweep after the promotion brings it over."""

_NOW = "Strong"
_SOON = "Bounded"


@dataclass(frozen=True, slots=True)
class Options:
    """What a generation must live up to: `min_recall` of the 10 exact hits of `sample` of its items."""

    sample: int = DEFAULT_SAMPLE
    min_recall: float = DEFAULT_MIN_RECALL


@dataclass(frozen=True, slots=True)
class Verification:
    """How a generation compares with the live one, and its approximate search with exact search."""

    items: int
    live_items: int
    missing: int
    extra: int
    recall: float
    sampled: int
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Probe:
    recall: float
    sampled: int
    at: float


class Lifecycle:
    """Changes which generation is for what, one change at a time."""

    def __init__(
        self, generations: Generations, writer: Writer, scanner: Scanner, halves: Halves, gate: Gate, *, shared: bool
    ) -> None:
        self._generations = generations
        self._writer = writer
        self._scanner = scanner
        self._halves = halves
        self._gate = gate
        self._shared = shared
        self._changing = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._probes: dict[str, _Probe] = {}
        self._watched_at: dict[str, float] = {}

    async def verify(self, name: str, options: Options, can: Capabilities) -> Verification:
        """Looks at every item's id and time. Raises `NotFoundError`."""
        target, live = await self._pair(name)
        missing, extra = await self._compare(target, live, can)
        if extra:
            # A promotion removes them, once it has looked at all itself.
            self._unwatch(target)
        return await self._verified(target, live, missing, len(extra), options, can)

    async def promote(
        self, name: str, options: Options, can: Capabilities, *, force: bool
    ) -> tuple[Generation, Verification | None]:
        """Makes it the live one; nothing is done when it is already.

        Raises `NotFoundError`, and `FailedPreconditionError` naming the problems, with reason `BEHIND` where items
        are missing. If these are few, writes are held for a moment: load the items and ask again.
        """
        async with self._changing:
            target, live = await self._pair(name)
            if target == live:
                return target, None
            seen = None if force else await self._settled(target, live, options, can)
            await self._writer.to_the_end(self._swap(target, live, check=not force))
            return target, seen

    async def _swap(self, target: Generation, live: Generation, *, check: bool) -> None:
        async with self._writer.paused():
            if check:
                await self._refuse_if_behind(target, await self._still_missing(target, live))
            async with self._gate.writing():
                await self._generations.swap(target)
        self._forget(target)
        await self._generations.release()

    async def rollback(self, can: Capabilities, *, force: bool) -> Generation:
        """Makes the previous generation live, as `promote` does."""
        await self._generations.refresh()
        previous = self._generations.roles.previous
        if previous is None:
            raise FailedPreconditionError("there is no previous generation to go back to")
        return (await self.promote(previous.name, Options(), can, force=force))[0]

    async def drop(self, name: str) -> None:
        """Deletes it. Raises `NotFoundError`, and `FailedPreconditionError` for the live one."""
        async with self._changing:
            await self._generations.refresh()
            target = next((g for g in await self._generations.every() if g.name == name), None)
            if target is None:
                raise NotFoundError("generation", name)
            if target == self._generations.roles.live:
                raise FailedPreconditionError(f"generation {name} is live: promote another first")
            self._forget(target)
            await self._writer.to_the_end(self._drop(target))

    async def _drop(self, target: Generation) -> None:
        async with self._writer.paused(), self._gate.writing():
            await self._generations.drop(target)
        await self._generations.release()

    async def settle(self, *generations: Generation) -> None:
        """Waits until the store shows all that was written to them, so that what follows need not wait."""
        for generation in generations:
            await self._scanner.count(generation, "", _NOW)

    def suspects(self, target: Generation) -> list[str] | None:
        """The ids that `target` may lack, in order, where a look at all of them was taken a moment ago."""
        watched = self._watched_at.get(target.name, -float("inf"))
        touched = self._writer.touched(target)
        return sorted(touched) if touched is not None and time.monotonic() - watched < _WATCH_LASTS_S else None

    async def lacking(
        self, target: Generation, source: Generation, can: Capabilities, level: str = _SOON
    ) -> AsyncIterator[list[str]]:
        """Ids of `source`, in order, that `target` lacks or has of another time; a list a page."""
        async for page in self._scanner.pages(source, can, "", ["updated_at"], level):
            yield await self.lacking_of(target, {row["id"]: row["updated_at"] for row in page}, level)

    async def lacking_of(self, target: Generation, times: dict[str, int], level: str) -> list[str]:
        """The ids of `times` that `target` lacks, or has of another time."""
        there = await self._scanner.rows(target, list(times), ["updated_at"], level)
        return [i for i, at in times.items() if i not in there or there[i]["updated_at"] != at]

    async def _pair(self, name: str) -> tuple[Generation, Generation]:
        live = await self._generations.refresh()
        target = self._generations.roles.named(name)
        if live is None:
            raise NotFoundError("generation", name)
        return target, live

    async def _compare(self, target: Generation, live: Generation, can: Capabilities) -> tuple[int, list[str]]:
        """How many items are missing, and the ids of those that are too many."""
        if target == live:
            return 0, []
        async with self._looking:
            self._unwatch(target)
            self._writer.watch(target)
            await self.settle(target, live)
            missing, extra = 0, list[str]()
            async for ids in self.lacking(target, live, can):
                self._writer.touch(target, ids)
                missing += len(ids)
            async for page in self._scanner.pages(target, can, "", (), _SOON):
                there = await self._scanner.rows(live, [row["id"] for row in page], (), _SOON)
                extra.extend(row["id"] for row in page if row["id"] not in there)
            # From its end: a look at millions of items takes longer than one is good for.
            self._watched_at[target.name] = time.monotonic()
            return missing, extra

    async def _settled(self, target: Generation, live: Generation, options: Options, can: Capabilities) -> Verification:
        """A verification without problems, nothing being too many any more."""
        await self._refuse_if_behind(target, await self._levelled(target, live, can))
        seen = await self._verified(target, live, 0, 0, options, can)
        if seen.problems:
            raise FailedPreconditionError(
                f"generation {target.name} is not fit to be live: {'; '.join(seen.problems)}", reason="GENERATION_UNFIT"
            )
        if self.suspects(target) is None:
            # The probe of a large index takes longer than a look is good for; it is not made twice.
            await self._refuse_if_behind(target, await self._levelled(target, live, can))
        return seen

    async def _levelled(self, target: Generation, live: Generation, can: Capabilities) -> int:
        """How many items are missing; removes those that are too many, but not of the previous generation: a promotion
        by force has left them behind."""
        if self.suspects(target) is not None:
            return await self._still_missing(target, live)
        missing, extra = await self._compare(target, live, can)
        if target == self._generations.roles.previous:
            return missing
        for start in range(0, len(extra), PAGE_ROWS):
            await self._writer.remove(extra[start : start + PAGE_ROWS], target)
        return missing

    async def _still_missing(self, target: Generation, live: Generation) -> int:
        """How many items are missing now: of the ids touched here, or else by the count."""
        unsure = self.suspects(target)
        if unsure is None:
            raise FailedPreconditionError("too much was written meanwhile: verify the generation again", reason=BEHIND)
        stored = await self._scanner.rows(live, unsure, ["updated_at"], _NOW)
        missing = await self.lacking_of(target, {i: row["updated_at"] for i, row in stored.items()}, _NOW)
        if missing or not self._shared:
            return len(missing)
        # What another replica writes is forgotten by the generation being built, so it shows as a count too low.
        live_items, items = await asyncio.gather(*(self._scanner.count(g, "", _NOW) for g in (live, target)))
        if items >= live_items or live_items > _MOST_LOOKED_AT:
            return 0
        # Which they are, only a look at all of them tells.
        self._unwatch(target)
        return live_items - items

    async def _refuse_if_behind(self, target: Generation, missing: int) -> None:
        if not missing:
            return
        if missing <= _MOST_HELD_FOR:
            await self._generations.hold()
        raise FailedPreconditionError(
            f"generation {target.name} lacks {missing:,} items of the live one: list and load them", reason=BEHIND
        )

    async def _verified(
        self,
        target: Generation,
        live: Generation,
        missing: int,
        extra: int,
        options: Options,
        can: Capabilities,
    ) -> Verification:
        items, live_items = [await self._scanner.count(g, "", _NOW) for g in (target, live)]
        probe = self._probes.get(target.name)
        if (
            probe is None
            or time.monotonic() - probe.at > _PROBE_LASTS_S
            or probe.sampled < min(options.sample, items)
            or probe.recall < options.min_recall
        ):
            probe = self._probes[target.name] = await self._probe(target, options.sample, can)
            metrics.GENERATION_RECALL.labels(target.name).set(probe.recall)
        problems = []
        if missing:
            problems.append(f"{missing:,} items are missing")
        if probe.recall < options.min_recall:
            problems.append(f"recall is {probe.recall:.3f}, below {options.min_recall:g}")
        return Verification(items, live_items, missing, extra, probe.recall, probe.sampled, problems)

    async def _probe(self, target: Generation, sample: int, can: Capabilities) -> _Probe:
        """Searches for items drawn at random, both ways."""
        # The same items each time: two looks at one generation can be compared.
        random = Random(0)  # noqa: S311
        drawn: list[str] = []
        seen = 0
        async for page in self._scanner.pages(target, can, "", (), _SOON):
            for row in page:
                seen += 1
                if len(drawn) < sample:
                    drawn.append(row["id"])
                elif (place := random.randrange(seen)) < sample:
                    drawn[place] = row["id"]
        stored = await self._scanner.rows(target, drawn, ["vector"], _SOON)
        if not stored:
            return _Probe(1.0, 0, time.monotonic())
        vectors = np.array([row["vector"] for row in stored.values()], dtype=np.float32)
        ask = Ask(
            target, can, expression="", depth=_RECALL_AT, columns=["payload"], level=_SOON, exact=False, grouped=False
        )
        near = await self._halves.by_vector(vectors, ask)
        nearest = await self._halves.by_vector(vectors, ask.exactly())
        found = sum(len({h.id for h in a} & {h.id for h in b}) for a, b in zip(near, nearest, strict=True))
        wanted = sum(len(hits) for hits in nearest)
        return _Probe(found / wanted if wanted else 1.0, len(stored), time.monotonic())

    def _unwatch(self, target: Generation) -> None:
        self._writer.unwatch(target)
        self._watched_at.pop(target.name, None)

    def _forget(self, target: Generation) -> None:
        self._unwatch(target)
        self._probes.pop(target.name, None)
