"""The alert rules: each fires when it should and only then (`promtool test rules`), and the
manifest for the Prometheus Operator has the same."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs import prometheus_rule
from tests.real_parts import require

MONITORING = Path(__file__).resolve().parents[2] / "k8s" / "monitoring"
RULES = MONITORING / "rules.yaml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}

WHERE = 'job="mammoseq", namespace="mammoseq", site="north", instance="a:9000"'
SITE = {"job": "mammoseq", "namespace": "mammoseq", "site": "north"}
INSTANCE = SITE | {"instance": "a:9000"}


def requests(status: str, values: str) -> dict[str, str]:
    return series("mammoseq_requests_total", values, f'route="/predict", status="{status}"')


def series(name: str, values: str, labels: str = "", where: str = WHERE) -> dict[str, str]:
    return {"series": f"{name}{{{', '.join(filter(None, (where, labels)))}}}", "values": values}


def slow(total: str, within: str) -> list[dict[str, str]]:
    name = "mammoseq_request_duration_seconds"
    return [
        series(f"{name}_count", total, 'route="/predict"'),
        series(f"{name}_bucket", within, 'route="/predict", le="2.5"'),
    ]


def queue(within_half: str, within_5: str) -> list[dict[str, str]]:
    name = "mammoseq_queue_duration_seconds_bucket"
    return [
        series(name, values, f'le="{le}"')
        for le, values in (("0.5", within_half), ("5.0", within_5), ("+Inf", within_5))
    ]


def refusals(code: str, refused: str, answered: str) -> list[dict[str, str]]:
    refusal = series("mammoseq_problems_total", refused, f'code="{code}"')
    return [refusal, requests("422", refused), requests("200", answered)]


def bridge_side(side: str, failures: str, last_success: str) -> list[dict[str, str]]:
    labels = f'side="{side}"'
    return [
        series("mammoseq_bridge_failures_total", failures, f'{labels}, code="unreachable"'),
        series("mammoseq_bridge_last_success_timestamp_seconds", last_success, labels),
    ]


def scores(*weeks: tuple[int, ...], unit: str = "breast") -> list[dict[str, str]]:
    """Scores an hour in each of four buckets, week after week, and four equal reference shares."""
    made = []
    for bucket, an_hour in enumerate(zip(*weeks, strict=True), 1):
        labels = f'model="m/1.0.0", unit="{unit}", vendor="hologic", bucket="{bucket}"'
        total, values = 0, []
        for each in an_hour:
            values.append(f"{total}+{each}x167")
            total += 168 * each
        made.append(series("mammoseq_scores_total", " ".join(values), labels))
        share = series(
            "mammoseq_reference_scores_ratio",
            f"0.25x{len(weeks) * 168}",
            f'model="m/1.0.0", unit="breast", bucket="{bucket}"',
        )
        made.append(share)
    return made


SCORES = {"model": "m/1.0.0", "unit": "breast", "vendor": "hologic"}
MINUTE, HOUR, DAY = 1, 60, 24 * 60


@dataclass(frozen=True)
class Case:
    """At minute ``at`` of the ``given`` series, the alert ``fires`` with these labels, or not."""

    alert: str
    says: str
    given: list[dict[str, str]]
    at: int
    fires: dict[str, str] | None = None
    every: str = field(default="1m")


CASES = [
    # the goals
    Case("MammoseqFailing", "a tenth fails for an hour",
         [requests("200", "0+9x60"), requests("503", "0+1x60")], HOUR, SITE),
    Case("MammoseqFailing", "one in a hundred fails",
         [requests("200", "0+99x60"), requests("500", "0+1x60")], HOUR),
    Case("MammoseqFailing", "it is over for ten minutes",
         [requests("200", "0+9x75"), requests("500", "0+3x60 180x15")], 75),
    Case("MammoseqFailing", "three of a night's four requests failed",
         [requests("200", "0x58 1 1"), requests("500", "0x55 1 2 3 3 3")], HOUR),
    Case("MammoseqFailing", "what callers do wrong is no failure",
         [requests("200", "0+5x60"), requests("422", "0+5x60")], HOUR),
    Case("MammoseqFailingForHours", "4 % fail for six hours",
         [requests("200", "0+24x360"), requests("500", "0+1x360")], 6 * HOUR, SITE),
    Case("MammoseqFailingForHours", "2 % fail for six hours",
         [requests("200", "0+49x360"), requests("500", "0+1x360")], 6 * HOUR),
    Case("MammoseqSlow", "nine of ten are slow for an hour",
         slow("0+10x60", "0+1x60"), HOUR, SITE),
    Case("MammoseqSlow", "half are slow for an hour", slow("0+10x60", "0+5x60"), HOUR),
    Case("MammoseqSlow", "it is over for ten minutes",
         slow("0+10x75", "0x60 0+10x15"), 75),
    Case("MammoseqSlow", "ten requests in an hour, all of them slow",
         slow("0x49 0+1x11", "0x60"), HOUR),
    Case("MammoseqSlowForHours", "half are slow for six hours",
         slow("0+10x360", "0+5x360"), 6 * HOUR, SITE),
    Case("MammoseqSlowForHours", "a fifth is slow for six hours",
         slow("0+10x360", "0+8x360"), 6 * HOUR),
    # the state
    Case("MammoseqNotReady", "an instance does not answer", [series("up", "1x10 0x10")], 15,
         INSTANCE),
    Case("MammoseqNotReady", "an instance restarts within two minutes",
         [series("up", "1x10 0 0 1x10")], 12),
    Case("MammoseqNotReady", "a device has failed",
         [series("up", "1x20"), series("mammoseq_failed_devices", "0x10 1x10")], 15, INSTANCE),
    Case("MammoseqNotReady", "all is well",
         [series("up", "1x20"), series("mammoseq_failed_devices", "0x20")], 15),
    Case("MammoseqGone", "no instance answers", [series("up", "1x10 0x10")], 15,
         {"job": "mammoseq"}),
    Case("MammoseqGone", "nothing is known of any", [], 15, {"job": "mammoseq"}),
    Case("MammoseqGone", "one of two answers",
         [series("up", "0x20"), series("up", "1x20", where='job="mammoseq", instance="b:9000"')],
         15),
    Case("MammoseqOnCpu", "a GPU is there and the CPU is used",
         [series("mammoseq_visible_gpus", "1x20"),
          series("mammoseq_model_info", "1x20", 'provider="CPUExecutionProvider"')], 15, INSTANCE),
    Case("MammoseqOnCpu", "the GPU is used",
         [series("mammoseq_visible_gpus", "1x20"),
          series("mammoseq_model_info", "1x20", 'provider="CUDAExecutionProvider"')], 15),
    Case("MammoseqOnCpu", "there is no GPU",
         [series("mammoseq_visible_gpus", "0x20"),
          series("mammoseq_model_info", "1x20", 'provider="CPUExecutionProvider"')], 15),
    Case("MammoseqRestarting", "three times in an hour",
         [series("mammoseq_start_time_seconds", "1x19 2x19 3x19 4x10")], 65, INSTANCE),
    Case("MammoseqRestarting", "an update, and then another",
         [series("mammoseq_start_time_seconds", "1x19 2x19 3x30")], 65),
    Case("MammoseqModelRefused", "a version in the store is bad for minutes",
         [series("mammoseq_refused_models", "0x10 1x10")], 15, INSTANCE),
    Case("MammoseqModelRefused", "it is mended",
         [series("mammoseq_refused_models", "0x10 1x2 0x10")], 15),
    Case("MammoseqShadowFails", "the shadow fails once",
         [series("mammoseq_shadow_studies_total", "0x10 1x10",
                 'shadow="m/2.0.0", outcome="failed"')], 15, SITE | {"shadow": "m/2.0.0"}),
    Case("MammoseqShadowFails", "it gives way and its gate refuses",
         [series("mammoseq_shadow_studies_total", "0+5x20",
                 'shadow="m/2.0.0", outcome="passed_over"'),
          series("mammoseq_shadow_studies_total", "0+5x20",
                 'shadow="m/2.0.0", outcome="refused"')], 15),
    Case("MammoseqNoTraffic", "a silent Tuesday noon, unlike the one before",
         [requests("200", "0+5x200 1000x4000")], 7 * DAY + 12 * HOUR, SITE, "5m"),
    Case("MammoseqNoTraffic", "traffic as ever", [requests("200", "0+5x4000")],
         7 * DAY + 12 * HOUR, every="5m"),
    Case("MammoseqNoTraffic", "a silent night, like the one before",
         [requests("200", "0x4000")], 7 * DAY + 12 * HOUR, every="5m"),
    # the load
    Case("MammoseqQueue", "a tenth waits for seconds", queue("0+90x30", "0+100x30"), 25, SITE),
    Case("MammoseqQueue", "one in fifty waits for seconds", queue("0+98x30", "0+100x30"), 25),
    Case("MammoseqQueue", "a burst of five minutes",
         queue("0+1x5 0+100x20", "0+100x25"), 20),
    Case("MammoseqOverloaded", "a tenth is refused",
         refusals("overloaded", "0+10x40", "0+90x40"), 35, SITE),
    Case("MammoseqOverloaded", "one in fifty is refused",
         refusals("overloaded", "0+2x40", "0+98x40"), 35),
    # refusals
    Case("MammoseqRefusals", "a third is for processing",
         refusals("for_processing", "0+1x90", "0+2x90"), 80, SITE | {"code": "for_processing"}),
    Case("MammoseqRefusals", "a tenth is for processing",
         refusals("for_processing", "0+1x90", "0+9x90"), 80),
    Case("MammoseqRefusals", "nine in an hour, of ten",
         refusals("for_processing", "0x60 0+0.1x90", "0+0.01x150"), 140),
    Case("MammoseqRefusals", "a third overloaded has an alert of its own",
         refusals("overloaded", "0+1x90", "0+2x90"), 80),
    Case("MammoseqRefusals", "people who guess at passwords",
         [series("mammoseq_problems_total", "0+5x90", 'code="login_failed"'),
          requests("200", "0+1x90")], 80),
    # the audit log
    Case("MammoseqAudit", "one record could not be written",
         [series("mammoseq_audit_failures_total", "0x10 1x10")], 12, SITE),
    Case("MammoseqAudit", "all are written", [series("mammoseq_audit_failures_total", "0x30")], 20),
    # the bridge
    Case("MammoseqBridgeCutOff", "the archive is gone for an hour",
         bridge_side("archive", "0x30 0+1x60", "0+60x30 1800x60"), 60, SITE | {"side": "archive"}),
    Case("MammoseqBridgeCutOff", "the archive has not answered since the bridge began",
         [series("mammoseq_bridge_failures_total", "0+1x60", 'side="archive", code="unreachable"')],
         40, SITE | {"side": "archive"}),
    Case("MammoseqBridgeCutOff", "one study fails, and others are answered",
         bridge_side("archive", "0+1x90", "0+60x90"), 60),
    Case("MammoseqBridgeCutOff", "a quiet night",
         bridge_side("service", "0x90", "0+60x30 1800x60"), 60),
    Case("MammoseqBridgeBehind", "studies wait and none is read",
         [series("mammoseq_bridge_waiting_studies", "3x200"),
          series("mammoseq_bridge_studies_read_total", "5x200")], 180, SITE),
    Case("MammoseqBridgeBehind", "studies wait and are read",
         [series("mammoseq_bridge_waiting_studies", "3x200"),
          series("mammoseq_bridge_studies_read_total", "0+0.1x200")], 180),
    Case("MammoseqBridgeBehind", "nothing to do",
         [series("mammoseq_bridge_waiting_studies", "0x200"),
          series("mammoseq_bridge_studies_read_total", "5x200")], 180),
    # drift, in hours
    Case("MammoseqScoresUnlikeValidation", "most scores are in the highest quarter",
         scores((1, 1, 1, 7)), 7 * DAY, SITE | SCORES, "1h"),
    Case("MammoseqScoresUnlikeValidation", "scores as in validation", scores((3, 3, 2, 3)), 7 * DAY,
         every="1h"),
    Case("MammoseqScoresUnlikeValidation", "a hundred scores are too few",
         scores((0, 0, 0, 1)), 5 * DAY, every="1h"),
    Case("MammoseqScoresUnlikeValidation", "series, of which validation has none",
         scores((1, 1, 1, 7), unit="series"), 7 * DAY, every="1h"),
    Case("MammoseqScoreDrift", "scores rise from one week to the next",
         scores((3, 3, 3, 3), (1, 1, 1, 9)), 14 * DAY - HOUR, SITE | SCORES, "1h"),
    Case("MammoseqScoreDrift", "series are compared, too",
         scores((3, 3, 3, 3), (1, 1, 1, 9), unit="series"), 14 * DAY - HOUR,
         SITE | SCORES | {"unit": "series"}, "1h"),
    Case("MammoseqScoreDrift", "scores unlike validation, but as the week before",
         scores((1, 1, 1, 9), (1, 1, 1, 9)), 14 * DAY - HOUR, every="1h"),
    Case("MammoseqScoreDrift", "there was no week before",
         scores((0, 0, 0, 0), (1, 1, 1, 9)), 14 * DAY - HOUR, every="1h"),
    Case("MammoseqScoreDrift", "too few scores in the week before",
         scores((1, 0, 0, 0), (1, 1, 1, 9)), 14 * DAY - HOUR, every="1h"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.says}")
def test_alert(case: Case, tmp_path: Path) -> None:
    """Compared by its labels: an expression of the alert's own series, without annotations."""
    labels = (case.fires or {}) | {
        "alertname": case.alert,
        "alertstate": "firing",
        "severity": ALERTS[case.alert]["labels"]["severity"],
    }
    chosen = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    sample = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": case.every,
        "tests": [
            {
                "interval": case.every,
                "input_series": case.given,
                "promql_expr_test": [
                    {
                        "expr": chosen,
                        "eval_time": f"{case.at}m",
                        "exp_samples": (
                            [{"labels": f"ALERTS{{{sample}}}", "value": 1}] if case.fires else []
                        ),
                    }
                ],
            }
        ],
    }
    its_group = [group for group in GROUPS if ALERTS[case.alert] in group["rules"]]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": its_group}))
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    ran = subprocess.run(
        [require("promtool"), "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    for kind in (True, False):
        assert {case.alert for case in CASES if (case.fires is not None) is kind} == ALERTS.keys()


def test_promtool_accepts_the_rules() -> None:
    subprocess.run([require("promtool"), "check", "rules", RULES], check=True, capture_output=True)


def test_the_manifest_has_the_same_rules() -> None:
    manifest: dict[str, Any] = yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text())
    assert manifest["spec"] == yaml.safe_load(RULES.read_text())
    assert (MONITORING / "prometheusrule.yaml").read_text() == prometheus_rule.prometheus_rule()
