import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaeval.checks.check import run_checks
from qaeval.checks.registry import CHECKS
from qaeval.corpus.samples import load_cards
from qaeval.evals.definition import load_eval
from qaeval.records import Item, Sample
from qaeval.text.units import sentences
from qaeval_floor.preferences import judge_pair, lead_pair, salient_pair
from qaeval_floor.topic_card import from_json, from_text, voiced

EVAL = load_eval(Path(__file__).parents[1] / "evals" / "dpo_pairs")
CARDS = load_cards(EVAL.directory / "cards.jsonl", EVAL)
CHECKED = {"words", "steps", "features", "forbidden", "reality", "too_alike", "stock_phrase"}

SOURCE = """Persona: platform engineer at a hospital
Scenario (troubleshooting): The engineer's vLLM server logs preemptions every afternoon, answers get slow, and nobody can add a card.
Features:
- --max-num-seqs: Caps how many sequences run in one step; fewer of them keep their cache.
- --max-model-len: Limits prompt plus output of a request; a near value saves cache.
- /metrics: A route with waiting requests and cache usage.
A weaker approach: Raising the concurrency further.
How to see that it worked: The preemption counter stays flat under the usual load while throughput hardly falls."""
IMPOSSIBLE = """Persona: founder of a startup
Scenario (impossible): The founder wants to train all weights of a 20B model on one card.
Features:
- QLoRA: Trains an adapter over four-bit weights; it cannot replace full training.
- pilot run: A brief run that measures tokens per second."""
PROMPT = "Our vLLM server logs preemptions every afternoon and answers get slow. We cannot add a card. Where should I look first?"
CHOSEN = """The preemptions in the afternoon say that the cache is full while answers get slow.

1. Look at `/metrics`: waiting requests and cache usage tell you whether the load is the cause.
2. Lower `--max-num-seqs`, so that each request keeps its cache and nothing is computed twice.
3. Set `--max-model-len` near what you use, so that no single request claims the cache.

Then verify that the preemption counter stays flat under the usual load."""
REJECTED = (
    "Preemptions mean that the cache is full. Lower `--max-num-seqs` a little, and if that does not help, shorten the requests as "
    "well. After a restart the log should be quieter."
)


def card(**fields: Any) -> str:
    base = {
        "persona": "team lead at a bank",
        "type": "howto",
        "title": "A judge",
        "situation": "The lead wants a judge. Raters differ.",
    }
    return json.dumps({**base, **fields})


def given_of(sample: Sample) -> dict[str, str]:
    return {"given": json.dumps(dict(sample.given))}


def graded(
    prompt: str = PROMPT, chosen: str = CHOSEN, rejected: str = REJECTED, source: str = SOURCE
) -> tuple[str, str]:
    opinion = judge_pair(source, prompt, chosen, rejected)
    return opinion.letter, opinion.reason


def findings(sample: Sample, pair: dict[str, str]) -> dict[str, str]:
    item = Item.of(
        sample.sample_id,
        0,
        type=sample.type,
        question=pair["prompt"],
        answer=pair["chosen"],
        parts={"rejected": pair["rejected"]},
    )
    return dict(run_checks([item], sample, "", EVAL.checks, CHECKS)[0].findings)


# --- the candidates


def test_salient_pairs_pass_the_checks_of_the_eval() -> None:
    assert {spec.name for spec in EVAL.checks} >= CHECKED
    found = {one.chunk.chunk_id: findings(one, dict(salient_pair(given_of(one)))) for one in CARDS}
    assert sum(not entry for entry in found.values()) >= 0.9 * len(found), {
        key: value for key, value in found.items() if value
    }


def test_lead_pairs_do_not_fit_the_bands() -> None:
    assert all("words" in findings(one, dict(lead_pair(given_of(one)))) for one in CARDS)


@pytest.mark.parametrize("candidate", [lead_pair, salient_pair])
def test_candidates_say_the_same_when_asked_again(candidate: Any) -> None:
    for sample in CARDS[:5]:
        assert candidate(given_of(sample)) == candidate(given_of(sample))


def test_a_pair_has_the_fields_that_the_eval_reads() -> None:
    assert (
        list(salient_pair(given_of(CARDS[0])))
        == list(lead_pair(given_of(CARDS[0])))
        == ["prompt", "chosen", "rejected"]
    )


def test_the_prompt_is_spoken_by_the_persona() -> None:
    prompt = salient_pair(given_of(CARDS[0]))["prompt"]
    assert prompt.startswith("I am a platform engineer at a hospital. I run an open instruction model")
    assert "The engineer" not in prompt
    assert "our hospital network" in prompt


def test_no_sentence_of_the_situation_is_cut() -> None:
    for sample in CARDS:
        told = set(from_json(json.dumps(dict(sample.given))).told("I"))
        prompt = sentences(salient_pair(given_of(sample))["prompt"])
        assert len(told & set(prompt)) >= len(told) - 1
        assert all(one.endswith((".", "?")) for one in prompt)


def test_the_chosen_answer_warns_of_the_mistake_and_ends_with_the_check() -> None:
    sample = next(one for one in CARDS if one.type == "troubleshooting")
    chosen = salient_pair(given_of(sample))["chosen"]
    assert sample.given["mistake"].rstrip(".")[1:] in chosen
    assert chosen.endswith(sample.given["check"][1:])


def test_flags_stand_in_backticks_and_plain_names_do_not() -> None:
    pair = salient_pair(given_of(CARDS[0]))
    assert "`--api-key`" in pair["chosen"]
    assert "`TLS" not in pair["chosen"]


def test_what_says_that_it_comes_first_does() -> None:
    sample = next(one for one in CARDS if one.chunk.chunk_id == "card-003")
    assert "1. Run `nvidia-smi`" in salient_pair(given_of(sample))["chosen"]


def test_an_impossible_wish_is_called_so_with_its_arithmetic_and_a_way_out() -> None:
    sample = next(one for one in CARDS if one.chunk.chunk_id == "card-020")
    chosen = salient_pair(given_of(sample))["chosen"]
    assert "this cannot be done" in chosen
    assert "20 × 16 = 320 GB, while the A100 has 80 GB" in chosen
    assert "20 × 0.85 = 17 GB, which one card holds" in chosen


def test_where_not_even_qlora_fits_a_smaller_model_is_offered() -> None:
    sample = next(one for one in CARDS if one.chunk.chunk_id == "card-010")
    chosen = salient_pair(given_of(sample))["chosen"]
    assert "70 × 2.3 = 161 GB, while the L4 has 24 GB" in chosen
    assert "up to 22 billion parameters" in chosen  # 0.8 × 24 / 0.85 = 22.6


def test_an_impossible_wish_without_figures_is_still_called_so() -> None:
    chosen = salient_pair({"given": card(type="impossible")})["chosen"]
    assert "cannot be done" in chosen
    assert "GB" not in chosen


def test_a_sentence_with_something_forbidden_is_left_out() -> None:
    text = card(situation="The lead wants a judge. It may cost 500 dollars.", forbidden=["money"])
    assert "500" not in "".join(salient_pair({"given": text}).values())
    assert "500" in lead_pair({"given": text})["prompt"]


def test_pairs_of_different_cards_are_worded_differently() -> None:
    closings = {salient_pair(given_of(one))["chosen"].rsplit("\n\n", 1)[1].split(":")[0] for one in CARDS}
    assert len(closings) == 3


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"situation": 3}', '{"situation": "  "}'])
@pytest.mark.parametrize("candidate", [lead_pair, salient_pair])
def test_a_card_without_a_situation_is_refused(candidate: Any, text: str) -> None:
    with pytest.raises(ValueError, match="card"):
        candidate({"given": text})


@pytest.mark.parametrize(
    ("sentence", "first", "second"),
    [
        (
            "The engineer runs a server and wants more.",
            "I run a server and want more.",
            "You run a server and want more.",
        ),
        (
            "The engineer is convinced, has 3 cards, and must go.",
            "I am convinced, have 3 cards, and must go.",
            "You are convinced, have 3 cards, and must go.",
        ),
        (
            "The engineer wants a server that answers, and needs no key.",
            "I want a server that answers, and needs no key.",
            "You want a server that answers, and needs no key.",
        ),
        (
            "The engineer's tools fail, so the engineer still tries.",
            "My tools fail, so I still try.",
            "Your tools fail, so you still try.",
        ),
        ("Others told the engineer to wait.", "Others told me to wait.", "Others told you to wait."),
        (
            "It leaves the hospital network.",
            "It leaves our hospital network.",
            "It leaves your hospital network.",
        ),
    ],
)
def test_voices(sentence: str, first: str, second: str) -> None:
    assert voiced(sentence, "I", "engineer", "hospital") == first
    assert voiced(sentence, "you", "engineer", "hospital") == second


def test_the_text_of_a_card_is_read_back() -> None:
    for sample in CARDS:
        read, own = from_text(sample.chunk.text), from_json(json.dumps(dict(sample.given)))
        assert (read.type, read.persona, read.situation) == (own.type, own.persona, own.situation)
        assert (read.features, read.mistake, read.check, read.forbidden) == (
            own.features,
            own.mistake,
            own.check,
            own.forbidden,
        )


# --- the judge


def test_a_sound_pair_is_suitable() -> None:
    assert graded()[0] == "A"


def test_a_blank_card_cannot_be_judged_against() -> None:
    with pytest.raises(ValueError, match="blank"):
        judge_pair(" \n", PROMPT, CHOSEN, REJECTED)


@pytest.mark.parametrize("part", ["prompt", "chosen", "rejected"])
def test_an_empty_part_is_unusable(part: str) -> None:
    assert graded(**{part: " "}) == ("C", f"empty: {part}")


def test_answers_the_wrong_way_round_are_unusable() -> None:
    letter, reason = graded(chosen=REJECTED, rejected=CHOSEN)
    assert (letter, "not the more complete one" in reason) == ("C", True)


def test_a_rejected_answer_of_a_few_words_is_unusable() -> None:
    letter, reason = graded(rejected="Just restart the server.")
    assert (letter, "too short" in reason) == ("C", True)


def test_a_rejected_answer_that_is_cut_off_is_unusable() -> None:
    letter, reason = graded(rejected=f"{REJECTED} If that does not")
    assert (letter, "cut off" in reason) == ("C", True)


def test_an_absurd_rejected_answer_is_unusable() -> None:
    cake = "Take three eggs, flour and sugar, stir well and bake everything for a long while until the crust turns golden brown on top."
    letter, reason = graded(rejected=f"{cake} Serve warm with cream and berries.")
    assert (letter, "nothing to do" in reason) == ("C", True)


def test_a_chosen_answer_about_something_else_is_unusable() -> None:
    letter, reason = graded(
        chosen="1. Plant the tulips in autumn, deep enough that frost does not reach the bulbs. 2. Water them in spring, and give them some "
        "compost once the first leaves appear. 3. Check that the leaves are green. " * 2
    )
    assert (letter, "something else" in reason) == ("C", True)


def test_a_granted_impossible_wish_is_a_false_claim() -> None:
    chosen = "1. Rent one card. 2. Use QLoRA: it cannot replace full training. 3. Measure a pilot run. Check that all weights of the 20B model changed."
    opinion = judge_pair(IMPOSSIBLE, "How do I train all weights of my 20B model?", chosen, REJECTED)
    assert (opinion.letter, opinion.hallucination) == ("C", True)
    assert "impossible" in opinion.reason


def test_an_impossible_wish_that_is_called_so_is_no_false_claim() -> None:
    chosen = (
        "To train all weights of a 20B model on one card is not possible, as its optimizer state alone is larger than the memory.\n"
        "1. Use QLoRA instead.\n2. Start a pilot run.\n3. Compare.\nVerify that the measured rate fits the plan."
    )
    rejected = "All weights of a 20B model are ambitious for one card. You could try QLoRA with a small batch first, and then see how far the founder gets with it."
    opinion = judge_pair(IMPOSSIBLE, "How do I train all weights of my 20B model?", chosen, rejected)
    assert (opinion.letter, opinion.hallucination) == ("A", False)


def test_a_prompt_in_the_third_person_is_a_minor_fault() -> None:
    letter, reason = graded(prompt="The engineer has preemptions in the afternoon. What should be done?")
    assert (letter, "first person" in reason) == ("B", True)


def test_a_prompt_that_copies_the_situation_is_a_minor_fault() -> None:
    situation = SOURCE.split("): ")[1].split("\nFeatures", maxsplit=1)[0]
    letter, reason = graded(prompt=f"{situation} What can I do?")
    assert (letter, "copies" in reason) == ("B", True)


def test_a_mechanical_prompt_does_not_make_a_minor_fault_of_the_answers_worse() -> None:
    unnumbered = CHOSEN.replace("1. ", "").replace("2. ", "").replace("3. ", "")
    assert graded(prompt="What should the engineer do?", chosen=unnumbered)[0] == "B"


def test_steps_are_missed() -> None:
    unnumbered = CHOSEN.replace("1. ", "").replace("2. ", "").replace("3. ", "")
    assert graded(chosen=unnumbered) == ("B", "the chosen answer has no numbered steps")


def test_a_check_at_the_end_is_missed() -> None:
    letter, reason = graded(chosen=CHOSEN.rsplit("\n\n", 1)[0])
    assert (letter, "how to see" in reason) == ("B", True)


def test_a_list_of_features_without_the_situation_is_at_best_minor() -> None:
    listed = "\n".join(
        f"{n}. {line.removeprefix('- ')}"
        for n, line in enumerate(
            SOURCE.split("Features:\n")[1].split("\nA weaker", maxsplit=1)[0].split("\n"), 1
        )
    )
    letter, reason = graded(chosen=f"{listed}\nMake sure that it worked as intended by everyone.")
    assert (letter, "lists features" in reason) == ("B", True)


def test_a_feature_that_is_not_on_the_card_is_named() -> None:
    letter, reason = graded(
        chosen=CHOSEN.replace("Look at `/metrics`", "Look at `/metrics` and set `--swap-space`")
    )
    assert (letter, "'--swap-space'" in reason) == ("B", True)


def test_something_forbidden_is_named() -> None:
    letter, reason = graded(
        chosen=CHOSEN.replace("Then verify", "It saves 50 dollars. Then verify"),
        source=f"{SOURCE}\nMust not be mentioned: money, hardware",
    )
    assert (letter, "50" in reason or "0 dollars" in reason) == ("B", True)


def test_two_faults_of_the_answers_are_unusable() -> None:
    letter, reason = graded(
        chosen=CHOSEN.rsplit("\n\n", 1)[0].replace("1. ", "").replace("2. ", "").replace("3. ", "")
    )
    assert (letter, reason.count(";")) == ("C", 1)


def test_two_answers_that_are_the_same_are_unusable() -> None:
    letter, reason = graded(rejected=CHOSEN.replace("Then verify", "Verify"))
    assert (letter, "nearly the same" in reason) == ("C", True)


def test_the_floor_is_below_the_other_candidate() -> None:
    def letters(candidate: Any) -> list[str]:
        pairs = [(one.chunk.text, candidate(given_of(one))) for one in CARDS]
        return [
            judge_pair(text, pair["prompt"], pair["chosen"], pair["rejected"]).letter for text, pair in pairs
        ]

    assert "A" not in letters(lead_pair)
    assert letters(salient_pair).count("C") == 0


# --- whatever is given


@given(st.text(min_size=1), st.text(), st.text(), st.text())
def test_the_judge_has_a_letter_for_any_text(source: str, prompt: str, chosen: str, rejected: str) -> None:
    if source.strip():
        opinion = judge_pair(source, prompt, chosen, rejected)
        assert opinion.letter in "ABC"
        assert opinion.reason
        assert opinion == judge_pair(source, prompt, chosen, rejected)


@given(
    st.fixed_dictionaries(
        {"situation": st.text(min_size=1).filter(str.strip)},
        optional={
            **{name: st.text() | st.none() for name in ("persona", "type", "title", "mistake", "check")},
            "type": st.sampled_from(["howto", "impossible", "other"]),
            "features": st.lists(st.fixed_dictionaries({"name": st.text(), "about": st.text()}), max_size=12)
            | st.none(),
            "forbidden": st.lists(st.sampled_from(["money", "hardware", "other"])) | st.integers(),
            "scenario_facts": st.dictionaries(
                st.sampled_from(["billions", "gpu", "n_gpus", "method"]),
                st.integers() | st.floats() | st.text(),
            ),
        },
    )
)
def test_candidates_write_a_pair_about_any_card(fields: dict[str, Any]) -> None:
    for candidate in (lead_pair, salient_pair):
        pair = candidate({"given": json.dumps(fields)})
        assert all(isinstance(text, str) and text.strip() for text in pair.values())


def test_a_card_with_very_much_on_it_is_still_a_pair() -> None:
    features = [
        {"name": f"feature {n}", "about": "Does this and that for everyone who needs it."} for n in range(60)
    ]
    pair = salient_pair(
        {"given": card(situation="The lead wants a judge for every rater. " * 80, features=features)}
    )
    assert 80 <= len(pair["prompt"].split()) <= 120
    assert 250 <= len(pair["chosen"].split()) <= 300


def test_a_sentence_that_cannot_be_turned_keeps_its_words() -> None:
    assert voiced("The engineer, new here, waits.", "I", "engineer", "") == "The engineer, new here, waits."
