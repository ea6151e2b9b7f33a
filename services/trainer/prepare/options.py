"""What `prepare` is asked to do, and its command line."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from services.trainer.behaviour import options as behaviour
from services.trainer.behaviour.options import BehaviourOptions, path_or_none
from services.trainer.errors import JobError
from services.trainer.prepared import MOST_GRADES, SPLITS, Grades

_EXAMPLES = """\
from people's judgements:
  prepare --catalogue shop.csv --judgements judged.csv --out build/data/shop
a catalogue alone, for pretrain:
  prepare --catalogue shop.csv --out build/data/catalogue
from what shoppers did, brought from the running service and kept in an archive that the next run goes on with:
  prepare --catalogue shop.csv --events localhost:50056 --archive build/log --out build/data/shop
by the clock, where files and addresses are settings, of which some may be empty:
  prepare --catalogue shop.csv --events "$EVENTS" --archive build/log --judgements "$JUDGEMENTS" --allow-empty \\
    --out build/data/shop
from both (where people judged a pair, theirs stands), tested on a set that people judged:
  prepare --catalogue shop.csv --archive build/log --judgements judged.csv --out build/data/shop
  prepare --catalogue shop.csv --archive build/log --test judged.csv --out build/data/shop
"""


class SplitBy(StrEnum):
    """What decides which split something is in."""

    QUERY = "query"
    TIME = "time"


@dataclass(frozen=True)
class PrepareOptions:
    """Everything a prepared set depends on, besides the files it is made from."""

    catalogue: Path
    out: Path
    judgements: Sequence[Path] = ()
    """To be split here. Neither these, `splits` nor `behaviour`: a catalogue alone, for the job pretrain."""
    splits: Mapping[str, Path] = field(default_factory=dict)
    """Split already, by name."""
    behaviour: BehaviourOptions | None = None
    """The log to judge from."""
    mapping: str | None = None
    grades: Grades = field(default_factory=lambda: Grades(lowest=0, highest=3, relevant=2))
    contradiction: float = 1.0
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.8, "valid": 0.1, "test": 0.1})
    split_by: SplitBy = SplitBy.QUERY
    drop_leaks: bool = False
    allow_empty: bool = False
    """Too little to learn from is no failure: the set holds what there is, down to the catalogue alone."""
    seed: int = 0

    def check(self) -> None:
        """Raises `JobError` for what does not go together."""
        if self.judgements and self.splits:
            raise JobError("give either --judgements to be split here, or --train, --valid and --test split already")
        if self.behaviour is None and self.splits and "train" not in self.splits:
            raise JobError("--valid and --test need something to train on: --train, or --archive (what shoppers did)")
        self._check_grades()
        if self.behaviour is None and self.split_by is SplitBy.TIME:
            raise JobError("--split-by time: judgements have no time; it goes with --archive")
        if self.behaviour is not None:
            self.behaviour.check()

    def _check_grades(self) -> None:
        scale = f"--lowest {self.grades.lowest:g} --highest {self.grades.highest:g}"
        if not 0 < self.grades.highest - self.grades.lowest <= MOST_GRADES:
            raise JobError(
                f"{scale}: want --highest above --lowest, by at most {MOST_GRADES}: an item gains 2^grade, so "
                "map a wider scale, such as percentages, to 0 to 3 first"
            )
        if not self.grades.lowest < self.grades.relevant <= self.grades.highest:
            raise JobError(f"--relevant {self.grades.relevant:g}: want a grade above the lowest of {scale}")

    @property
    def log_shares(self) -> dict[str, float]:
        """Of the log's queries, by split: those that no file is given for, or train where that is given."""
        if "train" in self.splits:
            return {"train": 1.0}
        return {name: share for name, share in self.shares.items() if name not in self.splits}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    parser.epilog, parser.formatter_class = _EXAMPLES, argparse.RawDescriptionHelpFormatter
    parser.add_argument("--catalogue", required=True, type=Path, help="items: .jsonl, .csv (.gz, .zip) or .parquet")
    parser.add_argument("--mapping", help="columns of the catalogue (see python -m shared.catalogue check)")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    judged = parser.add_argument_group("judgements", "what people say of a query and an item: query, item_id, grade")
    judged.add_argument(
        "--judgements", type=path_or_none, action="append", default=[], help="CSV, to be split here; empty: none"
    )
    for name in SPLITS:
        judged.add_argument(f"--{name}", type=Path, help=f"CSV: the {name} split, as it is")
    judged.add_argument(
        "--contradiction",
        type=float,
        default=1.0,
        help="grades of one pair that differ this much contradict each other and are dropped (default %(default)s)",
    )
    behaviour.add_arguments(parser)
    grades = parser.add_argument_group("grades")
    grades.add_argument("--lowest", type=float, default=0.0, help="grade of an irrelevant item (default %(default)s)")
    grades.add_argument("--highest", type=float, default=3.0, help="grade of a perfect item (default %(default)s)")
    grades.add_argument("--relevant", type=float, default=2.0, help="grades from here on are relevant (%(default)s)")
    splits = parser.add_argument_group("splits")
    splits.add_argument(
        "--shares",
        default="0.8,0.1,0.1",
        help="of queries: train,valid,test (default %(default)s); 0,0,1: a set to measure on alone",
    )
    splits.add_argument(
        "--split-by",
        type=SplitBy,
        choices=list(SplitBy),
        default=SplitBy.QUERY,
        help="query: by its hash. time: the same, and each split judged from a time of its own, train from the first "
        "(default %(default)s)",
    )
    splits.add_argument("--drop-leaks", action="store_true", help="a query in two splits stays in the later one only")
    splits.add_argument("--seed", type=int, default=0, help="decides which query goes where (default %(default)s)")
    parser.add_argument(
        "--allow-empty",
        action="store_true",
        help="for runs by the clock: where there is too little to learn from yet, say so, write what there is "
        "(judgements, or the catalogue alone), and end well",
    )


def given(arguments: argparse.Namespace) -> PrepareOptions:
    """What a parsed command line asks for. Raises `JobError` for what cannot be read."""
    if arguments.events and arguments.archive is None:
        raise JobError("--events: say where the events are to be kept: --archive FOLDER")
    return PrepareOptions(
        catalogue=arguments.catalogue,
        out=arguments.out,
        judgements=[path for path in arguments.judgements if path is not None],
        splits={name: path for name in SPLITS if (path := getattr(arguments, name)) is not None},
        behaviour=behaviour.given(arguments),
        mapping=arguments.mapping,
        grades=Grades(lowest=arguments.lowest, highest=arguments.highest, relevant=arguments.relevant),
        contradiction=arguments.contradiction,
        shares=_shares(arguments.shares),
        split_by=arguments.split_by,
        drop_leaks=arguments.drop_leaks,
        allow_empty=arguments.allow_empty,
        seed=arguments.seed,
    )


def _shares(text: str) -> dict[str, float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or min(values) < 0 or not sum(values):
        raise JobError(f"--shares {text}: want three shares of queries, as in 0.8,0.1,0.1")
    return {name: share for name, share in zip(SPLITS, values, strict=True) if share}
