"""`qaeval certify`: the certificate of a judge."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import typer

from qaeval.cli.options import (
    AsJson,
    Concurrency,
    ConsentTo,
    Endpoints,
    NoCache,
    Registry,
    RubricName,
    complete_judge,
    endpoint_urls,
    find_run_argument,
    in_flight,
)
from qaeval.cli.terminal import say, say_json
from qaeval.errors import UsageError

if TYPE_CHECKING:
    from qaeval.gate.certificate import JudgeCertificate

_EXIT_CODES: Final = {"trusted": 0, "not trusted": 3, "not enough labels": 2}
"""As of a gate: 3 where the judge is not trusted, 2 where that is undecided."""

_Judge: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="JUDGE", help="Judge, by its registry name.", autocompletion=complete_judge),
]
_Labels: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--labels", help="Label file; repeatable; default: the labels of the eval, or of the run."),
]
_Eval: TypeAlias = Annotated[
    str | None, typer.Option("--eval", help="Eval name or folder; default: the eval of the registry.")
]
_Run: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="RUN",
        parser=find_run_argument,
        help="Take the letters of a graded run instead of grading the labelled items anew; also shows whether the judge favours a "
        "candidate.",
    ),
]
_Policy: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--policy", help="Policy file with the requirements (trust:); default: gate.yaml, if there is one."
    ),
]
_Raters: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--raters", metavar="people|any", help="any: admit labels of models; default: the policy's."
    ),
]
_Audit: TypeAlias = Annotated[
    Path | None,
    typer.Option("--audit", metavar="DIR", help="Audit of the judge, which the certificate then holds."),
]
_Anchors: TypeAlias = Annotated[
    int,
    typer.Option(
        "--anchors",
        metavar="N",
        min=0,
        help="Items that a gate with drift: has the judge grade again, stored with texts beside the certificate; 150 find a change of "
        "10 points.",
    ),
]
_Chunks: TypeAlias = Annotated[
    Path | None, typer.Option("--chunks", help="Chunk file of the labelled items; default: the eval's.")
]
_Work: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--work",
        metavar="DIR",
        help="Run directory of the labelled items and their letters; default: results/certify-<time>.",
    ),
]
_Out: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Certificate to write; default: certificates/<eval>-<judge>-<rubric>.json.",
    ),
]


def certify(
    judge: _Judge,
    eval_name: _Eval = None,
    labels: _Labels = None,
    run: _Run = None,
    policy: _Policy = None,
    raters: _Raters = None,
    audit: _Audit = None,
    anchors: _Anchors = 0,
    rubric: RubricName = None,
    chunks: _Chunks = None,
    work: _Work = None,
    out: _Out = None,
    endpoint: Endpoints = None,
    concurrency: Concurrency = None,
    no_cache: NoCache = False,
    consent: ConsentTo = None,
    config: Registry = None,
    as_json: AsJson = False,
) -> int:
    """Issue the certificate of a judge from labels.

    Exit codes: 0 trusted, 2 not enough labels, 3 not trusted.
    """
    from qaeval import api
    from qaeval.cli.progress import consent_on_stderr, progress_on_stderr
    from qaeval.gate.certificate import certificate_path

    certificate = api.certify(
        judge,
        labels=labels or None,
        eval_name=eval_name,
        run=run,
        policy=policy,
        raters=_raters(raters),
        audit=audit,
        anchors=anchors,
        rubric=rubric,
        chunks=chunks,
        work=work,
        out=out,
        endpoints=endpoint_urls(endpoint),
        config=config,
        concurrency=in_flight(concurrency),
        cache=not no_cache,
        consent=consent_on_stderr(consent),
        progress=progress_on_stderr(),
    )
    if as_json:
        say_json(certificate.model_dump_json())
    else:
        names = certificate.certified
        _print(certificate, out or certificate_path(names.eval, names.judge, names.rubric))
    return _EXIT_CODES[certificate.verdict.outcome]


def _raters(text: str | None) -> Literal["people", "any"] | None:
    if text not in {None, "people", "any"}:
        raise UsageError(f"--raters: expected people or any, got {text!r}")
    return text  # type: ignore[return-value] # mypy does not narrow a string to a literal


def _print(certificate: "JudgeCertificate", path: Path) -> None:
    from qaeval.cli.tables import print_sections
    from qaeval.gate.sections import certificate_section
    from qaeval.gate.trust import outcome_of

    verdict = f"{certificate.certified.judge}: {outcome_of(certificate.verdict)}"
    print_sections((certificate_section(certificate),), verdict=verdict)
    say(path)
