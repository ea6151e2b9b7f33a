"""Measures, prints a table, writes build/bench/<part>.json. Never a test: it asserts nothing."""

import argparse
import asyncio
import sys

from tests.benchmarks import engine, figures

PARTS = {"engine": engine.run}
"""What can be measured, by name."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), default="engine", help="what to measure (default: engine)")
    parser.add_argument("--quick", action="store_true", help="three rounds of shorter loads: to see that it runs")
    parser.add_argument("--only", choices=sorted(engine.ROWS), help="one row alone")
    given = parser.parse_args()
    try:
        measured = asyncio.run(PARTS[given.part](given.quick, given.only))
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing was written\n")
        return 130
    path = figures.write(given.part, measured)
    sys.stdout.write(f"written: {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
