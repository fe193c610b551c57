"""Write ``k8s/monitoring/prometheusrule.yaml``, for the Prometheus Operator, from the rules file
that Prometheus itself reads: ``make docs``."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

FOLDER = Path(__file__).resolve().parents[1] / "k8s" / "monitoring"
_HEAD = """\
# Written by `make docs` from rules.yaml; do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: mammoseq
  labels:
    app.kubernetes.io/name: mammoseq
spec:
"""


def prometheus_rule() -> str:
    _, groups, rest = (FOLDER / "rules.yaml").read_text().partition("groups:\n")
    return _HEAD + indent(groups + rest, "  ")


if __name__ == "__main__":
    (FOLDER / "prometheusrule.yaml").write_text(prometheus_rule())
