"""What users did → vectors in the item space: two models of a user behind one interface."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.behaviour import by_occasion
from shared.errors import AisleError, FailedPreconditionError
from shared.inference import BiEncoder, Encoding, Priority

Vectors = NDArray[np.float32]

NO_HISTORY = "NO_HISTORY"
"""`AisleError.reason` of a user whose history says nothing."""

_MIN_AGREEMENT = 1e-3
"""Length of a mean of unit vectors below which they cancel each other out and what is left points anywhere: 200 random
directions, the longest history, still leave 0.07."""

_CHARS_A_TOKEN = 20
"""Far more than a token has in any language: what lies beyond so many characters is not worth tokenising."""


class ActionType(StrEnum):
    """What a user can have done, as far as it says what they like."""

    SEARCH = "search"
    VIEW = "view"
    CLICK = "click"
    ADD_TO_CART = "add-to-cart"
    PURCHASE = "purchase"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing a user did, `age_s` seconds ago. `text` is a search's words or an item's title, `item_row` the row of
    the item's vector among those that came with the histories."""

    type: ActionType
    age_s: float
    text: str = ""
    item_row: int | None = None


History = Sequence[Action]
"""What one user did, in any order."""


class UserModelName(StrEnum):
    """The models of a user."""

    WEIGHTED_MEAN = "weighted-mean"
    TEXT = "text"


class UserModel(Protocol):
    """Turns histories into vectors."""

    async def encode(
        self, histories: Sequence[History], item_vectors: Vectors, *, priority: Priority, deadline: float | None
    ) -> Encoding:
        """One unit-length row a history, whatever else is in the batch; one that says nothing fails with `NO_HISTORY`.

        Raises `DeadlineError`, `OverloadedError` as `BiEncoder.encode_queries` does.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanPolicy:
    """How much actions count. `weights` are not negative, and halve every `half_life_occasions` occasions."""

    weights: Mapping[ActionType, float]
    half_life_occasions: float
    searches: int
    """Latest searches of a user that are encoded."""


class WeightedMean:
    """Σ weight · vector, brought to unit length: interest that fades, as in Ding and Li, "Time weight collaborative
    filtering" (CIKM 2005), by occasions (`shared.behaviour`). The vector is the item's, or that of a search's words."""

    def __init__(self, encoder: BiEncoder, policy: MeanPolicy) -> None:
        self._encoder = encoder
        self._policy = policy

    async def encode(
        self, histories: Sequence[History], item_vectors: Vectors, *, priority: Priority, deadline: float | None
    ) -> Encoding:
        """See `UserModel`."""
        searches = [self._searches(history) for history in histories]
        words = await self._words((action.text for found in searches for action in found), priority, deadline)
        items = _unit(item_vectors)
        outcomes: list[Vectors | None] = []
        for history, searched in zip(histories, searches, strict=True):
            told = [(action, action.item_row) for action in history if action.item_row is not None]
            vectors: dict[int | str, Vectors] = {row: items[row] for _, row in told}
            vectors |= {action.text: words[action.text] for action in searched if action.text in words}
            outcomes.append(self._mean([*told, *((action, action.text) for action in searched)], vectors))
        return _encoding(outcomes, self._encoder.bundle.manifest.dimensions)

    def _searches(self, history: History) -> list[Action]:
        if self._policy.weights[ActionType.SEARCH] == 0:
            return []
        found = [a for a in history if a.type is ActionType.SEARCH and a.item_row is None and a.text.strip()]
        return sorted(found, key=lambda action: (action.age_s, action.text))[: self._policy.searches]

    async def _words(self, texts: Iterable[str], priority: Priority, deadline: float | None) -> Mapping[str, Vectors]:
        """The vectors of the texts, as far as they can be encoded: what else a user did speaks without them."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        encoding = await self._encoder.encode_queries(distinct, priority=priority, deadline=deadline)
        vectors = _unit(encoding.vectors)
        return {text: vectors[i] for i, text in enumerate(distinct) if i not in encoding.failures}

    def _mean(self, told: Sequence[tuple[Action, int | str]], vectors: Mapping[int | str, Vectors]) -> Vectors | None:
        """Of the vectors that actions name, each once; `None` where nothing counts, or what counts cancels out."""
        policy = self._policy
        counted = by_occasion(
            (
                (name, action.age_s, policy.weights[action.type])
                for action, name in told
                if policy.weights[action.type] > 0 and name in vectors and vectors[name].any()
            ),
            policy.half_life_occasions,
        )
        if not counted:
            return None
        weights = np.array(list(counted.values()))
        mean = (weights / weights.sum()) @ np.stack([vectors[name] for name in counted]).astype(np.float64)
        length = np.linalg.norm(mean)
        if length < _MIN_AGREEMENT:
            return None
        unit: Vectors = (mean / length).astype(np.float32)
        return unit


class HistoryAsText:
    """The language model reads the history: searches and item titles, each once, the newest first, as far as it has
    room."""

    def __init__(self, encoder: BiEncoder) -> None:
        self._encoder = encoder
        manifest = encoder.bundle.manifest
        self._separator = manifest.item_template.separator
        self._max_chars = _CHARS_A_TOKEN * manifest.max_item_tokens

    async def encode(
        self, histories: Sequence[History], item_vectors: Vectors, *, priority: Priority, deadline: float | None
    ) -> Encoding:
        """See `UserModel`."""
        texts = {row: text for row, history in enumerate(histories) if (text := self._text(history))}
        outcomes: list[Vectors | AisleError | None] = [None] * len(histories)
        if texts:
            encoding = await self._encoder.encode_users(list(texts.values()), priority=priority, deadline=deadline)
            for index, row in enumerate(texts):
                outcomes[row] = encoding.failures.get(index, encoding.vectors[index])
        return _encoding(outcomes, self._encoder.bundle.manifest.dimensions)

    def _text(self, history: History) -> str:
        newest_first = sorted(history, key=lambda action: action.age_s)
        parts = dict.fromkeys(" ".join(action.text.split()) for action in newest_first)
        return self._separator.join(part for part in parts if part)[: self._max_chars]


def _unit(vectors: Vectors) -> Vectors:
    """Rows of unit length; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)
    return units


def _encoding(outcomes: Sequence[Vectors | AisleError | None], dimensions: int) -> Encoding:
    """`None` is a history that says nothing."""
    vectors = np.zeros((len(outcomes), dimensions), np.float32)
    failures: dict[int, AisleError] = {}
    for row, outcome in enumerate(outcomes):
        if outcome is None:
            failures[row] = FailedPreconditionError(
                "nothing in this history says what the user likes", reason=NO_HISTORY
            )
        elif isinstance(outcome, AisleError):
            failures[row] = outcome
        else:
            vectors[row] = outcome
    return Encoding(vectors, failures)
