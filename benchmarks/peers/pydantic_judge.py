"""pydantic-evals' LLMJudge on the same items. REQUESTS OUT URL IN_FLIGHT."""

import json
import sys
from pathlib import Path

from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import LLMJudge

requests, out, url, in_flight = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
Path(out).mkdir(parents=True, exist_ok=True)
lines = [json.loads(line) for line in Path(requests).read_text().splitlines()]
model = OpenAIChatModel(
    "bench",
    provider=OpenAIProvider(base_url=url, api_key="x"),
    profile=OpenAIModelProfile(default_structured_output_mode="native", supports_json_schema_output=True),
)
judge = LLMJudge(rubric=lines[0]["system"], model=model, include_input=True)
answers = {f"{line['context']}\n\n{line['question']}": line["answer"] for line in lines}
cases = [Case(name=line["id"], inputs=f"{line['context']}\n\n{line['question']}") for line in lines]


async def written(asked: str) -> str:
    """Take the answer that is there."""
    return answers[asked]


found = Dataset(name="judge", cases=cases, evaluators=[judge]).evaluate_sync(
    written, max_concurrency=in_flight, progress=False
)
with Path(out, "results.jsonl").open("w") as file:
    file.writelines(
        json.dumps({"id": case.name, "pass": {name: one.value for name, one in case.assertions.items()}})
        + "\n"
        for case in found.cases
    )
graded = sum(bool(case.assertions) for case in found.cases)
print(
    "graded",
    graded,
    [str(case.evaluator_failures)[:300] for case in found.cases if case.evaluator_failures][:1],
)
sys.exit(graded < len(lines))
