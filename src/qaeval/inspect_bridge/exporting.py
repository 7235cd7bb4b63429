"""Export a finished run as Inspect logs, one per candidate, for ``inspect view`` and other readers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    HeadlineMetric,
    write_eval_log,
)
from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelConfig, ModelOutput
from inspect_ai.scorer import SampleScore, mean, stderr

from qaeval import __version__
from qaeval.chat.protocol import Sampling
from qaeval.environment import now
from qaeval.errors import DataError, UsageError
from qaeval.evals.definition import EvalDefinition, Prompt, recorded_prompt
from qaeval.files.rows import explained
from qaeval.files.yaml import validated
from qaeval.inspect_bridge.chat import as_chat_messages, from_usage
from qaeval.inspect_bridge.scoring import (
    CLUSTER,
    LETTERS,
    USABLE,
    failed,
    letters_score,
    sample_metadata,
    usable_rate,
    usable_score,
)
from qaeval.inspect_bridge.tasks import FORMAT, GRADER, METADATA
from qaeval.records import Failure, GenerateRow, Generation, GradeRow, Sample, Session, author
from qaeval.run import generate as generating
from qaeval.storage.run_directory import RunStore
from qaeval.storage.runs import way_on

PROVIDER: Final = "qaeval"
"""Provider of the models in exported logs, ``qaeval/NAME``."""

_SAMPLES_PER_LOG: Final = 20_000
"""Default maximum; a log is in memory as a whole while it is written."""
_MAX_STEM_CHARS: Final = 120
"""Characters of a candidate's name in a file name; file systems limit the whole name to 255."""
_METRICS: Final = {
    LETTERS: {"mean": mean(), "stderr": stderr(cluster=CLUSTER)},
    USABLE: {"usable_rate": usable_rate(), "stderr": stderr(cluster=CLUSTER), "failed": failed()},
}


def export_logs(store: RunStore, out: Path, *, shard: int = _SAMPLES_PER_LOG) -> list[Path]:
    """Write a graded run as ``.eval`` logs, one per candidate.

    Args:
        store: The run.
        out: Folder of the logs, created if missing. Existing logs are not overwritten.
        shard: Maximum number of samples per log; a candidate with more gets several numbered logs.

    Returns:
        The logs, in the order of the candidates.

    Raises:
        DataError: the run is not graded or not finished.
        UsageError: a log exists, or ``shard`` is less than one.
    """
    if shard < 1:
        raise UsageError(f"shard {shard}: expected at least 1")
    settings = store.settings()
    if settings.get("grading") is None:
        raise DataError(f"{store.path}: not graded yet; run `qaeval grade {store.path}` first")
    eval_settings = {key: value for key, value in settings["eval"].items() if key != "digest"}
    definition = validated(EvalDefinition, {**eval_settings, "directory": Path()}, f"{store.path}: eval")
    builder = _LogBuilder(store, settings, definition)
    n_shards = -(-settings["sample_set"]["n"] // shard)
    parts = [f"-{number}-of-{n_shards}" if n_shards > 1 else "" for number in range(1, n_shards + 1)]
    files = {
        candidate: [out / f"{definition.name}-{stem}{part}.eval" for part in parts]
        for candidate, stem in _stems(list(settings["candidates"])).items()
    }
    paths = [path for candidate_paths in files.values() for path in candidate_paths]
    if existing := [path for path in paths if path.exists()]:
        raise UsageError(f"{existing[0]} exists; choose another folder")
    with _removed_on_error(out) as started:
        for candidate, candidate_paths in files.items():
            for path, log in zip(
                candidate_paths, builder.logs(candidate, shard=shard, n_shards=n_shards), strict=True
            ):
                started.append(path)
                write_eval_log(log, str(path))
    return paths


def _stems(candidates: Sequence[str]) -> dict[str, str]:
    """Return a unique file stem per candidate, ignoring case; valid names keep theirs."""
    plain = {name: re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_MAX_STEM_CHARS] for name in candidates}
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(candidates, key=lambda candidate: plain[candidate] != candidate):
        stem, number = plain[name], 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{plain[name]}-{number}"
        taken.add(stem.casefold())
        stems[name] = stem
    return {name: stems[name] for name in candidates}


@contextmanager
def _removed_on_error(out: Path) -> Iterator[list[Path]]:
    """Create a folder, and remove the files in the yielded list and new folders on any error."""
    started: list[Path] = []
    new_folders = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        with explained(out, "writing the logs"):
            out.mkdir(parents=True, exist_ok=True)
            yield started
    except BaseException:
        for path in started:
            with suppress(OSError):
                path.unlink()
        for folder in new_folders:
            with suppress(OSError):
                folder.rmdir()
        raise


@dataclass(frozen=True)
class _LogBuilder:
    """Builds the logs of a run."""

    store: RunStore
    settings: Mapping[str, Any]
    definition: EvalDefinition

    @property
    def _scale(self) -> list[str]:
        return [level["letter"] for level in self.settings["grading"]["rubric"]["scale"]]

    def logs(self, candidate: str, *, shard: int, n_shards: int) -> Iterator[EvalLog]:
        """Yield the logs of a candidate one at a time."""
        samples = iter(self.store.samples())
        for number in range(1, n_shards + 1):
            yield self._log(candidate, list(islice(samples, shard)), number, n_shards)

    def _log(self, candidate: str, samples: Sequence[Sample], number: int, n_shards: int) -> EvalLog:
        sample_ids = {sample.sample_id for sample in samples}
        replies = {
            row.sample_id: row
            for row in self.store.generations()
            if row.sample_id in sample_ids and author(row) == candidate
        }
        if missing := sample_ids - set(replies):
            raise DataError(
                f"{self.store.path}: {candidate} has no row for {len(missing)} samples; "
                f"{way_on(self.store.path)} completes it"
            )
        items = {
            item.item_id for row in replies.values() if isinstance(row, Generation) for item in row.items
        }
        grades = {str(row.item_id): row for row in self.store.grades() if row.item_id in items}
        inspect_samples = [
            self._sample(candidate, sample, replies[sample.sample_id], grades) for sample in samples
        ]
        sessions = [
            session
            for session in self.store.sessions()
            if session.stage == "grade" or session.model == candidate
        ]
        started = min((session.started for session in sessions), default=now())
        return EvalLog(
            status="success",
            eval=self._spec(candidate, samples, started, sessions, f"{number}/{n_shards}"),
            results=_results(inspect_samples),
            stats=EvalStats(started_at=started, completed_at=started),
            samples=inspect_samples,
        )

    def _spec(
        self,
        candidate: str,
        samples: Sequence[Sample],
        started: str,
        sessions: Sequence[Session],
        part: str,
    ) -> EvalSpec:
        settings = {**self.settings, "candidates": {candidate: self.settings["candidates"][candidate]}}
        settings.pop("imported", None)  # of the files of all candidates
        grading, name = settings["grading"], settings["eval"]["name"]
        return EvalSpec(
            created=started,
            task=name,
            task_registry_name=f"{PROVIDER}/{name}",
            task_version=settings["eval"]["digest"][:12],
            run_id=self.store.name,
            eval_id=f"{self.store.name}-{candidate}-{part.partition('/')[0]}",
            dataset=EvalDataset(
                name=name, samples=len(samples), sample_ids=[sample.sample_id for sample in samples]
            ),
            model=f"{PROVIDER}/{candidate}",
            model_roles={GRADER: ModelConfig(model=f"{PROVIDER}/{grading['judge']['name']}")},
            config=EvalConfig(epochs=1),
            packages={PROVIDER: __version__},
            headline_metric=HeadlineMetric(scorer=USABLE, metric="usable_rate"),
            metadata={
                METADATA: {
                    "format": FORMAT,
                    "settings": settings,
                    "rubric_sha": grading["rubric"]["sha"],
                    "sample_set": settings["sample_set"]["digest"],
                    "sessions": [session.model_dump(mode="json") for session in sessions],
                    "part": part,
                }
            },
        )

    def _sample(
        self, candidate: str, sample: Sample, row: GenerateRow, grades: Mapping[str, GradeRow]
    ) -> EvalSample:
        prompt = Prompt(**recorded_prompt(self.settings, candidate))
        definition = self.definition.model_copy(update={"prompt": prompt})
        request = generating.build_request(sample, definition, Sampling())
        turns = as_chat_messages(request, merge_system=False)
        letters = letters_score(row, grades, self._scale)
        reply = ChatMessageAssistant(content=row.text, model=candidate, source="generate")
        stop = "max_tokens" if isinstance(row, Failure) and row.reason == "truncated" else "stop"
        return EvalSample(
            id=sample.sample_id,
            epoch=1,
            input=turns,
            target="",
            messages=[*turns, reply],
            output=ModelOutput(
                model=candidate,
                choices=[ChatCompletionChoice(message=reply, stop_reason=stop)],
                usage=from_usage(row.usage),
                time=row.latency_s,
            ),
            scores={
                LETTERS: letters,
                USABLE: usable_score(letters, self._scale[0], self.definition.items_per_sample),
            },
            metadata=sample_metadata(sample),
        )


def _metric_value(metric: Any, scores: Sequence[SampleScore]) -> float:  # noqa: ANN401 - Inspect's union
    return float(metric(scores)) if scores else float("nan")


def _results(samples: Sequence[EvalSample]) -> EvalResults:
    """Compute the results that Inspect shows at the end of an eval."""
    eval_scores = []
    for name, metrics in _METRICS.items():
        scores = [
            SampleScore(score=sample.scores[name], sample_id=sample.id, sample_metadata=sample.metadata)
            for sample in samples
            if sample.scores is not None
        ]
        scored = [score for score in scores if score.score.reason is None]
        eval_scores.append(
            EvalScore(
                name=name,
                scorer=name,
                scored_samples=len(scored),
                unscored_samples=len(scores) - len(scored),
                metrics={
                    key: EvalMetric(name=key, value=_metric_value(metric, scored))
                    for key, metric in metrics.items()
                },
            )
        )
    return EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=eval_scores)
