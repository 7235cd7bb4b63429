"""Alerts and the dashboard name metrics that a server, a GPU's exporter or qaeval really has, with labels that these really have."""

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
OF_DCGM = {"Hostname", "gpu"}
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
        "delta",
        "histogram_quantile",
        "on",
        "unless",
        "offset",
    )
}


def alerts() -> list[dict[str, Any]]:
    (rules,) = of_kind(render("l4-single", "monitoring"), "PrometheusRule")
    return [rule for group in rules["spec"]["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    (found,) = [
        entry
        for entry in of_kind(render("l4-single", "monitoring"), "ConfigMap")
        if entry["metadata"]["name"] == "dashboard"
    ]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    return dict(json.loads(found["data"]["dashboard.json"]))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Return title and expression of every panel, with Grafana's own names replaced by what they may stand for."""
    stands_for = {"$__rate_interval": "5m", "$__range": "1h", "$namespace": "qaeval|other", "$model": ".*"}

    def filled(expression: str) -> str:
        for name, value in stands_for.items():
            expression = expression.replace(name, value)
        return expression

    return [(panel["title"], filled(target["expr"])) for panel in panels() for target in panel["targets"]]


@cache
def exported() -> dict[str, set[str]]:
    """Return what qaeval's own endpoint serves: names and their labels."""
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


def known() -> dict[str, set[str]]:
    return {
        **RECORDED,
        **exported(),
        **dict.fromkeys(DCGM, OF_DCGM),
        **{name: set() for name in OF_PROMETHEUS},
    }


def words(expression: str) -> set[str]:
    """Return the metric names in an expression: every word that is no keyword, label, number or duration."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\bby \([^)]*\)", " ", expression)
    return set(re.findall(r"[A-Za-z_][A-Za-z0-9_:]*", bare)) - _KEYWORDS


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
    assert named <= set(known())
    there = set.union(*(known()[name] for name in named))
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
    assert len(set(names)) == len(names) > 0
    for alert in alerts():
        assert "{{ $labels.pod }}" in alert["annotations"]["summary"]
        assert len(alert["annotations"]["description"].split()) >= 4


@pytest.mark.parametrize("query", queries(), ids=lambda query: query[0])
def test_a_panel_names_metrics_that_are_there_and_their_labels(query: tuple[str, str]) -> None:
    _, expression = query
    assert "$" not in expression
    named = words(expression)
    assert named, "no metric"
    assert named <= set(known())
    there = set.union(*(known()[name] for name in named))
    assert labels(expression) <= there | OF_THE_SCRAPE


def test_all_that_qaeval_serves_is_seen_somewhere() -> None:
    seen = {name for _, expression in queries() for name in words(expression)}
    not_shown = {"qaeval_run_info", "qaeval_tokens_total", "qaeval_node_seconds_total"}
    assert {name for name in exported() if name not in seen} == not_shown


def test_the_document_has_every_metric_with_its_labels() -> None:
    rows = re.findall(
        r"^\| `(qaeval_\w+)` \| (.*?) \|", (K8S.parent / "docs" / "metrics.md").read_text(), re.MULTILINE
    )
    assert {name: set(re.findall(r"`(\w+)`", said)) for name, said in rows} == exported()


def test_panels_have_ids_of_their_own_a_place_and_a_word_of_explanation() -> None:
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids) > 0
    assert panels()
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert len(panel["description"].split()) >= 4, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_the_dashboard_takes_whatever_prometheus_it_is_given() -> None:
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    assert set(variables) == {"datasource", "namespace", "model"}
    assert panels()
    for panel in panels():
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for name in ("namespace", "model"):
        metric, label = re.fullmatch(
            r"label_values\((\w+), (\w+)\)", variables[name]["query"]["query"]
        ).groups()  # type: ignore[union-attr]
        assert label in exported()[metric] | OF_THE_SCRAPE
        assert variables[name]["allValue"] == ".*"


def test_the_dashboard_shows_what_a_run_is_watched_for() -> None:
    shown = {name for _, expression in queries() for name in words(expression)}
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
def test_each_monitor_scrapes_a_port_that_its_pods_have(overlay: str) -> None:
    objects = render(overlay, "monitoring")
    monitors = of_kind(objects, "PodMonitor")
    assert monitors
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        chosen = [
            pod
            for entry in objects
            if (pod := pod_spec(entry)) and selects(monitor["spec"]["selector"], pod_labels(entry))
        ]
        assert chosen
        for pod in chosen:
            ports = {port["name"] for part in containers(pod) for port in part.get("ports", ())}
            assert endpoint["port"] in ports


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_every_run_serves_its_numbers_where_its_port_is(overlay: str) -> None:
    parts = [
        (part, entry["metadata"]["name"])
        for entry in render(overlay, "monitoring")
        if (pod := pod_spec(entry))
        for part in containers(pod)
        if part["name"] == "qaeval" and entry["metadata"]["name"] != "merge"
    ]
    assert len(parts) == {"l4-single": 3, "l4-pair": 1}[overlay]
    for part, _ in parts:
        (port,) = part["ports"]
        assert f"--metrics-port={port['containerPort']}" in part["args"]
        assert "--metrics-host=0.0.0.0" in part["args"]


def promtool(tmp_path: Path, *command: str) -> None:
    run = subprocess.run(
        [program("promtool"), *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("verb", ["check", "test"])
def test_promtool_agrees(tmp_path: Path, verb: str) -> None:
    (rules,) = of_kind(render("l4-single", "monitoring"), "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules["spec"]))
    (tmp_path / "rules_test.yaml").write_text((HERE / "rules_test.yaml").read_text())
    command = ["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]
    promtool(tmp_path, *(command if verb == "check" else ["test", "rules", "rules_test.yaml"]))


def test_promtool_parses_every_panel(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": said} for n, (_, said) in enumerate(queries())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool(tmp_path, "check", "rules", "panels.yaml")


def test_a_panel_that_does_not_parse_is_found(tmp_path: Path) -> None:
    rules = [{"record": "panel:0", "expr": "sum by (le (rate(vllm:x[5m])))"}]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    with pytest.raises(AssertionError, match="could not parse expression"):
        promtool(tmp_path, "check", "rules", "panels.yaml")


def query(title: str) -> str:
    return next(expression for name, expression in queries() if name == title)


RUN = 'namespace="qaeval",stage="grade",model="j"'
SHOWN = [
    # 10 of 40 in one pod and 20 of 20 in another are half of all that is known
    (
        "Done",
        {
            f"qaeval_tasks_finished{{{RUN},pod='a'}}": "10x90",
            f"qaeval_tasks_planned{{{RUN},pod='a'}}": "40x90",
            f"qaeval_tasks_finished{{{RUN},pod='b'}}": "20x90",
            f"qaeval_tasks_planned{{{RUN},pod='b'}}": "20x90",
        },
        {'{stage="grade",model="j"}': 0.5},
    ),
    # 120 items a minute are 2 a second
    ("Items per second", {f"qaeval_items_total{{{RUN}}}": "0+120x90"}, {'{stage="grade",model="j"}': 2}),
    (
        "Failures by kind",
        {
            f'qaeval_failures_total{{{RUN},reason="truncated"}}': "0+3x90",
            f'qaeval_failures_total{{{RUN},reason="empty"}}': "5x90",
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


@pytest.mark.parametrize(("title", "series", "shown"), SHOWN, ids=[entry[0] for entry in SHOWN])
def test_a_panel_shows_the_number_that_was_worked_by_hand(
    title: str, series: dict[str, str], shown: dict[str, float], tmp_path: Path
) -> None:
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"round({query(title)}, 0.0001)",  # promtool compares to the last bit
                "eval_time": "80m",
                "exp_samples": [{"labels": labels, "value": value} for labels, value in shown.items()],
            }
        ],
    }
    said = {"rule_files": [], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "panels_test.yaml").write_text(yaml.safe_dump(said))
    promtool(tmp_path, "test", "rules", "panels_test.yaml")


def test_promtools_cases_name_every_alert() -> None:
    cases = yaml.safe_load((HERE / "rules_test.yaml").read_text())
    tried = {case["alertname"] for test in cases["tests"] for case in test["alert_rule_test"]}
    assert tried == {alert["alert"] for alert in alerts()}
    assert (K8S / "components" / "monitoring" / "rules.yaml").exists()
