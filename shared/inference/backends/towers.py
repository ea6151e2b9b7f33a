"""Two backends as one: each row is read by the tower that it is for."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.bundles import Tower
from shared.inference.backend import Backend
from shared.inference.tokens import Tokens


class Towers:
    """A `Backend` of a bundle with two towers, for who reads queries and items alike."""

    def __init__(self, towers: Mapping[Tower, Backend[Tokens, Any]]) -> None:
        self._towers = towers

    def prepare(self, rows: Sequence[Tokens]) -> dict[Tower, tuple[list[int], Any]]:
        """By tower: which of the rows it reads, and its input arrays."""
        places: dict[Tower, list[int]] = {}
        for at, row in enumerate(rows):
            places.setdefault(row.tower, []).append(at)
        return {tower: (at, self._towers[tower].prepare([rows[i] for i in at])) for tower, at in places.items()}

    def run(self, prepared: Mapping[Tower, tuple[list[int], Any]]) -> dict[Tower, Any]:
        """A forward pass of each tower that has rows."""
        return {tower: self._towers[tower].run(inputs) for tower, (_, inputs) in prepared.items()}

    def finish(self, prepared: Mapping[Tower, tuple[list[int], Any]], raw: Mapping[Tower, Any]) -> Sequence[Any]:
        """One result a row, in the rows' order."""
        results: dict[int, Any] = {}
        for tower, (places, inputs) in prepared.items():
            results.update(zip(places, self._towers[tower].finish(inputs, raw[tower]), strict=True))
        return [results[at] for at in range(len(results))]
