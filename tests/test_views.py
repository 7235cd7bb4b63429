"""The words of every view: a golden file each; `QAEVAL_GOLDEN=write` renews them, and the diff is reviewed like code."""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from gate_builders import measure
from qaeval.agreement.sections import write_agreement
from qaeval.api import agreement
from qaeval.cli.tables import print_published, print_summary
from qaeval.comparison.decision import decide, write_decision
from qaeval.comparison.generation import analyse_generation, write_generation
from qaeval.comparison.html import render_html
from qaeval.comparison.markdown import render_markdown
from qaeval.comparison.planning import plan_assumed, plan_run, write_plan
from qaeval.comparison.report import CheckExample, CheckGroup, CheckRate, Report, Selection
from qaeval.cost.alternatives import steady_work
from qaeval.cost.run_cost import CostAssumptions, cost_run
from qaeval.cost.sections import write_cost_report, write_work
from qaeval.history.compare import compare_runs
from qaeval.history.model import HistoryRate, HistoryRun, Unread, history_of
from qaeval.history.sections import render_history, write_comparison, write_history
from qaeval.records import Energy, GpuEnergy, Reading, Session
from qaeval.report.facts import CheckFacts, HostedFacts, MachineFacts
from qaeval.report.markdown import section_lines
from qaeval.report.tables import Section
from qaeval.stats.published import check_published
from qaeval.storage.run_directory import RunStore
from report_builders import JUDGE, RUN, Case, candidate, case, rich_case

GOLDEN = Path(__file__).parent / "golden"
EXAMPLE = Path(__file__).parents[1] / "results" / "example"


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("QAEVAL_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def rounded(value: Any) -> Any:
    """Keep nine digits: the last parts differ between versions of numpy."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 9) if isinstance(value, float) else value


def markdown(sections: Iterable[Section]) -> str:
    return "\n".join(line for section in sections for line in (*section_lines(section), "")) + "\n"


class VisibleText(HTMLParser):
    """Collects what a reader of a page sees or hears: a line for each piece of text, of a picture its description."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.hidden = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in {"style", "script"}
        self.lines += [value for name, value in attrs if name in {"alt", "aria-label", "title"} and value]

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in {"style", "script"}

    def handle_data(self, data: str) -> None:
        if not self.hidden and data.strip():
            self.lines.append(" ".join(data.split()))


def visible(page: str) -> str:
    return "\n".join(VisibleText(page).lines) + "\n"


# ------------------------------------------------------------------------------ the report


@pytest.mark.slow
def test_report_json() -> None:
    document = rounded(rich_case().report().model_dump(mode="json"))
    check_golden("report.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")


@pytest.mark.slow
def test_report_md() -> None:
    check_golden("report.md", render_markdown(rich_case().report()))


@pytest.mark.slow
def test_report_html() -> None:
    check_golden("report.html.txt", visible(render_html(rich_case().report(), rich_case().items(40))))


@pytest.mark.slow
def test_the_summary_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    print_summary(rich_case().report(), Path("results/demo"))
    check_golden("terminal.txt", capsys.readouterr().out)


OURS = MachineFacts(
    name="ours",
    instance="g6.xlarge",
    gpu="L4",
    gpu_watts=72.0,
    grid_g_per_kwh=350.0,
    grid_source="the operator, 2025",
    price_per_hour=1.2,
    currency="EUR",
    terms="on demand",
    region="eu-west",
    as_of="2025-09-01",
    source="an offer",
)
API = HostedFacts(
    name="api",
    input_per_million=1.0,
    output_per_million=10.0,
    currency="EUR",
    as_of="2026-01-01",
    source="a price list",
)
STARTS = {"alpha": 0, "beta": 1, JUDGE.name: 2}
MACHINES = dict.fromkeys(STARTS, OURS)


def metrics(session: Session) -> tuple[Reading, Reading]:
    """Two readings of a server, 50 s apart."""

    def histogram(name: str, n: float, total: float) -> dict[str, float]:
        return {f"{name}_bucket 1.0": n, f"{name}_bucket +Inf": n, f"{name}_sum": total, f"{name}_count": n}

    first = {
        "vllm:prompt_tokens_total": 0.0,
        "vllm:generation_tokens_total": 0.0,
        "vllm:num_requests_running": 3.0,
    }
    last = {**first, "vllm:prompt_tokens_total": 4800.0, "vllm:generation_tokens_total": 1080.0}
    for name in ("vllm:time_to_first_token_seconds", "vllm:e2e_request_latency_seconds"):
        first |= histogram(name, 0.0, 0.0)
        last |= histogram(name, 10.0, 4.0)
    identity: dict[str, Any] = {"stage": session.stage, "model": session.model, "session": session.started}
    missing = ("vllm:num_preemptions_total",)
    return (
        Reading(**identity, at_s=0.0, values=first, missing=missing),
        Reading(**identity, at_s=50.0, values=last, missing=missing),
    )


def served_case() -> Case:
    """Alpha and beta and the judge one after the other on a machine; energy measured for alpha alone."""
    made = case(
        {"alpha": ["AB"] * 12, "beta": ["AA"] * 12},
        items_per_sample=2,
        alpha=candidate("alpha", openness="open source", released="2024-07"),
        beta=candidate("beta", openness="restricted"),
    )
    gpu = GpuEnergy(gpu="GPU-1", name="NVIDIA L4", joules=3000.0)
    energy = Energy(
        source="NVML", method="energy counter", seconds=60.0, gpus=(gpu,), idle_watts=16.0, idle="measured"
    )
    sessions = tuple(
        session.model_copy(
            update={
                "started": f"2026-01-05T10:0{STARTS[session.model]}:00+00:00",
                "host": "node-1",
                "energy": energy if session.model == "alpha" else None,
            }
        )
        for session in made.rows.sessions
    )
    return made.with_rows(sessions=sessions, readings=tuple(chain.from_iterable(map(metrics, sessions))))


def with_checks(report: Report) -> Report:
    """Add what checks found, and what preference pairs are like."""
    share = measure(0.25, 0.1, 0.5)
    rates = tuple(
        CheckRate(candidate=name, n_checked=24, n_found=6, share=share) for name in ("alpha", "beta")
    )
    example = CheckExample(
        candidate="alpha",
        chunk_id="doc-001",
        item_id="i",
        finding="names a figure",
        question="Which figure?",
        answer="That.",
    )
    check = CheckFacts(
        name="refers", meaning="speaks of the text as of something that the reader has", types=("fact",)
    )
    selection = tuple(
        Selection(
            candidate=name,
            prompt_words=12.0,
            chosen_words=40.0,
            rejected_words=30.5,
            n_without_findings=18,
            n_personas=3,
            n_personas_expected=4,
            scenarios={"fact": 18},
            scenarios_expected={"fact": 9, "why": 3},
        )
        for name in ("alpha", "beta")
    )
    group = CheckGroup(check=check, rates=rates, examples=(example,))
    return report.model_copy(update={"checks": (group,), "selection": selection})


@pytest.mark.slow
def test_a_report_of_servers_with_prices_checks_and_pairs() -> None:
    report = served_case().report(machines=MACHINES, hosted_prices=(API,))
    left = report.model_copy(update={"data_left": ("api.example",)})
    check_golden("report-served.md", render_markdown(with_checks(left)))


def test_a_report_of_one_candidate_on_few_chunks() -> None:
    check_golden("report-one.md", render_markdown(case({"alpha": ["AAB", "x", "AB-"]}).report()))


# ------------------------------------------------------------------------------ agreement, plan, generation


def agreement_text(tmp_path: Path, header: str, *rows: str, **options: Any) -> str:
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    report = agreement(path, **options)
    return markdown(write_agreement(report))


def test_agreement(tmp_path: Path) -> None:
    rows = [
        f"c{n // 2},{'xy'[n % 2]},{'AABC'[n % 4]},{'AABB'[n % 4]},{'ABBC'[(n // 3) % 4]},{'AB'[n % 2]}"
        for n in range(60)
    ]
    grouped = agreement_text(
        tmp_path,
        "chunk,kind,judge,anna,bert,cleo",
        *rows,
        judge="judge",
        cluster="chunk",
        by="kind",
        columns=("anna", "bert", "cleo", "judge"),
        scale=("A", "B", "C"),
    )
    constant = agreement_text(tmp_path, "anna,judge", *(f"{'ABCA'[n % 4]},A" for n in range(40)))
    few = agreement_text(tmp_path, "anna,judge", "A,A", "B,A", "A,A", "C,B")
    check_golden("agreement.md", f"{grouped}\n{constant}\n{few}")


def test_a_published_claim(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for kappa in (0.30, 0.03):
        check = check_published([111, 50, 10], [167, 3, 1], agreement_percent=65.0, kappa=kappa)
        print_published(check, claimed=True)
    check_golden("published.txt", capsys.readouterr().out)


@pytest.mark.slow
def test_plan() -> None:
    made = case({"alpha": ["AAB", "ABC", "AAA", "BCC"] * 5, "beta": ["AAA", "AAB", "AAA", "ABC"] * 5})
    table = made.data().table()
    run = plan_run(
        table, source="results/demo", candidates=["alpha", "beta"], best="A", difference=0.05, power=0.8
    )
    assumed = plan_assumed(rate=0.6, icc=0.2, items_per_chunk=3, n_chunks=50, difference=0.1, power=0.8)
    check_golden("plan.md", markdown([*write_plan(run), *write_plan(assumed)]))


def test_a_pair_that_cannot_differ_by_so_much_leaves_the_plan_of_the_others() -> None:
    made = case({"good": ["AAB", "AAA"] * 10, "floor": ["BBC"] * 19 + ["ABC"], "floor2": ["BBC"] * 20})
    report = plan_run(
        made.data().table(),
        source="results/demo",
        candidates=["good", "floor", "floor2"],
        best="A",
        difference=0.05,
        power=0.8,
    )
    by_pair = {(pair.a, pair.b): pair for pair in report.pairs}
    assert by_pair["good", "floor"].needed is not None
    impossible = by_pair["floor", "floor2"]
    assert (impossible.needed, impossible.power, impossible.n_labelled) == (None, 0.0, None)
    assert impossible.sentence.startswith(
        "They cannot differ by 5.0 points: the better of the two has 1.7 % usable"
    )
    assert "no number" in markdown(write_plan(report))


def test_generation() -> None:
    made = rich_case()
    report = analyse_generation(
        made.rows.samples,
        made.rows.generations,
        eval_facts=made.eval_facts(),
        candidates=[facts.name for facts in made.candidates],
    )
    check_golden("generation.md", markdown(write_generation(report)))


# ------------------------------------------------------------------------------ cost and decision


def cost_text(made: Case, machines: dict[str, MachineFacts], *prices: HostedFacts, **assumptions: Any) -> str:
    report = made.report(machines=machines)
    measured = report.measured(made.rows.sessions, made.rows.readings, priced_at=RUN.finished)
    return markdown(
        write_cost_report(cost_run(measured, report.timing, prices, CostAssumptions(**assumptions)))
    )


@pytest.mark.slow
def test_cost() -> None:
    made = served_case()
    cheap = API.model_copy(update={"name": "cheap", "input_per_million": 0.001, "output_per_million": 0.001})
    full = cost_text(made, MACHINES, API, cheap, start_s=90.0, idle_timeout_s=60.0, hourly_rate=60.0)
    running = cost_text(made, MACHINES, API.model_copy(update={"currency": "USD", "as_of": "2025-09-01"}))
    priceless = cost_text(made, {}, API)
    work = [steady_work(1932, per_s=per_s, price_per_hour=1.01) for per_s in (0.23, 2.11)]
    speeds = markdown(write_work(work, "USD", "USD 1.01 per hour, as given"))
    check_golden("cost.md", f"{full}\n{running}\n{priceless}\n{speeds}")


def decision_text(made: Case, weights: dict[str, float]) -> str:
    return markdown(write_decision(decide(made.report(), weights)))


@pytest.mark.slow
def test_decide() -> None:
    quality = {"reliability": 0.0, "cost": 0.0, "speed": 0.0, "maintenance": 0.0, "sovereignty": 0.0}
    made = case(
        {"alpha": ["AB"] * 12, "beta": ["AA"] * 12},
        items_per_sample=2,
        alpha=candidate("alpha", openness="open source"),
        beta=candidate("beta", openness="restricted"),
    )
    unknown = replace(made, candidates=(candidate("alpha", openness="open source"), candidate("beta")))
    words = {"alpha": ["AB", "BB", "AA", "BB"] * 5, "beta": ["AA", "AB", "AB", "BB"] * 5}
    texts = [
        decision_text(made, {**quality, "quality": 4, "licence": 1}),
        decision_text(made, {**quality, "quality": 2, "licence": 1}),
        decision_text(made, {**quality, "quality": 0, "licence": 1}),
        decision_text(unknown, {"quality": 5, "licence": 100}),
        decision_text(case(words, items_per_sample=2), {"quality": 5}),
        decision_text(case({"alpha": ["AA"] * 5, "beta": ["AB"] * 5}, items_per_sample=2), {}),
    ]
    check_golden("decide.md", "\n".join(texts))


# ------------------------------------------------------------------------------ history


def a_run(day: int, rate: float, **more: Any) -> HistoryRun:
    facts = {
        "name": f"run{day}",
        "started": f"2026-11-{day:02}T10:00:00+00:00",
        "eval": "qa_pairs",
        "eval_digest": "e",
        "samples_digest": "s",
        "n_samples": 200,
        "rubric": "qa_pair_abc/1",
        "rubric_digest": "r",
        "judge": "judge-7b",
        "judge_digest": "j",
        "rates": (HistoryRate(candidate="alpha", usable=measure(rate, rate - 0.1, rate + 0.1)),),
    }
    return HistoryRun(**{**facts, **more})


def test_history() -> None:
    history = history_of(
        [
            a_run(1, 0.5),
            a_run(2, 0.6, gate="pass"),
            a_run(3, 0.7, judge_digest="k", rubric="qa_pair_abc/2", rubric_digest="q"),
            a_run(4, 0.8, eval="rag_qa"),
        ],
        [Unread(name="torn", reason="not finished")],
    )
    check_golden("history.md", markdown(write_history(history)))
    check_golden("history.html.txt", visible(render_history(history, version="0.1.0")))


def test_compare_runs(tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(EXAMPLE, tmp_path / name)
    settings = json.loads((tmp_path / "second" / "settings.json").read_text())
    settings["candidates"]["other"] = settings["candidates"].pop("embedded-lead")
    (tmp_path / "second" / "settings.json").write_text(json.dumps(settings))
    generations = tmp_path / "second" / "generations.jsonl"
    generations.write_text(generations.read_text().replace('"embedded-lead"', '"other"'))
    with RunStore.open(tmp_path / "first") as first, RunStore.open(tmp_path / "second") as second:
        comparison = compare_runs([first, second], margin=0.05)
    check_golden("compare-runs.md", markdown(write_comparison(comparison)))
