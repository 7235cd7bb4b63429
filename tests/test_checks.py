"""Each check on realistic cases with and without a finding, in English and German, near the bounds of its options."""

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
    facts: Mapping[str, Any] | None = None,
    earlier_questions: tuple[str, ...] = (),
    reply: str = "",
    **more_parts: str,
) -> CheckedItem:
    sample = Sample.of(Chunk(chunk_id="c1", text=text, title=title, language=language), question, facts)

    def item(position: int, item_question: str) -> Item:
        return Item.of(
            sample.sample_id, position, type=type, question=item_question, answer=answer, parts=more_parts
        )

    earlier_items = tuple(item(index, earlier) for index, earlier in enumerate(earlier_questions))
    return CheckedItem(item(len(earlier_questions), question), earlier_items, sample, reply)


class CheckCase(NamedTuple):
    """A checked item and the text the finding must contain; empty means no finding."""

    check: str
    expected: str
    checked_item: CheckedItem
    options: Mapping[str, Any] = {}


def make_words(n: int) -> str:
    return " ".join(["word"] * n)


def repeated(expected: str, question: str, *earlier_questions: str, **options: float) -> CheckCase:
    return CheckCase(
        "repeated_question", expected, case(question=question, earlier_questions=earlier_questions), options
    )


REPEATED: Final = [
    repeated("same question as item 1", "Which port is it?", "Which port is it?"),
    repeated("same question as item 2", "which port is it", "Why?", "Which port is it?"),
    repeated("question of item 1", "What is the default port?", "Which port is the default?"),
    repeated("nearly", "Was ist der Standardport?", "Welcher ist der Standardport?"),
    repeated("nearly", "Which red green blue key is read?", "Which red green blue key is set?", alike=0.6),
    repeated("", "Which red green blue key is read?", "Which red green blue key is set?", alike=0.7),
    repeated("", "Which port does vLLM use?"),
    repeated("", "Why does vLLM use paged attention?", "How does vLLM use paged attention?"),
    repeated("", "Wann meldet der Betreiber den Vorfall?", "Warum meldet der Betreiber den Vorfall?"),
    repeated("", "What speed does a batch of 8 reach?", "What speed does a batch of 16 reach?", alike=0.6),
    repeated("", "Which port does vLLM use?", "How is the cache sized?"),
]


def foreign(
    expected: str, question: str, text: str = ENGLISH, title: str = "", **options: float
) -> CheckCase:
    return CheckCase("foreign_question", expected, case(question=question, text=text, title=title), options)


FOREIGN: Final = [
    foreign("capital, france", "What is the capital of France?"),
    foreign("chunk lacks", "How does Kubernetes schedule pods?"),
    foreign("chunk lacks", "Wie hoch ist die Steuer auf Grundstücke?", GERMAN),
    foreign("chunk lacks", "Which port does Postgres expose?", least=0.6),
    foreign("chunk lacks", "Who wrote the novel?"),
    foreign("", "Which port does vLLM listen on?"),
    foreign("", "Which port does Redis listen on?", least=0.6),
    foreign("", "Wer meldet die Verletzung der Aufsichtsbehörde?", GERMAN),
    foreign("", "How is Redis persisted?", "It is persisted by snapshots.", "Redis"),
    foreign("", "According to the text, which port is it?"),
    foreign("", "How does vllm's max-num-seqs limit batches?"),
]


def echoed(expected: str, question: str, answer: str, **options: float) -> CheckCase:
    return CheckCase("echoed_answer", expected, case(answer, question=question), options)


ECHOED: Final = [
    echoed("repeats", "Why does batching raise throughput?", "Batching raises throughput."),
    echoed(
        "repeats", "What is the default port of the server?", "The default port of the server is the default."
    ),
    echoed("repeats", "Warum erhöht Batching den Durchsatz?", "Batching erhöht den Durchsatz."),
    echoed("repeats", "Is it red or green?", "It is red or green."),
    echoed("repeats", "What do alpha beta gamma do?", "Alpha beta gamma delta.", most=0.7),
    echoed("", "What do alpha beta gamma do?", "Alpha beta gamma delta.", most=0.75),
    echoed("", "Why does batching raise throughput?", "Finished requests leave the batch at once."),
    echoed("", "Which port does vLLM use?", "vLLM uses port 8000."),
    echoed("", "Does vLLM or TGI support adapters?", "vLLM supports adapters."),
    echoed("", "Does the cache survive restarts?", "The cache does not survive restarts."),
    echoed("", "Speichert der Server Anfragen?", "Ja, der Server speichert Anfragen."),
    echoed("", "What is it?", "It is this."),
]


def stock_phrase(expected: str, answer: str = "", question: str = "", text: str = ENGLISH) -> CheckCase:
    return CheckCase("stock_phrase", expected, case(answer, question=question, text=text))


STOCK: Final = [
    stock_phrase("answer: 'According to the text'", "According to the text, it is 8000."),
    stock_phrase("question: 'in the passage'", question="What is described in the passage?"),
    stock_phrase("based on the provided context", "It is, based on the provided context, 8000."),
    stock_phrase("the text say", question="What does the text say about ports?"),
    stock_phrase("I hope this helps", "Port 8000. I hope this helps!"),
    stock_phrase("Laut dem Text", "Laut dem Text sind es 72 Stunden."),
    stock_phrase("sagt der Text", question="Was sagt der Text über Meldungen?"),
    stock_phrase("Im Abschnitt", "Im Abschnitt steht 72 Stunden."),
    stock_phrase("", "It listens on port 8000."),
    stock_phrase("", "The flag is read from the source code."),
    stock_phrase("", "In the context of batching, a request waits."),
    stock_phrase("", "Tokens in the context window are kept."),
    stock_phrase("", "Suchen Sie im Text nach Ports.", text="Suchen Sie im Text nach dem Wort."),
    stock_phrase("", "Store it in this document.", text="Put the field in this document."),
    stock_phrase("", "Die Frist gilt im Kontext von Meldungen."),
]

LENGTH: Final = [
    CheckCase("answer_length", "2 words, expected 3 to 120", case("Port 8000.")),
    CheckCase("answer_length", "121 words", case(make_words(121))),
    CheckCase("answer_length", "0 words", case("   ")),
    CheckCase("answer_length", "expected 5 to 6", case(make_words(4)), {"least": 5, "most": 6}),
    CheckCase("answer_length", "7 words", case("Das sind genau sieben Wörter hier drin."), {"most": 6}),
    CheckCase("answer_length", "", case(make_words(3))),
    CheckCase("answer_length", "", case(make_words(120))),
    CheckCase("answer_length", "", case(make_words(5)), {"least": 5, "most": 6}),
    CheckCase("answer_length", "", case(make_words(6)), {"least": 5, "most": 6}),
]


def type_label(expected: str, item_type: str, question: str) -> CheckCase:
    return CheckCase("type_label", expected, case(question=question, type=item_type))


LABEL: Final = [
    type_label("comparison", "comparison", "What is the default port?"),
    type_label("comparison", "comparison", "Welche Frist gilt?"),
    type_label("conceptual", "conceptual", "How many GPUs are there?"),
    type_label("conceptual", "conceptual", "Welcher Port wird genutzt?"),
    type_label("asks how or why", "factual", "Why does batching help?"),
    type_label("asks how or why", "factual", "Warum hilft Batching?"),
    type_label("", "comparison", "How does A differ from B?"),
    type_label("", "comparison", "Which is faster, A or B?"),
    type_label("", "comparison", "Worin unterscheiden sich A und B?"),
    type_label("", "conceptual", "What role does the cache play?"),
    type_label("", "conceptual", "Wozu dient der Cache?"),
    type_label("", "factual", "How many GPUs are there?"),
    type_label("", "factual", "How is the option called?"),
    type_label("", "answerable", "Why?"),
]


def new_numbers(expected: str, answer: str, question: str = "", text: str = ENGLISH) -> CheckCase:
    return CheckCase("new_numbers", expected, case(answer, question=question, text=text))


NUMBERS: Final = [
    new_numbers("not in the chunk: 9000", "It listens on port 9000."),
    new_numbers("not in the chunk: 7", "7"),
    new_numbers("not in the chunk: 50%", "Throughput rises by 50%."),
    new_numbers("not in the chunk: 5", "It retries five times."),
    new_numbers("not in the chunk: 48", "Die Frist beträgt 48 Stunden.", text=GERMAN),
    new_numbers("15000", "Es sind 15.000 Anfragen, also 15000.", text=GERMAN),
    new_numbers("", "It listens on port 8000."),
    new_numbers("", "It holds 1500 blocks, 40 % more."),
    new_numbers("", "1. Stop it.\n2. Start it.\n3. Wait."),
    new_numbers("", "There are two ways: queueing and batching."),
    new_numbers("", "Seven nodes would need more.", "What would 7 nodes need?"),
    new_numbers("", "Es sind 1500 Anfragen und 2.50 GB.", text=GERMAN),
    new_numbers("", "qwen2.5-7b is served."),
]


def new_names(expected: str, answer: str, question: str = "", text: str = ENGLISH) -> CheckCase:
    return CheckCase("new_names", expected, case(answer, question=question, text=text))


NAMES: Final = [
    new_names("not in the chunk: TensorRT", "It is served by TensorRT on the node."),
    new_names("max_tokens", "Set max_tokens to limit it."),
    new_names("A100-based", "It needs an A100-based node."),
    new_names("Redis", "The cache is kept in Redis here."),
    new_names("PostgreSQL", "Die Meldung wird in einer PostgreSQL gespeichert und das ist gut.", text=GERMAN),
    new_names("", "The server is vLLM on port 8000."),
    new_names("", "It needs an H100-based node."),
    new_names("", "The APIs read keys."),
    new_names("", "vLLM’s batches are limited by max-num-seqs."),
    new_names("", "In Berlin it is late.", "What time is it in Berlin?"),
    new_names("", "Die Meldung geht an die Behörde, wenn ein Risiko besteht.", text=GERMAN),
    new_names("", "2xlarge is not a name here."),
]


def in_language(expected: str, answer: str, text: str = ENGLISH, language: str = "") -> CheckCase:
    return CheckCase("language", expected, case(answer, text=text, language=language))


LANGUAGE: Final = [
    in_language("German, the chunk is English", "Der Server nutzt den Port 8000 und ist schnell."),
    in_language("English, the chunk is German", "The report is sent to the authority.", GERMAN),
    in_language("English", "The report is sent to the authority.", "Port 8000", "de-AT"),
    in_language("German", "Das ist der Port, der für den Server gilt.", "Port 8000", "en"),
    in_language("", "The server uses port 8000 for this."),
    in_language("", "Die Meldung geht an die Behörde und wird geprüft.", GERMAN),
    in_language("", "Der Server nutzt Port 8000."),  # five words
    in_language("", "Ports 8000, 8001, 8002, 8003, 8004, 8005.", GERMAN),
    in_language("", "Le serveur utilise un port par défaut.", "Port 8000", "fr"),
    in_language("", "The server uses port 8000 for this.", "Texte", "fr"),
]

CHINESE: Final = "该证书的有效期为九十天，到期之前必须续订。合同工只有三十天的VPN权限，随合同终止而终止。"
CHINESE_ANSWER: Final = "合同工的VPN权限只有三十天，合同终止时结束。"


def chinese(check: str, **texts: str) -> CheckCase:
    defaults = {"question": "合同工 VPN 权限有多少天？", "answer": CHINESE_ANSWER}
    return CheckCase(check, "", case(text=CHINESE, language="zh", **(defaults | texts)))


WITHOUT_SPACES: Final = [
    chinese("answer_length"),
    chinese("foreign_question"),
    chinese("echoed_answer", question="Linux 还是 Windows 需要证书？", answer="Linux"),
    chinese("type_label", question="两种证书有什么区别？", type="comparison"),
    chinese("new_names"),
    CheckCase("answer_length", "122 words", case("天" * 122, text=CHINESE)),
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
    *(CheckCase("wrong_refusal", "declines", case(answer)) for answer in REFUSALS),
    *(CheckCase("wrong_refusal", "", case(answer)) for answer in ANSWERS),
    *(CheckCase("missing_refusal", "", case(answer)) for answer in REFUSALS),
    *(
        CheckCase("missing_refusal", "answers", case(answer))
        for answer in ANSWERS
        if "text does not say" not in answer
    ),
    CheckCase("missing_refusal", "", case("It uses port 8000. The text does not say why.")),
    CheckCase("missing_refusal", "answers", case("At the start B is zero, not A.", facts=FALSE_PREMISE)),
    CheckCase("missing_refusal", "", case("At the start B is zero, not A.", facts=ACCEPTING)),
    CheckCase("missing_refusal", "", case("It’s the reverse:\nb is\nzero.", facts=ACCEPTING)),
    CheckCase("missing_refusal", "answers", case("At the start A is zero, not B.", facts=ACCEPTING)),
    CheckCase("missing_refusal", "", case("It is 8. The premise is wrong.", facts=FALSE_PREMISE)),
    CheckCase("missing_refusal", "", case("It doesn't: only 8 count.", facts=FALSE_PREMISE)),
    CheckCase("missing_refusal", "", case("Die Annahme ist falsch.", facts=FALSE_PREMISE)),
    CheckCase("missing_refusal", "answers", case("It does not use port 80 for this.", facts=FALSE_PREMISE)),
    CheckCase("missing_refusal", "answers", case("By a factor of 4, not 8.", facts=FALSE_PREMISE)),
    CheckCase("missing_refusal", "answers", case("It is 8. It doesn't: only 8.", facts=FALSE_PREMISE)),
    CheckCase("missing_refusal", "answers", case("Because B is random.", facts=FALSE_PREMISE)),
    CheckCase(
        "missing_refusal", "answers", case("Weil B zufällig ist. Das hilft nicht.", facts=FALSE_PREMISE)
    ),
    CheckCase(
        "missing_refusal", "answers", case("At the start B is zero, not A.", facts={"stratum": "absent"})
    ),
]

FIELDS: Final = {"fields": {"priority": ["low", "high"], "area": ["billing", "Störung"]}}


def form_case(expected: str, form: object, *, raw: str | None = None) -> CheckCase:
    return CheckCase("form", expected, case(**{FORM: json.dumps(form) if raw is None else raw}), FIELDS)


FORMS: Final = [
    CheckCase("form", "no form", case(), FIELDS),
    form_case("no form", None),
    form_case("expected an object", ["low"]),
    form_case("expected an object", None, raw="{low"),
    form_case("no 'area'", {"priority": "low"}),
    form_case("priority: 'medium' is none of low, high", {"priority": "medium", "area": "billing"}),
    form_case("priority: ['low']", {"priority": ["low"], "area": "billing"}),
    form_case("priority: 'Low'", {"priority": "Low", "area": "billing"}),
    form_case("unknown field 'mood'", {"priority": "low", "area": "billing", "mood": "x"}),
    form_case("", {"priority": "low", "area": "billing"}),
    form_case("", {"area": "billing", "priority": "high"}),
    form_case("", {"priority": "low", "area": "Störung"}),
    CheckCase("form", "", case(**{FORM: "{}"}), {"fields": {}}),
    CheckCase("form", "", case(**{FORM: '{"x": "1"}'}), {"fields": {"x": ["1", "2"]}}),
]

BARE: Final = [
    CheckCase("bare_json", "begins with '```json", case(reply='```json\n{"a": 1}\n```')),
    CheckCase("bare_json", "begins with 'Here is", case(reply='Here is the JSON: {"a": 1}')),
    CheckCase("bare_json", "begins with 'Hier ist", case(reply='Hier ist das JSON: {"a": 1}')),
    CheckCase("bare_json", "begins with", case(reply='{"a": 1} Done.')),
    CheckCase("bare_json", "begins with", case(reply='{"a": 1,}')),
    CheckCase("bare_json", "begins with ''", case(reply="")),
    CheckCase("bare_json", "begins with '[[[", case(reply="[" * 100_000)),
    CheckCase("bare_json", "", case(reply='{"a": 1}')),
    CheckCase("bare_json", "", case(reply='\n {"a": "ä"} \n')),
    CheckCase("bare_json", "", case(reply="[1, 2]")),
    CheckCase("bare_json", "", case(reply='{"a": "```"}')),
]


def word_counts(
    expected: str, n_prompt: int, n_chosen: int, n_rejected: int, **options: tuple[float, float]
) -> CheckCase:
    pair = case(make_words(n_chosen), question=make_words(n_prompt), **{REJECTED: make_words(n_rejected)})
    return CheckCase("words", expected, pair, options)


WORDS: Final = [
    word_counts("prompt has 79 words, expected 80 to 120", 79, 280, 150),
    word_counts("prompt has 121", 121, 280, 150),
    word_counts("chosen has 249", 100, 249, 150),
    word_counts("chosen has 301", 100, 301, 150),
    word_counts("rejected has 139", 100, 250, 139),
    word_counts("rejected has 161", 100, 280, 161),
    word_counts("chosen is 0.00 times", 100, 280, 0),
    word_counts("1.50 times", 100, 240, 160, ratio=(1.6, 2)),
    word_counts(
        "chosen is 2.00 times", 1, 4, 2, prompt=(1, 1), chosen=(1, 9), rejected=(1, 9), ratio=(1, 1.9)
    ),
    word_counts("", 80, 250, 140),
    word_counts("", 120, 300, 160),
    word_counts("", 120, 300, 150),
    word_counts("", 1, 4, 2, prompt=(1, 1), chosen=(1, 9), rejected=(1, 9), ratio=(2, 2)),
]


def numbered_steps(expected: str, answer: str, **options: int) -> CheckCase:
    return CheckCase("steps", expected, case(answer), options)


STEPS: Final = [
    numbered_steps("0 numbered steps, expected at least 3", "First stop it, then start it."),
    numbered_steps("2 numbered steps", "1. Stop it.\n2. Start it."),
    numbered_steps("steps are numbered [1, 2, 4]", "1. Stop it.\n2. Start it.\n4. Wait."),
    numbered_steps("steps are numbered [2, 3, 4]", "2. Stop it.\n3. Start it.\n4. Wait."),
    numbered_steps("3 numbered steps, expected at least 4", "1. Halt.\n2. Starte.\n3. Warte.", least=4),
    numbered_steps("0 numbered", "Version 1.2 and 2.3 and 3.4 work."),
    numbered_steps("", "1. Stop it.\n2. Start it.\n3. Wait."),
    numbered_steps("", "Do this:\n\n1) Stop it.\n2) Start it.\n3) Wait.\n4) Look."),
    numbered_steps("", "**Step 1:** Stop it.\n**Step 2:** Start it.\n**Step 3:** Wait."),
    numbered_steps("", "Schritt 1: Halt.\nSchritt 2: Starte.\nSchritt 3: Warte."),
    numbered_steps("", "1. Stop it. 2. Start it. 3. Wait."),
    numbered_steps("", "**1.** Stop it.\n**2.** Start it.\n### 3. Wait."),
    numbered_steps("", "1. Stop it.\n2. Start it.", least=2),
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


def features_case(
    expected: str, answer: str, rejected: str = "", *, prompt: str = "", **options: int
) -> CheckCase:
    card = case(answer, question=prompt, text="It speaks of `maxSurge`.", facts=CARD, **{REJECTED: rejected})
    return CheckCase("features", expected, card, options)


FEATURES: Final = [
    features_case("chosen names '--enable-lora'", f"{GOOD} Add --enable-lora."),
    features_case("rejected names 'torchrun'", GOOD, "Use `torchrun` for it."),
    features_case("prompt names '--port'", GOOD, prompt="I set --port to 80."),
    features_case("chosen names '--max-model'", f"{GOOD} Use `--max-model` then."),
    features_case("2 of the card's features, expected at least 3", "Set `--api-key` and `--max-model-len`."),
    features_case("3 of the card's features, expected at least 4", GOOD, least=4),
    features_case("0 of the card's features", "Setze einen Schlüssel und begrenze die Länge."),
    features_case("", GOOD),
    features_case("", f"{GOOD} Run `vllm serve model --api-key secret`."),
    features_case("", f"{GOOD} Look at `NCCL_DEBUG` and `maxSurge`."),
    features_case("", "Setze --api-key und --max-model-len; die Readiness Probe entscheidet."),
    features_case("", "Only `--api-key` is set.", least=1),
    features_case("", "Readiness probes, --api-key and --max-model-len -- and nothing else."),
    CheckCase("features", "", case("Use ONE.", facts={"features": ["one"]}), {"least": 1}),
]


def forbidden_case(expected: str, kind: str, answer: str, rejected: str = "", prompt: str = "") -> CheckCase:
    card = case(answer, question=prompt, facts={"forbidden": [kind]}, **{REJECTED: rejected})
    return CheckCase("forbidden", expected, card)


FORBIDDEN: Final = [
    forbidden_case("money in chosen: '$5", "money", "It costs $5."),
    forbidden_case("money in rejected: '20 Euro", "money", "Fine.", "Das kostet 20 Euro."),
    forbidden_case("money", "money", "About ten dollars."),
    forbidden_case("money", "money", "Es kostet 5 €."),
    forbidden_case("money in prompt: 'USD 7", "money", "", "", "We have USD 700."),
    forbidden_case("durations", "durations", "Wait 30 seconds."),
    forbidden_case("durations", "durations", "It takes an hour."),
    forbidden_case("durations", "durations", "Let it run overnight."),
    forbidden_case("durations", "durations", "Warte fünf Minuten."),
    forbidden_case("durations", "durations", "Answers within 200 ms."),
    forbidden_case("hardware", "hardware", "Use 24GB of memory."),
    forbidden_case("hardware", "hardware", "Rent two H100s."),
    forbidden_case("hardware", "hardware", "Ein Rechner mit 16 Kernen."),
    forbidden_case("hardware", "hardware", "An RTX 4090 will do."),
    forbidden_case("forbids 'colour'", "colour", "Blue."),
    forbidden_case("", "money", "The budget is small, keep 5 copies."),
    forbidden_case("", "money", "Die Kosten sind gering."),
    forbidden_case("", "durations", "Wait until it is ready, 3 times."),
    forbidden_case("", "durations", "Warte, bis es fertig ist."),
    forbidden_case("", "durations", "It costs $5 and 24 GB."),
    forbidden_case("", "hardware", "A larger card with more memory."),
    forbidden_case("", "hardware", "Eine größere Karte, Stufe 3."),
    forbidden_case("", "hardware", "Answers within 5 minutes."),
    CheckCase("forbidden", "", case("It costs $5.", facts={"forbidden": []})),
]

IMPOSSIBLE_SCENARIO: Final = {"billions": 20, "text_gb": 50, "days": 3, "usd": 500, "gpu": "A100-80GB"}


def reality_case(
    expected: str, answer: str, *, rejected: str = "", prompt: str = "", scenario: object = None
) -> CheckCase:
    pair = case(answer, question=prompt, facts={"scenario_facts": scenario or {}}, **{REJECTED: rejected})
    return CheckCase("reality", expected, pair, {"facts": FACTS.model_dump(mode="json")})


# Bounds by hand: 7B × 2.4 = 16.8 GB (8.4 to 33.6); 7B × 16 = 112 (56 to 224); A100-80GB 1.19 to 3.67 USD (0.595 to 7.34);
# of 40 or 80 GB 1.00 to 3.67 (0.5 to 7.34); L4 0.44 to 0.80 (0.22 to 1.60); RTX 4090 0.29 to 0.88 (0.145 to 1.76);
# L4 300 ÷ 14 = 21.43 tokens/s (10.7 to 42.9); 8 GB ÷ 4 = 2 billion tokens (1 to 4).
REALITY: Final = [
    reality_case(
        "7 billion parameters × 2.4 GB = 16.8 GB", "Serving a 7B model in bf16 needs 8.3 GB of VRAM."
    ),
    reality_case("claims 34 GB", "Serving a 7B model in bf16 needs 34 GB of VRAM."),
    reality_case("full training", "Full fine-tuning of a 7B model fits a card with 55 GB of memory."),
    reality_case(
        "rejected claims 24 GB", "Fine.", rejected="Inferenz eines 70B-Modells braucht 24 GB Speicher."
    ),
    reality_case(
        "1.19 to 3.67 USD, published since 2026-03, seen on 2026-11-09", "An A100 80GB costs $0.59 per hour."
    ),
    reality_case("for A100-40GB or A100-80GB", "One A100 costs 0.49 USD an hour."),
    reality_case("claims 7.35 USD an hour", "One A100-80GB costs 7.35 USD an hour."),
    reality_case("pro Stunde", "Eine H100 kostet 25 USD pro Stunde."),
    reality_case("0.44 to 0.8 USD", "An L4 costs $1.61 per hour."),
    reality_case("0.29 to 0.88 USD", "Ein RTX4090 kostet 0,14 USD pro Stunde."),
    reality_case("1 to 3.4 USD", "An A100 40GB costs $6.90 per hour."),
    reality_case("= 21.43 tokens/s at most", "On an L4 a 7B model writes 43 tokens per second."),
    reality_case("claims 10 tokens/s on L4", "On an L4 a 7B model writes 10 tokens/s."),
    reality_case("8 GB of text ÷ 4 bytes = 2,000,000,000 tokens", "8 GB of text are 4.1 billion tokens."),
    reality_case("claims 900,000,000 tokens", "8 GB Text ergeben 900 Millionen Token."),
    reality_case("cannot be done", "1. Rent the card.", scenario=IMPOSSIBLE_SCENARIO),
    reality_case("method", "No.", scenario={"billions": 7, "method": "lorra"}),
    reality_case("", "Serving a 7B model in bf16 needs 8.4 GB of VRAM."),
    reality_case("", "Serving a 7B model in bf16 needs 33.6 GB of VRAM."),
    reality_case("", "Full fine-tuning of a 7B model takes 57 GB of memory, or 223 GB of memory."),
    reality_case("", "QLoRA of a 7B model fits a 24 GB card."),
    reality_case("", "A full training of a 20B model does not fit into 80 GB of memory."),
    reality_case("", "One A100-80GB costs $0.60 per hour."),
    reality_case("", "One A100-80GB costs 7.34 USD an hour."),
    reality_case("", "One A100 costs 0.50 USD an hour."),
    reality_case("", "An L4 costs $1.60 per hour."),
    reality_case("", "An RTX 4090 costs $0.15 per hour."),
    reality_case("", "Eight H100 cost $55 per hour."),
    reality_case("", "On an L4 a 7B model writes 42 tokens per second."),
    reality_case("", "On an L4 a 7B model writes 900 tokens per second for 64 concurrent requests."),
    reality_case("", "On an L4 a 7B model in 4-bit writes 60 tokens/s."),
    reality_case("", "8 GB of text are 3.9 billion tokens, in blocks of 2048 tokens."),
    reality_case("", "8 GB Text ergeben 1,1 Milliarden Token."),
    reality_case("", "Fine.", prompt="I heard a 70B model runs in 8 GB of VRAM."),
    reality_case(
        "", "This cannot be done: 20B needs 320 GB for full training.", scenario=IMPOSSIBLE_SCENARIO
    ),
    reality_case("", "Das ist nicht machbar, das Budget reicht nicht.", scenario=IMPOSSIBLE_SCENARIO),
    reality_case("", "1. Rent the card.", scenario={**IMPOSSIBLE_SCENARIO, "billions": 1, "text_gb": 1}),
]


def too_alike(expected: str, chosen: str, rejected: str, **options: float) -> CheckCase:
    return CheckCase("too_alike", expected, case(chosen, **{REJECTED: rejected}), options)


ALIKE: Final = [
    too_alike("share 100%", "Restart the server now.", "Restart the server now!"),
    too_alike("share 100%", "", ""),
    too_alike("share 100%", "Starte den Server neu.", "Den Server starte neu!"),
    too_alike("share 75%", "red green blue", "red green blue white", most=0.7),
    too_alike("share 100%", "The cache is cleared.", "Clear that cache.", most=0.99),
    too_alike("", "red green blue", "red green blue white", most=0.75),
    too_alike("", "Restart the server now.", "Read the log first."),
    too_alike("", "Starte den Server neu.", "Lies zuerst das Protokoll."),
    too_alike("", "Restart the server now.", ""),
]

PROMPT: Final = (
    "Answer the question from the passage below. Use nothing but the passage: no outside knowledge, no guesses.\n"
    '{"answer": "Rye sourdough rests for 12 to 16 hours at 24 degrees before it is baked."}\n<passage>\n$chunk\n</passage>'
)


def copied_prompt(
    expected: str, answer: str = "Fine.", *, question: str = "", text: str = ENGLISH, **parts: str
) -> CheckCase:
    checked_item = case(answer, text=text, **parts)
    item = checked_item.item.model_copy(update={"question": question})
    return CheckCase("copied_prompt", expected, replace(checked_item, item=item, prompt=PROMPT))


COPIED: Final = [
    copied_prompt("answer: 'rye sourdough", "Rye sourdough rests for 12 to 16 hours at 24 degrees."),
    copied_prompt("no outside knowledge", "I use nothing but the passage: no outside knowledge, no guesses."),
    copied_prompt("question:", question="Answer the question from the passage below. Use nothing else?"),
    copied_prompt(
        "rejected:", **{REJECTED: "USE NOTHING BUT THE PASSAGE, no outside knowledge and guesses."}
    ),
    copied_prompt("", "Rye sourdough rests for 12 to 16."),
    copied_prompt("", "vLLM listens on port 8000 by default, and the cache holds 1,500 blocks."),
    copied_prompt("", "Use nothing but the passage, no outside knowledge.", text=f"A prompt: {PROMPT}"),
    copied_prompt("", question="How long does rye sourdough rest?"),
]

CHECK_CASES: Final = [
    *(*COPIED, *WITHOUT_SPACES),
    *(*REPEATED, *FOREIGN, *ECHOED, *STOCK, *LENGTH, *LABEL, *NUMBERS, *NAMES, *LANGUAGE, *REFUSING),
    *(*FORMS, *BARE, *WORDS, *STEPS, *FEATURES, *FORBIDDEN, *REALITY, *ALIKE),
]


@pytest.mark.parametrize(
    "attempt", CHECK_CASES, ids=[f"{n}-{check_case.check}" for n, check_case in enumerate(CHECK_CASES)]
)
def test_a_check_reports_exactly_the_expected_finding(attempt: CheckCase) -> None:
    finding = CHECKS[attempt.check](attempt.checked_item, **attempt.options)
    if attempt.expected:
        assert attempt.expected.casefold() in finding.casefold()
    else:
        assert finding == ""


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_has_cases_with_and_without_a_finding(name: str) -> None:
    has_finding = [bool(check_case.expected) for check_case in CHECK_CASES if check_case.check == name]
    assert len(has_finding) >= 8
    assert sum(has_finding) >= 4
    assert len(has_finding) - sum(has_finding) >= 4
    assert meaning(name)


def test_all_checks_are_registered() -> None:
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
def test_a_refusal_counts_only_before_an_answer(answer: str, *, is_refusal: bool) -> None:
    assert refuses(answer) == is_refusal


# Impossible scenarios.


def test_an_impossible_training_is_named_with_its_arithmetic() -> None:
    tokens = 50e9 / 4
    hours = 6 * 20e9 * tokens / (312e12 * 0.4) / 3600
    usd = hours * 1.19  # the lowest price
    assert (tokens, round(hours), round(usd)) == (12.5e9, 3339, 3973)
    message = impossible({**IMPOSSIBLE_SCENARIO, "method": "full", "n_gpus": 1}, FACTS)
    problems = dict(part.split(": ", 1) for part in message.split("; "))
    numbers_by_problem = {
        name: re.findall(r"\d[\d,.e+]*", text.replace("A100-80GB", "")) for name, text in problems.items()
    }
    assert numbers_by_problem == {
        "memory": ["20", "16", "320", "1", "80"],  # 20B x 16 GB; 1 GPU of 80 GB
        "time": ["6", "20e9", "1.25e+10", "40", "312", "3,339", "3", "1", "72"],  # 3 days of 1 GPU: 72 hours
        "cost": ["3,339", "1.19", "2026", "11", "09", "3,973", "500"],
    }


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ({}, []),
        ({**IMPOSSIBLE_SCENARIO, "gpu": "abacus"}, []),
        ({**IMPOSSIBLE_SCENARIO, "billions": None}, []),
        ({"billions": 5, "gpu": "A100-80GB"}, []),  # 5 × 16 = 80 GB, exactly the memory available
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
def test_an_impossible_scenario_names_what_it_lacks(scenario: dict[str, Any], expected: list[str]) -> None:
    message = impossible(scenario, FACTS)
    assert [part.partition(":")[0] for part in message.split("; ") if part] == expected


CARDS: Final = {
    card["card_id"]: card for card in map(json.loads, (EVAL / "cards.jsonl").read_text("utf-8").splitlines())
}


def excess_factors(scenario: Mapping[str, Any], *, price: int) -> dict[str, float]:
    """Return the factors by which a scenario exceeds memory, time and budget; price 0 is the lowest, 1 the highest."""
    gpu, n = FACTS.gpus[scenario["gpu"]], scenario["n_gpus"]
    work = {"full": 6}.get(scenario["method"], 4) * scenario["billions"] * 1e9 * scenario["text_gb"] * 1e9 / 4
    hours = work / (gpu.tflops_bf16 * 1e12 * 0.4) / 3600
    return {
        "memory": FACTS.gb_per_billion[scenario["method"]] * scenario["billions"] / (gpu.memory_gb * n),
        "time": hours / (scenario["days"] * 24 * n),
        "cost": hours * (gpu.prices or (0, 0))[price] / scenario["usd"],
    }


def test_exactly_the_impossible_cards_are_impossible() -> None:
    for card in CARDS.values():
        reasons = impossible(card.get("scenario_facts", {}), FACTS)
        assert bool(reasons) == (card["type"] == "impossible"), (card["card_id"], reasons)
    planning_scenarios = [card["scenario_facts"] for card in CARDS.values() if card["type"] == "planning"]
    assert len(planning_scenarios) == 8
    assert (
        max(max(excess_factors(scenario, price=1).values()) for scenario in planning_scenarios) < 1
    )  # even at the highest price


@pytest.mark.parametrize(
    ("name", "resource", "factor"),
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
def test_an_impossible_card_differs_from_its_possible_twin_in_one_resource(
    name: str, resource: str, factor: float
) -> None:
    card = CARDS[name]
    possible_card = CARDS[card["twin"]]
    assert possible_card["type"] == "planning"
    assert possible_card["persona"] == card["persona"]
    changed_keys = [
        key for key, value in possible_card["scenario_facts"].items() if card["scenario_facts"][key] != value
    ]
    assert 1 <= len(changed_keys) <= 2
    factors = excess_factors(card["scenario_facts"], price=0)
    assert factors.pop(resource) == pytest.approx(factor, abs=0.001)
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
def test_a_sentence_with_an_unattributed_figure_makes_no_claim(sentence: str) -> None:
    assert list(claims(sentence, FACTS)) == []


@pytest.mark.parametrize("gpus", [("A100-80GB", "A100-40GB")])
def test_a_gpu_name_shared_by_two_models_needs_the_memory_size(gpus: tuple[str, str]) -> None:
    small = FACTS.gpus["A100-80GB"].model_copy(update={"memory_gb": 40})
    facts = Facts(
        gb_per_billion=FACTS.gb_per_billion,
        gpus=dict(zip(gpus, (FACTS.gpus["A100-80GB"], small), strict=True)),
    )
    assert facts.gpu_in("an A100") == ""
    assert facts.gpu_in("an A100 40 GB") == "A100-40GB"
    assert facts.gpu_in("two A100-80GB") == "A100-80GB"


def test_a_price_is_a_single_value_or_a_range() -> None:
    fields = FACTS.gpus["A100-80GB"].model_dump()
    single = GpuFacts.model_validate({**fields, "usd_per_hour": 3.43, "published_since": ""})
    assert single.prices == (3.43, 3.43)
    assert single.price_label() == "3.43 USD, seen on 2026-11-09"
    assert GpuFacts.model_validate({**fields, "usd_per_hour": None}).prices is None
    with pytest.raises(ValidationError, match=r"lowest, highest"):
        GpuFacts.model_validate({**fields, "usd_per_hour": [3, 1]})


def test_every_gpu_has_prices_a_source_and_dates() -> None:
    assert {"L4", "RTX 4090", "A100-40GB", "A100-80GB", "H100-80GB"} <= FACTS.gpus.keys()
    for name, gpu in FACTS.gpus.items():
        low, high = gpu.prices or (0, 0)
        assert 0 < low < high, name
        assert gpu.source, name
        assert "2026" <= gpu.published_since <= gpu.as_of, name


def test_an_incomplete_facts_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "facts.yaml").write_text("gpus: {}\n", encoding="utf-8")
    with pytest.raises(DataError, match="gb_per_billion"):
        load_facts(tmp_path / "facts.yaml")


def test_a_facts_file_with_zero_memory_is_refused(tmp_path: Path) -> None:
    memory = {**FACTS.model_dump(mode="json"), "gb_per_billion": {"inference_4bit": 0}}
    (tmp_path / "facts.yaml").write_text(json.dumps(memory), encoding="utf-8")
    with pytest.raises(DataError, match=r"gb_per_billion\.inference_4bit"):
        load_facts(tmp_path / "facts.yaml")


# Checks in an eval definition.


@pytest.mark.parametrize(
    ("spec", "message"),
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
def test_a_wrong_name_or_option_is_reported_with_a_suggestion(spec: CheckSpec, message: str) -> None:
    problem = spec_problem(spec, CHECKS)
    assert message in problem
    assert bool(problem) == bool(message)


def test_items_without_findings_are_returned_unchanged() -> None:
    sample = Sample.of(Chunk(chunk_id="c1", text=ENGLISH))
    good_item, short_item, repeated_item = (
        Item.of(sample.sample_id, position, type=kind, question=question, answer=answer)
        for position, (kind, question, answer) in enumerate(
            [
                ("factual", "Which port does vLLM use?", "It uses port 8000."),
                ("factual", "Which key is read?", "The key."),
                ("comparison", "Which port does vLLM use?", "8000."),
            ]
        )
    )
    specs = [CheckSpec(name="answer_length", types=("factual",)), CheckSpec(name="repeated_question")]
    good_result, short_result, repeated_result = run_checks(
        [good_item, short_item, repeated_item], sample, "", specs, CHECKS
    )
    assert good_result is good_item
    assert short_result.findings.keys() == {"answer_length"}
    assert "2 words" in short_result.findings["answer_length"]
    assert short_result == short_item.model_copy(update={"findings": short_result.findings})
    assert repeated_result.findings.keys() == {"repeated_question"}
    assert "item 1" in repeated_result.findings["repeated_question"]
    assert run_checks([good_item, short_item], sample, "", [], CHECKS) == (good_item, short_item)


# Arbitrary text.

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


def item_with_text_everywhere(text: str) -> CheckedItem:
    card = {**CARD, "forbidden": ["money", "durations", "hardware"], "scenario_facts": IMPOSSIBLE_SCENARIO}
    texts = {"question": text, "text": text or "x", "title": text, REJECTED: text, FORM: text}
    return case(text, **texts, facts=card, earlier_questions=(text,), reply=text)  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(TEXT)
@example("")
@example(" \n\t ")
@example("😀" * 1_000)
@example("word " * 20_000)
@example("\x00")
@pytest.mark.slow
def test_no_check_raises_on_any_text(text: str) -> None:
    checked_item = item_with_text_everywhere(text)
    for name, check in CHECKS.items():
        assert isinstance(check(checked_item, **OPTIONS.get(name, {})), str)


N: Final = 50_000
"""Length of the long texts, in characters."""
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
    check_cpu_time(name, BOMBS, bar)


@pytest.mark.parametrize("name", ["new_names", "reality"])
def test_no_check_that_splits_sentences_is_slow_on_a_long_text(name: str, bar: Bar) -> None:
    table = "| a | b |\n| --- | --- "
    bombs = {
        "dots": "." * N,
        "heading": f"# a{' ' * N}b",
        "empty cells": f"{table}{'|  ' * 2_000}x",
        "colons": f"{table}{'|:' * 2_000}x",
    }
    check_cpu_time(name, bombs, bar)


def check_cpu_time(name: str, bombs: Mapping[str, str], bar: Bar) -> None:
    for piece, bomb in bombs.items():
        checked_item = item_with_text_everywhere(bomb)
        start = time.process_time()
        CHECKS[name](checked_item, **OPTIONS.get(name, {}))
        bar(f"{name} on {piece!r}, CPU s", time.process_time() - start, 5)
