"""Alerts name metrics that a server really has, with labels that these metrics really have."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.lint import of_kind
from k8s.render import K8S, render
from qaeval import vllm_metrics

pytestmark = pytest.mark.k8s

HERE = Path(__file__).parent
RECORDED = {
    line.split()[0]: set(line.split()[2].split(","))
    for line in (HERE / "vllm-0.32.0-metrics.txt").read_text().splitlines()
    if not line.startswith("#")
}
OF_PROMETHEUS = {"up"}
OF_THE_SCRAPE = {"namespace", "pod", "container"}
_KEYWORDS = {
    *(
        "sum",
        "max",
        "min",
        "by",
        "and",
        "or",
        "rate",
        "increase",
        "histogram_quantile",
        "on",
        "unless",
        "offset",
    )
}


def alerts() -> list[dict[str, Any]]:
    (rules,) = of_kind(render("l4-single", "monitoring"), "PrometheusRule")
    return [rule for group in rules["spec"]["groups"] for rule in group["rules"]]


def words(expression: str) -> set[str]:
    """Return the metric names in an expression: every word that is no keyword, label, number or duration."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\bby \([^)]*\)", " ", expression)
    return set(re.findall(r"[a-z_][a-z0-9_:]*", bare)) - _KEYWORDS


def labels(expression: str) -> set[str]:
    chosen = re.findall(r"[{,]\s*(\w+)\s*[=!]", expression)
    grouped = [
        name for part in re.findall(r"\bby \(([^)]*)\)", expression) for name in re.split(r",\s*", part)
    ]
    return {*chosen, *grouped}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_names_recorded_metrics_and_their_labels(alert: dict[str, Any]) -> None:
    named = words(alert["expr"])
    assert named, "no metric"
    assert named <= {*RECORDED, *OF_PROMETHEUS}
    there = set.union(*(RECORDED.get(name, set()) for name in named))
    assert labels(alert["expr"]) <= there | OF_THE_SCRAPE


def test_a_name_that_is_not_recorded_is_found() -> None:
    assert words('rate(vllm:gpu_cache_usage_perc{x="y"}[5m]) > 0') - set(RECORDED) == {
        "vllm:gpu_cache_usage_perc"
    }


def test_the_recording_has_every_metric_that_qaeval_reads() -> None:
    wanted = {
        *vllm_metrics.COUNTERS,
        *vllm_metrics.GAUGES,
        *(f"{name}_bucket" for name in vllm_metrics.HISTOGRAMS),
    }
    assert wanted <= set(RECORDED)


def test_every_alert_is_told_apart_and_says_what_to_do() -> None:
    names = [alert["alert"] for alert in alerts()]
    assert len(set(names)) == len(names)
    for alert in alerts():
        assert "{{ $labels.pod }}" in alert["annotations"]["summary"]
        assert len(alert["annotations"]["description"].split()) >= 4


def test_the_monitor_scrapes_the_port_that_the_servers_have() -> None:
    objects = render("l4-single", "monitoring")
    (monitor,) = of_kind(objects, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    ports = {
        port["name"]
        for job in of_kind(objects, "Job")
        for container in job["spec"]["template"]["spec"]["initContainers"]
        for port in container.get("ports", ())
    }
    assert ports == {endpoint["port"]}


@pytest.mark.parametrize("verb", ["check", "test"])
def test_promtool_agrees(tmp_path: Path, verb: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (part of the package `prometheus`)")
    (rules,) = of_kind(render("l4-single", "monitoring"), "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules["spec"]))
    (tmp_path / "rules_test.yaml").write_text((HERE / "rules_test.yaml").read_text())
    words = (
        ["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]
        if verb == "check"
        else ["test", "rules", "rules_test.yaml"]
    )
    run = subprocess.run([promtool, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_promtools_cases_name_every_alert() -> None:
    cases = yaml.safe_load((HERE / "rules_test.yaml").read_text())
    tried = {case["alertname"] for test in cases["tests"] for case in test["alert_rule_test"]}
    assert tried == {alert["alert"] for alert in alerts()}
    assert (K8S / "components" / "monitoring" / "rules.yaml").exists()
