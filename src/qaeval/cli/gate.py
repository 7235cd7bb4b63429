"""`qaeval gate` and `qaeval baseline`: verdicts about changes, and the baselines behind them."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from qaeval.cli.options import (
    AsJson,
    Concurrency,
    Endpoints,
    Labels,
    Machine,
    NoCache,
    Registry,
    RunDirectory,
    endpoint_urls,
    find_run_or_address,
    in_flight,
    mapping,
)
from qaeval.cli.terminal import say, say_json
from qaeval.errors import DataError, QaevalError, UsageError
from qaeval.registry.numbers import MAX_NUMBER

if TYPE_CHECKING:
    from qaeval.gate.baseline import EvidenceReader
    from qaeval.gate.evidence import Evidence
    from qaeval.gate.model import GateReport

baseline_app = typer.Typer(
    help="Manage baselines: set, show, list.", no_args_is_help=True, rich_markup_mode=None
)

_Baseline: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        metavar="RUN|FILE",
        parser=find_run_or_address,
        help="Run directory, baseline file or s3:// address; default: the baseline of the policy, else baselines/<eval>.json.",
    ),
]
_Policy: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--policy", help="Policy file with the rules; default: gate.yaml, else the built-in policy."
    ),
]
_Pairs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--candidate",
        metavar="NEW=OLD",
        help="Candidate of the run and the candidate of the baseline it is compared with; repeatable; default: all "
        "candidates, paired by name.",
    ),
]
_Regrade: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--regrade",
        help="Grade the stored replies of the baseline with the judge of the run, in a copy beside the baseline.",
    ),
]
_Unpaired: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--unpaired", help="Allow different samples and compare unpaired, with less statistical power."
    ),
]
_Sequential: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--sequential",
        help="Grade the run in random order and stop as soon as the verdict is certain.",
    ),
]
_Judge: TypeAlias = Annotated[
    str | None,
    typer.Option("--judge", help="With --sequential: judge used for grading, by its registry name."),
]
_Rubric: TypeAlias = Annotated[
    str | None, typer.Option("--rubric", help="With --sequential: rubric name or file.")
]
_SameFamily: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-same-family",
        help="With --sequential or --regrade: allow a judge of a candidate's family, or the same model or server.",
    ),
]
_Seed: TypeAlias = Annotated[
    int | None,
    typer.Option("--seed", min=0, max=MAX_NUMBER, help="With --sequential: random seed of the chunk order."),
]
_Junit: TypeAlias = Annotated[
    Path | None, typer.Option("--junit", help="Write JUnit XML to this file, one test case per rule.")
]
_Summary: TypeAlias = Annotated[
    Path | None, typer.Option("--summary", help="Append a Markdown summary to this file.")
]
_Comment: TypeAlias = Annotated[
    Path | None, typer.Option("--comment", help="Write the body of a pull-request comment to this file.")
]
_Link: TypeAlias = Annotated[
    str, typer.Option("--link", metavar="URL", help="URL of the full report, linked from the comment.")
]


def gate(
    run: RunDirectory,
    baseline: _Baseline = None,
    policy: _Policy = None,
    candidate: _Pairs = None,
    regrade: _Regrade = False,
    unpaired: _Unpaired = False,
    sequential: _Sequential = False,
    judge: _Judge = None,
    rubric: _Rubric = None,
    allow_same_family: _SameFamily = False,
    seed: _Seed = None,
    labels: Labels = None,
    hardware: Machine = None,
    endpoint: Endpoints = None,
    concurrency: Concurrency = None,
    no_cache: NoCache = False,
    config: Registry = None,
    junit: _Junit = None,
    summary: _Summary = None,
    comment: _Comment = None,
    link: _Link = "",
    as_json: AsJson = False,
) -> int:
    """Decide whether a run may replace its baseline.

    Exit codes: 0 passed, 1 regression, 2 inconclusive, 3 judge not trusted, 4 not comparable.
    """
    from qaeval import api
    from qaeval.cli.progress import progress_on_stderr

    report = api.gate(
        run,
        baseline=baseline,
        policy=policy,
        candidates=mapping(candidate, "--candidate"),
        unpaired=unpaired,
        regrade=regrade,
        sequential=sequential,
        judge=judge,
        rubric=rubric,
        allow_same_family=allow_same_family,
        seed=seed,
        labels=labels or None,
        hardware=hardware,
        endpoints=endpoint_urls(endpoint),
        config=config,
        concurrency=in_flight(concurrency),
        cache=not no_cache,
        progress=progress_on_stderr(),
    )
    write_views(report, run=run, junit=junit, summary=summary, comment=comment, link=link)
    show(report, as_json=as_json)
    return report.exit_code


def show(report: "GateReport", *, as_json: bool) -> None:
    """Print a verdict."""
    if as_json:
        say_json(report.model_dump_json())
        return
    from qaeval.cli.gate_tables import print_gate

    print_gate(report)


def write_views(
    report: "GateReport",
    *,
    run: Path,
    junit: Path | None,
    summary: Path | None,
    comment: Path | None,
    link: str,
) -> None:
    """Write what CI shows of a verdict: JUnit XML, a job's summary, a comment."""
    from qaeval.files.rows import explained
    from qaeval.files.whole import write_file

    if junit is not None:
        from qaeval.gate.views import to_junit

        write_file(junit, to_junit(report))
    if summary is not None:
        from qaeval.gate.views import to_markdown

        with explained(summary, "writing"), summary.open("a", encoding="utf-8") as file:
            file.write(to_markdown(report))
    if comment is not None:
        from qaeval.comparison.overview import build_overview
        from qaeval.gate.decide import comparison_by
        from qaeval.gate.views import to_comment

        screen = None
        with suppress(DataError):  # a run without a readable report is gated all the same
            comparison = comparison_by(report.run.identity.judge, run)
            screen = build_overview(comparison) if comparison else None
        write_file(comment, to_comment(report, link, screen))


def _reader(config: Path | None, labels: list[Path] | None, hardware: str | None) -> "EvidenceReader":
    from qaeval.gate.baseline import EvidenceReader
    from qaeval.registry.find import find_config

    return EvidenceReader(config=find_config(config), labels=labels or [], hardware=hardware)


_Folder: TypeAlias = Annotated[Path, typer.Option("--folder", help="Folder of the baseline files.")]
_File: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE",
        help="Baseline file; default: the baseline of the policy gate.yaml, else baselines/<eval>.json of the registry's eval.",
        show_default=False,
    ),
]


@baseline_app.command("set")
def set_baseline(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", parser=find_run_or_address, help="Run directory, `latest`, or an s3:// address."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Baseline file; default: baselines/<eval>.json.")
    ] = None,
    pointer: Annotated[
        bool,
        typer.Option(
            "--pointer", help="Store only the address and hash of the run; the run must stay in place."
        ),
    ] = False,
    policy: _Policy = None,
    labels: Labels = None,
    hardware: Machine = None,
    config: Registry = None,
    as_json: AsJson = False,
) -> None:
    """Set a run as the baseline.

    Names the rules that even an identical run would not pass. The file is small enough for git: letters and ids, no texts.
    """
    from qaeval.gate.baseline import FOLDER, evidence_digest, write_baseline, write_pointer
    from qaeval.storage.location import is_store

    if Path(run).is_file():
        raise UsageError(f"{run}: a baseline is set from a run directory, this is a file")
    reader = _reader(config, labels, hardware)
    evidence = reader.baseline(run) if is_store(run) else reader.run(Path(run))
    name, problems, is_trusted = _never_passing(evidence, policy)
    path = out or FOLDER / f"{evidence.source.identity.eval}.json"
    earlier = ", in place of the earlier one" if path.is_file() else ""
    size = write_pointer(run, evidence, path) if pointer else write_baseline(evidence, path)
    if as_json:
        document = {"path": str(path), "bytes": size, "sha256": evidence_digest(evidence)}
        say_json({**document, "policy": name, "never_passing": problems})
        return
    say(f"{path}: {size:,} bytes{earlier}. Commit it, and compare later runs with:")
    say("  qaeval gate RUN" if out is None else f"  qaeval gate RUN --baseline {path}")
    if problems:
        even = "Even" if is_trusted else "With this judge, even"
        say(f"{even} an identical run would not pass this gate (policy {name}):")
        for problem in problems:
            say(f"! {problem}")


def _never_passing(evidence: "Evidence", path: Path | None) -> tuple[str, list[str], bool]:
    """Return the name of the policy, why even a run that equals its baseline would not pass, and whether its judge is trusted.

    Raises:
        DataError: The named policy is not valid, or not one of this eval. That of the working directory may be of another eval.
    """
    from qaeval.environment import now
    from qaeval.gate.decide import POLICY, find_policy, gate_of_equal_run
    from qaeval.gate.messages import plain, sentences_of_rules

    try:
        policy = find_policy(path, evidence)
        report = gate_of_equal_run(policy, evidence, now())
    except QaevalError as error:
        if path is not None:
            raise
        return str(POLICY), [str(error)], True
    failed = [rule for rule in report.rules if rule.verdict != "pass"]
    sentences = [sentence for _, sentence in sentences_of_rules(failed)]
    is_trusted = report.outcome != "untrusted"
    if not is_trusted:
        sentences.insert(0, report.headline)
    return plain(policy.name), [plain(sentence) for sentence in sentences], is_trusted


@baseline_app.command("show")
def show_baseline(file: _File = None, config: Registry = None, as_json: AsJson = False) -> None:
    """Show the candidates, eval, judge and age of a baseline."""
    from qaeval.cli.gate_tables import print_baseline
    from qaeval.environment import now
    from qaeval.gate.baseline import evidence_json

    reader = _reader(config, None, None)
    address = file or _default_baseline(reader.config.defaults.eval)
    evidence = reader.baseline(address)
    if as_json:
        say_json(evidence_json(evidence))
    else:
        print_baseline(address, evidence, now())


def _default_baseline(eval_name: str) -> str:
    """Return the baseline that a gate takes in this folder, for runs of an eval.

    Raises:
        UsageError: There is none.
    """
    from qaeval.evals.find import find_eval
    from qaeval.gate.baseline import FOLDER
    from qaeval.gate.decide import POLICY
    from qaeval.gate.policy import read_policy

    if POLICY.is_file() and (address := read_policy(POLICY).baseline):
        return address
    path = FOLDER / f"{find_eval(eval_name).name}.json"
    if not path.is_file():
        raise UsageError(
            f"no baseline: {path} does not exist. `qaeval baseline set RUN` writes it; name another file: `qaeval baseline show FILE`"
        )
    return str(path)


@baseline_app.command("list")
def list_baselines(folder: _Folder = Path("baselines"), as_json: AsJson = False) -> None:
    """List the baselines of a folder, with their ages."""
    from qaeval.cli.gate_tables import baseline_rows, print_baselines
    from qaeval.environment import now
    from qaeval.gate.baseline import list_baselines as found_in

    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; `qaeval baseline set RUN` makes the first baseline")
    rows = baseline_rows(found_in(folder), now())
    if as_json:
        say_json(rows)
    elif rows:
        print_baselines(rows)
    else:
        say(f"{folder}: no baseline here", error=True)
