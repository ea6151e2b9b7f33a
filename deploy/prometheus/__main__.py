"""`python -m deploy.prometheus` writes `deploy/prometheus/slo.yml` to standard output."""

import sys

from deploy.prometheus.slo import rules

if __name__ == "__main__":
    sys.stdout.write(rules())
