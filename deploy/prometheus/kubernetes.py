"""The same rules as one object of the Prometheus operator, so that there is one place to change them."""

from pathlib import Path

from deploy.prometheus.slo import rules

_HEAD = """\
# Made by `make docs` from deploy/prometheus; do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: aisle
  namespace: aisle
spec:
  groups:
"""
_GROUPS = "groups:\n"


def prometheus_rule() -> str:
    """YAML of the object."""
    alerts = (Path(__file__).parent / "alerts.yml").read_text()
    lines = [line for text in (rules(), alerts) for line in text.partition(_GROUPS)[2].splitlines()]
    return _HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)
