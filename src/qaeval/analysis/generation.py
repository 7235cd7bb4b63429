"""What candidates wrote, whatever the judge says of it: a run that is not graded yet has it too."""

from collections.abc import Iterable, Sequence

from qaeval.analysis.candidates import answer_words, failure_reasons, question_types
from qaeval.analysis.failures import gather_failures
from qaeval.analysis.findings import gather_findings, near_duplicates
from qaeval.analysis.letters import FAILED, generation_table
from qaeval.records import GenerateRow, Sample
from qaeval.report.facts import EvalFacts
from qaeval.report.generation import GenerationReport, GenerationSummary


def analyse_generation(
    samples: Iterable[Sample],
    generations: Iterable[GenerateRow],
    *,
    eval_facts: EvalFacts,
    candidates: Sequence[str],
) -> GenerationReport:
    """Summarise what each candidate wrote.

    Args:
        samples: The sample set.
        generations: The last row of every generation task.
        eval_facts: What was asked.
        candidates: Names, in the order of the report.

    Raises:
        DataError: rows are missing, doubled or foreign.
    """
    table = generation_table(
        samples, generations, candidates=candidates, items_per_sample=eval_facts.items_per_sample
    )
    summaries = []
    for name in candidates:
        own = table[table["candidate"] == name]
        items = own[own["status"] != FAILED]
        summaries.append(
            GenerationSummary(
                candidate=name,
                n_expected=len(own),
                n_valid=len(items),
                failed_by_reason=failure_reasons(own, FAILED),
                n_duplicate_questions=int(items["question"].duplicated().sum()),
                n_near_questions=near_duplicates(items["question"]),
                n_without_findings=int(items["findings"].isna().sum()),
                question_types=question_types(items["type"], eval_facts.item_types),
                answer_words=answer_words(items["answer"]),
            )
        )
    return GenerationReport(
        eval=eval_facts,
        candidates=tuple(summaries),
        failures=gather_failures(table, candidates),
        checks=gather_findings(table, eval_facts.checks, candidates),
    )
