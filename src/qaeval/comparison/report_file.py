"""``report.json`` of a finished run, read without an analysis of the run: for `qaeval cost`, `decide` and `history`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from qaeval.analysis.model import Sentence
from qaeval.comparison.headline import verdict_sentence
from qaeval.comparison.report import Report
from qaeval.comparison.verdict import decide_verdict
from qaeval.cost.model import MeasuredRun
from qaeval.cost.run_cost import run_timing
from qaeval.environment import now
from qaeval.errors import DataError
from qaeval.report.facts import MachineFacts
from qaeval.storage.run_directory import MANIFEST, RunStore
from qaeval.storage.runs import way_on

REPORT: Final = "report.json"


def load_report(run: Path) -> Report:
    """Read the report of a finished run, written by this version of qaeval, an earlier or a later one.

    Unknown keys are ignored, and missing keys take the defaults of `Report`.

    Args:
        run: The run directory.

    Raises:
        DataError: The run is not finished, or its report is missing, lacks a required part, or holds a value of another type.
    """
    command = f"`qaeval report {shlex.quote(str(run))}`"
    # the manifest is dropped while rows are added, and then the report beside it is out of date
    if not (run / MANIFEST).is_file():
        RunStore(run).require_run()
        raise DataError(
            f"{run}: not finished (no {MANIFEST}); {way_on(run)} completes it, then {command} writes its report"
        )
    path = run / REPORT
    try:
        report = Report.model_validate_json(path.read_bytes(), extra="ignore")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {command} writes it") from error
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"]))
        problem = f"{location}: {first['msg']}" if location else first["msg"]
        raise DataError(
            f"{path}: expected a report of qaeval, got {problem}; {command} writes it anew"
        ) from error
    return report if "verdict" in report.model_fields_set else _with_verdict(report)


def _with_verdict(report: Report) -> Report:
    """Add the verdict, and its sentence in the headline, to a report of a version that wrote none."""
    verdict = decide_verdict(
        report.candidates, report.differences, report.agreement, report.controls, margin=report.margin
    )
    others = (sentence for sentence in report.headline if sentence.kind != "verdict")
    headline = (Sentence(kind="verdict", text=verdict_sentence(verdict)), *others)
    return report.model_copy(update={"verdict": verdict, "headline": headline})


def load_priced(store: RunStore, machines: Mapping[str, MachineFacts]) -> tuple[Report, MeasuredRun]:
    """Read the report of a finished run and compute its costs anew: on other machines, at the prices of today.

    Args:
        store: The run.
        machines: What each model runs on, by its name.

    Raises:
        DataError: As in `load_report`.
    """
    report = load_report(store.path)
    measured = report.measured(store.sessions(), store.readings(), priced_at=now())
    return report.model_copy(update={"timing": run_timing(measured, machines)}), measured
