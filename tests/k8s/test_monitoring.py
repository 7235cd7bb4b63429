"""Alerts and the dashboard use only existing metrics and labels of servers, GPU exporters and qaeval."""

import json
import re
import subprocess
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from k8s.lint import of_kind
from k8s.policies import selects
from k8s.programs import program
from k8s.render import K8S, containers, pod_labels, pod_spec, render
from qaeval import records as vllm_metrics
from qaeval.records import Grade
from qaeval.report.facts import MachineFacts
from qaeval.serving.exporter import Exporter

HERE = Path(__file__).parent
RECORDED = {
    line.split()[0]: set(line.split()[2].split(","))
    for line in (HERE / "vllm-0.32.0-metrics.txt").read_text().splitlines()
    if not line.startswith("#")
}
DCGM = {
    line.split()[0]
    for line in (HERE / "dcgm-exporter-metrics.txt").read_text().splitlines()
    if not line.startswith("#")
}
DCGM_LABELS = {"Hostname", "gpu"}
PROMETHEUS_METRICS = {"up"}
SCRAPE_LABELS = {"namespace", "pod", "container"}
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
        "delta",
        "histogram_quantile",
        "on",
        "unless",
        "offset",
    )
}


def read_alerts() -> list[dict[str, Any]]:
    (rules,) = of_kind(render("l4-single", "monitoring"), "PrometheusRule")
    return [rule for group in rules["spec"]["groups"] for rule in group["rules"]]


def read_dashboard() -> dict[str, Any]:
    (config_map,) = [
        entry
        for entry in of_kind(render("l4-single", "monitoring"), "ConfigMap")
        if entry["metadata"]["name"] == "dashboard"
    ]
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    return dict(json.loads(config_map["data"]["dashboard.json"]))


def read_panels() -> list[dict[str, Any]]:
    return [panel for panel in read_dashboard()["panels"] if panel["type"] != "row"]


def read_queries() -> list[tuple[str, str]]:
    """Return title and expression of every panel, with Grafana's variables replaced by possible values."""
    values = {"$__rate_interval": "5m", "$__range": "1h", "$namespace": "qaeval|other", "$model": ".*"}

    def substituted(expression: str) -> str:
        for name, value in values.items():
            expression = expression.replace(name, value)
        return expression

    return [
        (panel["title"], substituted(target["expr"]))
        for panel in read_panels()
        for target in panel["targets"]
    ]


@cache
def exported_metrics() -> dict[str, set[str]]:
    """Return the metrics of qaeval's own endpoint: names and their labels."""
    machine = MachineFacts(name="l4", price_per_hour=1.0, currency="USD", as_of="2026-11-01")
    exporter = Exporter("127.0.0.1", 0, run="first", eval_name="qa_pairs", machines={"j": machine})
    row = Grade(task_id="t", judge="j", rubric_sha="", item_id="i", letter="A", text="", latency_s=1)
    with exporter:
        exporter.counts("grade", "j").row(row)
        exporter.counts("grade", "j").node_s = 1.0
        with urllib.request.urlopen(exporter.url, timeout=5) as reply:  # noqa: S310 - the exporter's own
            text = reply.read().decode()
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels_by_metric() -> dict[str, set[str]]:
    return {
        **RECORDED,
        **exported_metrics(),
        **dict.fromkeys(DCGM, DCGM_LABELS),
        **{name: set() for name in PROMETHEUS_METRICS},
    }


def metric_names(expression: str) -> set[str]:
    """Return the metric names in an expression: all words but keywords, labels, numbers and durations."""
    stripped = re.sub(r"\{[^}]*\}|\[[^]]*\]|\bby \([^)]*\)", " ", expression)
    return set(re.findall(r"[A-Za-z_][A-Za-z0-9_:]*", stripped)) - _KEYWORDS


def label_names(expression: str) -> set[str]:
    selected = re.findall(r"[{,]\s*(\w+)\s*[=!]", expression)
    grouped = [
        name for part in re.findall(r"\bby \(([^)]*)\)", expression) for name in re.split(r",\s*", part)
    ]
    return {*selected, *grouped}


@pytest.mark.parametrize("alert", read_alerts(), ids=lambda alert: alert["alert"])
def test_alert_uses_known_metrics_and_labels(alert: dict[str, Any]) -> None:
    metrics = metric_names(alert["expr"])
    assert metrics, "no metric"
    assert metrics <= set(labels_by_metric())
    known_labels = set.union(*(labels_by_metric()[name] for name in metrics))
    assert label_names(alert["expr"]) <= known_labels | SCRAPE_LABELS


def test_unknown_metric_name_is_detected() -> None:
    assert metric_names('rate(vllm:gpu_cache_usage_perc{x="y"}[5m]) > 0') - set(RECORDED) == {
        "vllm:gpu_cache_usage_perc"
    }


def test_recording_has_every_metric_that_qaeval_reads() -> None:
    required = {
        *vllm_metrics.COUNTERS,
        *vllm_metrics.GAUGES,
        *(f"{name}_bucket" for name in vllm_metrics.HISTOGRAMS),
    }
    assert required <= set(RECORDED)


def test_alerts_have_unique_names_and_descriptions() -> None:
    names = [alert["alert"] for alert in read_alerts()]
    assert len(set(names)) == len(names) > 0
    for alert in read_alerts():
        assert "{{ $labels.pod }}" in alert["annotations"]["summary"]
        assert len(alert["annotations"]["description"].split()) >= 4


@pytest.mark.parametrize("query", read_queries(), ids=lambda query: query[0])
def test_panel_uses_known_metrics_and_labels(query: tuple[str, str]) -> None:
    _, expression = query
    assert "$" not in expression
    metrics = metric_names(expression)
    assert metrics, "no metric"
    assert metrics <= set(labels_by_metric())
    known_labels = set.union(*(labels_by_metric()[name] for name in metrics))
    assert label_names(expression) <= known_labels | SCRAPE_LABELS


def test_exported_metrics_are_shown_on_the_dashboard() -> None:
    shown = {name for _, expression in read_queries() for name in metric_names(expression)}
    not_shown = {"qaeval_run_info", "qaeval_tokens_total", "qaeval_node_seconds_total"}
    assert {name for name in exported_metrics() if name not in shown} == not_shown


def test_document_lists_every_metric_with_its_labels() -> None:
    rows = re.findall(
        r"^\| `(qaeval_\w+)` \| (.*?) \|", (K8S.parent / "docs" / "metrics.md").read_text(), re.MULTILINE
    )
    assert {name: set(re.findall(r"`(\w+)`", label_cell)) for name, label_cell in rows} == exported_metrics()


def test_panels_have_unique_ids_positions_and_descriptions() -> None:
    ids = [panel["id"] for panel in read_dashboard()["panels"]]
    assert len(set(ids)) == len(ids) > 0
    assert read_panels()
    occupied: set[tuple[int, int]] = set()
    for panel in read_dashboard()["panels"]:
        position = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert position["x"] + position["w"] <= 24
        assert not cells & occupied, panel["title"]
        occupied |= cells
    for panel in read_panels():
        assert len(panel["description"].split()) >= 4, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_dashboard_works_with_any_prometheus_data_source() -> None:
    variables = {variable["name"]: variable for variable in read_dashboard()["templating"]["list"]}
    assert set(variables) == {"datasource", "namespace", "model"}
    assert read_panels()
    for panel in read_panels():
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for name in ("namespace", "model"):
        metric, label = re.fullmatch(
            r"label_values\((\w+), (\w+)\)", variables[name]["query"]["query"]
        ).groups()  # type: ignore[union-attr]
        assert label in exported_metrics()[metric] | SCRAPE_LABELS
        assert variables[name]["allValue"] == ".*"


def test_dashboard_shows_the_essential_metrics() -> None:
    shown = {name for _, expression in read_queries() for name in metric_names(expression)}
    assert shown >= {
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:generation_tokens_total",
        "vllm:prefix_cache_hits_total",
        "vllm:num_preemptions_total",
        "DCGM_FI_PROF_SM_ACTIVE",
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "qaeval_items_total",
        "qaeval_failures_total",
        "qaeval_spend",
    }
    assert "DCGM_FI_DEV_GPU_UTIL" not in shown


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_each_monitor_scrapes_an_existing_port(overlay: str) -> None:
    objects = render(overlay, "monitoring")
    monitors = of_kind(objects, "PodMonitor")
    assert monitors
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        selected_pods = [
            pod
            for entry in objects
            if (pod := pod_spec(entry)) and selects(monitor["spec"]["selector"], pod_labels(entry))
        ]
        assert selected_pods
        for pod in selected_pods:
            ports = {port["name"] for container in containers(pod) for port in container.get("ports", ())}
            assert endpoint["port"] in ports


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_every_run_serves_metrics_on_its_declared_port(overlay: str) -> None:
    containers_of_runs = [
        (container, entry["metadata"]["name"])
        for entry in render(overlay, "monitoring")
        if (pod := pod_spec(entry))
        for container in containers(pod)
        if container["name"] == "qaeval" and entry["metadata"]["name"] != "merge"
    ]
    assert len(containers_of_runs) == {"l4-single": 3, "l4-pair": 1}[overlay]
    for container, _ in containers_of_runs:
        (port,) = container["ports"]
        assert f"--metrics-port={port['containerPort']}" in container["args"]
        assert "--metrics-host=0.0.0.0" in container["args"]


def run_promtool(tmp_path: Path, *command: str) -> None:
    result = subprocess.run(
        [program("promtool"), *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("verb", ["check", "test"])
def test_promtool_accepts_the_rules(tmp_path: Path, verb: str) -> None:
    (rules,) = of_kind(render("l4-single", "monitoring"), "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules["spec"]))
    (tmp_path / "rules_test.yaml").write_text((HERE / "rules_test.yaml").read_text())
    command = ["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]
    run_promtool(tmp_path, *(command if verb == "check" else ["test", "rules", "rules_test.yaml"]))


def test_promtool_parses_every_panel(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": expression} for n, (_, expression) in enumerate(read_queries())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run_promtool(tmp_path, "check", "rules", "panels.yaml")


def test_invalid_panel_expression_is_detected(tmp_path: Path) -> None:
    rules = [{"record": "panel:0", "expr": "sum by (le (rate(vllm:x[5m])))"}]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    with pytest.raises(AssertionError, match="could not parse expression"):
        run_promtool(tmp_path, "check", "rules", "panels.yaml")


def expression_of(title: str) -> str:
    return next(expression for name, expression in read_queries() if name == title)


RUN_LABELS = 'namespace="qaeval",stage="grade",model="j"'
PANEL_CASES = [
    # 10 of 40 in one pod and 20 of 20 in another are half of all tasks
    (
        "Done",
        {
            f"qaeval_tasks_finished{{{RUN_LABELS},pod='a'}}": "10x90",
            f"qaeval_tasks_planned{{{RUN_LABELS},pod='a'}}": "40x90",
            f"qaeval_tasks_finished{{{RUN_LABELS},pod='b'}}": "20x90",
            f"qaeval_tasks_planned{{{RUN_LABELS},pod='b'}}": "20x90",
        },
        {'{stage="grade",model="j"}': 0.5},
    ),
    # 120 items a minute are 2 a second
    (
        "Items per second",
        {f"qaeval_items_total{{{RUN_LABELS}}}": "0+120x90"},
        {'{stage="grade",model="j"}': 2},
    ),
    (
        "Failures by kind",
        {
            f'qaeval_failures_total{{{RUN_LABELS},reason="truncated"}}': "0+3x90",
            f'qaeval_failures_total{{{RUN_LABELS},reason="empty"}}': "5x90",
        },
        {'{stage="grade",model="j",reason="truncated"}': 3},
    ),
    # two pods share the judge's machine: its seconds count once; 1.25 + 0.5
    (
        "Spend so far",
        {
            'qaeval_spend{namespace="qaeval",pod="a",currency="USD",model="j"}': "1x90",
            'qaeval_spend{namespace="qaeval",pod="b",currency="USD",model="j"}': "1.25x90",
            'qaeval_spend{namespace="qaeval",pod="a",currency="USD",model="m"}': "0.5x90",
        },
        {'{currency="USD"}': 1.75},
    ),
    (
        "Prefix cache hits",
        {
            'vllm:prefix_cache_hits_total{namespace="qaeval",model_name="j"}': "0+30x90",
            'vllm:prefix_cache_queries_total{namespace="qaeval",model_name="j"}': "0+40x90",
        },
        {'{model_name="j"}': 0.75},
    ),
    # 72 W are 4,320,000 mJ a minute, and 72 Wh an hour
    (
        "Power",
        {'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{Hostname="n",gpu="0"}': "0+4320000x90"},
        {'{Hostname="n",gpu="0"}': 72},
    ),
    ("Energy", {'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{Hostname="n",gpu="0"}': "0+4320000x90"}, {"{}": 72}),
]


@pytest.mark.parametrize(
    ("title", "series", "expected"), PANEL_CASES, ids=[entry[0] for entry in PANEL_CASES]
)
def test_panel_value_matches_hand_calculation(
    title: str, series: dict[str, str], expected: dict[str, float], tmp_path: Path
) -> None:
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"round({expression_of(title)}, 0.0001)",  # promtool compares to the last bit
                "eval_time": "80m",
                "exp_samples": [
                    {"labels": sample_labels, "value": value} for sample_labels, value in expected.items()
                ],
            }
        ],
    }
    rule_tests = {"rule_files": [], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "panels_test.yaml").write_text(yaml.safe_dump(rule_tests))
    run_promtool(tmp_path, "test", "rules", "panels_test.yaml")


def test_rule_tests_cover_every_alert() -> None:
    cases = yaml.safe_load((HERE / "rules_test.yaml").read_text())
    tested = {case["alertname"] for test in cases["tests"] for case in test["alert_rule_test"]}
    assert tested == {alert["alert"] for alert in read_alerts()}
    assert (K8S / "components" / "monitoring" / "rules.yaml").exists()
