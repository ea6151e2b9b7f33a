"""`python -m deploy.prometheus slo|kubernetes` writes `slo.yml`, or the PrometheusRule, to standard output."""

import argparse
import sys

from deploy.prometheus.kubernetes import prometheus_rule
from deploy.prometheus.slo import rules

_PAGES = {"slo": rules, "kubernetes": prometheus_rule}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m deploy.prometheus", description=__doc__)
    parser.add_argument("page", choices=_PAGES)
    sys.stdout.write(_PAGES[parser.parse_args().page]())
