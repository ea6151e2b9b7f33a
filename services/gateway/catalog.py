"""The catalogue: rows are checked, turned into vectors, and written. `importing.py` does it for long streams."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.gateway import validation
from services.gateway.budgets import RemainingS, StageBudget
from services.gateway.ports import ItemEncoderPort, ItemPayload, Priority, RetrievalPort, RowError, Vectors
from shared.errors import FieldViolation, NotFoundError


class ItemRow(NamedTuple):
    """An item as it came in. `size` in bytes; `problems` are the rules it breaks, their paths relative to the item."""

    id: str
    payload: ItemPayload
    size: int
    problems: Sequence[FieldViolation] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """An item to write, and the `rows` it stands for: its own, then earlier ones of the same id that it replaces."""

    row: ItemRow
    rows: tuple[int, ...]

    def refusals(self, error: RowError) -> list[RowError]:
        """`error`, told of every row that the item stands for."""
        return [error._replace(row=row, item_id=self.row.id) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Drafts with a vector each (`None` when there are none), and the rows whose items could not be encoded."""

    drafts: Sequence[Draft]
    vectors: Vectors | None
    errors: Sequence[RowError]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogPolicy:
    """How long the stages of the unary calls may take."""

    read: StageBudget
    encode: StageBudget
    write: StageBudget


class Written(NamedTuple):
    """What became of an upsert's items."""

    accepted: int
    errors: Sequence[RowError]


class CatalogWriter:
    """The two steps of writing: encode, then store."""

    def __init__(self, encoder: ItemEncoderPort, retrieval: RetrievalPort) -> None:
        self._encoder = encoder
        self._retrieval = retrieval

    async def encode(self, drafts: Sequence[Draft], priority: Priority, *, timeout_s: float) -> Encoded:
        """Vectors for `drafts`; those that cannot be encoded fail alone."""
        encoded = await self._encoder.encode([d.row.payload for d in drafts], priority, timeout_s=timeout_s)
        if not encoded.errors:
            return Encoded(drafts, encoded.vectors, ())
        failed = {error.row: error for error in encoded.errors}
        kept = [at for at in range(len(drafts)) if at not in failed]
        errors = [refusal for at, error in failed.items() for refusal in drafts[at].refusals(error)]
        return Encoded([drafts[at] for at in kept], encoded.vectors.select(kept) if kept else None, errors)

    async def store(self, encoded: Encoded, *, timeout_s: float) -> list[RowError]:
        """Makes the drafts durable. Returns every row that is not, those that could not be encoded included."""
        errors = list(encoded.errors)
        if encoded.vectors is None:
            return errors
        items = [draft.row.payload for draft in encoded.drafts]
        for error in await self._retrieval.upsert(items, encoded.vectors, timeout_s=timeout_s):
            errors += encoded.drafts[error.row].refusals(error)
        return errors


class Catalog:
    """The unary half of the catalogue."""

    def __init__(
        self, writer: CatalogWriter, retrieval: RetrievalPort, policy: CatalogPolicy, *, remaining_s: RemainingS
    ) -> None:
        self._writer = writer
        self._retrieval = retrieval
        self._policy = policy
        self._remaining_s = remaining_s

    async def upsert(self, rows: Sequence[ItemRow]) -> Written:
        """Writes 1 to 100 items, at most 3 MiB together; of equal ids the last counts.

        Raises `InvalidArgumentError` when any item breaks a rule, before anything is written. Items that break none
        and still cannot be encoded or stored fail alone.
        """
        problems = validation.count_problems(len(rows), validation.MAX_UPSERT_ITEMS, "items")
        size = sum(row.size for row in rows)
        if size > validation.MAX_UPSERT_BYTES:
            problems.append(FieldViolation("items", f"are {size:,} bytes, of at most {validation.MAX_UPSERT_BYTES:,}"))
        if not problems:
            problems = [
                FieldViolation(f"items[{at}].{p.field}" if p.field else f"items[{at}]", p.description)
                for at, row in enumerate(rows)
                for p in row.problems
            ]
        validation.refuse(problems)
        drafts, _ = draft(rows)
        timeout = self._policy.encode.timeout_s(self._remaining_s())
        encoded = await self._writer.encode(drafts, Priority.INTERACTIVE, timeout_s=timeout)
        errors = await self._writer.store(encoded, timeout_s=self._policy.write.timeout_s(self._remaining_s()))
        return Written(len(rows) - len(errors), sorted(errors))

    async def get(self, item_id: str) -> ItemPayload:
        """The item. Raises `InvalidArgumentError` naming `id`, or `NotFoundError`."""
        validation.refuse(validation.id_problems(item_id, "id"))
        timeout = self._policy.read.timeout_s(self._remaining_s())
        stored = await self._retrieval.get(item_id, with_vector=False, timeout_s=timeout)
        if stored is None:
            raise NotFoundError("item", item_id)
        return stored.item

    async def delete(self, ids: Sequence[str]) -> int:
        """Removes 1 to 1,000 items and says how many were there. Raises `InvalidArgumentError` naming `ids`."""
        problems = validation.count_problems(len(ids), validation.MAX_DELETE_IDS, "ids")
        if not problems:
            problems = [p for at, one in enumerate(ids) for p in validation.id_problems(one, f"ids[{at}]")]
        validation.refuse(problems)
        return await self._retrieval.delete(ids, timeout_s=self._policy.write.timeout_s(self._remaining_s()))


def draft(rows: Sequence[ItemRow], first: int = 0) -> tuple[list[Draft], list[RowError]]:
    """What is to be written of `rows`, whose first is row `first` of its stream, and a refusal for each row that
    breaks a rule. Of valid rows with one id the last is written and stands for all."""
    rows_of: dict[str, list[int]] = {}
    errors = []
    for at, row in enumerate(rows):
        if row.problems:
            errors.append(_refusal(first + at, row))
        else:
            rows_of.setdefault(row.id, []).append(at)
    drafts = [Draft(rows[ats[-1]], tuple(first + at for at in reversed(ats))) for ats in rows_of.values()]
    return drafts, errors


def _refusal(row: int, item: ItemRow) -> RowError:
    message = "; ".join(f"{p.field or 'item'}: {p.description}" for p in item.problems)
    return RowError(row, item.id, item.problems[0].field, "INVALID_ARGUMENT", message)
