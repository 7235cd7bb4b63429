import json
from pathlib import Path
from typing import Any

import pytest

from qaeval.chat.protocol import ChatError, ChatRequest
from qaeval.corpus.samples import load_cards
from qaeval.evals.definition import load_eval
from qaeval.records import REJECTED, Sample
from qaeval_floor import models
from qaeval_floor.preferences import lead_pair, salient_pair

EVAL = load_eval(Path(__file__).parents[1] / "evals" / "dpo_pairs")
CARDS = load_cards(EVAL.directory / "cards.jsonl", EVAL)


def card(**fields: Any) -> str:
    base = {
        "persona": "engineer at a bank",
        "situation": "The engineer wants a judge. Raters differ.",
        "features": [{"name": name, "about": f"Does {name}."} for name in ("w", "x", "y", "z")],
        "mistake": "Asking one rater.",
        "check": "The letters agree.",
    }
    return json.dumps({**base, **fields})


def given_of(sample: Sample) -> dict[str, str]:
    return {"given": json.dumps(dict(sample.given))}


def test_the_lead_pair_reads_the_card_out() -> None:
    assert lead_pair({"given": card()}) == {
        "prompt": "The engineer wants a judge. Raters differ. What should be done?",
        "chosen": "1. w: Does w.\n2. x: Does x.\n3. y: Does y.\n4. z: Does z.",
        "rejected": "w: Does w. x: Does x. y: Does y.",
    }


def test_the_salient_pair_asks_as_the_persona_warns_and_rejects_the_weaker_approach() -> None:
    assert salient_pair({"given": card()}) == {
        "prompt": "I am an engineer at a bank. The engineer wants a judge. Raters differ. What should I do, and in which order?",
        "chosen": "1. w: Does w.\n2. x: Does x.\n3. y: Does y.\n4. z: Does z.\n\nThe following falls short: Asking one rater.\n\n"
        "This is how you see that it worked: The letters agree.",
        "rejected": "Asking one rater. For a first version that is usually enough.",
    }


@pytest.mark.parametrize("candidate", [lead_pair, salient_pair])
def test_a_card_of_a_situation_alone_is_enough(candidate: Any) -> None:
    pair = candidate({"given": '{"situation": "Raters differ.", "features": "none"}'})
    assert list(pair) == ["prompt", "chosen", "rejected"]
    assert all("Raters differ." in part for part in pair.values())


@pytest.mark.parametrize("candidate", [lead_pair, salient_pair])
def test_candidates_say_the_same_when_asked_again(candidate: Any) -> None:
    for sample in CARDS:
        pair = candidate(given_of(sample))
        assert pair == candidate(given_of(sample))
        assert len(set(pair.values())) == 3


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"situation": 3}', '{"situation": "  "}'])
@pytest.mark.parametrize("candidate", [lead_pair, salient_pair])
def test_a_card_without_a_situation_is_refused(candidate: Any, text: str) -> None:
    with pytest.raises(ValueError, match="card"):
        candidate({"given": text})


async def test_the_judge_refuses_a_pair_that_reaches_it() -> None:
    parts = {"chunk": "s", "question": "p", "answer": "c", REJECTED: "r"}
    with pytest.raises(ChatError, match="does not grade"):
        await models.lexical().complete(ChatRequest(messages=(), inputs=parts))
