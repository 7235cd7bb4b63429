"""A finished run as Inspect logs: one per candidate, to be opened by ``inspect view`` and everything else that reads logs."""

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
from qaeval.evals.definition import EvalDefinition
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

PROVIDER: Final = "qaeval"
"""Models of exported logs are called ``qaeval/NAME``."""

_SHARD: Final = 20_000
"""A log is held in memory, whole, while it is written."""
_LONGEST: Final = 120
"""Characters of a candidate's name in a file's name; file systems take 255 for all of it."""
_METRICS: Final = {
    LETTERS: {"mean": mean(), "stderr": stderr(cluster=CLUSTER)},
    USABLE: {"usable_rate": usable_rate(), "stderr": stderr(cluster=CLUSTER), "failed": failed()},
}


def export_logs(store: RunStore, out: Path, *, shard: int = _SHARD) -> list[Path]:
    """Write a graded run as ``.eval`` logs, one per candidate.

    Args:
        store: The run.
        out: Folder of the logs; made where it is missing. A log that is there is not overwritten.
        shard: Most samples of one log; a candidate with more gets several, numbered.

    Returns:
        The logs, in the order of the candidates.

    Raises:
        DataError: the run is not graded or not finished.
        UsageError: a log is there already, or ``shard`` is less than one.
    """
    if shard < 1:
        raise UsageError(f"shard: expected at least one sample, got {shard}")
    settings = store.settings()
    if settings.get("grading") is None:
        raise DataError(f"{store.path}: not graded yet; `qaeval grade {store.path}` comes first")
    about = {key: value for key, value in settings["eval"].items() if key != "digest"}
    definition = validated(EvalDefinition, {**about, "directory": Path()}, f"{store.path}: eval")
    made = _Maker(store, settings, definition)
    n_shards = -(-settings["sample_set"]["n"] // shard)
    parts = [f"-{number}-of-{n_shards}" if n_shards > 1 else "" for number in range(1, n_shards + 1)]
    files = {
        candidate: [out / f"{definition.name}-{stem}{part}.eval" for part in parts]
        for candidate, stem in _stems(list(settings["candidates"])).items()
    }
    paths = [path for own in files.values() for path in own]
    if there := [path for path in paths if path.exists()]:
        raise UsageError(f"{there[0]}: there is a log already; choose another folder")
    with _all_or_none(out) as begun:
        for candidate, own in files.items():
            for path, log in zip(own, made.logs(candidate, shard=shard, n_shards=n_shards), strict=True):
                begun.append(path)
                write_eval_log(log, str(path))
    return paths


def _stems(candidates: Sequence[str]) -> dict[str, str]:
    """Name each candidate's files, no two alike even where case does not count; names that can stand come first."""
    plain = {name: re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_LONGEST] for name in candidates}
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(candidates, key=lambda one: plain[one] != one):
        stem, number = plain[name], 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{plain[name]}-{number}"
        taken.add(stem.casefold())
        found[name] = stem
    return {name: found[name] for name in candidates}


@contextmanager
def _all_or_none(out: Path) -> Iterator[list[Path]]:
    """Make a folder for files that are named in the list before they are begun; whatever goes wrong, none of it stays."""
    begun: list[Path] = []
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        with explained(out, "writing the logs"):
            out.mkdir(parents=True, exist_ok=True)
            yield begun
    except BaseException:
        for path in begun:
            with suppress(OSError):
                path.unlink()
        for folder in new:
            with suppress(OSError):
                folder.rmdir()
        raise


@dataclass(frozen=True)
class _Maker:
    """Makes the logs of one run."""

    store: RunStore
    settings: Mapping[str, Any]
    definition: EvalDefinition

    @property
    def _scale(self) -> list[str]:
        return [level["letter"] for level in self.settings["grading"]["rubric"]["scale"]]

    def logs(self, candidate: str, *, shard: int, n_shards: int) -> Iterator[EvalLog]:
        """Make one candidate's logs, one at a time."""
        samples = iter(self.store.samples())
        for number in range(1, n_shards + 1):
            yield self._log(candidate, list(islice(samples, shard)), number, n_shards)

    def _log(self, candidate: str, samples: Sequence[Sample], number: int, n_shards: int) -> EvalLog:
        wanted = {sample.sample_id for sample in samples}
        replies = {
            row.sample_id: row
            for row in self.store.generations()
            if row.sample_id in wanted and author(row) == candidate
        }
        if missing := wanted - set(replies):
            raise DataError(
                f"{self.store.path}: {candidate} has no row for {len(missing)} samples; finish the run with --resume"
            )
        items = {
            item.item_id for row in replies.values() if isinstance(row, Generation) for item in row.items
        }
        grades = {str(row.item_id): row for row in self.store.grades() if row.item_id in items}
        made = [self._sample(candidate, sample, replies[sample.sample_id], grades) for sample in samples]
        sessions = [one for one in self.store.sessions() if one.stage == "grade" or one.model == candidate]
        started = min((one.started for one in sessions), default=now())
        return EvalLog(
            status="success",
            eval=self._spec(candidate, samples, started, sessions, f"{number}/{n_shards}"),
            results=_results(made),
            stats=EvalStats(started_at=started, completed_at=started),
            samples=made,
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
        grading, name = settings["grading"], settings["eval"]["name"]
        return EvalSpec(
            created=started,
            task=name,
            task_registry_name=f"{PROVIDER}/{name}",
            task_version=settings["eval"]["digest"][:12],
            run_id=self.store.path.name,
            eval_id=f"{self.store.path.name}-{candidate}-{part.partition('/')[0]}",
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
                    "sessions": [one.model_dump(mode="json") for one in sessions],
                    "part": part,
                }
            },
        )

    def _sample(
        self, candidate: str, sample: Sample, row: GenerateRow, grades: Mapping[str, GradeRow]
    ) -> EvalSample:
        request = generating.build_request(sample, self.definition, Sampling())
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


def _results(samples: Sequence[EvalSample]) -> EvalResults:
    """Compute what Inspect would have shown at the end of the eval."""
    found = []
    for name, metrics in _METRICS.items():
        scores = [
            SampleScore(score=sample.scores[name], sample_id=sample.id, sample_metadata=sample.metadata)
            for sample in samples
            if sample.scores is not None
        ]
        scored = [one for one in scores if one.score.reason is None]
        found.append(
            EvalScore(
                name=name,
                scorer=name,
                scored_samples=len(scored),
                unscored_samples=len(scores) - len(scored),
                metrics={
                    key: EvalMetric(name=key, value=float(metric(scored)) if scored else float("nan"))  # type: ignore[arg-type]
                    for key, metric in metrics.items()
                },
            )
        )
    return EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=found)
