"""Each check on natural cases with and without a finding, in English and German, near its options' bounds."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from figures import Bar
from qaeval.checks.answers import refuses
from qaeval.checks.check import CheckedItem, CheckSpec, run_checks, spec_problem
from qaeval.checks.claims import Facts, GpuFacts, claims, load_facts
from qaeval.checks.registry import CHECKS, meaning
from qaeval.checks.scenarios import impossible
from qaeval.errors import DataError
from qaeval.records import FORM, REJECTED, Chunk, Item, Sample

EVAL: Final = Path(__file__).parents[1] / "evals" / "dpo_pairs"
FACTS: Final = load_facts(EVAL / "facts.yaml")
ENGLISH: Final = (
    "vLLM listens on port 8000 by default. The option --max-num-seqs limits a batch to 256 sequences. "
    "Continuous batching raises throughput by 40% because finished requests leave the batch at once. "
    "The cache holds 1,500 blocks, and the API key is read from the environment. The H100 has 3.35 TB/s."
)
GERMAN: Final = (
    "Der Verantwortliche meldet die Verletzung binnen 72 Stunden der Aufsichtsbehörde. Die Meldung ist nicht "
    "nötig, wenn kein Risiko besteht. Ein Server verarbeitet 1.500 Anfragen pro Minute und nutzt 2,5 GB."
)


def case(
    answer: str = "",
    *,
    question: str = "",
    type: str = "factual",  # noqa: A002 - the field's name
    text: str = ENGLISH,
    title: str = "",
    language: str = "",
    given: Mapping[str, Any] | None = None,
    before: tuple[str, ...] = (),
    reply: str = "",
    **parts: str,
) -> CheckedItem:
    sample = Sample.of(Chunk(chunk_id="c1", text=text, title=title, language=language), question, given)

    def item(position: int, asked: str) -> Item:
        return Item.of(sample.sample_id, position, type=type, question=asked, answer=answer, parts=parts)

    earlier = tuple(item(place, asked) for place, asked in enumerate(before))
    return CheckedItem(item(len(before), question), earlier, sample, reply)


class Try(NamedTuple):
    """A case and what the finding must hold; empty: nothing may be found."""

    check: str
    finds: str
    given: CheckedItem
    options: Mapping[str, Any] = {}


def words_of(n: int) -> str:
    return " ".join(["word"] * n)


def asked(finds: str, question: str, *before: str, **options: float) -> Try:
    return Try("repeated_question", finds, case(question=question, before=before), options)


REPEATED: Final = [
    asked("same question as item 1", "Which port is it?", "Which port is it?"),
    asked("same question as item 2", "which port is it", "Why?", "Which port is it?"),
    asked("question of item 1", "What is the default port?", "Which port is the default?"),
    asked("nearly", "Was ist der Standardport?", "Welcher ist der Standardport?"),
    asked("nearly", "Which red green blue key is read?", "Which red green blue key is set?", alike=0.6),
    asked("", "Which red green blue key is read?", "Which red green blue key is set?", alike=0.7),
    asked("", "Which port does vLLM use?"),
    asked("", "Why does vLLM use paged attention?", "How does vLLM use paged attention?"),
    asked("", "Wann meldet der Betreiber den Vorfall?", "Warum meldet der Betreiber den Vorfall?"),
    asked("", "What speed does a batch of 8 reach?", "What speed does a batch of 16 reach?", alike=0.6),
    asked("", "Which port does vLLM use?", "How is the cache sized?"),
]


def about(finds: str, question: str, text: str = ENGLISH, title: str = "", **options: float) -> Try:
    return Try("foreign_question", finds, case(question=question, text=text, title=title), options)


FOREIGN: Final = [
    about("capital, france", "What is the capital of France?"),
    about("chunk lacks", "How does Kubernetes schedule pods?"),
    about("chunk lacks", "Wie hoch ist die Steuer auf Grundstücke?", GERMAN),
    about("chunk lacks", "Which port does Postgres expose?", least=0.6),
    about("chunk lacks", "Who wrote the novel?"),
    about("", "Which port does vLLM listen on?"),
    about("", "Which port does Redis listen on?", least=0.6),
    about("", "Wer meldet die Verletzung der Aufsichtsbehörde?", GERMAN),
    about("", "How is Redis persisted?", "It is persisted by snapshots.", "Redis"),
    about("", "According to the text, which port is it?"),
    about("", "How does vllm's max-num-seqs limit batches?"),
]


def echo(finds: str, question: str, answer: str, **options: float) -> Try:
    return Try("echoed_answer", finds, case(answer, question=question), options)


ECHOED: Final = [
    echo("repeats", "Why does batching raise throughput?", "Batching raises throughput."),
    echo(
        "repeats", "What is the default port of the server?", "The default port of the server is the default."
    ),
    echo("repeats", "Warum erhöht Batching den Durchsatz?", "Batching erhöht den Durchsatz."),
    echo("repeats", "Is it red or green?", "It is red or green."),
    echo("repeats", "What do alpha beta gamma do?", "Alpha beta gamma delta.", most=0.7),
    echo("", "What do alpha beta gamma do?", "Alpha beta gamma delta.", most=0.75),
    echo("", "Why does batching raise throughput?", "Finished requests leave the batch at once."),
    echo("", "Which port does vLLM use?", "vLLM uses port 8000."),
    echo("", "Does vLLM or TGI support adapters?", "vLLM supports adapters."),
    echo("", "Does the cache survive restarts?", "The cache does not survive restarts."),
    echo("", "Speichert der Server Anfragen?", "Ja, der Server speichert Anfragen."),
    echo("", "What is it?", "It is this."),
]


def phrase(finds: str, answer: str = "", question: str = "", text: str = ENGLISH) -> Try:
    return Try("stock_phrase", finds, case(answer, question=question, text=text))


STOCK: Final = [
    phrase("answer: 'According to the text'", "According to the text, it is 8000."),
    phrase("question: 'in the passage'", question="What is described in the passage?"),
    phrase("based on the provided context", "It is, based on the provided context, 8000."),
    phrase("the text say", question="What does the text say about ports?"),
    phrase("I hope this helps", "Port 8000. I hope this helps!"),
    phrase("Laut dem Text", "Laut dem Text sind es 72 Stunden."),
    phrase("sagt der Text", question="Was sagt der Text über Meldungen?"),
    phrase("Im Abschnitt", "Im Abschnitt steht 72 Stunden."),
    phrase("", "It listens on port 8000."),
    phrase("", "The flag is read from the source code."),
    phrase("", "In the context of batching, a request waits."),
    phrase("", "Tokens in the context window are kept."),
    phrase("", "Suchen Sie im Text nach Ports.", text="Suchen Sie im Text nach dem Wort."),
    phrase("", "Store it in this document.", text="Put the field in this document."),
    phrase("", "Die Frist gilt im Kontext von Meldungen."),
]

LENGTH: Final = [
    Try("answer_length", "2 words, expected 3 to 120", case("Port 8000.")),
    Try("answer_length", "121 words", case(words_of(121))),
    Try("answer_length", "0 words", case("   ")),
    Try("answer_length", "expected 5 to 6", case(words_of(4)), {"least": 5, "most": 6}),
    Try("answer_length", "7 words", case("Das sind genau sieben Wörter hier drin."), {"most": 6}),
    Try("answer_length", "", case(words_of(3))),
    Try("answer_length", "", case(words_of(120))),
    Try("answer_length", "", case(words_of(5)), {"least": 5, "most": 6}),
    Try("answer_length", "", case(words_of(6)), {"least": 5, "most": 6}),
]


def label(finds: str, type_: str, question: str) -> Try:
    return Try("type_label", finds, case(question=question, type=type_))


LABEL: Final = [
    label("comparison", "comparison", "What is the default port?"),
    label("comparison", "comparison", "Welche Frist gilt?"),
    label("conceptual", "conceptual", "How many GPUs are there?"),
    label("conceptual", "conceptual", "Welcher Port wird genutzt?"),
    label("asks how or why", "factual", "Why does batching help?"),
    label("asks how or why", "factual", "Warum hilft Batching?"),
    label("", "comparison", "How does A differ from B?"),
    label("", "comparison", "Which is faster, A or B?"),
    label("", "comparison", "Worin unterscheiden sich A und B?"),
    label("", "conceptual", "What role does the cache play?"),
    label("", "conceptual", "Wozu dient der Cache?"),
    label("", "factual", "How many GPUs are there?"),
    label("", "factual", "How is the option called?"),
    label("", "answerable", "Why?"),
]


def figures(finds: str, answer: str, question: str = "", text: str = ENGLISH) -> Try:
    return Try("new_numbers", finds, case(answer, question=question, text=text))


NUMBERS: Final = [
    figures("not in the chunk: 9000", "It listens on port 9000."),
    figures("not in the chunk: 7", "7"),
    figures("not in the chunk: 50%", "Throughput rises by 50%."),
    figures("not in the chunk: 5", "It retries five times."),
    figures("not in the chunk: 48", "Die Frist beträgt 48 Stunden.", text=GERMAN),
    figures("15000", "Es sind 15.000 Anfragen, also 15000.", text=GERMAN),
    figures("", "It listens on port 8000."),
    figures("", "It holds 1500 blocks, 40 % more."),
    figures("", "1. Stop it.\n2. Start it.\n3. Wait."),
    figures("", "There are two ways: queueing and batching."),
    figures("", "Seven nodes would need more.", "What would 7 nodes need?"),
    figures("", "Es sind 1500 Anfragen und 2.50 GB.", text=GERMAN),
    figures("", "qwen2.5-7b is served."),
]


def names(finds: str, answer: str, question: str = "", text: str = ENGLISH) -> Try:
    return Try("new_names", finds, case(answer, question=question, text=text))


NAMES: Final = [
    names("not in the chunk: TensorRT", "It is served by TensorRT on the node."),
    names("max_tokens", "Set max_tokens to limit it."),
    names("A100-based", "It needs an A100-based node."),
    names("Redis", "The cache is kept in Redis here."),
    names("PostgreSQL", "Die Meldung wird in einer PostgreSQL gespeichert und das ist gut.", text=GERMAN),
    names("", "The server is vLLM on port 8000."),
    names("", "It needs an H100-based node."),
    names("", "The APIs read keys."),
    names("", "vLLM’s batches are limited by max-num-seqs."),
    names("", "In Berlin it is late.", "What time is it in Berlin?"),
    names("", "Die Meldung geht an die Behörde, wenn ein Risiko besteht.", text=GERMAN),
    names("", "2xlarge is not a name here."),
]


def tongue(finds: str, answer: str, text: str = ENGLISH, language: str = "") -> Try:
    return Try("language", finds, case(answer, text=text, language=language))


LANGUAGE: Final = [
    tongue("German, the chunk is English", "Der Server nutzt den Port 8000 und ist schnell."),
    tongue("English, the chunk is German", "The report is sent to the authority.", GERMAN),
    tongue("English", "The report is sent to the authority.", "Port 8000", "de-AT"),
    tongue("German", "Das ist der Port, der für den Server gilt.", "Port 8000", "en"),
    tongue("", "The server uses port 8000 for this."),
    tongue("", "Die Meldung geht an die Behörde und wird geprüft.", GERMAN),
    tongue("", "Der Server nutzt Port 8000."),  # five words
    tongue("", "Ports 8000, 8001, 8002, 8003, 8004, 8005.", GERMAN),
    tongue("", "Le serveur utilise un port par défaut.", "Port 8000", "fr"),
    tongue("", "The server uses port 8000 for this.", "Texte", "fr"),
]

REFUSALS: Final = [
    "The text does not say.",
    "The provided context doesn't mention the price.",
    "I cannot answer this from the context.",
    "I'm sorry. The text does not name a port.",
    "The default port is not specified.",
    "There is no information on pricing in the document.",
    "The answer cannot be determined from the passage.",
    "Based on the given context, it is not possible to determine the price.",
    "The chunk lists the sizes but no prices.",
    "Der Text sagt dazu nichts.",
    "Aus dem Text geht nicht hervor, wie lange es dauert.",
    "Der Kontext enthält keine Information über den Preis.",
    "Die Frage lässt sich nicht beantworten.",
    "Leider nennt die Quelle keinen Preis.",
    "The price of the plan is not given.",
    "Das steht nicht im Text.",
]
ANSWERS: Final = [
    "It uses port 8000.",
    "No, a grammar guarantees only the form of an answer, not its truth.",
    "If the port is not specified, vLLM uses 8000.",
    "The server does not include the prompt in the reply.",
    "The context window cannot be enlarged.",
    "There is no limit.",
    "Without the flag the key is not given to the server.",
    "The gauge is a share of time; it does not say how much of the GPU was used.",
    "It uses port 8000. The text does not say why.",
    "You cannot tell vLLM to skip the check.",
    "The value cannot be determined until the first request arrives.",
    "Wenn kein Port angegeben ist, gilt 8000.",
    "Ist der Port nicht angegeben, gilt 8000.",
    "Es gibt keine Obergrenze.",
    "Der Server speichert keine Anfragen.",
]
FALSE_PREMISE: Final = {"type": "unanswerable", "stratum": "false_premise"}
ACCEPTING: Final = {"type": "unanswerable", "stratum": "conflict", "accepts": [r"\bB is.zero"]}

REFUSING: Final = [
    *(Try("wrong_refusal", "declines", case(answer)) for answer in REFUSALS),
    *(Try("wrong_refusal", "", case(answer)) for answer in ANSWERS),
    *(Try("missing_refusal", "", case(answer)) for answer in REFUSALS),
    *(
        Try("missing_refusal", "answers", case(answer))
        for answer in ANSWERS
        if "text does not say" not in answer
    ),
    Try("missing_refusal", "", case("It uses port 8000. The text does not say why.")),
    Try("missing_refusal", "answers", case("At the start B is zero, not A.", given=FALSE_PREMISE)),
    Try("missing_refusal", "", case("At the start B is zero, not A.", given=ACCEPTING)),
    Try("missing_refusal", "", case("It’s the reverse:\nb is\nzero.", given=ACCEPTING)),
    Try("missing_refusal", "answers", case("At the start A is zero, not B.", given=ACCEPTING)),
    Try("missing_refusal", "", case("It is 8. The premise is wrong.", given=FALSE_PREMISE)),
    Try("missing_refusal", "", case("It doesn't: only 8 count.", given=FALSE_PREMISE)),
    Try("missing_refusal", "", case("Die Annahme ist falsch.", given=FALSE_PREMISE)),
    Try("missing_refusal", "answers", case("It does not use port 80 for this.", given=FALSE_PREMISE)),
    Try("missing_refusal", "answers", case("By a factor of 4, not 8.", given=FALSE_PREMISE)),
    Try("missing_refusal", "answers", case("It is 8. It doesn't: only 8.", given=FALSE_PREMISE)),
    Try("missing_refusal", "answers", case("Because B is random.", given=FALSE_PREMISE)),
    Try("missing_refusal", "answers", case("Weil B zufällig ist. Das hilft nicht.", given=FALSE_PREMISE)),
    Try("missing_refusal", "answers", case("At the start B is zero, not A.", given={"stratum": "absent"})),
]

FIELDS: Final = {"fields": {"priority": ["low", "high"], "area": ["billing", "Störung"]}}


def filled(finds: str, form: object, *, raw: str | None = None) -> Try:
    return Try("form", finds, case(**{FORM: json.dumps(form) if raw is None else raw}), FIELDS)


FORMS: Final = [
    Try("form", "no form", case(), FIELDS),
    filled("no form", None),
    filled("expected an object", ["low"]),
    filled("expected an object", None, raw="{low"),
    filled("no 'area'", {"priority": "low"}),
    filled("priority: 'medium' is none of low, high", {"priority": "medium", "area": "billing"}),
    filled("priority: ['low']", {"priority": ["low"], "area": "billing"}),
    filled("priority: 'Low'", {"priority": "Low", "area": "billing"}),
    filled("unknown field 'mood'", {"priority": "low", "area": "billing", "mood": "x"}),
    filled("", {"priority": "low", "area": "billing"}),
    filled("", {"area": "billing", "priority": "high"}),
    filled("", {"priority": "low", "area": "Störung"}),
    Try("form", "", case(**{FORM: "{}"}), {"fields": {}}),
    Try("form", "", case(**{FORM: '{"x": "1"}'}), {"fields": {"x": ["1", "2"]}}),
]

BARE: Final = [
    Try("bare_json", "begins with '```json", case(reply='```json\n{"a": 1}\n```')),
    Try("bare_json", "begins with 'Here is", case(reply='Here is the JSON: {"a": 1}')),
    Try("bare_json", "begins with 'Hier ist", case(reply='Hier ist das JSON: {"a": 1}')),
    Try("bare_json", "begins with", case(reply='{"a": 1} Done.')),
    Try("bare_json", "begins with", case(reply='{"a": 1,}')),
    Try("bare_json", "begins with ''", case(reply="")),
    Try("bare_json", "begins with '[[[", case(reply="[" * 100_000)),
    Try("bare_json", "", case(reply='{"a": 1}')),
    Try("bare_json", "", case(reply='\n {"a": "ä"} \n')),
    Try("bare_json", "", case(reply="[1, 2]")),
    Try("bare_json", "", case(reply='{"a": "```"}')),
]


def lengths(finds: str, n_prompt: int, n_chosen: int, n_rejected: int, **options: tuple[float, float]) -> Try:
    pair = case(words_of(n_chosen), question=words_of(n_prompt), **{REJECTED: words_of(n_rejected)})
    return Try("words", finds, pair, options)


WORDS: Final = [
    lengths("prompt has 79 words, expected 80 to 120", 79, 280, 150),
    lengths("prompt has 121", 121, 280, 150),
    lengths("chosen has 249", 100, 249, 150),
    lengths("chosen has 301", 100, 301, 150),
    lengths("rejected has 139", 100, 250, 139),
    lengths("rejected has 161", 100, 280, 161),
    lengths("chosen is 0.00 times", 100, 280, 0),
    lengths("1.50 times", 100, 240, 160, ratio=(1.6, 2)),
    lengths("chosen is 2.00 times", 1, 4, 2, prompt=(1, 1), chosen=(1, 9), rejected=(1, 9), ratio=(1, 1.9)),
    lengths("", 80, 250, 140),
    lengths("", 120, 300, 160),
    lengths("", 120, 300, 150),
    lengths("", 1, 4, 2, prompt=(1, 1), chosen=(1, 9), rejected=(1, 9), ratio=(2, 2)),
]


def listed(finds: str, answer: str, **options: int) -> Try:
    return Try("steps", finds, case(answer), options)


STEPS: Final = [
    listed("0 numbered steps, expected at least 3", "First stop it, then start it."),
    listed("2 numbered steps", "1. Stop it.\n2. Start it."),
    listed("steps are numbered [1, 2, 4]", "1. Stop it.\n2. Start it.\n4. Wait."),
    listed("steps are numbered [2, 3, 4]", "2. Stop it.\n3. Start it.\n4. Wait."),
    listed("3 numbered steps, expected at least 4", "1. Halt.\n2. Starte.\n3. Warte.", least=4),
    listed("0 numbered", "Version 1.2 and 2.3 and 3.4 work."),
    listed("", "1. Stop it.\n2. Start it.\n3. Wait."),
    listed("", "Do this:\n\n1) Stop it.\n2) Start it.\n3) Wait.\n4) Look."),
    listed("", "**Step 1:** Stop it.\n**Step 2:** Start it.\n**Step 3:** Wait."),
    listed("", "Schritt 1: Halt.\nSchritt 2: Starte.\nSchritt 3: Warte."),
    listed("", "1. Stop it. 2. Start it. 3. Wait."),
    listed("", "**1.** Stop it.\n**2.** Start it.\n### 3. Wait."),
    listed("", "1. Stop it.\n2. Start it.", least=2),
]

CARD: Final = {
    "features": [
        {"name": "--api-key", "about": "Guards the routes."},
        {"name": "--max-model-len", "about": "Caps a request."},
        {"name": "readiness probe", "about": "Holds traffic back."},
        {"name": "NCCL_DEBUG=INFO", "about": "Writes a log."},
    ]
}
GOOD: Final = "Set `--api-key` first, cap --max-model-len, and let a readiness probe decide."


def named(finds: str, answer: str, rejected: str = "", *, prompt: str = "", **options: int) -> Try:
    card = case(answer, question=prompt, text="It speaks of `maxSurge`.", given=CARD, **{REJECTED: rejected})
    return Try("features", finds, card, options)


FEATURES: Final = [
    named("chosen names '--enable-lora'", f"{GOOD} Add --enable-lora."),
    named("rejected names 'torchrun'", GOOD, "Use `torchrun` for it."),
    named("prompt names '--port'", GOOD, prompt="I set --port to 80."),
    named("chosen names '--max-model'", f"{GOOD} Use `--max-model` then."),
    named("2 of the card's features, expected at least 3", "Set `--api-key` and `--max-model-len`."),
    named("3 of the card's features, expected at least 4", GOOD, least=4),
    named("0 of the card's features", "Setze einen Schlüssel und begrenze die Länge."),
    named("", GOOD),
    named("", f"{GOOD} Run `vllm serve model --api-key secret`."),
    named("", f"{GOOD} Look at `NCCL_DEBUG` and `maxSurge`."),
    named("", "Setze --api-key und --max-model-len; die Readiness Probe entscheidet."),
    named("", "Only `--api-key` is set.", least=1),
    named("", "Readiness probes, --api-key and --max-model-len -- and nothing else."),
    Try("features", "", case("Use ONE.", given={"features": ["one"]}), {"least": 1}),
]


def barred(finds: str, kind: str, answer: str, rejected: str = "", prompt: str = "") -> Try:
    card = case(answer, question=prompt, given={"forbidden": [kind]}, **{REJECTED: rejected})
    return Try("forbidden", finds, card)


FORBIDDEN: Final = [
    barred("money in chosen: '$5", "money", "It costs $5."),
    barred("money in rejected: '20 Euro", "money", "Fine.", "Das kostet 20 Euro."),
    barred("money", "money", "About ten dollars."),
    barred("money", "money", "Es kostet 5 €."),
    barred("money in prompt: 'USD 7", "money", "", "", "We have USD 700."),
    barred("durations", "durations", "Wait 30 seconds."),
    barred("durations", "durations", "It takes an hour."),
    barred("durations", "durations", "Let it run overnight."),
    barred("durations", "durations", "Warte fünf Minuten."),
    barred("durations", "durations", "Answers within 200 ms."),
    barred("hardware", "hardware", "Use 24GB of memory."),
    barred("hardware", "hardware", "Rent two H100s."),
    barred("hardware", "hardware", "Ein Rechner mit 16 Kernen."),
    barred("hardware", "hardware", "An RTX 4090 will do."),
    barred("forbids 'colour'", "colour", "Blue."),
    barred("", "money", "The budget is small, keep 5 copies."),
    barred("", "money", "Die Kosten sind gering."),
    barred("", "durations", "Wait until it is ready, 3 times."),
    barred("", "durations", "Warte, bis es fertig ist."),
    barred("", "durations", "It costs $5 and 24 GB."),
    barred("", "hardware", "A larger card with more memory."),
    barred("", "hardware", "Eine größere Karte, Stufe 3."),
    barred("", "hardware", "Answers within 5 minutes."),
    Try("forbidden", "", case("It costs $5.", given={"forbidden": []})),
]

DREAM: Final = {"billions": 20, "text_gb": 50, "days": 3, "usd": 500, "gpu": "A100-80GB"}


def claimed(finds: str, answer: str, *, rejected: str = "", prompt: str = "", scenario: object = None) -> Try:
    pair = case(answer, question=prompt, given={"scenario_facts": scenario or {}}, **{REJECTED: rejected})
    return Try("reality", finds, pair, {"facts": FACTS.model_dump(mode="json")})


# Bounds by hand: 7B × 2.4 = 16.8 GB (8.4 to 33.6); 7B × 16 = 112 (56 to 224); A100-80GB 1.19 to 3.67 USD (0.595 to 7.34);
# of 40 or 80 GB 1.00 to 3.67 (0.5 to 7.34); L4 0.44 to 0.80 (0.22 to 1.60); RTX 4090 0.29 to 0.88 (0.145 to 1.76);
# L4 300 ÷ 14 = 21.43 tokens/s (10.7 to 42.9); 8 GB ÷ 4 = 2 billion tokens (1 to 4).
REALITY: Final = [
    claimed("7 billion parameters × 2.4 GB = 16.8 GB", "Serving a 7B model in bf16 needs 8.3 GB of VRAM."),
    claimed("claims 34 GB", "Serving a 7B model in bf16 needs 34 GB of VRAM."),
    claimed("full training", "Full fine-tuning of a 7B model fits a card with 55 GB of memory."),
    claimed("rejected claims 24 GB", "Fine.", rejected="Inferenz eines 70B-Modells braucht 24 GB Speicher."),
    claimed(
        "1.19 to 3.67 USD, published since 2026-03, seen on 2026-11-09", "An A100 80GB costs $0.59 per hour."
    ),
    claimed("for A100-40GB or A100-80GB", "One A100 costs 0.49 USD an hour."),
    claimed("claims 7.35 USD an hour", "One A100-80GB costs 7.35 USD an hour."),
    claimed("pro Stunde", "Eine H100 kostet 25 USD pro Stunde."),
    claimed("0.44 to 0.8 USD", "An L4 costs $1.61 per hour."),
    claimed("0.29 to 0.88 USD", "Ein RTX4090 kostet 0,14 USD pro Stunde."),
    claimed("1 to 3.4 USD", "An A100 40GB costs $6.90 per hour."),
    claimed("= 21.43 tokens/s at most", "On an L4 a 7B model writes 43 tokens per second."),
    claimed("claims 10 tokens/s on L4", "On an L4 a 7B model writes 10 tokens/s."),
    claimed("8 GB of text ÷ 4 bytes = 2,000,000,000 tokens", "8 GB of text are 4.1 billion tokens."),
    claimed("claims 900,000,000 tokens", "8 GB Text ergeben 900 Millionen Token."),
    claimed("cannot be done", "1. Rent the card.", scenario=DREAM),
    claimed("method", "No.", scenario={"billions": 7, "method": "lorra"}),
    claimed("", "Serving a 7B model in bf16 needs 8.4 GB of VRAM."),
    claimed("", "Serving a 7B model in bf16 needs 33.6 GB of VRAM."),
    claimed("", "Full fine-tuning of a 7B model takes 57 GB of memory, or 223 GB of memory."),
    claimed("", "QLoRA of a 7B model fits a 24 GB card."),
    claimed("", "A full training of a 20B model does not fit into 80 GB of memory."),
    claimed("", "One A100-80GB costs $0.60 per hour."),
    claimed("", "One A100-80GB costs 7.34 USD an hour."),
    claimed("", "One A100 costs 0.50 USD an hour."),
    claimed("", "An L4 costs $1.60 per hour."),
    claimed("", "An RTX 4090 costs $0.15 per hour."),
    claimed("", "Eight H100 cost $55 per hour."),
    claimed("", "On an L4 a 7B model writes 42 tokens per second."),
    claimed("", "On an L4 a 7B model writes 900 tokens per second for 64 concurrent requests."),
    claimed("", "On an L4 a 7B model in 4-bit writes 60 tokens/s."),
    claimed("", "8 GB of text are 3.9 billion tokens, in blocks of 2048 tokens."),
    claimed("", "8 GB Text ergeben 1,1 Milliarden Token."),
    claimed("", "Fine.", prompt="I heard a 70B model runs in 8 GB of VRAM."),
    claimed("", "This cannot be done: 20B needs 320 GB for full training.", scenario=DREAM),
    claimed("", "Das ist nicht machbar, das Budget reicht nicht.", scenario=DREAM),
    claimed("", "1. Rent the card.", scenario={**DREAM, "billions": 1, "text_gb": 1}),
]


def alike(finds: str, chosen: str, rejected: str, **options: float) -> Try:
    return Try("too_alike", finds, case(chosen, **{REJECTED: rejected}), options)


ALIKE: Final = [
    alike("share 100%", "Restart the server now.", "Restart the server now!"),
    alike("share 100%", "", ""),
    alike("share 100%", "Starte den Server neu.", "Den Server starte neu!"),
    alike("share 75%", "red green blue", "red green blue white", most=0.7),
    alike("share 100%", "The cache is cleared.", "Clear that cache.", most=0.99),
    alike("", "red green blue", "red green blue white", most=0.75),
    alike("", "Restart the server now.", "Read the log first."),
    alike("", "Starte den Server neu.", "Lies zuerst das Protokoll."),
    alike("", "Restart the server now.", ""),
]

PROMPT: Final = (
    "Answer the question from the passage below. Use nothing but the passage: no outside knowledge, no guesses.\n"
    '{"answer": "Rye sourdough rests for 12 to 16 hours at 24 degrees before it is baked."}\n<passage>\n$chunk\n</passage>'
)


def copied(finds: str, answer: str = "Fine.", *, asks: str = "", text: str = ENGLISH, **parts: str) -> Try:
    given = case(answer, text=text, **parts)
    item = given.item.model_copy(update={"question": asks})
    return Try("copied_prompt", finds, replace(given, item=item, prompt=PROMPT))


COPIED: Final = [
    copied("answer: 'rye sourdough", "Rye sourdough rests for 12 to 16 hours at 24 degrees."),
    copied("no outside knowledge", "I use nothing but the passage: no outside knowledge, no guesses."),
    copied("question:", asks="Answer the question from the passage below. Use nothing else?"),
    copied("rejected:", **{REJECTED: "USE NOTHING BUT THE PASSAGE, no outside knowledge and guesses."}),
    copied("", "Rye sourdough rests for 12 to 16."),
    copied("", "vLLM listens on port 8000 by default, and the cache holds 1,500 blocks."),
    copied("", "Use nothing but the passage, no outside knowledge.", text=f"A prompt: {PROMPT}"),
    copied("", asks="How long does rye sourdough rest?"),
]

TRIES: Final = [
    *COPIED,
    *(*REPEATED, *FOREIGN, *ECHOED, *STOCK, *LENGTH, *LABEL, *NUMBERS, *NAMES, *LANGUAGE, *REFUSING),
    *(*FORMS, *BARE, *WORDS, *STEPS, *FEATURES, *FORBIDDEN, *REALITY, *ALIKE),
]


@pytest.mark.parametrize("attempt", TRIES, ids=[f"{n}-{one.check}" for n, one in enumerate(TRIES)])
def test_a_check_finds_what_it_should_and_nothing_else(attempt: Try) -> None:
    finding = CHECKS[attempt.check](attempt.given, **attempt.options)
    if attempt.finds:
        assert attempt.finds.casefold() in finding.casefold()
    else:
        assert finding == ""


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_has_cases_on_both_sides(name: str) -> None:
    own = [bool(one.finds) for one in TRIES if one.check == name]
    assert len(own) >= 8
    assert sum(own) >= 4
    assert len(own) - sum(own) >= 4
    assert meaning(name)


def test_all_checks_are_known() -> None:
    assert len(CHECKS) == 20
    assert meaning("no such check") == ""


@pytest.mark.parametrize(
    ("answer", "is_refusal"),
    [
        ("Unfortunately this is unclear. The text does not give the price.", True),
        ("The chunk describes Docker. It does not give a version.", True),
        ("Docker is used. It does not restart by itself.", False),
        ("", False),
    ],
)
def test_a_refusal_after_an_answer_is_no_refusal(answer: str, *, is_refusal: bool) -> None:
    assert refuses(answer) == is_refusal


# What cannot be.


def test_an_impossible_training_is_named_with_its_arithmetic() -> None:
    tokens = 50e9 / 4
    hours = 6 * 20e9 * tokens / (312e12 * 0.4) / 3600
    usd = hours * 1.19  # the lowest price
    assert (tokens, round(hours), round(usd)) == (12.5e9, 3339, 3973)
    found = impossible({**DREAM, "method": "full", "n_gpus": 1}, FACTS)
    problems = dict(part.split(": ", 1) for part in found.split("; "))
    figures = {
        name: re.findall(r"\d[\d,.e+]*", text.replace("A100-80GB", "")) for name, text in problems.items()
    }
    assert figures == {
        "memory": ["20", "16", "320", "1", "80"],  # 20B x 16 GB; 1 GPU of 80 GB
        "time": ["6", "20e9", "1.25e+10", "40", "312", "3,339", "3", "1", "72"],  # 3 days of 1 GPU: 72 hours
        "cost": ["3,339", "1.19", "2026", "11", "09", "3,973", "500"],
    }


@pytest.mark.parametrize(
    ("scenario", "names"),
    [
        ({}, []),
        ({**DREAM, "gpu": "abacus"}, []),
        ({**DREAM, "billions": None}, []),
        ({"billions": 5, "gpu": "A100-80GB"}, []),  # 5 × 16 = 80 GB, all that there is
        ({"billions": 5.1, "gpu": "A100-80GB"}, ["memory"]),
        ({"billions": 5.1, "gpu": "A100"}, []),  # of 40 or of 80 GB
        ({"billions": 2.6, "gpu": "A100-40GB"}, ["memory"]),
        ({"billions": 1.6, "gpu": "RTX 4090"}, ["memory"]),
        ({"billions": 20, "gpu": "A100-80GB", "n_gpus": 4}, []),
        ({"billions": 20, "gpu": "A100-80GB", "n_gpus": 3}, ["memory"]),
        # 6 × 1e9 × 0.25e9 ÷ (121e12 × 0.4) ÷ 3600 = 8.61 hours; by LoRA 5.74
        ({"billions": 1, "text_gb": 1, "gpu": "L4", "days": 0.3}, ["time"]),
        ({"billions": 1, "text_gb": 1, "gpu": "L4", "days": 0.4, "usd": 3.8}, []),  # 8.61 × 0.44 = 3.79 USD
        ({"billions": 1, "text_gb": 1, "gpu": "L4", "days": 0.4, "usd": 3.7}, ["cost"]),
        ({"billions": 1, "text_gb": 1, "gpu": "L4", "days": 0.3, "method": "lora"}, []),
        ({"billions": 1, "text_gb": 1, "gpu": "L4", "days": 0.3, "n_gpus": 2}, []),
        # 6 × 1e9 × 0.25e9 ÷ (312e12 × 0.4) ÷ 3600 × 1.19 = 3.97 USD, the lowest price
        ({"billions": 1, "text_gb": 1, "gpu": "A100-80GB", "usd": 3.9}, ["cost"]),
        ({"billions": 1, "text_gb": 1, "gpu": "A100-80GB", "usd": 4}, []),
    ],
)
def test_a_scenario_is_impossible_for_what_it_lacks(scenario: dict[str, Any], names: list[str]) -> None:
    found = impossible(scenario, FACTS)
    assert [part.partition(":")[0] for part in found.split("; ") if part] == names


CARDS: Final = {
    card["card_id"]: card for card in map(json.loads, (EVAL / "cards.jsonl").read_text("utf-8").splitlines())
}


def excess(scenario: Mapping[str, Any], *, price: int) -> dict[str, float]:
    """Return by how much a scenario exceeds memory, time and budget; price 0: the lowest, 1: the highest."""
    gpu, n = FACTS.gpus[scenario["gpu"]], scenario["n_gpus"]
    work = {"full": 6}.get(scenario["method"], 4) * scenario["billions"] * 1e9 * scenario["text_gb"] * 1e9 / 4
    hours = work / (gpu.tflops_bf16 * 1e12 * 0.4) / 3600
    return {
        "memory": FACTS.gb_per_billion[scenario["method"]] * scenario["billions"] / (gpu.memory_gb * n),
        "time": hours / (scenario["days"] * 24 * n),
        "cost": hours * (gpu.prices or (0, 0))[price] / scenario["usd"],
    }


def test_the_cards_are_as_possible_as_their_type_says() -> None:
    for card in CARDS.values():
        reasons = impossible(card.get("scenario_facts", {}), FACTS)
        assert bool(reasons) == (card["type"] == "impossible"), (card["card_id"], reasons)
    planned = [card["scenario_facts"] for card in CARDS.values() if card["type"] == "planning"]
    assert len(planned) == 8
    assert (
        max(max(excess(scenario, price=1).values()) for scenario in planned) < 1
    )  # at the highest price too


@pytest.mark.parametrize(
    ("name", "lacks", "factor"),
    [
        ("card-041", "memory", 1.4),  # 7 × 16 = 112 GB, 80
        ("card-042", "memory", 1.4875),  # 70 × 0.85 = 59.5 GB, 40
        ("card-043", "time", 1.855),  # 6 × 1e9 × 10e9 ÷ (312e12 × 0.4) ÷ 3600 = 133.5 hours, 72
        ("card-044", "memory", 2.0),  # 3 × 16 = 48 GB, 24
        ("card-045", "time", 2.374),  # 4 × 32e9 × 0.2e9 ÷ (312e12 × 0.4) ÷ 3600 = 56.98 hours, 24
        ("card-046", "cost", 1.589),  # 4 × 12e9 × 0.5e9 ÷ (312e12 × 0.4) ÷ 3600 × 1.19 = 63.57 USD, 40
        ("card-047", "time", 1.554),  # 4 × 13e9 × 0.5e9 ÷ (121e12 × 0.4) ÷ 3600 = 149.2 hours, 96
        ("card-048", "memory", 1.6),  # 8 × 16 = 128 GB, 80
    ],
)
def test_a_nearly_impossible_card_differs_from_a_possible_one_in_what_it_lacks(
    name: str, lacks: str, factor: float
) -> None:
    card = CARDS[name]
    twin = CARDS[card["twin"]]
    assert twin["type"] == "planning"
    assert twin["persona"] == card["persona"]
    changed = [key for key, value in twin["scenario_facts"].items() if card["scenario_facts"][key] != value]
    assert 1 <= len(changed) <= 2
    factors = excess(card["scenario_facts"], price=0)
    assert factors.pop(lacks) == pytest.approx(factor, abs=0.001)
    assert 1.3 <= factor <= 3
    assert max(factors.values()) < 1


# Claims.


@pytest.mark.parametrize(
    "sentence",
    [
        "The server needs 500 GB of memory.",  # no size
        "A 7B model has 500 GB of memory.",  # no method
        "Serving the 7B and the 70B model needs 500 GB of memory.",
        "Serving a 7B model in FP8 needs 8 GB of VRAM.",
        "LoRA or full training of a 7B model needs 500 GB of VRAM.",
        "Serving a 7B model needs 500 GB of disk space beside the GPU.",
        "Sharding the full training of a 7B model takes 20 GB of memory per GPU.",
        "A LoRA of a 7B model runs well on an A100 80GB.",
        "It costs $900 per hour.",
        "An A100 costs $900.",
        "An A100 beats an H100 at $900 per hour.",
        "A spot A100 costs $0.20 per hour.",
        "A T4 costs $900 per hour.",  # not in the facts
        "A 7B model writes 900 tokens per second.",
        "An L4 writes 900 tokens per second.",
        "On an L4 the 30B-A3B writes 90 tokens per second.",
        "The prompt has 900 billion tokens.",
        "We have 3 GB of text.",
        "3 GB of image data are 12 tokens.",
        "Serving a 0B model needs 500 GB of VRAM.",
        "On an L4 a 0.0B model writes 90 tokens per second.",
        "0 GB of text are 12 tokens.",
        "Der Server braucht 500 GB Speicher.",
        "",
    ],
)
def test_a_sentence_that_does_not_say_what_its_figure_belongs_to_claims_nothing(sentence: str) -> None:
    assert list(claims(sentence, FACTS)) == []


@pytest.mark.parametrize("gpus", [("A100-80GB", "A100-40GB")])
def test_a_name_that_two_gpus_share_needs_its_memory(gpus: tuple[str, str]) -> None:
    small = FACTS.gpus["A100-80GB"].model_copy(update={"memory_gb": 40})
    facts = Facts(
        gb_per_billion=FACTS.gb_per_billion,
        gpus=dict(zip(gpus, (FACTS.gpus["A100-80GB"], small), strict=True)),
    )
    assert facts.gpu_in("an A100") == ""
    assert facts.gpu_in("an A100 40 GB") == "A100-40GB"
    assert facts.gpu_in("two A100-80GB") == "A100-80GB"


def test_a_price_is_one_figure_or_the_lowest_and_the_highest() -> None:
    gpu = FACTS.gpus["A100-80GB"].model_dump()
    single = GpuFacts.model_validate({**gpu, "usd_per_hour": 3.43, "published_since": ""})
    assert single.prices == (3.43, 3.43)
    assert single.price_label() == "3.43 USD, seen on 2026-11-09"
    assert GpuFacts.model_validate({**gpu, "usd_per_hour": None}).prices is None
    with pytest.raises(ValidationError, match=r"lowest, highest"):
        GpuFacts.model_validate({**gpu, "usd_per_hour": [3, 1]})


def test_every_gpu_of_the_facts_is_priced_with_source_and_dates() -> None:
    assert {"L4", "RTX 4090", "A100-40GB", "A100-80GB", "H100-80GB"} <= FACTS.gpus.keys()
    for name, gpu in FACTS.gpus.items():
        low, high = gpu.prices or (0, 0)
        assert 0 < low < high, name
        assert gpu.source, name
        assert "2026" <= gpu.published_since <= gpu.as_of, name


def test_a_facts_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "facts.yaml").write_text("gpus: {}\n", encoding="utf-8")
    with pytest.raises(DataError, match="gb_per_billion"):
        load_facts(tmp_path / "facts.yaml")


def test_a_facts_file_has_no_memory_of_zero(tmp_path: Path) -> None:
    memory = {**FACTS.model_dump(mode="json"), "gb_per_billion": {"inference_4bit": 0}}
    (tmp_path / "facts.yaml").write_text(json.dumps(memory), encoding="utf-8")
    with pytest.raises(DataError, match=r"gb_per_billion\.inference_4bit"):
        load_facts(tmp_path / "facts.yaml")


# How an eval names checks.


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (CheckSpec(name="words"), ""),
        (CheckSpec(name="words", options={"prompt": [80, 120], "ratio": [1, 2.5]}), ""),
        (CheckSpec(name="wrong_refusal", types=("answerable",)), ""),
        (
            CheckSpec(name="wrds"),
            "unknown check 'wrds'. Did you mean 'words'? Known: answer_length, bare_json",
        ),
        (CheckSpec(name="xyzzy"), "unknown check 'xyzzy'. Known: answer_length"),
        (
            CheckSpec(name="words", options={"promt": [1, 2]}),
            "unknown option 'promt'. Did you mean 'prompt'?",
        ),
        (CheckSpec(name="steps", options={"checked": 1}), "unknown option 'checked'. Options: least"),
        (CheckSpec(name="forbidden", options={"x": 1}), "Options: none"),
        (CheckSpec(name="reality"), "check 'reality': missing option 'facts'"),
        (CheckSpec(name="form"), "check 'form': missing option 'fields'"),
        (CheckSpec(name="steps", options={"least": "3"}), "option 'least': Input should be a valid integer"),
        (CheckSpec(name="words", options={"prompt": [80]}), "check 'words': option 'prompt'"),
    ],
)
def test_a_wrong_name_or_option_is_said_with_the_closest(spec: CheckSpec, says: str) -> None:
    found = spec_problem(spec, CHECKS)
    assert says in found
    assert bool(found) == bool(says)


def test_items_without_findings_stay_as_they_are() -> None:
    sample = Sample.of(Chunk(chunk_id="c1", text=ENGLISH))
    good, short, again = (
        Item.of(sample.sample_id, place, type=kind, question=question, answer=answer)
        for place, (kind, question, answer) in enumerate(
            [
                ("factual", "Which port does vLLM use?", "It uses port 8000."),
                ("factual", "Which key is read?", "The key."),
                ("comparison", "Which port does vLLM use?", "8000."),
            ]
        )
    )
    specs = [CheckSpec(name="answer_length", types=("factual",)), CheckSpec(name="repeated_question")]
    one, two, three = run_checks([good, short, again], sample, "", specs, CHECKS)
    assert one is good
    assert two.findings.keys() == {"answer_length"}
    assert "2 words" in two.findings["answer_length"]
    assert two == short.model_copy(update={"findings": two.findings})
    assert three.findings.keys() == {"repeated_question"}
    assert "item 1" in three.findings["repeated_question"]
    assert run_checks([good, short], sample, "", [], CHECKS) == (good, short)


# Any text.

OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "form": FIELDS,
    "reality": {"facts": FACTS.model_dump(mode="json")},
}
TEXT: Final = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            [
                *(
                    "1. ",
                    "\n",
                    " ",
                    "`",
                    "--x",
                    "7B",
                    " GB ",
                    "of VRAM",
                    "$3",
                    "/h",
                    "A100",
                    " tokens/s",
                    "4-bit",
                    "|",
                    "0",
                ),
                *(
                    "the text",
                    "does not",
                    "say",
                    "8,5",
                    "😀",
                    "\u200d",
                    "ß",
                    "İ",
                    "not",
                    "LoRA",
                    "needs",
                    ".",
                    "9" * 30,
                ),
            ]
        ),
        max_size=30,
    ).map("".join),
)


def everything(text: str) -> CheckedItem:
    card = {**CARD, "forbidden": ["money", "durations", "hardware"], "scenario_facts": DREAM}
    texts = {"question": text, "text": text or "x", "title": text, REJECTED: text, FORM: text}
    return case(text, **texts, given=card, before=(text,), reply=text)  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(TEXT)
@example("")
@example(" \n\t ")
@example("😀" * 1_000)
@example("word " * 20_000)
@example("\x00")
@pytest.mark.slow
def test_no_check_raises_on_any_text(text: str) -> None:
    whole = everything(text)
    for name, check in CHECKS.items():
        assert isinstance(check(whole, **OPTIONS.get(name, {})), str)


N: Final = 50_000
"""Characters."""
PIECES: Final = [
    *(*"1a,$€-_#>*(`'’\n\t 🙂", "1,", "1.", "1.1,", "1 ", "$1", "1. ", "1.\n", "--a", "--a-", "`a", "`a` "),
    *(
        "a.",
        "a. ",
        "a-",
        "a_",
        "A1",
        "7B ",
        "7B-",
        "9 GB ",
        "9x9 GB",
        "9 tokens ",
        "9 tokens/s ",
        "9 MB of data ",
    ),
    *(
        "the text ",
        "The context not ",
        "not ",
        "no way to ",
        "says ",
        "state ",
        "der Text ",
        "nicht ",
        "keine ",
    ),
    *(
        "what is ",
        "what are how ",
        "how is ",
        "wie ",
        "why ",
        "fully ",
        "train ",
        "quantized ",
        "A100 ",
        "H100-",
    ),
    *(
        "step 1 ",
        "**1",
        "Step 1:\n",
        "five ",
        "half a ",
        "two x ",
        "one\n",
        "I am ",
        "it is not ",
        "RTX ",
        "or ",
    ),
    *("needs a card of memory ", "in the provided ", "im gegebenen ", "\n\n", "\r\n", "8 billion ", "USD "),
]
BOMBS: Final = {
    **{piece: (piece * N)[:N] for piece in PIECES},
    "spaces": f"a{' ' * N}b",
    "1 then spaces": f"1{' ' * N}b",
    "step then spaces": f"step{' ' * N}1",
    "the text, then long": f"the text {'a ' * (N // 2)}",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CHECKS)
def test_no_check_is_slow_on_a_long_text(name: str, bar: Bar) -> None:
    run_timed(name, BOMBS, bar)


@pytest.mark.parametrize("name", ["new_names", "reality"])
def test_no_check_that_splits_sentences_is_slow_on_a_long_text(name: str, bar: Bar) -> None:
    table = "| a | b |\n| --- | --- "
    bombs = {
        "dots": "." * N,
        "heading": f"# a{' ' * N}b",
        "empty cells": f"{table}{'|  ' * 2_000}x",
        "colons": f"{table}{'|:' * 2_000}x",
    }
    run_timed(name, bombs, bar)


def run_timed(name: str, bombs: Mapping[str, str], bar: Bar) -> None:
    for piece, bomb in bombs.items():
        whole = everything(bomb)
        start = time.process_time()
        CHECKS[name](whole, **OPTIONS.get(name, {}))
        bar(f"{name} on {piece!r}, CPU s", time.process_time() - start, 5)
