"""A peer's own Python environment under build/peers, made once."""

import sys
from pathlib import Path

from tests.benchmarks.figures import ROOT
from tests.benchmarks.processes import StartError, finished

PEERS = ROOT / "build" / "peers"


async def environment(name: str, *, torch: bool) -> Path:
    """The folder of `build/peers/<name>`, with what `<name>.txt` beside this file asks for.

    A stamp with the requirements says that an install came to its end, and for what.
    """
    folder = PEERS / name
    requirements = Path(__file__).with_name(f"{name}.txt")
    pin = next(line.strip() for line in (ROOT / "versions.txt").open() if line.startswith("torch=="))
    wanted = requirements.read_text() + (pin if torch else "")
    stamp = folder / ".installed"
    if stamp.is_file() and stamp.read_text() == wanted:
        return folder
    log = f"pip-{name}"
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    try:
        await finished(log, [sys.executable, "-m", "venv", "--clear", str(folder)])
        if torch:
            # Alone, and first: where its CPU build is at hand, a resolver that starts from the peer may pass it over.
            await finished(log, [*pip, pin])
        await finished(log, [*pip, *([pin] if torch else []), "-r", str(requirements)])
    except StartError as error:
        raise StartError(f"{name} could not be installed: {error}") from error
    stamp.write_text(wanted)
    return folder
