"""`python -m deploy.kubernetes.manifests`: builds every overlay and component mix, and validates what comes out.

`--checkov` looks for what a schema allows and a cluster's owner would not, in the Dockerfile too.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

import yaml

from deploy.kubernetes.build import KUBECTL, MANIFESTS, ROOT, TOOLS, BuildError, Object, build_all
from deploy.kubernetes.mixes import HERE, mixes


def main(argv: Sequence[str] | None = None) -> int:
    """1 when a mix does not build or an object is not what its kind allows."""
    arguments = sys.argv[1:] if argv is None else argv
    if not KUBECTL.exists():
        sys.stderr.write(f"there is no {KUBECTL}: make manifests installs it\n")
        return 1
    started = time.monotonic()
    try:
        built = build_all(mixes())
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    objects = distinct(built.values())
    _say(f"{len(built)} mixes build ({time.monotonic() - started:.0f} s): {len(objects)} distinct objects")
    if told := validate(objects):
        sys.stderr.write(told)
        return 1
    _say("every object is valid")
    return checkov(objects) if "--checkov" in arguments else 0


def distinct(built: Iterable[Sequence[Object]]) -> list[Object]:
    """Every object once, however many mixes have it."""
    return list({json.dumps(told, sort_keys=True): told for objects in built for told in objects}.values())


def validate(objects: Iterable[Mapping[str, object]]) -> str:
    """What is wrong with `objects`, one line a fault; empty when nothing is. See schemas.py."""
    lines = "".join(json.dumps(told) + "\n" for told in objects)
    python = TOOLS / "schemas" / "bin" / "python"
    done = subprocess.run([python, HERE / "schemas.py"], input=lines, capture_output=True, text=True, check=False)
    return done.stdout or (done.stderr if done.returncode else "")


def checkov(objects: Sequence[Object]) -> int:
    """Its exit status, for `objects` and the Dockerfile: 0 when every check passes or is skipped with a reason, which
    stands in checkov.yaml, in an annotation, or in the Dockerfile."""
    file = MANIFESTS / "distinct" / "manifests.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump_all(objects))
    program = TOOLS / "checkov" / "bin" / "checkov"
    checked = (file, ROOT / "deploy" / "docker" / "Dockerfile")
    command = [str(program), "--config-file", str(HERE / "checkov.yaml"), "--file", *map(str, checked)]
    return subprocess.run(command, check=False).returncode


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
