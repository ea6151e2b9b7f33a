"""`python -m shared.telemetry metrics` writes the page of all metrics (`docs/metrics.md`) to standard output."""

import argparse
import sys

from shared.telemetry.reference import metrics_page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m shared.telemetry")
    parser.add_argument("page", choices=["metrics"], help="which page to write")
    parser.parse_args()
    sys.stdout.write(metrics_page())


if __name__ == "__main__":
    main()
