"""What is asked of the behaviour log, and its part of the command line of `prepare`."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

from services.trainer.errors import JobError


@dataclass(frozen=True)
class BehaviourOptions:
    """Everything that judging from the log depends on, besides the log itself."""

    archive: Path
    events: str | None = None
    """host:port of the `user_events` that the archive is brought up to date from; None: it is used as it is."""
    most_events: int = 500
    """Events of one visit above which it is no shopper's: a keen one opens a hundred pages, a script has no end."""
    most_a_minute: float = 60.0
    """Events a minute, over a whole visit, above which it is no shopper's: nobody acts each second for long."""
    most_not_shown: float = 0.5
    """Share of a visit's acts on items that the page they name did not have, above which it is made up: a shop's own
    mistake hits all visits alike, and a page that changed under a shopper hits one act."""
    least_users: int = 5
    """Known users who asked a query, below which it is left out: the smallest group that statistical offices
    commonly publish. All visits of shoppers nobody knows count as one user, since they may be one's."""
    least_seen: float = 10.0
    """Times that a pair was seen (shown × propensity) below which it gets no grade; at just this many, half of its
    grade is its own record and half the shop's average."""
    clip: float = 0.05
    """Propensities below it count as it: no act stands for more than twenty, whatever the log's depths say."""
    position_bias: float | None = None
    """Assume a propensity of 1 / (place from 1)^this instead of learning it; 0: every place is seen alike."""
    top_share: float = 0.1
    """Share of the pairs that get the highest grade; the others' follow from how their value compares with those. Of
    ten items that shoppers looked at, the one they take most."""

    def check(self) -> None:
        """Raises `JobError` for a number that means nothing."""
        for name, good, want in (
            ("clip", 0 < self.clip <= 1, "above 0, and at most 1"),
            ("top-share", 0 < self.top_share < 1, "between 0 and 1"),
            ("least-seen", self.least_seen > 0, "above 0"),
            ("position-bias", (self.position_bias or 0) >= 0, "0 or more"),
        ):
            if not good:
                raise JobError(f"--{name}: must be {want}")


_NUMBERS = {
    "most_events": "events of a visit above which it is dropped as a machine's",
    "most_a_minute": "events a minute, over a whole visit, above which it is dropped as a machine's",
    "most_not_shown": "share of a visit's acts on items its pages did not have, above which it is dropped",
    "least_users": "known users who must have asked a query for it to be used; visits of unknown ones count as one",
    "least_seen": "times a pair must have been seen: shown, times the propensity of its place",
    "clip": "least propensity: an act counts at most 1 / this",
    "top_share": "share of the pairs that get the highest grade",
}


def path_or_none(text: str) -> Path | None:
    """A path of the command line, which a setting may have left empty."""
    return Path(text) if text else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this part."""
    group = parser.add_argument_group(
        "behaviour log", "what shoppers saw and took after a search, corrected for where in the list it stood"
    )
    group.add_argument(
        "--archive",
        type=path_or_none,
        metavar="FOLDER",
        help="the log on disk, one for each shop; made by --events; empty: none",
    )
    group.add_argument(
        "--events",
        metavar="HOST:PORT",
        help="user_events, whose new events are brought into --archive first; empty: none",
    )
    defaults = BehaviourOptions(archive=Path())
    for name, what in _NUMBERS.items():
        default = getattr(defaults, name)
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, type=type(default), default=default, metavar="N", help=f"{what} (default %(default)s)")
    group.add_argument(
        "--position-bias",
        type=float,
        metavar="N",
        help="assume that a place is seen with 1 / place^N of the first one's chance, instead of learning it from the "
        "log (0: no correction)",
    )


def given(arguments: argparse.Namespace) -> BehaviourOptions | None:
    """What a parsed command line asks for; None where it names no archive."""
    if arguments.archive is None:
        return None
    return BehaviourOptions(**{each.name: getattr(arguments, each.name) for each in fields(BehaviourOptions)})
