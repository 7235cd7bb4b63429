"""DeepEval's GEval on the same items. REQUESTS OUT URL IN_FLIGHT."""

import json
import os
import sys
from pathlib import Path

requests, out, url, in_flight = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3], int(sys.argv[4])
os.environ.update(
    DEEPEVAL_TELEMETRY_OPT_OUT="1",
    DEEPEVAL_DISABLE_DOTENV="1",
    DEEPEVAL_DISABLE_TIMEOUTS="1",
    DEEPEVAL_CACHE_FOLDER=out,
    DEEPEVAL_RESULTS_FOLDER=out,
    CONFIDENT_OPEN_BROWSER="0",
)
Path(out).mkdir(parents=True, exist_ok=True)
os.chdir(out)

from deepeval import evaluate  # noqa: E402
from deepeval.evaluate import AsyncConfig, CacheConfig, DisplayConfig, ErrorConfig  # noqa: E402
from deepeval.metrics import GEval  # noqa: E402
from deepeval.models import LocalModel  # noqa: E402
from deepeval.test_case import LLMTestCase, SingleTurnParams  # noqa: E402

lines = [json.loads(line) for line in requests.read_text().splitlines()]
judge = GEval(
    name="judge",
    evaluation_params=[SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT, SingleTurnParams.CONTEXT],
    model=LocalModel(model="bench", base_url=url, api_key="x", temperature=0),
    evaluation_steps=lines[0]["system"].splitlines()[:12],
)
cases = [
    LLMTestCase(
        input=line["question"], actual_output=line["answer"], context=[line["context"]], name=line["id"]
    )
    for line in lines
]
found = evaluate(
    cases,
    [judge],
    async_config=AsyncConfig(max_concurrent=in_flight),
    display_config=DisplayConfig(
        show_indicator=False, print_results=False, inspect_after_run=False, results_folder=out
    ),
    cache_config=CacheConfig(write_cache=False),
    error_config=ErrorConfig(ignore_errors=True),
)
scored = [one for one in found.test_results if one.metrics_data and one.metrics_data[0].score is not None]
print("scored", len(scored))
sys.exit(len(scored) < len(lines))
