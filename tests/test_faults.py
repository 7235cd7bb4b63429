"""Each kind of fault is found where it is, and not where it is not."""

import pytest

from qaeval_floor.faults import Kind, faults

SOURCE = (
    "The L4 has 24 GB of memory. It is connected by PCIe 4.0. Prefix caching shortens the first token, because it saves "
    "the prompt. The A10 reads its memory faster than the L4. Updates stop on 2 May 2027."
)
L4 = "How much memory does the L4 have?"


def kinds(question: str, answer: str, source: str = SOURCE) -> set[Kind]:
    return {fault.kind for fault in faults(source, question, answer)}


@pytest.mark.parametrize(
    ("kind", "question", "answer"),
    [
        ("invented", L4, "The L4 has 48 GB of memory."),
        ("unsupported", L4, "The L4 was announced together with a cheaper sibling in spring."),
        ("partly", L4, "The L4 has 24 GB of soldered memory of a modern kind."),
        ("negation", L4, "The L4 has not 24 GB of memory."),
        ("unanswerable", "Which colour does the box of the product show?", "The L4 has 24 GB of memory."),
        ("unrelated", "What does prefix caching shorten?", "The A10 reads its memory faster than the L4."),
        ("uncompared", "How does the L4 compare with the A10?", "The L4 has 24 GB of memory."),
        ("uncompared", "How does the L4 differ from prefix caching?", "The L4 has 24 GB of memory."),
        ("no reason", "Why does prefix caching shorten the first token?", "Prefix caching shortens it."),
        ("no number", L4, "The L4 has memory."),
        ("no date", "When do updates stop?", "Updates stop."),
        ("unfinished", L4, "The memory of the L4 is"),
        ("example", L4, "Suppose the L4 has 24 GB of memory."),
        ("leans on text", "What does the text say about the L4?", "The L4 has 24 GB of memory."),
        ("vague", "What is true of the L4?", "The L4 has 24 GB of memory."),
        ("pronoun", "How is the card connected?", "It is connected by PCIe 4.0."),
        ("reference", "How much does this card have?", "The L4 has 24 GB of memory."),
        ("speculation", L4, "The L4 has 24 GB of memory, probably."),
    ],
)
def test_a_fault_is_found(kind: Kind, question: str, answer: str) -> None:
    assert kind in kinds(question, answer)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (L4, "The L4 has 24 GB of memory."),
        ("How is the L4 connected?", "It is connected by PCIe 4.0."),
        ("How does the A10 compare with the L4?", "The A10 reads its memory faster than the L4."),
        (
            "Why does prefix caching shorten the first token?",
            "Because it saves the prompt of prefix caching.",
        ),
        ("When do updates stop?", "Updates stop on 2 May 2027."),
    ],
)
def test_a_sound_pair_has_none(question: str, answer: str) -> None:
    assert kinds(question, answer) == set()


def test_a_word_cut_out_of_its_phrase_is_found() -> None:
    source = "The compute capability of the L4 is 8.9."
    assert "cut topic" in kinds("What is “capability”?", source, source)
    assert "cut topic" not in kinds("What is “PCIe”?", "PCIe is a bus.", "PCIe is a bus.")


def test_a_long_answer_may_join_the_items_of_a_list() -> None:
    items = [
        "the rules for general models",
        "the rest of the regulation",
        "the classification of systems",
        "certain duties",
    ]
    source = "Article 113 sets these dates:\n\n" + "\n".join(
        f"- {2025 + n}: {item}" for n, item in enumerate(items)
    )
    answer = (
        "Article 113 sets these dates: "
        + "; ".join(f"{2025 + n}: {item}" for n, item in enumerate(items))
        + "."
    )
    assert kinds("What does Article 113 set?", answer, source) <= {"reference"}


def test_every_fault_says_which_words_it_means() -> None:
    found = faults(SOURCE, "What does the text say about the L4?", "It has 48 GB, probably.")
    assert all(fault.text for fault in found)
    assert "48" in found[0].text
