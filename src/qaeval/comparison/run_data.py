"""Data of one run directory, or of several runs of the same eval, as the analysis takes it."""

import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from qaeval.agreement.analysis import require_no_contradiction
from qaeval.agreement.label_files import read_labels, read_rater_rows
from qaeval.agreement.panel import panel_grades, panel_name
from qaeval.analysis.letters import WAY_ON
from qaeval.calibration.model import Escalation
from qaeval.checks.registry import meaning
from qaeval.comparison.analysis import RunData, RunRows
from qaeval.comparison.until_decided import SequencePlan
from qaeval.errors import DataError, NotComparableError, UsageError
from qaeval.evals.definition import recorded_prompt
from qaeval.evals.find import find_labels
from qaeval.records import (
    Cascade,
    Failure,
    Generation,
    GradeRow,
    Label,
    Reading,
    Session,
    digest,
)
from qaeval.registry.family import lines
from qaeval.registry.model import recorded_model
from qaeval.report.facts import (
    JUDGE_MODE,
    SAME_FAMILY,
    CheckFacts,
    EvalFacts,
    FactMeaning,
    Meaning,
    ModelFacts,
    RubricFacts,
)
from qaeval.report.numbers import plural
from qaeval.storage.run_directory import ESCALATION, RunStore
from qaeval.storage.runs import way_on

_log: Final = logging.getLogger("qaeval")


GROUPS: Final = ("candidate", "stratum", "type")
"""What the items of a run can be grouped by."""


FILES: Final = "files sha-256 (names, sizes, settings; weights not read)"
"""How a report names the hash of a model's folder."""


def read_run(
    store: RunStore,
    *,
    label_paths: Sequence[Path] = (),
    grading: Mapping[str, Any] | None = None,
    decide_by: str = "",
    panel: Sequence[str] = (),
) -> RunData:
    """Read a run and the labels of its items.

    Args:
        store: The run.
        label_paths: Files of labels.
        grading: Who is going to grade, of a run that nobody grades yet.
        decide_by: The judge whose letters are those of the run; default: the first.
        panel: Judges of whose letters the most frequent one is that of an item, in place of `decide_by`.

    Raises:
        UsageError: `decide_by` or a member of the panel did not grade the run.
        DataError: the run is not graded, or a label file is not readable.
    """
    settings = store.settings()
    if "shard" in settings:
        shard = settings["shard"]
        raise DataError(
            f"{store.path}: shard {shard['index']}/{shard['of']} of a run; `qaeval merge` puts all of them together first"
        )
    first = settings.get("grading") or grading
    if first is None:
        raise DataError(f"{store.path}: not graded yet; `qaeval grade {store.path}` comes first")
    gradings = {first["judge"]["name"]: first, **store.further_judges()}
    rows = {
        name: store.grades() if about is first else store.grades_of(name) for name, about in gradings.items()
    }
    grading = gradings[decider(store, settings, decide_by)] if decide_by else first
    judge = grading["judge"]["name"]
    facts = eval_facts_of(settings)
    sessions = store.sessions()
    label_files = [read_rater_rows(path) for path in label_paths]
    data = RunData(
        rows=RunRows(
            samples=store.samples(),
            generations=store.generations(),
            grades=rows[judge],
            further_grades={name: own for name, own in rows.items() if name != judge},
            sessions=sessions,
            controls=store.controls() if grading is first else (),  # the first judge alone grades them
            readings=store.readings(),
            # the first judge alone grades repeats
            generation_repeats=store.generation_repeats() if grading is first else (),
            grade_repeats=store.grade_repeats() if grading is first else (),
            temperatures=_temperatures(settings["eval"], settings["candidates"], grading["judge"]),
            labels=tuple(label for own in label_files for label in own.labels),
            label_repeats=tuple(label for own in label_files for label in own.repeats),
        ),
        eval_facts=facts,
        rubric=rubric_facts(grading["rubric"]),
        judge=_served(_judge_facts(grading), "grade", sessions),
        candidates=tuple(
            _served(_candidate_facts(settings, name), "generate", sessions) for name in settings["candidates"]
        ),
        until_decided=SequencePlan.of(settings),
        cascade=grading["judge"].get("cascade"),
        escalation=escalation_of(store),
        run=shlex.quote(str(store.path)),
        way_on=way_on(store.path),
        judge_tuned=facts.name in (grading["judge"].get("tuned_on") or ()),
        further_tuned=frozenset(
            name
            for name, own in gradings.items()
            if name != judge and facts.name in (own["judge"].get("tuned_on") or ())
        ),
    )
    members = [decider(store, settings, name) for name in panel]
    return _by_panel(data, {name: gradings[name] for name in members}, rows) if members else data


def escalation_of(store: RunStore) -> Escalation | None:
    """Read what came of an escalation; None where there was none.

    Raises:
        DataError: The file is not readable.
    """
    path = store.path / ESCALATION
    if not path.is_file():
        return None
    try:
        return Escalation.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not the data of an escalation: {str(error).splitlines()[0]}") from error


def _by_panel(
    data: RunData, gradings: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Iterable[GradeRow]]
) -> RunData:
    """Return a run whose letters are those of a panel, and whose further judges are all that graded it."""
    members = {name: _judge_facts(about) for name, about in gradings.items()}
    votes = {name: rows[name] for name in members}
    unknown = [name for name, facts in members.items() if facts.kind == "server" and not facts.family]
    more: dict[str, Any] = {"members of unknown family": ", ".join(unknown)} if unknown else {}
    for facts in members.values():
        more |= {key: value for key, value in facts.more.items() if key == SAME_FAMILY}
    judge = ModelFacts(
        name=panel_name(members),
        kind="panel",
        hf_id=" + ".join(facts.hf_id or name for name, facts in members.items()),
        revision=" + ".join(facts.revision or "–" for facts in members.values()),
        family=tuple(dict.fromkeys(family for facts in members.values() for family in facts.family)),
        sampling={
            f"{name}, {key}": value
            for name, facts in members.items()
            for key, value in facts.sampling.items()
        },
        more=more,
    )
    tuned = data.tuned
    panel_rows = replace(
        data.rows,
        grades=panel_grades(votes, data.rubric),
        further_grades=rows,
        controls=(),  # planted controls and repeats are of the first judge alone
        generation_repeats=(),
        grade_repeats=(),
    )
    return replace(
        data,
        rows=panel_rows,
        judge=judge,
        cascade=None,
        judge_tuned=bool(tuned & set(members)),
        further_tuned=tuned,
        panel=tuple(members),
    )


def decider(store: RunStore, settings: Mapping[str, Any], decide_by: str) -> str:
    """Return the name of a judge that graded a run.

    Raises:
        UsageError: it did not.
    """
    names = [settings["grading"]["judge"]["name"]] if settings.get("grading") else []
    names += store.further_judges()
    if decide_by not in names:
        graded = f"it was graded by {', '.join(names)}" if names else "it is not graded yet"
        raise UsageError(
            f"{store.path}: no letters of {decide_by}; {graded}. `qaeval grade {store.path} --judge {decide_by}` adds them"
        )
    return decide_by


def labels_of_run(path: Path, settings: Mapping[str, Any]) -> list[Path]:
    """List the label files of a run: those of its eval, and those that came with its items."""
    return [*find_labels(settings["eval"]["name"]), *sorted(path.glob("labels/*.jsonl"))]


def labels_of_runs(paths: Iterable[Path], settings: Iterable[Mapping[str, Any]]) -> list[Path]:
    """List the label files of several runs of one eval, each once."""
    return list(
        dict.fromkeys(
            file for path, own in zip(paths, settings, strict=True) for file in labels_of_run(path, own)
        )
    )


_JUDGE_TEMPERATURE: Final = 0.0
"""Of a judge whose entry has none, as in `qaeval.run.grade.SAMPLING`."""


def _temperatures(
    definition: Mapping[str, Any], candidates: Mapping[str, Any], judge: Mapping[str, Any]
) -> dict[str, float]:
    """Return the temperature of each model: its own, or that of the eval or of judges."""

    def temperature(about: Mapping[str, Any], default: float) -> float:
        value = (about.get("sampling") or {}).get("temperature")
        return default if value is None else float(value)

    of_judge = {judge["name"]: temperature(judge, _JUDGE_TEMPERATURE)}
    of_eval = temperature(definition, 0.0)
    return of_judge | {name: temperature(about, of_eval) for name, about in candidates.items()}


def require_labels(paths: Sequence[Path]) -> None:
    """Read label files before the first request is sent, so that a mistake in them costs nothing.

    Raises:
        DataError: one of them is not readable, or a rater gave an item two different labels under one rubric.
    """
    by_rubric: dict[str, list[Label]] = {}
    for path in paths:
        for label in read_labels(path):
            by_rubric.setdefault(label.rubric, []).append(label)
    for labels in by_rubric.values():
        require_no_contradiction(labels)


def eval_facts_of(settings: Mapping[str, Any]) -> EvalFacts:
    """Say what was asked, from a run's settings."""
    definition, drawn = settings["eval"], settings["sample_set"]
    return EvalFacts(
        name=definition["name"],
        title=definition["title"],
        sha=definition["digest"],
        task_sha=digest({key: value for key, value in definition.items() if key not in {"digest", "prompt"}}),
        prompt_sha=""
        if all("prompt" in about or about["kind"] == "imported" for about in settings["candidates"].values())
        else digest(definition["prompt"]),
        sample_set_digest=drawn["digest"],
        n_samples=drawn["n"],
        seed=drawn["seed"],
        items_per_sample=definition["items_per_sample"],
        item_kind=definition.get("item_kind", "qa_pair"),
        item_types=tuple(definition["item_types"]),
        checks=tuple(
            CheckFacts(name=check["name"], meaning=meaning(check["name"]), types=tuple(check["types"]))
            for check in definition.get("checks", ())
        ),
    )


def rubric_facts(rubric: Mapping[str, Any]) -> RubricFacts:
    """Say how items are graded, from the rubric in a run's settings."""
    return RubricFacts(
        name=rubric["name"],
        version=rubric["version"],
        sha=rubric["sha"],
        scale=tuple(Meaning(name=level["letter"], meaning=level["name"]) for level in rubric["scale"]),
        flags=tuple(Meaning(name=flag["name"], meaning=flag["meaning"]) for flag in rubric["flags"]),
        flaws=tuple(Meaning(name=flaw["name"], meaning=flaw["meaning"]) for flaw in rubric.get("flaws", ())),
        labels_from=tuple(rubric.get("labels_from", ())),
        facts=tuple(
            FactMeaning(name=fact["name"], meaning=fact["ask"], answers=tuple(fact["answers"]))
            for fact in rubric.get("facts", ())
        ),
    )


def _candidate_facts(settings: Mapping[str, Any], name: str) -> ModelFacts:
    about = settings["candidates"][name]
    prompt = (about.get("prompt") or {}).get("name", "")
    sha = "" if about["kind"] == "imported" else digest(recorded_prompt(settings, name))
    return _model_facts(name, about).model_copy(update={"prompt": prompt, "prompt_sha": sha})


def _judge_facts(grading: Mapping[str, Any]) -> ModelFacts:
    facts = _model_facts(grading["judge"]["name"], grading["judge"])
    more = {SAME_FAMILY: "allowed by --allow-same-family"} if grading.get("allow_same_family") else {}
    judge = grading["judge"]
    if (mode := judge.get("judge_mode") or "reason_first") != "reason_first":
        more[JUDGE_MODE] = Cascade(**judge["cascade"]).summary if mode == "cascade" else mode
    return facts.model_copy(update={"more": {**facts.more, **more}})


def _model_facts(name: str, about: Mapping[str, Any]) -> ModelFacts:
    unknown = {"prompt and sampling": "not recorded"} if about["kind"] == "imported" else {}
    return ModelFacts(
        more=unknown,
        name=name,
        kind=about["kind"],
        hf_id=about.get("hf_id") or "",
        revision=about.get("revision") or "",
        licence=about.get("licence") or "",
        family=lines(recorded_model(name, about)),
        openness=about.get("openness") or "",
        released=about.get("released") or "",
        sampling={key: value for key, value in about.get("sampling", {}).items() if value is not None},
    )


def _served(facts: ModelFacts, stage: str, sessions: Sequence[Session]) -> ModelFacts:
    """Add what the servers said of themselves; where sessions differ, all of it."""
    endpoints = [
        session.endpoint
        for session in sessions
        if (session.stage, session.model) == (stage, facts.name) and session.endpoint
    ]

    def said(name: str) -> str:
        return " and ".join(sorted({str(endpoint[name]) for endpoint in endpoints if endpoint.get(name)}))

    prompts = {
        session.prompt_sha for session in sessions if (session.stage, session.model) == (stage, facts.name)
    }
    lengths = [endpoint["max_model_len"] for endpoint in endpoints if endpoint.get("max_model_len")]
    stated = {"served from": said("root"), FILES: said("files_sha256")}
    return facts.model_copy(
        update={
            "server": f"vllm {version}" if (version := said("version")) else facts.server,
            # of a judge; a candidate's is in the settings
            "prompt_sha": " and ".join(sorted(prompts - {""})) or facts.prompt_sha,
            "max_model_len": min(lengths, default=facts.max_model_len),
            "more": {**facts.more, **{name: text for name, text in stated.items() if text}},
        }
    )


_Timed = TypeVar("_Timed", Session, Reading)


def join_runs(runs: Mapping[str, RunData]) -> RunData:
    """Put the candidates of several runs side by side.

    A candidate that two runs have becomes ``name@run`` in the later one. An item that two runs graded differently stays
    two items: each run's letter counts for its own candidates, and none is chosen.

    Args:
        runs: By name, at least one, in the order of the report.

    Raises:
        NotComparableError: eval, samples, rubric or judge differ; the message names what.
        DataError: one of several runs is not graded to its end.
    """
    (first_name, first), *later_runs = runs.items()
    if later_runs:
        _require_graded(runs)
    for name, run in later_runs:
        _require_alike(first_name, first, name, run)
    for name, run in later_runs:
        first = _joined(first, run, name)
    return first


def _require_graded(runs: Mapping[str, RunData]) -> None:
    """Refuse a run that lacks letters: an item that another run has too would take the other's letter."""
    for name, run in runs.items():
        graded = {row.item_id for row in run.rows.grades}
        items = {
            item.item_id for row in run.rows.generations if isinstance(row, Generation) for item in row.items
        }
        if missing := len(items - graded):
            raise DataError(
                f"{name}: {plural(missing, 'item has', 'items have')} no grade; finish it with `qaeval grade`"
            )


def _require_alike(first_name: str, first: RunData, name: str, run: RunData) -> None:
    aspects = {
        "eval": (
            f"{first.eval_facts.name} {first.eval_facts.task_sha[:8]}",
            f"{run.eval_facts.name} {run.eval_facts.task_sha[:8]}",
        ),
        "samples": (_samples(first), _samples(run)),
        "rubric": (first.rubric.sha, run.rubric.sha),
        "judge": (first.judge.name, run.judge.name),
        "judge's model": (
            f"{first.judge.hf_id} {first.judge.revision}".strip(),
            f"{run.judge.hf_id} {run.judge.revision}".strip(),
        ),
        "judge's mode": (_mode(first), _mode(run)),
        "judge's sampling": (str(dict(first.judge.sampling)), str(dict(run.judge.sampling))),
    }
    different = [f"{aspect} ({a[:32]} and {b[:32]})" for aspect, (a, b) in aspects.items() if a != b]
    if different:
        raise NotComparableError(
            f"{first_name} and {name} are not comparable: they differ in {', '.join(different)}. Runs are compared "
            f"over the same samples, rubric and judge"
        )


def _samples(run: RunData) -> str:
    facts = run.eval_facts
    return f"{facts.n_samples:,}, set {facts.sample_set_digest[:8]}"


def _mode(run: RunData) -> str:
    return str(run.judge.more.get(JUDGE_MODE, "reason_first"))


def _joined(first: RunData, run: RunData, name: str) -> RunData:
    taken = {facts.name for facts in first.candidates}
    names = {
        facts.name: f"{facts.name}@{name}" if facts.name in taken else facts.name for facts in run.candidates
    }
    first_grades, own_grades = tuple(first.rows.grades), tuple(run.rows.grades)
    first_by_id = {row.item_id: row for row in first_grades}
    ids = {
        str(row.item_id): f"{row.item_id}@{name}"
        for row in own_grades
        if row.item_id in first_by_id and not same_letter(row, first_by_id[row.item_id])
    }
    grades = [
        row.model_copy(update={"item_id": ids.get(str(row.item_id), row.item_id)})
        for row in own_grades
        if row.item_id in ids or row.item_id not in first_by_id
    ]
    labels = tuple(dict.fromkeys((*first.rows.labels, *run.rows.labels)))
    rows = RunRows(
        samples=first.rows.samples,
        generations=(*first.rows.generations, *(_renamed(row, names, ids) for row in run.rows.generations)),
        grades=(*first_grades, *grades),
        sessions=(*first.rows.sessions, *(_of(row, names) for row in run.rows.sessions)),
        controls=(*first.rows.controls, *run.rows.controls),
        readings=(*first.rows.readings, *(_of(row, names) for row in run.rows.readings)),
        # a label is of the item's text: it holds for the item of each run, also where the runs' letters differ
        labels=(
            *labels,
            *(
                label.model_copy(update={"item_id": ids[label.item_id]})
                for label in run.rows.labels
                if label.item_id in ids
            ),
        ),
        label_repeats=tuple(dict.fromkeys((*first.rows.label_repeats, *run.rows.label_repeats))),
    )
    candidates = (
        *first.candidates,
        *(facts.model_copy(update={"name": names[facts.name]}) for facts in run.candidates),
    )
    return replace(
        first,
        rows=rows,
        candidates=candidates,
        further_tuned=frozenset(),
        panel=(),
        escalation=None,
        run="RUN",
        way_on=WAY_ON,
    )


def same_letter(first: GradeRow, second: GradeRow) -> bool:
    """Whether two grades say the same; two failures do."""
    if isinstance(first, Failure) or isinstance(second, Failure):
        return isinstance(first, Failure) and isinstance(second, Failure)
    return (first.letter, first.flags) == (second.letter, second.flags)


def _renamed(
    row: Generation | Failure, names: Mapping[str, str], ids: Mapping[str, str]
) -> Generation | Failure:
    if isinstance(row, Failure):
        return row.model_copy(update={"model": names[row.model]})
    items = tuple(
        item.model_copy(update={"item_id": ids.get(item.item_id, item.item_id)}) for item in row.items
    )
    return row.model_copy(update={"candidate": names[row.candidate], "items": items})


def _of(row: _Timed, names: Mapping[str, str]) -> _Timed:
    return (
        row.model_copy(update={"model": names.get(row.model, row.model)}) if row.stage == "generate" else row
    )
