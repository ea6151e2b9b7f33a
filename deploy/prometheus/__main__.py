"""`python -m deploy.prometheus` writes `deploy/prometheus/slo.yml` to standard output; `… kubernetes` writes it, and
`alerts.yml`, as the PrometheusRule of `deploy/kubernetes/components/monitoring`."""

import sys
from pathlib import Path

from deploy.prometheus.slo import rules

_RULE = """\
# Made by `make docs` from deploy/prometheus; do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: aisle
  namespace: aisle
spec:
  groups:
"""


def kubernetes() -> str:
    """All groups of rules in one PrometheusRule."""
    files = (rules(), Path(__file__).with_name("alerts.yml").read_text())
    groups = [line for told in files for line in told.partition("groups:\n")[2].splitlines()]
    return _RULE + "".join(f"  {line}\n" if line else "\n" for line in groups)


if __name__ == "__main__":
    sys.stdout.write(kubernetes() if sys.argv[1:] == ["kubernetes"] else rules())
