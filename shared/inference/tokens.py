"""Text → token ids, with the tokenizer of a bundle."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from shared.bundles import Tower

# One text costs about 10 µs, whether alone or among others: the library's own thread pool would only fight
# the forward pass for cores. An operator's explicit choice stands.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TokenIds = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """One model input, special tokens included: one text, or a (query, item) pair with `types`."""

    ids: Sequence[int]
    types: Sequence[int] | None = None
    token_vectors: bool = False
    """Whether the vectors of its tokens are wanted beside its sentence vector."""
    tower: Tower = Tower.ITEM
    """Which one reads it, where a model has two."""

    def __len__(self) -> int:
        return len(self.ids)


class TextTokenizer:
    """Tokenises texts, or pairs with one shared side, to at most `max_tokens` tokens. Safe in any thread."""

    def __init__(self, path: Path, max_tokens: int, prompt: str = "", tower: Tower = Tower.ITEM) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._normalizer: Any = self._tokenizer.normalizer
        # Others read a space as part of the word behind it (byte-level BPE).
        self._splits_on_space = isinstance(self._tokenizer.pre_tokenizer, BertPreTokenizer)
        self._prompt = prompt
        self._tower = tower
        self.max_tokens = max_tokens

    def encode(self, text: str, *, token_vectors: bool = False) -> Tokens:
        """The tokens of the prompt and `text`; what is over `max_tokens` is cut off."""
        ids = self._tokenizer.encode(self._prompt + text).ids
        return Tokens(ids, token_vectors=token_vectors, tower=self._tower)

    def start(self, query: str) -> Encoding:
        """The query's half of many pairs, tokenised once, for `pair`."""
        return self._tokenizer.encode(self._prompt + query, add_special_tokens=False)

    def pair(self, start: Encoding, text: str) -> Tokens:
        """(query, text) as the model was trained on it; the longer side is cut first."""
        other = self._tokenizer.encode(text, add_special_tokens=False)
        both = self._tokenizer.post_process(start, other)
        return Tokens(both.ids, both.type_ids)

    def normalize(self, text: str) -> str:
        """What the tokenizer sees of `text` (lower case, accents, …), white space collapsed where it tells nothing.

        Equal means same vector.
        """
        if self._normalizer is not None:
            text = self._normalizer.normalize_str(text)
        return " ".join(text.split()) if self._splits_on_space else text


@dataclass(frozen=True, slots=True, eq=False)
class PaddedBatch:
    """Token arrays of one batch, int64 (rows, longest)."""

    ids: TokenIds
    mask: TokenIds
    types: TokenIds
    token_vectors: Sequence[bool]
    """Of each row: see `Tokens`."""

    @property
    def lengths(self) -> TokenIds:
        """(rows,): real tokens of each row."""
        lengths: TokenIds = self.mask.sum(axis=1)
        return lengths


def pad(rows: Sequence[Tokens], multiple: int = 1) -> PaddedBatch:
    """Right-pad `rows` to the longest of them, rounded up to `multiple` tokens."""
    longest = max(map(len, rows))
    width = -(-longest // multiple) * multiple
    ids = np.zeros((len(rows), width), np.int64)
    mask = np.zeros_like(ids)
    types = np.zeros_like(ids)
    for index, row in enumerate(rows):
        size = len(row.ids)
        ids[index, :size] = row.ids
        mask[index, :size] = 1
        if row.types is not None:
            types[index, :size] = row.types
    return PaddedBatch(ids, mask, types, [row.token_vectors for row in rows])
