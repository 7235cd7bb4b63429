"""promptfoo's llm-rubric on the same items. REQUESTS OUT URL IN_FLIGHT; PROMPTFOO names its package's folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

requests, out, url, in_flight = (
    Path(sys.argv[1]).resolve(),
    Path(sys.argv[2]).resolve(),
    sys.argv[3],
    sys.argv[4],
)
out.mkdir(parents=True, exist_ok=True)
lines = [json.loads(line) for line in requests.read_text().splitlines()]
with (out / "tests.jsonl").open("w") as file:
    for line in lines:
        file.write(
            json.dumps({"vars": {name: line[name] for name in ("question", "answer", "context")}}) + "\n"
        )
rubric = "Pass an answer that agrees with the passage on every fact.\n[Passage] {{context}}\n[Question] {{question}}"
provider = {
    "id": "openai:chat:bench",
    "config": {"apiBaseUrl": url, "apiKey": "x", "temperature": 0, "max_tokens": 512},
}
config = {
    "description": "judge",
    "prompts": ["{{answer}}"],
    "providers": ["echo"],
    "tests": "file://tests.jsonl",
    "defaultTest": {"options": {"provider": provider}, "assert": [{"type": "llm-rubric", "value": rubric}]},
}
(out / "config.json").write_text(json.dumps(config))
quiet = dict.fromkeys(
    (
        "PROMPTFOO_DISABLE_TELEMETRY",
        "PROMPTFOO_DISABLE_UPDATE",
        "PROMPTFOO_DISABLE_REMOTE_GENERATION",
        "PROMPTFOO_DISABLE_SHARING",
        "CI",
    ),
    "1",
)
modules = Path(os.environ["PROMPTFOO"]) / "node_modules"
entry = modules / "promptfoo" / "dist" / "src" / "entrypoint.js"
done = subprocess.run(
    [
        modules / ".bin" / "node",
        entry,
        "eval",
        "-c",
        "config.json",
        "-j",
        in_flight,
        "--no-cache",
        "--no-table",
        "--no-progress-bar",
    ]
    + ["--no-share", "-o", "results.jsonl"],
    cwd=out,
    env={**os.environ, **quiet, "PROMPTFOO_CONFIG_DIR": str(out / "home"), "OPENAI_API_KEY": "x"},
    check=False,
)
written = sum(1 for _ in (out / "results.jsonl").open()) if (out / "results.jsonl").exists() else 0
print("written", written, "code", done.returncode)
sys.exit(written < len(lines))
