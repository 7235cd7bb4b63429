"""Ragas' RubricsScore on the same items. REQUESTS OUT URL IN_FLIGHT."""

import json
import os
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
requests, out, url, in_flight = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
os.environ.update(RAGAS_DO_NOT_TRACK="true", OPENAI_API_KEY="x", HF_HUB_OFFLINE="1")
Path(out).mkdir(parents=True, exist_ok=True)

from langchain_openai import ChatOpenAI  # noqa: E402
from ragas import EvaluationDataset, evaluate  # noqa: E402
from ragas.llms import LangchainLLMWrapper  # noqa: E402
from ragas.metrics import RubricsScore  # noqa: E402
from ragas.run_config import RunConfig  # noqa: E402

lines = [json.loads(line) for line in Path(requests).read_text().splitlines()]
config = RunConfig(max_workers=in_flight, max_retries=3, timeout=600)
chat = ChatOpenAI(model="bench", base_url=url, api_key="x", temperature=0, max_retries=2)
judge = LangchainLLMWrapper(chat, run_config=config)
rubrics = {
    "score1_description": "not usable",
    "score3_description": "needs an edit",
    "score5_description": "usable",
}
rows = [
    {
        "user_input": line["question"],
        "response": line["answer"],
        "reference": line["answer"],
        "retrieved_contexts": [line["context"]],
    }
    for line in lines
]
found = evaluate(
    EvaluationDataset.from_list(rows),
    metrics=[RubricsScore(rubrics=rubrics, llm=judge)],
    llm=judge,
    run_config=config,
    show_progress=False,
    raise_exceptions=False,
).to_pandas()
found.to_json(f"{out}/results.jsonl", orient="records", lines=True)
scored = int(found.iloc[:, -1].notna().sum())
print("scored", scored)
sys.exit(scored < len(lines))
