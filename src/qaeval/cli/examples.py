"""Two examples of every command, shown below its help and in docs/cli.md."""

from collections.abc import Mapping
from typing import Final

EXAMPLES: Final[Mapping[str, tuple[str, str]]] = {
    "compare": (
        "qaeval compare mistral qwen --n 100",
        "qaeval compare embedded-lead embedded-salient --chunks chunks.jsonl",
    ),
    "generate": (
        "qaeval generate mistral qwen --out results/night",
        "qaeval generate mistral --prompts prompt.md,better.md --n 50",
    ),
    "grade": (
        "qaeval grade results/night --judge gpt-oss",
        "qaeval grade results/night --panel selene,gpt-oss,phi",
    ),
    "report": (
        "qaeval report results/night",
        "qaeval report results/monday results/tuesday --format md",
    ),
    "view": (
        "qaeval view",
        "qaeval view latest --no-browser --port 8000",
    ),
    "merge": (
        "qaeval merge results/shards --out results/night",
        "qaeval merge s3://runs/night --out results/night",
    ),
    "repair": (
        "qaeval repair results/night",
        "qaeval repair results/night --json",
    ),
    "history": (
        "qaeval history",
        "qaeval history results --mlflow http://127.0.0.1:5000 --push",
    ),
    "compare-runs": (
        "qaeval compare-runs results/before results/after",
        "qaeval compare-runs results/before results/after --json",
    ),
    "gate": (
        "qaeval gate results/night",
        "qaeval gate results/night --baseline results/before --junit gate.xml",
    ),
    "baseline set": (
        "qaeval baseline set results/night",
        "qaeval baseline set results/night --out baselines/answers.json",
    ),
    "baseline show": (
        "qaeval baseline show",
        "qaeval baseline show baselines/qa_pairs.json --json",
    ),
    "baseline list": (
        "qaeval baseline list",
        "qaeval baseline list ci/baselines --json",
    ),
    "label": (
        "qaeval label results/night --rater anna",
        "qaeval label results/night --rater anna --n 60 --until-decided",
    ),
    "agreement": (
        "qaeval agreement results/night --labels labels/anna.csv",
        "qaeval agreement letters.csv --columns anna,judge --cluster chunk_id",
    ),
    "certify": (
        "qaeval certify gpt-oss --eval qa_pairs --labels labels/anna.jsonl",
        "qaeval certify gpt-oss --run results/night",
    ),
    "labels status": (
        "qaeval labels status results/night",
        "qaeval labels status results/night --json",
    ),
    "labels import": (
        "qaeval labels import results/night anna.jsonl bert.csv",
        "qaeval labels import results/night sheet.csv --rater anna",
    ),
    "labels export": (
        "qaeval labels export results/night --out labels.jsonl",
        "qaeval labels export results/night --out labels.csv --spreadsheet de",
    ),
    "labels adjudicate": (
        "qaeval labels adjudicate results/night",
        "qaeval labels adjudicate latest --rater carol --settle 62d0eead47f35614=B",
    ),
    "plan": (
        "qaeval plan results/night --difference 0.05",
        "qaeval plan --rate 0.8 --icc 0.2 --chunks 100",
    ),
    "rubric check": (
        "qaeval rubric check rubrics/ours.yaml",
        "qaeval rubric check qa_pair_abc",
    ),
    "rubric show": (
        "qaeval rubric show qa_pair_abc",
        "qaeval rubric show qa_pair_abc > rubrics/ours.yaml",
    ),
    "decide": (
        "qaeval decide results/night",
        "qaeval decide results/night --weight quality=3 --weight cost=1",
    ),
    "cost": (
        "qaeval cost results/night --hardware l4",
        "qaeval cost results/night --json",
    ),
    "audit": (
        "qaeval audit embedded-lexical",
        "qaeval audit selene --eval rag_qa --n 60 --out results/audit-selene",
    ),
    "sweep": (
        "qaeval sweep mistral --endpoint mistral=http://127.0.0.1:8000/v1",
        "qaeval sweep mistral --concurrency 1,4,16,64",
    ),
    "analyse generation": (
        "qaeval analyse generation results/night",
        "qaeval analyse generation results/night --json",
    ),
    "export": (
        "qaeval export results/night --to sft --letter A",
        "qaeval export results/night --to labels --n 100",
    ),
    "count": (
        "qaeval count results/night-parquet",
        "qaeval count monday.parquet tuesday.parquet --rubric qa_pair_abc --json",
    ),
    "import": (
        "qaeval import answers.jsonl --chunks chunks.jsonl --candidate ours",
        "qaeval import items.csv --field question=q --out results/ours",
    ),
    "chunk": (
        "qaeval chunk docs/",
        "qaeval chunk handbook.pdf --size 300 --out handbook.jsonl",
    ),
    "sample": (
        "qaeval sample --chunks chunks.jsonl --n 50",
        "qaeval sample --eval rag_qa --seed 7 --out samples.jsonl",
    ),
    "new-eval": (
        "qaeval new-eval ours",
        "qaeval new-eval answers --kind answer",
    ),
    "models": (
        "qaeval models",
        "qaeval models --config ours.yaml --json",
    ),
    "doctor": (
        "qaeval doctor",
        "qaeval doctor mistral qwen --plan",
    ),
    "init": (
        "qaeval init project --documents handbook/",
        "qaeval init project --documents handbook/ --candidate mistral",
    ),
    "schema": (
        "qaeval schema",
        "qaeval schema gate",
    ),
}
