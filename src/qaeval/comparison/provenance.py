"""Section on provenance: models, data and settings of the run."""

from collections.abc import Mapping

from qaeval.comparison.report import Report
from qaeval.report import numbers
from qaeval.report.facts import ModelFacts, Plain
from qaeval.report.tables import Section, Table


def provenance(report: Report) -> Section:
    """Hashes, versions, and data that left the machines."""
    warnings = tuple(f"Warning: {text}" for text in report.run.warnings)
    return Section(
        anchor="provenance",
        title="Provenance",
        paragraphs=(data_left(report), *warnings),
        tables=(_eval(report), _models(report), _run(report)),
    )


def data_left(report: Report) -> str:
    """Say which hosts outside the user's network were sent chunks."""
    if not report.data_left:
        return "No data left the machines."
    return f"Chunks were sent to hosts outside the network: {', '.join(report.data_left)}."


def _eval(report: Report) -> Table:
    facts, rubric = report.eval, report.rubric
    return _facts(
        "Eval and rubric",
        {
            "eval": facts.name,
            "title": facts.title,
            "source": facts.source,
            "samples": facts.n_samples,
            "items per sample": facts.items_per_sample,
            "seed of the draw": facts.seed,
            "eval sha-256": facts.sha,
            "prompt sha-256": "" if _has_prompts(report) else facts.prompt_sha,
            "sample set sha-256": facts.sample_set_digest,
            "rubric": rubric.name,
            "rubric sha-256": rubric.sha,
            **{f"letter {letter.name}": letter.meaning for letter in rubric.scale},
            **{f"flag {flag.name}": flag.meaning for flag in rubric.flags},
            **{f"flaw {flaw.name}": flaw.meaning for flaw in rubric.flaws},
        },
    )


def _has_prompts(report: Report) -> bool:
    """Whether the prompt belongs to the candidates: they have prompts of their own, or differ in the eval's."""
    prompts = {(candidate.facts.prompt, candidate.facts.prompt_sha) for candidate in report.candidates}
    return len(prompts) > 1 or any(name for name, _ in prompts)


def _models(report: Report) -> Table:
    """Put all models side by side; a fact that none of them has is left out."""
    judge = report.judge.facts
    facts = [*(_model(candidate.facts) for candidate in report.candidates), _model(judge)]
    if not _has_prompts(report):  # the table above has the prompt of the eval
        facts = [{key: value for key, value in model.items() if key != "prompt sha-256"} for model in facts]
    names = dict.fromkeys(name for model in facts for name in model)
    stated = [name for name in names if any(model.get(name) not in {"", None} for model in facts)]
    rows = tuple((name, *(_value(model.get(name)) for model in facts)) for name in stated)
    header = ("What", *(candidate.facts.name for candidate in report.candidates), f"{judge.name} (judge)")
    return Table(caption="Models", header=header, rows=rows, kind="text")


def _model(facts: ModelFacts) -> dict[str, Plain]:
    return {
        "kind": facts.kind,
        "what it is": facts.description,
        "Hugging Face id": facts.hf_id,
        "revision": facts.revision,
        "family": ", ".join(facts.family),
        "prompt": facts.prompt,
        "prompt sha-256": facts.prompt_sha,
        "licence": facts.licence,
        "openness": facts.openness,
        "host": facts.host,
        "server": facts.server,
        "context length": facts.max_model_len,
        **facts.sampling,
        **facts.more,
    }


def _value(value: Plain) -> str:
    return "–" if value in {"", None} else str(value)


def _run(report: Report) -> Table:
    run = report.run
    return _facts(
        "Run",
        {
            "run": run.id,
            "started": run.started,
            "finished": run.finished,
            "sessions": run.n_sessions,
            "equal items, graded once": run.n_shared or None,
            "command": run.command,
            "qaeval": run.qaeval_version,
            "git commit": run.git_commit,
            "python": run.python,
            "platform": run.platform,
            "report format": report.format,
            **{f"time: {stage}": numbers.seconds(seconds) for stage, seconds in run.seconds.items()},
        },
    )


def _facts(caption: str, facts: Mapping[str, Plain]) -> Table:
    """List what is known; what is not is left out."""
    rows = tuple((name, str(value)) for name, value in facts.items() if value not in {"", None})
    return Table(caption=caption, header=("What", "Value"), rows=rows, kind="text")
