"""How far an import came, in a file, so that one that was killed goes on instead of starting again.

    <folder>/imports/<digest of catalogue, mapping and destination>.json

Written after acknowledgements, so it never claims a row that is not durable; it may lag behind them by `EVERY_S`, and
those rows are sent once more, which only replaces items by themselves. It stands for the file's content, not for its
date: a catalogue that was copied or written anew with the same content is the same. An import that came to its end
leaves none.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deploy.local import files
from deploy.local.errors import LocalError
from shared.catalogue import Rejections
from shared.catalogue.rejections import Reason

EVERY_S = 1.0
"""Work that a kill can cost. Writing takes well under a millisecond."""
_FORMAT = 1
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Work:
    """What is loaded, and where to."""

    catalogue: str
    """Path of the file."""
    content: str
    """Fingerprint of what is in the file."""
    mapping: str
    destination: str
    """What tells one index from another, across restarts of its mesh."""


@dataclass(slots=True)
class Done:
    """What has been acknowledged. `rows` of the file, from its start, of which `accepted` are in the index; an earlier
    row whose id comes again in its batch is neither accepted nor rejected."""

    rows: int = 0
    accepted: int = 0
    rejections: Rejections = field(default_factory=Rejections)
    last_id: str = ""
    """The last item that was accepted."""


class Checkpoint:
    """The file for one `Work`. `generation` says which generation of the index is live, and of which model: empty where
    that cannot be known, `None` while nobody answers."""

    def __init__(
        self,
        folder: Path,
        work: Work,
        generation: Callable[[], str | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        named = hashlib.sha256("\n".join((work.catalogue, work.mapping, work.destination)).encode())
        self.path = folder / "imports" / f"{named.hexdigest()[:_DIGITS]}.json"
        self._work = work
        self._ask_generation = generation
        self._generation: str | None = None
        self._clock = clock
        self._noted_at = -float("inf")

    def find(self) -> tuple[Done | None, str]:
        """What an earlier run has done of this very work (`None`: start from the beginning), and what to tell of it.

        Raises `LocalError` where an earlier run came some way and the index does not say whether it is still the same.
        """
        try:
            content, generation, done = _read(self.path.read_text())
        except FileNotFoundError:
            return None, ""
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None, f"{self.path} cannot be read: starting from the beginning"
        if content != self._work.content:
            return None, f"{self._work.catalogue} has changed since row {done.rows:,}: starting from the beginning"
        now = self._ask_generation()
        if now is None:
            raise LocalError("the index does not say which it is; `make status` shows what does not serve")
        if now != generation:
            return None, f"the index is another than at row {done.rows:,}: starting from the beginning"
        return done, f"resuming after row {done.rows:,} of {self._work.catalogue}"

    def note(self, done: Done) -> None:
        """Writes `done`, unless that was done less than `EVERY_S` ago."""
        if self._clock() - self._noted_at >= EVERY_S:
            self.save(done)
            self._noted_at = self._clock()

    def save(self, done: Done) -> None:
        """Writes `done` now, unless it is nothing."""
        # Asked after a write: the first one of all makes the generation.
        self._generation = self._ask_generation() if self._generation is None else self._generation
        if not done.rows or self._generation is None:
            return
        told = {"format": _FORMAT, **asdict(self._work), "generation": self._generation, **asdict(done)}
        files.write(self.path, json.dumps(told, indent=2) + "\n")

    def remove(self) -> None:
        """Forgets what was done."""
        self.path.unlink(missing_ok=True)


def _read(text: str) -> tuple[str, str, Done]:
    told = json.loads(text)
    if told["format"] != _FORMAT:
        raise ValueError("another format")
    reasons = {name: Reason(**reason) for name, reason in told["rejections"]["reasons"].items()}
    done = Done(int(told["rows"]), int(told["accepted"]), Rejections(reasons), str(told["last_id"]))
    return told["content"], told["generation"], done
