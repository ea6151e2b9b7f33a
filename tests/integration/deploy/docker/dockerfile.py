"""deploy/docker/Dockerfile, read as far as the tests need: stages, what they copy, install and run."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[4]
FILE = ROOT / "deploy" / "docker" / "Dockerfile"
VENV = "/venv"


@dataclass
class Stage:
    """One `FROM … AS name`, with its instructions in order."""

    name: str
    parent: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def of(self, instruction: str) -> Iterator[str]:
        """Arguments of every instruction of that name."""
        return (told for name, told in self.instructions if name == instruction)


def stages() -> dict[str, Stage]:
    """By name."""
    text = re.sub(r"\\\n", " ", FILE.read_text())
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        instruction, _, told = line.partition(" ")
        if instruction == "FROM":
            parent, _, name = told.partition(" AS ")
            current = found[name] = Stage(name, parent)
        elif current:
            current.instructions.append((instruction, told.strip()))
    return found


def targets() -> dict[str, Stage]:
    """The stages that run something."""
    return {name: stage for name, stage in stages().items() if any(stage.of("CMD"))}


def ancestry(name: str) -> list[Stage]:
    """A stage and those that it is made from."""
    every = stages()
    found = [every[name]]
    while found[-1].parent in every:
        found.append(every[found[-1].parent])
    return found


def command(name: str) -> list[str]:
    """What a target runs."""
    (told,) = stages()[name].of("CMD")
    return list(json.loads(told))


def environment(name: str) -> dict[str, str]:
    """What a target's image sets."""
    told = [told for stage in reversed(ancestry(name)) for told in stage.of("ENV")]
    return dict(pair.split("=", 1) for line in told for pair in shlex.split(line))


def user(name: str) -> str:
    """Whom a target runs as."""
    return next(told for stage in ancestry(name) for told in stage.of("USER"))


def installed_by(name: str) -> Stage:
    """The stage whose environment a target has."""
    copied = [told for stage in ancestry(name) for told in stage.of("COPY") if told.endswith(f"{VENV} {VENV}")]
    (told,) = copied
    matched = re.match(r"--from=(\S+)", told)
    assert matched
    return stages()[matched.group(1)]


def context(name: str) -> list[str]:
    """What a stage copies of the repository."""
    told = [told for stage in ancestry(name) for told in stage.of("COPY") if not told.startswith("--from")]
    return [source for line in told for source in line.split()[:-1]]


def installs(stage: Stage) -> list[list[str]]:
    """The arguments of each `pip … install` of a stage, without where it installs to."""
    found = []
    for told in stage.of("RUN"):
        words = [word for word in shlex.split(told) if not word.startswith("--mount")]
        if words[0] == "pip":
            assert words[1:4] == ["--python", VENV, "install"]
            found.append(words[4:])
    return found
