"""What one GPU does with the requests that qaeval sends: vLLM, random weights of the 7B shapes, replies of fixed length.

    make bench-gpu                     a machine with CUDA and vLLM, offline, at most 10 minutes
    make bench-gpu ARGS=--rehearse     tiny shapes on vLLM's CPU build: shows that the script runs, not how fast a GPU is

vLLM draws the weights itself (`--load-format dummy`), so nothing is downloaded, and a reply has exactly the length of a
grade (`ignore_eos`, `min_tokens`): 95 tokens with a reason, 11 for the letter alone. Arms of one server take turns, so that
a drift affects all of them; each figure is the median of the rounds. Random weights say nothing about replies: acceptance
of speculation, effect of FP8 on letters and equality of replies are listed as not measured.

Writes gpu.md (the table for docs/performance.md) and gpu.json into --out.
"""

import argparse
import asyncio
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from harness import QAEVAL, prepare_requests

from qaeval.environment import now
from qaeval.errors import QaevalError
from qaeval.registry.config import ModelSpec, Serving
from qaeval.run.loop import for_each
from qaeval.run.pace import AdaptiveLimit, ConcurrencyLimit, FixedLimit
from qaeval.serving.client import Server
from qaeval.serving.load import read_load
from qaeval.serving.server import VllmServer, environment, free_port, known_options, serve_command

ROOT: Final = Path(__file__).parents[1]
REASON_TOKENS: Final = 95
"""Median length of a grade with its reason: recorded replies to the rubric qa_pair_abc."""
LETTER_TOKENS: Final = 11
LEVELS: Final = (8, 16, 32, 64, 128)
DRAFT: Final = 4
"""Tokens that prompt lookup proposes for a step."""
MODEL: Final = "dummy"


@dataclass(frozen=True)
class Shape:
    """Dimensions of a model."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int


SHAPES: Final = {
    "mistral-7b": Shape(4096, 14336, 32, 32, 8, 32768),
    "qwen2.5-7b": Shape(3584, 18944, 28, 28, 4, 152064),
}
TINY: Final = Shape(128, 256, 2, 2, 1, 2048)


@dataclass(frozen=True)
class Arm:
    """One way to ask a server."""

    name: str
    tokens: int = REASON_TOKENS
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """A server with its options, and the arms that take turns at it."""

    name: str
    arms: tuple[Arm, ...]
    options: tuple[str, ...] = ()
    shape: str = "mistral-7b"


LOGPROBS: Final = {"logprobs": True, "top_logprobs": 5}
REASON: Final = Arm("reason, log-probabilities of 5", fields=LOGPROBS)
VARIANTS: Final = (
    Variant(
        "judge, Mistral-7B shape, FP8 weights",
        (
            REASON,
            Arm("reason, no log-probabilities"),
            Arm("reason, log-probabilities of 20", fields={**LOGPROBS, "top_logprobs": 20}),
            Arm("letter, log-probabilities of 5", LETTER_TOKENS, LOGPROBS),
        ),
    ),
    Variant("judge, FP8 KV cache", (REASON,), ("--kv-cache-dtype", "fp8")),
    Variant("judge, cascade attention", (REASON,), ("--no-disable-cascade-attn",)),
    Variant(
        f"candidate, prompt lookup of {DRAFT} tokens",
        (Arm("reason, no log-probabilities"),),
        (
            "--speculative-config",
            json.dumps({"method": "ngram", "num_speculative_tokens": DRAFT, "prompt_lookup_max": 4}),
        ),
    ),
    Variant("candidate, Qwen2.5-7B shape, FP8 weights", (REASON,), shape="qwen2.5-7b"),
)
CPU_OPTIONS: Final = (
    "--dtype=float32", "--enforce-eager", "--distributed-executor-backend=uni", "--kv-cache-memory-bytes=64M", "--block-size=32",
    "--no-enable-chunked-prefill", "--max-num-batched-tokens=8192",
)  # fmt: skip
CPU_ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}  # fmt: skip
NOT_MEASURED: Final = (
    "share of proposed tokens that a real model accepts (speculation)",
    "effect of FP8 weights and of an FP8 KV cache on letters",
    "cost of a JSON schema: replies of random weights do not end where a grade ends",
    "equality of replies between settings",
)


@dataclass(frozen=True)
class Round:
    """One closed loop.

    Attributes:
        seconds: From the first request to the last reply.
        n: Replies.
        tokens: Generated.
        prompt_tokens: Of all prompts.
        reply_kb: Mean size of a reply, 1,000 bytes.
        server_ms: CPU of all processes of the server per reply.
        client_ms: CPU of this process per reply.
        accepted: Tokens that speculation proposed and the model took.
    """

    seconds: float
    n: int
    tokens: int
    prompt_tokens: int
    reply_kb: float
    server_ms: float
    client_ms: float
    accepted: float

    @property
    def per_second(self) -> float:
        """Replies per second."""
        return self.n / self.seconds

    @property
    def step_ms(self) -> float:
        """Seconds of the loop per step of the model and slot: an accepted token takes no step of its own."""
        return self.seconds * 1000 / (self.tokens - self.accepted)


def write_model(folder: Path, shape: Shape, python: Path) -> Path:
    """Write settings and tokenizer of a model without weights.

    The tokenizer is trained on docstrings, since real ones cannot be had offline; the table states the tokens of a prompt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = "import sys, tiny_model; tiny_model.VOCABULARY = int(sys.argv[2]); tiny_model.tokenizer().save(sys.argv[1])"
    subprocess.run(
        [python, "-c", program, folder / "tokenizer.json", str(min(shape.vocabulary, 32_768))],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "vllm")},
    )
    template = (
        "{% for turn in messages %}{{ '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, **names}
    for name, content in (("config", config), ("tokenizer_config", settings)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1))
    return folder


class Load:
    """Asks one server in closed loops.

    Args:
        server: It must run.
        prompts: Messages of the judge; each round uses the same ones behind a salt of its own, so that no prompt is
            served from the cache of an earlier round, while the prompts of a round share theirs.
    """

    def __init__(self, server: VllmServer, prompts: Sequence[Sequence[Mapping[str, str]]]) -> None:
        self._server, self._prompts = server, prompts

    async def measure(self, arm: Arm, n: int, limit: ConcurrencyLimit) -> Round:
        """Send ``n`` requests; the limit says how many at a time."""
        salt = now()
        usage: list[tuple[int, int, int]] = []
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session,
            Server(self._server.url, None, timeout_s=10, addresses=("127.0.0.1",)) as routes,
        ):
            before = await _accepted(routes)
            follow = asyncio.create_task(_follow(routes, limit))

            async def ask(index: int) -> None:
                body = {
                    "model": MODEL,
                    "messages": self._prompts[index % len(self._prompts)],
                    "max_tokens": arm.tokens,
                    "min_tokens": arm.tokens,
                    "ignore_eos": True,
                    "temperature": 0.0,
                    "cache_salt": salt,
                    **arm.fields,
                }
                async with session.post(f"{self._server.url}/chat/completions", json=body) as response:
                    content = await response.read()
                    if response.status != 200:
                        raise QaevalError(f"{arm.name}: HTTP {response.status} {content[:300]!r}")
                counts = orjson.loads(content)["usage"]
                usage.append((counts["completion_tokens"], counts["prompt_tokens"], len(content)))

            async def emit(_index: int, _row: None) -> None:
                return None

            cpu, server_cpu, began = time.process_time(), cpu_of_children(), time.perf_counter()
            await for_each(iter(range(n)), ask, emit, limit=limit, stop=asyncio.Event())
            seconds = time.perf_counter() - began
            used, server_used = time.process_time() - cpu, cpu_of_children() - server_cpu
            follow.cancel()
            accepted = await _accepted(routes) - before
        return Round(
            seconds=seconds,
            n=n,
            tokens=sum(row[0] for row in usage),
            prompt_tokens=sum(row[1] for row in usage),
            reply_kb=sum(row[2] for row in usage) / n / 1000,
            server_ms=server_used * 1000 / n,
            client_ms=used * 1000 / n,
            accepted=accepted,
        )


async def _accepted(routes: Server) -> float:
    """Return the accepted tokens that a server has counted so far; 0 without speculation."""
    text = (await routes.ask("/metrics", root=True)).content.decode()
    lines = [
        line for line in text.splitlines() if line.startswith("vllm:spec_decode_num_accepted_tokens_total")
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def _follow(routes: Server, limit: ConcurrencyLimit) -> None:
    """Hand an adaptive limit the load of the server, as a run does."""
    while isinstance(limit, AdaptiveLimit):
        limit.reading(read_load((await routes.ask("/metrics", root=True)).content))
        await asyncio.sleep(0.1 if limit.is_searching else 1.0)


def cpu_of_children() -> float:
    """Return the CPU seconds of all living descendants of this process: the server."""
    children: dict[int, list[int]] = {}
    seconds: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        process = int(path.parent.name)
        children.setdefault(int(values[1]), []).append(process)
        seconds[process] = (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
    total, pending = 0.0, [*children.get(os.getpid(), [])]
    while pending:
        process = pending.pop()
        total += seconds[process]
        pending += children.get(process, [])
    return total


class Bench:
    """Runs the variants one after the other, and keeps what was measured and what was not, with the reason.

    Args:
        options: Of the command line.
        folder: Models, prompts and logs.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._until = time.monotonic() + 60 * options.minutes
        self._command = shlex.split(options.vllm)
        self._levels = (1, 2) if options.rehearse else LEVELS
        self._in_flight = 2 if options.rehearse else options.in_flight
        self.rounds: dict[str, dict[str, list[Round]]] = {}
        self.start_s: dict[str, float] = {}
        self.knee: dict[str, Any] = {}
        self.clients: dict[str, dict[str, float]] = {}
        self.skipped: dict[str, str] = {}

    async def run(self) -> None:
        """Measure every variant that the installed vLLM knows, until the time is up."""
        known = await known_options(self._command, os.environ)
        requests = prepare_requests(self._folder / "requests.jsonl", 24 if self._options.rehearse else 192)
        rows = [json.loads(line) for line in requests.read_text().splitlines()]
        prompts = [[{"role": role, "content": row[role]} for role in ("system", "user")] for row in rows]
        for variant in VARIANTS:
            unknown = [word for word in variant.options if word.startswith("--") and word not in known]
            if unknown or self._has_no_effect(variant):
                self.skipped[variant.name] = (
                    f"the installed vLLM has no {' '.join(unknown) or 'cascade attention'}"
                )
            elif time.monotonic() > self._until:
                self.skipped[variant.name] = f"the {self._options.minutes:g} minutes were over"
            else:
                try:
                    await self._measure(variant, prompts)
                except QaevalError as error:
                    self.skipped[variant.name] = str(error).partition(" The end of ")[0]

    def _has_no_effect(self, variant: Variant) -> bool:
        """Whether the option is only kept for compatibility: vLLM 0.32 has removed cascade attention."""
        if "--no-disable-cascade-attn" not in variant.options:
            return False
        program = "from vllm.config import ModelConfig; import inspect; print(inspect.getsource(ModelConfig))"
        python = Path(self._python())
        source = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False).stdout
        return "cascade attention has been removed" in source

    def _python(self) -> str:
        return str(Path(self._command[0]).with_name("python"))

    async def _measure(self, variant: Variant, prompts: Sequence[Sequence[Mapping[str, str]]]) -> None:
        async with self._server(variant) as server:
            load = Load(server, prompts)
            n = len(prompts) if self._options.rehearse else 2 * self._in_flight
            rounds: dict[str, list[Round]] = {arm.name: [] for arm in variant.arms}
            await load.measure(variant.arms[0], self._in_flight, FixedLimit(self._in_flight))  # warm-up
            for number in range(self._options.rounds):
                arms = variant.arms if number % 2 == 0 else variant.arms[::-1]
                for arm in arms:
                    rounds[arm.name].append(await load.measure(arm, n, FixedLimit(self._in_flight)))
            self.rounds[variant.name] = rounds
            if variant is VARIANTS[0]:
                await self._measure_limits(load, n)
                self._measure_clients(server)

    async def _measure_limits(self, load: Load, n: int) -> None:
        """Measure the knee by fixed numbers in flight, and where the adaptive limit ends up."""
        rates = {
            level: (await load.measure(REASON, max(n, 2 * level), FixedLimit(level))).per_second
            for level in self._levels
        }
        limit = AdaptiveLimit()
        auto = await load.measure(REASON, 4 * n, limit)
        self.knee = {
            "per_second": rates,
            "knee": min(level for level, rate in rates.items() if rate >= 0.95 * max(rates.values())),
            "auto_per_second": auto.per_second,
            "auto_limit": limit.value,
        }

    def _measure_clients(self, server: VllmServer) -> None:
        """Send the same prompts by `qaeval sweep` and by `vllm bench serve`, in turns."""
        n, level = (8, 2) if self._options.rehearse else (4 * self._in_flight, self._in_flight)
        folder = prepare_clients(self._folder / "clients", n)
        seconds: dict[str, list[float]] = {"qaeval sweep": [], "vllm bench serve": []}
        for number in range(2):
            seconds["qaeval sweep"].append(sweep_rate(server.url, folder, n, level, number))
            seconds["vllm bench serve"].append(
                bench_rate(
                    [*self._command, "bench", "serve"],
                    server.url,
                    self._folder / MODEL_OF["mistral-7b"],
                    folder,
                    n,
                    level,
                )
            )
        self.clients = {
            name: {"requests_per_s": statistics.median(values)} for name, values in seconds.items()
        }

    @asynccontextmanager
    async def _server(self, variant: Variant) -> Any:
        shape = TINY if self._options.rehearse else SHAPES[variant.shape]
        folder = self._folder / MODEL_OF[variant.shape]
        if not folder.exists():
            write_model(folder, shape, Path(self._python()))
        quantized = CPU_OPTIONS if self._options.rehearse else ("--quantization", "fp8")
        serving = Serving(env=CPU_ENVIRONMENT) if self._options.rehearse else Serving()
        arguments = (
            "--load-format",
            "dummy",
            "--max-model-len",
            "8192",
            *quantized,
            *variant.options,
            *self._options.vllm_args,
        )
        spec = ModelSpec(name=MODEL, hf_id=str(folder), vllm_args=arguments)
        port = free_port()
        server = VllmServer(
            MODEL,
            serve_command(spec, command=self._command, port=port),
            environment(spec, serving, os.environ, api_key=None),
            port=port,
            log=self._folder / f"{len(self.start_s)}.log",
        )
        print(f"{variant.name}: starting", file=sys.stderr)
        try:
            self.start_s[variant.name] = await server.start(deadline_s=300)
            yield server
        finally:
            await server.stop()


MODEL_OF: Final = {shape: f"model-{shape}" for shape in SHAPES}


def prepare_clients(folder: Path, n: int) -> Path:
    """Write an eval whose prompts are its chunks, a registry, and the same prompts for `vllm bench serve`."""
    evaluation = folder / "eval"
    evaluation.mkdir(parents=True)
    texts = [" ".join([f"Card {number} has {number + 2} GB of memory."] * 40) for number in range(n)]
    chunks = [{"chunk_id": f"c{number:04}", "text": text} for number, text in enumerate(texts)]
    (evaluation / "chunks.jsonl").write_text("".join(json.dumps(chunk) + "\n" for chunk in chunks))
    (evaluation / "prompt.md").write_text("# user\n\n$chunk\n")
    sampling = {"temperature": 0.0, "max_tokens": REASON_TOKENS, "seed": 0}
    about = {"name": "plain", "title": "Plain prompts", "rubric": "qa_pair_abc", "enforce_schema": False}
    (evaluation / "eval.yaml").write_text(json.dumps({**about, "sampling": sampling}))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    entry = {"url": "http://127.0.0.1:9/v1", "structured": "off"}
    (folder / "registry.yaml").write_text(json.dumps({"models": {MODEL: entry}}))
    return folder


def sweep_rate(url: str, folder: Path, n: int, level: int, number: int) -> float:
    """Return requests per second as `vllm bench serve` counts them: over all the time that requests were there."""
    out = folder / f"sweep-{number}"
    command = [QAEVAL, "sweep", MODEL, "--config", folder / "registry.yaml", "--endpoint", f"{MODEL}={url}"]
    command += [
        "--eval",
        folder / "eval",
        "--concurrency",
        str(level),
        "--requests",
        str(n),
        "--repeats",
        "1",
        "--out",
        out,
    ]
    subprocess.run(command, check=True, capture_output=True)
    rows = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    rows = [row for row in rows if not row.get("warm_up")]
    return len(rows) / (max(row["end_s"] for row in rows) - min(row["start_s"] for row in rows))


def bench_rate(command: Sequence[str], url: str, tokenizer: Path, folder: Path, n: int, level: int) -> float:
    """Return the requests per second of `vllm bench serve`."""
    options = {
        "backend": "openai-chat",
        "base-url": url.removesuffix("/v1"),
        "endpoint": "/v1/chat/completions",
        "model": MODEL,
        "tokenizer": tokenizer,
        "dataset-name": "custom",
        "dataset-path": folder / "prompts.jsonl",
        "custom-output-len": REASON_TOKENS,
        "num-prompts": n,
        "max-concurrency": level,
        "num-warmups": level,
        "temperature": 0,
        "extra-body": json.dumps({"seed": 0, "cache_salt": now()}),
        "result-dir": folder,
        "result-filename": "bench.json",
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    flags = ["--skip-chat-template", "--disable-shuffle", "--disable-tqdm", "--save-result"]
    quiet = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([*command, *words, *flags], check=True, capture_output=True, env={**os.environ, **quiet})
    return float(json.loads((folder / "bench.json").read_text())["request_throughput"])


def median_of(rounds: Sequence[Round], name: str) -> float:
    """Return the median of a figure over rounds."""
    return statistics.median(getattr(row, name) for row in rounds)


def table(bench: Bench, device: str, *, rehearsed: bool) -> Iterator[str]:
    """Yield the lines of the table."""
    what = "rehearsal on a CPU with tiny shapes: no figure says anything about a GPU" if rehearsed else device
    yield f"Measured {now()[:10]} by `make bench-gpu`: {what}."
    yield ""
    yield "| server | arm | replies/s | to the first | kB a reply | server CPU, ms | client CPU, ms | ms a step | prompt tokens |"
    yield "|---|---|---|---|---|---|---|---|---|"
    first = 0.0
    for variant, arms in bench.rounds.items():
        for arm, rounds in arms.items():
            rate = median_of(rounds, "per_second")
            first = first or rate
            cells = [
                f"{rate:.2f}", f"{rate / first:.2f}", f"{median_of(rounds, 'reply_kb'):.1f}", f"{median_of(rounds, 'server_ms'):.1f}",
                f"{median_of(rounds, 'client_ms'):.2f}", f"{median_of(rounds, 'step_ms'):.2f}", f"{rounds[0].prompt_tokens / rounds[0].n:.0f}",
            ]  # fmt: skip
            yield f"| {variant} | {arm} | {' | '.join(cells)} |"
    yield ""
    if bench.knee:
        rates = ", ".join(f"{level}: {rate:.2f}" for level, rate in bench.knee["per_second"].items())
        yield f"Replies per second by requests in flight: {rates}; knee {bench.knee['knee']}."
        share = bench.knee["auto_per_second"] / max(bench.knee["per_second"].values())
        yield f"`--concurrency auto` ends at {bench.knee['auto_limit']} in flight and reaches {share:.2f} of the best rate."
    for name, figures in bench.clients.items():
        yield f"`{name}`: {figures['requests_per_s']:.2f} requests/s with the same prompts."
    starts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in bench.start_s.items())
    yield f"Start of the server: {starts}."
    yield ""
    yield "Not measured:"
    yield ""
    yield from (f"- {name}: {reason}" for name, reason in bench.skipped.items())
    yield from (f"- {name}" for name in NOT_MEASURED)


def device_name() -> str:
    """Return the names of the GPUs, as nvidia-smi prints them."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return (
            subprocess.run(command, capture_output=True, text=True, check=True)
            .stdout.strip()
            .replace("\n", "; ")
        )
    except (OSError, subprocess.CalledProcessError):
        return ""


def main() -> int:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vllm", default="vllm", help="command that runs vLLM (default: vllm)")
    parser.add_argument(
        "--rehearse", action="store_true", help="tiny shapes, few requests: for a machine without a GPU"
    )
    parser.add_argument(
        "--minutes", type=float, default=10, help="start no further server after these minutes (default: 10)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each arm (default: 2)")
    parser.add_argument("--in-flight", type=int, default=64, help="requests in flight (default: 64)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "results" / "gpu", help="folder of the table and its figures"
    )
    parser.add_argument("vllm_args", nargs="*", help="further arguments of vllm serve, after --")
    options = parser.parse_args()
    device = device_name()
    if not device and not options.rehearse:
        print(
            "bench-gpu: nvidia-smi names no GPU; `make bench-gpu ARGS=--rehearse` runs on a CPU",
            file=sys.stderr,
        )
        return 69
    with tempfile.TemporaryDirectory(prefix="qaeval-gpu-") as folder:
        bench = Bench(options, Path(folder))
        asyncio.run(bench.run())
        lines = list(table(bench, device, rehearsed=options.rehearse))
    print("\n".join(lines))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.md").write_text("\n".join(lines) + "\n")
    figures = {
        "device": device,
        "rehearsed": options.rehearse,
        "rounds": {
            name: {arm: [asdict(row) for row in rows] for arm, rows in arms.items()}
            for name, arms in bench.rounds.items()
        },
        "limits": bench.knee,
        "clients": bench.clients,
        "start_s": bench.start_s,
        "skipped": bench.skipped,
    }
    (options.out / "gpu.json").write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if bench.rounds else 69


if __name__ == "__main__":
    sys.exit(main())
