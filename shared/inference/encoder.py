"""Texts → unit vectors, by a bi-encoder bundle."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.bundles import Bundle, BundleKind, Tower
from shared.errors import AisleError, DeadlineError, InvalidArgumentError
from shared.inference.backend import SentenceAndTokens
from shared.inference.batcher import Batcher
from shared.inference.cache import Key, Outcome, QueryCache, QueryVectors
from shared.inference.queue import Priority
from shared.inference.text_rows import text_rows
from shared.inference.tokens import TextTokenizer, Tokens

Vectors = NDArray[np.float32]
ReadT = TypeVar("ReadT")

INLINE_CHARS = 4_000
"""Texts up to this many characters in all are read on the event loop (tokenised in about 0.3 ms): cheaper than a
thread."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The vectors of one call."""

    vectors: Vectors
    """float32, C-contiguous, (texts, dimensions), unit length; a row of zeros where a text failed."""
    failures: Mapping[int, AisleError] = field(default_factory=dict)
    """By the text's index: the texts that failed alone while the others succeeded."""
    rows: Sequence[NDArray[np.float16]] = ()
    """What `text_rows` gives of each text, where token vectors were asked for; no rows where a text failed. float16:
    half the bytes, and the scores of late interaction move by less than 0.0001."""


class TokenizerThreads:
    """Reads texts off the event loop when there is much to do, so that the loop and the forward pass go on: tokenises
    them, or makes the keys by which they are cached.

    A thread for each priority, started when first needed: an interactive call waits behind interactive ones only.
    Slices of bulk calls on a shared thread would still make it wait for a slice of each bulk call there is.
    """

    def __init__(self, batcher: Batcher[Any, Any]) -> None:
        self._batcher = batcher
        self._pools = {
            priority: ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"tokenize-{priority}")
            for priority in Priority
        }

    async def map(
        self, function: Callable[[str], ReadT], texts: Sequence[str], *, priority: Priority, others: int = 0
    ) -> list[ReadT | InvalidArgumentError]:
        """One outcome a text: an error is that of a string that is not text (a lone surrogate).

        Rows are for the batcher, together with `others` that are made already, before anything else is awaited. Raises
        as `Batcher.room_for`, where there is so much that it takes a thread.
        """

        def all_of_them() -> list[ReadT | InvalidArgumentError]:
            return [_read(function, text, index) for index, text in enumerate(texts)]

        if sum(map(len, texts)) <= INLINE_CHARS:
            return all_of_them()
        with self._batcher.room_for(len(texts) + others, priority):
            return await asyncio.get_running_loop().run_in_executor(self._pools[priority], all_of_them)


def _read(function: Callable[[str], ReadT], text: str, index: int) -> ReadT | InvalidArgumentError:
    try:
        return function(text)
    except (TypeError, UnicodeEncodeError):
        return InvalidArgumentError.of(f"texts[{index}]", "is not valid Unicode text")


class BiEncoder:
    """Encodes queries and items with one batcher, whose backend must give sentence vectors; where that is one of two
    towers, only what it reads."""

    def __init__(
        self, bundle: Bundle, batcher: Batcher[Tokens, Vectors | SentenceAndTokens], *, cache: QueryCache | None = None
    ) -> None:
        manifest = bundle.manifest
        if manifest.kind is not BundleKind.BI_ENCODER:
            raise ValueError(f"bundle {bundle.path} is a {manifest.kind}, not a bi-encoder")
        self.bundle = bundle
        self.batcher = batcher
        self.cache = cache
        self._queries = TextTokenizer(
            bundle.tokenizer_path, manifest.max_query_tokens, manifest.prompts.query, Tower.QUERY
        )
        self._items = TextTokenizer(bundle.tokenizer_path, manifest.max_item_tokens, manifest.prompts.item)
        self._users = TextTokenizer(
            bundle.tokenizer_path, manifest.max_item_tokens, manifest.prompts.query, Tower.QUERY
        )
        self._threads = TokenizerThreads(batcher)

    @property
    def version(self) -> str:
        """The model version of every vector."""
        return self.bundle.version

    async def close(self) -> None:
        """Ends the batcher and empties the cache."""
        await self.batcher.close()
        if self.cache is not None:
            self.cache.clear()

    async def warm_up(self) -> None:
        """Run the shortest and the longest batches once, so that no caller pays for first-time allocations."""
        for tokenizer in (self._queries, self._items):
            longest = tokenizer.encode("warm " * tokenizer.max_tokens)
            for rows in ([tokenizer.encode("warm up")], [longest], [tokenizer.encode("a short query")] * 16):
                for outcome in await self.batcher.submit(rows):
                    if isinstance(outcome, AisleError):
                        raise outcome

    async def encode_queries(
        self,
        texts: Sequence[str],
        *,
        token_vectors: bool = False,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> Encoding:
        """Vectors of search queries, and of their tokens where asked for; equal ones come from the cache where there is
        one.

        Raises `DeadlineError`, `OverloadedError` (see `Batcher.submit`); a text's own failure is in `failures`.
        """

        async def run(some: Sequence[str]) -> list[Outcome]:
            return await self._run(self._queries, some, priority, deadline, token_vectors=token_vectors)

        if self.cache is None:
            return self._gather(await run(texts), token_vectors=token_vectors)
        normal = await self._threads.map(self._queries.normalize, texts, priority=priority)
        keys = [Key(self.version, text) for text in normal if isinstance(text, str)]
        if len(keys) < len(texts):
            # Some text is no text: the road without the cache says which.
            return self._gather(await run(texts), token_vectors=token_vectors)

        async def compute(missing: Sequence[Key]) -> Sequence[Outcome]:
            originals = dict(zip(keys, texts, strict=True))
            outcomes = await run([originals[key] for key in missing])
            _raise_if_late(outcomes)
            return outcomes

        outcomes = await self.cache.fetch(
            keys, compute, token_vectors=token_vectors, priority=priority, deadline=deadline
        )
        return self._gather(outcomes, token_vectors=token_vectors)

    async def encode_items(
        self,
        texts: Sequence[str],
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> Encoding:
        """Vectors of item texts (`bundle.item_text(item)`); errors as in `encode_queries`."""
        return self._gather(await self._run(self._items, texts, priority, deadline))

    async def encode_users(
        self,
        texts: Sequence[str],
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> Encoding:
        """Vectors of what users did, told as texts: like queries, since they look for items, with the room of an item,
        and never cached, since none comes twice. Errors as in `encode_queries`."""
        return self._gather(await self._run(self._users, texts, priority, deadline))

    async def _run(
        self,
        tokenizer: TextTokenizer,
        texts: Sequence[str],
        priority: Priority,
        deadline: float | None,
        *,
        token_vectors: bool = False,
    ) -> list[Outcome]:
        tokenize = partial(tokenizer.encode, token_vectors=token_vectors)
        rows = await self._threads.map(tokenize, texts, priority=priority)
        good = [row for row in rows if isinstance(row, Tokens)]
        results = iter(await self.batcher.submit(good, priority=priority, deadline=deadline))
        return [self._outcome(next(results)) if isinstance(row, Tokens) else row for row in rows]

    def _outcome(self, result: Vectors | SentenceAndTokens | AisleError) -> Outcome:
        if isinstance(result, AisleError):
            return result
        if isinstance(result, SentenceAndTokens):
            rows = text_rows(result.tokens, self.bundle.manifest.pooling).astype(np.float16)
            return QueryVectors(result.sentence, rows)
        return QueryVectors(result)

    def _gather(self, outcomes: Sequence[Outcome], *, token_vectors: bool = False) -> Encoding:
        _raise_if_late(outcomes)
        vectors = np.zeros((len(outcomes), self.bundle.manifest.dimensions), np.float32)
        failures: dict[int, AisleError] = {}
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, AisleError):
                failures[index] = outcome
            else:
                vectors[index] = outcome.sentence
        if not token_vectors:
            return Encoding(vectors, failures)
        none = np.zeros((0, vectors.shape[1]), np.float16)
        rows = [outcome.rows if isinstance(outcome, QueryVectors) else None for outcome in outcomes]
        return Encoding(vectors, failures, [none if of_text is None else of_text for of_text in rows])


def _raise_if_late(outcomes: Sequence[Outcome]) -> None:
    """Half of a call's vectors are of no use to anyone."""
    for outcome in outcomes:
        if isinstance(outcome, DeadlineError):
            raise outcome
