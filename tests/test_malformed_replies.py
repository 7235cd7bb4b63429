"""What open models send when they are asked for three pairs: each reply is read exactly, or refused for one reason."""

import json
import re
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from qaeval.chat.reply import ReplyError
from qaeval.evals.definition import load_eval
from qaeval.records import Chunk, Sample
from qaeval.run.items import read_items

EVAL: Final = load_eval(Path(__file__).parents[1] / "evals" / "qa_pairs").model_copy(
    update={"fewer_allowed": 0}
)
SAMPLE: Final = Sample.of(Chunk(chunk_id="ports", text="The server listens on port 8000."))

Expected: TypeAlias = list[tuple[str, str, str]] | str
"""Type, question and answer of each pair, or the reason of the failure."""


def read(text: str, lenient: bool) -> Expected:
    try:
        items = read_items(text, SAMPLE, EVAL, lenient=lenient)
    except ReplyError as error:
        return error.reason
    return [(item.type, item.question, item.answer) for item in items]


F: Final = '{"type": "factual", "question": "Which port does it use?", "answer": "Port 8000."}'
C: Final = '{"type": "conceptual", "question": "Why is it fast?", "answer": "It batches requests."}'
D: Final = '{"type": "comparison", "question": "How do A and B differ?", "answer": "A is older."}'
FACTUAL: Final = ("factual", "Which port does it use?", "Port 8000.")
CONCEPTUAL: Final = ("conceptual", "Why is it fast?", "It batches requests.")
COMPARISON: Final = ("comparison", "How do A and B differ?", "A is older.")


def pairs(*raw: str) -> str:
    return f'{{"pairs": [{", ".join(raw)}]}}'


GOOD: Final = pairs(F, C, D)
READ: Final = [FACTUAL, CONCEPTUAL, COMPARISON]
INDENTED: Final = json.dumps(json.loads(GOOD), indent=2)


def first(raw: str) -> str:
    """Return the reply with another first pair."""
    return pairs(raw, C, D)


def saying(raw: str) -> str:
    """Return the reply with another first answer, as it stands in the JSON, quotes included."""
    return GOOD.replace('"Port 8000."', raw)


def said(answer: str) -> Expected:
    return [("factual", "Which port does it use?", answer), CONCEPTUAL, COMPARISON]


SAME: Final[dict[str, tuple[str, Expected]]] = {
    # ---- odd, but sound JSON: taken as it stands
    "indented": (INDENTED, READ),
    "newlines-around": (f"\n\n  {GOOD}\n", READ),
    "carriage-returns": (INDENTED.replace("\n", "\r\n"), READ),
    "keys-in-another-order": (
        first('{"answer": "Port 8000.", "question": "Which port does it use?", "type": "factual"}'),
        READ,
    ),
    "types-in-another-order": (pairs(D, C, F), [COMPARISON, CONCEPTUAL, FACTUAL]),
    "the-same-pair-three-times": (pairs(F, F, F), [FACTUAL, FACTUAL, FACTUAL]),
    "top-level-list": (f"[{F}, {C}, {D}]", READ),
    "template-echoed": (
        pairs(*(f'{{"type": "{kind}", "question": "…", "answer": "…"}}' for kind, _, _ in READ)),
        "placeholder",
    ),
    "dots-for-an-answer": (saying('"..."'), "placeholder"),
    "dots-in-brackets": (saying('"<…>"'), "placeholder"),
    "a-blank-line-for-an-answer": (saying('"____"'), "placeholder"),
    "a-mark-as-an-answer": (saying('"."'), said(".")),
    "the-parent-folder-as-an-answer": (saying('".."'), said("..")),
    "the-ellipsis-of-python-as-an-answer": (saying('"`...`"'), said("`...`")),
    "a-text-that-ends-in-dots": (saying('"Port 8000 ..."'), said("Port 8000 ...")),
    "spaces-around-a-text": (saying('"  Port 8000.\\n "'), READ),
    "raw-newline-in-string": (saying('"Port\n8000."'), said("Port\n8000.")),
    "raw-tab-in-string": (saying('"Port\t8000."'), said("Port\t8000.")),
    "raw-control-character": (saying('"Port\x0b\x07 8000."'), said("Port\x0b\x07 8000.")),
    "line-separator-in-string": (saying('"Port\u20288000."'), said("Port\u20288000.")),
    "zero-width-space-in-string": (saying('"Port\u200b8000."'), said("Port\u200b8000.")),
    "emoji": (saying('"Port 8000 👩‍💻🚀"'), said("Port 8000 👩‍💻🚀")),
    "emoji-as-surrogate-pair": (saying(r'"Port 8000 \ud83d\ude80"'), said("Port 8000 🚀")),
    "german-quotes-in-string": (saying('"Der Port „8000“."'), said("Der Port „8000“.")),
    "smart-quotes-in-string": (saying('"It’s “8000”."'), said("It’s “8000”.")),
    "escaped-quotes-in-string": (saying(r'"Port \"8000\"."'), said('Port "8000".')),
    "html-entities-in-string": (
        saying('"&lt;port&gt; &amp; &quot;8000&quot;"'),
        said("&lt;port&gt; &amp; &quot;8000&quot;"),
    ),
    "json-in-string": (saying(r'"{\"pairs\": [{\"port\": 8000}]}"'), said('{"pairs": [{"port": 8000}]}')),
    "code-fence-in-string": (saying(r'"```json\n{}\n```"'), said("```json\n{}\n```")),
    "chat-token-in-string": (saying('"It ends with <|im_end|>."'), said("It ends with <|im_end|>.")),
    "latex-well-escaped": (saying(r'"$\\frac{1}{2} \\times \\alpha$"'), said(r"$\frac{1}{2} \times \alpha$")),
    "latex-that-is-an-escape-of-json": (saying(r'"It is \textbf{8}."'), said("It is \textbf{8}.")),
    "answer-repeats-itself": (saying(f'"{"very " * 20_000}fast"'), said(f"{'very ' * 20_000}fast")),
    # ---- no text
    "nothing": ("", "empty"),
    "blank-lines": (" \n\n\t\r\n", "empty"),
    # ---- sound JSON with more or fewer pairs
    "no-pairs": ('{"pairs": []}', "wrong_item_count"),
    "empty-list": ("[]", "wrong_item_count"),
    "one-pair": (pairs(F), "wrong_item_count"),
    "two-pairs": (pairs(F, C), "wrong_item_count"),
    "four-pairs": (pairs(F, C, D, F), "wrong_item_count"),
    "three-pairs-and-null": (pairs(F, C, D, "null"), "wrong_item_count"),
    "three-pairs-and-an-empty-one": (pairs(F, C, D, "{}"), "wrong_item_count"),
    "two-pairs-one-of-them-broken": (pairs(F, "{}"), "wrong_item_count"),
    "a-loop-of-pairs": (pairs(*[F] * 300), "wrong_item_count"),
    "object-in-a-list": (f"[{GOOD}]", "wrong_item_count"),
    "list-in-a-list": (f"[[{F}, {C}, {D}]]", "wrong_item_count"),
    # ---- sound JSON of another shape
    "empty-object": ("{}", "missing_field"),
    "null": ("null", "missing_field"),
    "number": ("42", "missing_field"),
    "quoted-refusal": ('"I cannot help with that."', "missing_field"),
    "double-encoded": (json.dumps(GOOD), "missing_field"),
    "pairs-double-encoded": (json.dumps({"pairs": f"[{F}, {C}, {D}]"}), "missing_field"),
    "each-pair-double-encoded": (pairs(json.dumps(F), json.dumps(C), json.dumps(D)), "missing_field"),
    "pairs-is-null": ('{"pairs": null}', "missing_field"),
    "pairs-by-number": (f'{{"pairs": {{"1": {F}, "2": {C}, "3": {D}}}}}', "missing_field"),
    "pairs-by-number-at-the-top": (f'{{"1": {F}, "2": {C}, "3": {D}}}', "missing_field"),
    "pairs-by-type": (f'{{"factual": {F}, "conceptual": {C}, "comparison": {D}}}', "missing_field"),
    "pairs-is-one-pair": (f'{{"pairs": {F}}}', "missing_field"),
    "one-pair-bare": (F, "missing_field"),
    "pairs-capitalised": (GOOD.replace("pairs", "Pairs"), "missing_field"),
    "pairs-under-another-name": (GOOD.replace("pairs", "qa_pairs"), "missing_field"),
    "pairs-in-result": (f'{{"result": {GOOD}}}', "missing_field"),
    "pairs-in-pairs": (f'{{"pairs": {GOOD}}}', "missing_field"),
    "schema-instead-of-pairs": (
        '{"type": "object", "properties": {"pairs": {"type": "array"}}, "required": ["pairs"]}',
        "missing_field",
    ),
    "a-note-beside-pairs": (GOOD[:-1] + ', "note": "Three pairs as asked."}', "missing_field"),
    "a-second-list-beside-pairs": (GOOD[:-1] + f', "more_pairs": [{F}]}}', "missing_field"),
    # ---- sound JSON, but a pair is not one
    "pair-is-null": (first("null"), "missing_field"),
    "pair-is-a-string": (first('"Q: Which port? A: 8000."'), "missing_field"),
    "pair-is-a-list": (first('["factual", "Which port does it use?", "Port 8000."]'), "missing_field"),
    "pair-in-a-list": (pairs(f"[{F}]", f"[{C}]", f"[{D}]"), "missing_field"),
    "pair-in-an-object": (first(f'{{"pair": {F}}}'), "missing_field"),
    "no-type": (first('{"question": "Which port?", "answer": "8000."}'), "missing_field"),
    "no-question": (first('{"type": "factual", "answer": "8000."}'), "missing_field"),
    "no-answer": (first('{"type": "factual", "question": "Which port?"}'), "missing_field"),
    "no-answer-in-the-last-pair": (
        pairs(F, C, '{"type": "comparison", "question": "How?"}'),
        "missing_field",
    ),
    "extra-key": (first(F[:-1] + ', "difficulty": "easy"}'), "missing_field"),
    "extra-key-null": (first(F[:-1] + ', "source": null}'), "missing_field"),
    "keys-capitalised": (
        first('{"Type": "factual", "Question": "Which port?", "Answer": "8000."}'),
        "missing_field",
    ),
    "keys-abbreviated": (first('{"type": "factual", "q": "Which port?", "a": "8000."}'), "missing_field"),
    "keys-translated": (
        first('{"typ": "factual", "frage": "Welcher?", "antwort": "8000."}'),
        "missing_field",
    ),
    "key-with-a-space": (GOOD.replace('"answer"', '"answer "'), "missing_field"),
    "key-with-a-zero-width-space": (GOOD.replace('"answer"', '"ans\u200bwer"'), "missing_field"),
    "both-cases-of-a-key": (first(F[:-1] + ', "Answer": "Port 9000."}'), "missing_field"),
    "answer-null": (saying("null"), "missing_field"),
    "answer-number": (saying("8000"), "missing_field"),
    "answer-true": (saying("true"), "missing_field"),
    "answer-list": (saying('["Port 8000."]'), "missing_field"),
    "answer-object": (saying('{"text": "Port 8000."}'), "missing_field"),
    "answer-empty": (saying('""'), "missing_field"),
    "answer-blank": (saying('" \\n\\t "'), "missing_field"),
    "answer-of-no-break-spaces": (saying('"\u00a0\\u00a0"'), "missing_field"),
    "answer-of-zero-width-spaces": (saying('"\u200b\\u200b"'), "missing_field"),
    "question-empty": (GOOD.replace("Which port does it use?", ""), "missing_field"),
    "type-unknown": (GOOD.replace('"factual"', '"procedural"'), "missing_field"),
    "type-capitalised": (GOOD.replace('"factual"', '"Factual"'), "missing_field"),
    "type-translated": (GOOD.replace('"comparison"', '"Vergleich"'), "missing_field"),
    "type-with-more-words": (GOOD.replace('"comparison"', '"comparison/relation"'), "missing_field"),
    "type-of-two": (GOOD.replace('"factual"', '"factual|conceptual"'), "missing_field"),
    "type-list": (GOOD.replace('"factual"', '["factual"]'), "missing_field"),
    "type-number": (GOOD.replace('"factual"', "1"), "missing_field"),
    # ---- cut off
    "cut-in-an-answer": (GOOD[: GOOD.index("older")], "invalid_json"),
    "cut-in-a-key": (GOOD[: GOOD.index('tion": "How')], "invalid_json"),
    "cut-after-a-colon": (GOOD[: GOOD.rindex(': "') + 1], "invalid_json"),
    "cut-after-a-pair": (f'{{"pairs": [{F}, {C}, ', "invalid_json"),
    "cut-after-the-last-pair": (GOOD[:-2], "invalid_json"),
    "cut-before-the-last-brace": (GOOD[:-1], "invalid_json"),
    "cut-in-an-escape": (saying('"Port \\u00')[: GOOD.index("Port 8000") + 9], "invalid_json"),
    "cut-in-a-second-try": (f"{GOOD}\n\n{GOOD[:60]}", "invalid_json"),
    "head-missing": (GOOD[GOOD.index('answer": "Port') :], "invalid_json"),
    "repeats-a-word-without-end": (
        f'{{"pairs": [{{"type": "factual", "question": "{"the " * 20_000}',
        "invalid_json",
    ),
    "repeats-a-bracket-without-end": ('{"pairs": ' + "[" * 20_000, "invalid_json"),
    # ---- JSON with mistakes whose repair would be a guess
    "python-repr": (repr(json.loads(GOOD)), "invalid_json"),
    "python-repr-in-a-fence": (f"```python\n{json.loads(GOOD)!r}\n```", "invalid_json"),
    "keys-unquoted": (GOOD.replace('"pairs"', "pairs"), "invalid_json"),
    "keys-of-a-pair-unquoted": (
        first('{type: "factual", question: "Which port?", answer: "8000."}'),
        "invalid_json",
    ),
    "text-unquoted": (saying("Port 8000."), "invalid_json"),
    "python-none": (saying("None"), "invalid_json"),
    "not-a-number": (saying("NaN"), "invalid_json"),
    "infinity": (saying("Infinity"), "invalid_json"),
    "leading-zeros": (saying("0080"), "invalid_json"),
    "smart-quotes-as-delimiters": (re.sub(r'"([^"]*)"', r"“\1”", GOOD), "invalid_json"),
    "smart-quotes-around-an-answer": (saying("“Port 8000.”"), "invalid_json"),
    "html-entities-as-delimiters": (GOOD.replace('"', "&quot;"), "invalid_json"),
    "backticks-as-delimiters": (saying("`Port 8000.`"), "invalid_json"),
    "triple-quotes": (saying('"""Port 8000."""'), "invalid_json"),
    "doubled-quotes": (GOOD.replace('"', '""'), "invalid_json"),
    "escaped-quotes-as-delimiters": (GOOD.replace('"', '\\"'), "invalid_json"),
    "full-width-colon": (GOOD.replace('"pairs":', '"pairs"：'), "invalid_json"),  # as Qwen writes it
    "full-width-comma": (pairs(f"{F}，{C}", D), "invalid_json"),
    "unescaped-inner-quotes": (saying('"The port "8000"."'), "invalid_json"),
    "unescaped-inner-quotes-at-the-start": (saying('""Port" 8000."'), "invalid_json"),
    "unescaped-inner-json": (saying('"Write {"port": 8000}."'), "invalid_json"),
    "unescaped-inner-quotes-around-the-end": (
        GOOD.replace('"A is older."', '"A ends with "}]}", B does not."'),
        "invalid_json",
    ),
    "german-quotes-closed-by-a-straight-one": (saying('"Der Port „8000"."'), "invalid_json"),
    "backslash-before-the-closing-quote": (saying('"C:\\"'), "invalid_json"),
    "strings-added-up": (saying('"Port " + "8000."'), "invalid_json"),
    "closing-quote-missing": (saying('"Port 8000.'), "invalid_json"),
    "comma-missing-between-pairs": (f'{{"pairs": [{F} {C} {D}]}}', "invalid_json"),
    "comma-missing-between-fields": (GOOD.replace('", "answer"', '" "answer"'), "invalid_json"),
    "comma-doubled": (pairs(F, "", C, D), "invalid_json"),
    "comma-first": (f'{{"pairs": [, {F}, {C}, {D}]}}', "invalid_json"),
    "comma-before-a-blank-place": (f'{{"pairs": [{F}, {C}, {D}, ,]}}', "invalid_json"),
    "semicolons": (GOOD.replace("}, {", "}; {"), "invalid_json"),
    "colon-missing": (GOOD.replace('"answer":', '"answer"', 1), "invalid_json"),
    "arrows-for-colons": (GOOD.replace('":', '" =>'), "invalid_json"),
    "brackets-crossed": (GOOD[:-2] + "}]", "invalid_json"),
    "brace-of-a-pair-missing": (first(F[:-1]), "invalid_json"),
    "braces-doubled": (f"{{{GOOD}}}", "invalid_json"),  # of a Python format string
    "comment-of-a-line": (f'{{"pairs": [\n{F}, // the fact\n{C},\n{D}\n]}}', "invalid_json"),
    "comment-with-a-hash": (f'{{"pairs": [\n# the fact\n{F},\n{C},\n{D}\n]}}', "invalid_json"),
    "comment-of-a-block": (f'{{"pairs": [/* the fact */ {F}, {C}, {D}]}}', "invalid_json"),
    "ellipsis-for-a-pair": (pairs(F, C, "..."), "invalid_json"),
    "placeholder-for-the-pairs": ('{"pairs": [...]}', "invalid_json"),
    "fence-inside-the-json": (f'{{"pairs": [\n```json\n{F},\n{C},\n{D}\n```\n]}}', "invalid_json"),
    "zero-width-space-inside-the-json": (GOOD.replace("[", "\u200b["), "invalid_json"),
    "newlines-as-escapes-outside-strings": (INDENTED.replace("\n", "\\n"), "invalid_json"),
    "half-a-surrogate-pair": (saying(r'"Port 8000 \ud83d"'), "invalid_json"),
    "half-a-surrogate-pair-raw": (saying('"Port 8000 \udc80"'), "invalid_json"),
    "nested-too-deeply": (saying("[" * 200 + "]" * 200), "invalid_json"),
    # ---- more than one value: which one counts?
    "key-twice-in-a-pair": (first(F[:-1] + ', "answer": "Port 9000."}'), "invalid_json"),
    "key-twice-once-as-an-escape": (first(F[:-1] + r', "\u0061nswer": "Port 9000."}'), "invalid_json"),
    "pairs-twice": (f'{{"pairs": [{F}, {C}, {D}], "pairs": [{F}]}}', "invalid_json"),
    "pairs-twice-once-empty": (f'{{"pairs": [], "pairs": [{F}, {C}, {D}]}}', "invalid_json"),
    "one-object-a-line": (f"{F}\n{C}\n{D}", "invalid_json"),
    "objects-between-commas": (f"{F},\n{C},\n{D}", "invalid_json"),
    "three-objects-of-one-pair": (f"{pairs(F)}\n{pairs(C)}\n{pairs(D)}", "invalid_json"),
    "a-fence-for-each-pair": ("\n\n".join(f"```json\n{pair}\n```" for pair in (F, C, D)), "invalid_json"),
    "reply-twice": (GOOD + GOOD, "invalid_json"),
    "reply-twice-with-a-new-turn": (
        f"{GOOD}<|im_end|>\n<|im_start|>assistant\n{GOOD}<|im_end|>",
        "invalid_json",
    ),
    "second-thoughts": (f"{GOOD}\nWait, a better version:\n{pairs(C, F, D)}", "invalid_json"),
    "second-thoughts-on-one-pair": (f"{GOOD}\nOr, for the first pair: {F}", "invalid_json"),
    "second-thoughts-in-single-quotes": (
        f"{GOOD}\nOr, for the first pair: {{'type': 'factual', 'question': 'Which?', 'answer': '9000.'}}",
        "invalid_json",
    ),
    "format-repeated-first": (
        f'The format is {{"pairs": [{{"type": "…", "question": "…", "answer": "…"}}]}}.\n{GOOD}',
        "invalid_json",
    ),
    "draft-in-thoughts": (f"<think>A draft: {pairs(F, C, C)}</think>{GOOD}", "invalid_json"),
    "thoughts-without-end": (f"<think>I start with {GOOD[:50]} and now", "invalid_json"),
    "pair-four-after-the-object": (f"{GOOD}, {F}]}}", "invalid_json"),
    # ---- no JSON
    "refusal": ("I'm sorry, but I can't help with that request.", "invalid_json"),
    "refusal-with-a-citation": ("I cannot write pairs about this text [1].", "invalid_json"),
    "prose-with-three-numbers": ("The text names three versions [1, 2, 3] only.", "invalid_json"),
    "fence-without-content": ("```json\n```", "invalid_json"),
    "thoughts-alone": ("<think>\nThe port is 8000.\n</think>\n", "invalid_json"),
    "chat-token-alone": ("<|im_end|>", "invalid_json"),
    "yaml": (
        (
            "pairs:\n  - type: factual\n    question: Which port?\n    answer: 8000.\n"
            "  - type: conceptual\n    question: Why?\n    answer: Batches.\n"
            "  - type: comparison\n    question: How?\n    answer: Older.\n"
        ),
        "invalid_json",
    ),
    "yaml-of-json-objects": (f"pairs:\n  - {F}\n  - {C}\n  - {D}\n", "invalid_json"),
    "markdown-list": (
        (
            "1. **Factual**\n   - **Q:** Which port?\n   - **A:** 8000.\n"
            "2. **Conceptual**\n   - **Q:** Why?\n   - **A:** Batches.\n"
            "3. **Comparison**\n   - **Q:** How?\n   - **A:** Older.\n"
        ),
        "invalid_json",
    ),
    "markdown-list-with-boxes": ("- [ ] Which port? 8000.\n- [x] Why? Batches.\n", "invalid_json"),
    "markdown-table": (
        "| type | question | answer |\n|---|---|---|\n| factual | Which port? | 8000. |\n",
        "invalid_json",
    ),
    "xml": (
        "<pairs><pair><type>factual</type><question>Which port?</question><answer>8000.</answer></pair></pairs>",
        "invalid_json",
    ),
    "csv": ('type,question,answer\nfactual,"Which port?","8000."\n', "invalid_json"),
    "source-echoed": ("The server listens on port 8000. Set {port} to change it.", "invalid_json"),
}
"""Replies that mean the same whether or not the server was to enforce the schema."""

MENDED: Final[dict[str, tuple[str, Expected]]] = {
    # ---- words around
    "prose-before": (f"Sure! Here are the three pairs you asked for:\n\n{GOOD}", READ),
    "prose-after": (f"{GOOD}\n\nI hope this helps!", READ),
    "prose-after-with-emoji": (f"{GOOD} Let me know if you need more 😊", READ),
    "prose-with-quotes-around": (f'Here is the "JSON" for you: {GOOD} It\'s 5" long.', READ),
    "prose-around-a-list": (f"The pairs: [{F}, {C}, {D}] Done.", READ),
    "prose-around-a-string-full-of-brackets": (
        "Here: " + saying(r'"]} [\"{ ```"') + " Done.",
        said(']} ["{ ```'),
    ),
    "the-word-json-before": (f"json\n{GOOD}", READ),
    "role-before": (f"assistant\n\n{GOOD}", READ),
    "assignment": (f"const result = {GOOD};", READ),
    "assignment-of-a-list": (f"pairs = [{F}, {C}, {D}]", READ),
    "comment-after": (f"{GOOD} // three pairs", READ),
    "comma-after": (f"{GOOD},", READ),
    "brace-too-many": (f"{GOOD}}}", READ),
    "brace-of-the-prefix-missing": (GOOD[1:], READ),
    "html-tags-around": (f"<pre><code>{GOOD}</code></pre>", READ),
    "format-named-in-words": (f"Each pair has {{type, question, answer}}.\n{GOOD}", READ),
    "format-named-with-an-ellipsis": (f"As {{...}}, per [the docs](https://example.org):\n{GOOD}", READ),
    "two-pairs-in-prose": (f"Only two fit: {pairs(F, C)}", "wrong_item_count"),
    "four-pairs-in-prose": (f"One more for free: {pairs(F, C, D, F)}", "wrong_item_count"),
    "empty-answer-in-prose": ("Here: " + saying('""'), "missing_field"),
    "tool-call": (
        f'<tool_call>\n{{"name": "write_pairs", "arguments": {GOOD}}}\n</tool_call>',
        "missing_field",
    ),
    # ---- fences
    "fence-json": (f"```json\n{INDENTED}\n```", READ),
    "fence-bare": (f"```\n{GOOD}\n```", READ),
    "fence-of-one-line": (f"```json {GOOD} ```", READ),
    "fence-tildes": (f"~~~json\n{GOOD}\n~~~", READ),
    "fence-never-closed": (f"```json\n{GOOD}", READ),
    "fence-only-closed": (f"{GOOD}\n```", READ),
    "fence-in-the-middle": (f"Here you are:\n\n```json\n{GOOD}\n```\n\nAnything else?", READ),
    "fence-around-a-list": (f"```json\n[{F},\n{C},\n{D}]\n```", READ),
    "fence-in-a-fence": (f"````markdown\n```json\n{GOOD}\n```\n````", READ),
    "fence-with-a-fence-in-a-string": (
        "```json\n" + saying(r'"```sh\nrun\n```"') + "\n```",
        said("```sh\nrun\n```"),
    ),
    # ---- thoughts and chat tokens
    "thoughts-before": (f"<think>\nThe port is 8000 [see 1], it's fast.\n</think>\n\n{GOOD}", READ),
    "thoughts-empty": (f"<think>\n\n</think>\n\n{GOOD}", READ),
    "thoughts-only-closed": (f"Okay, three pairs.\n</think>\n{GOOD}", READ),
    "token-of-chatml-after": (f"{GOOD}<|im_end|>", READ),
    "token-of-llama-2-after": (f"{GOOD}</s>", READ),
    "tokens-of-llama-3-around": (f"<|start_header_id|>assistant<|end_header_id|>\n\n{GOOD}<|eot_id|>", READ),
    "tokens-of-mistral-around": (f"[/INST] {GOOD} [INST]", READ),
    "tokens-of-gemma-after": (f"{GOOD}<end_of_turn>\n<eos>", READ),
    "tokens-of-harmony-before": (
        f"<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>{GOOD}",
        READ,
    ),
    # ---- characters that nobody sees
    "byte-order-mark": (f"\ufeff{GOOD}", READ),
    "byte-order-mark-alone": ("\ufeff\n", "empty"),
    "byte-order-mark-and-fence": (f"\ufeff```json\n{GOOD}\n```", READ),
    "zero-width-spaces-around": (f"\u200b{GOOD}\u200b", READ),
    "null-character-after": (f"{GOOD}\x00", READ),
    "indented-with-no-break-spaces": (INDENTED.replace("  ", "\u00a0\u00a0"), READ),
    # ---- trailing commas
    "comma-after-the-last-pair": (f'{{"pairs": [{F}, {C}, {D},]}}', READ),
    "comma-after-the-last-field": (first(F[:-1] + ",}"), READ),
    "comma-after-the-list": (GOOD[:-1] + ",\n}", READ),
    "comma-after-the-second-of-two-pairs": (f'{{"pairs": [{F}, {C},]}}', "wrong_item_count"),
    # ---- backslashes that escape nothing
    "markdown-underscore": (saying(r'"Set max\_tokens."'), said(r"Set max\_tokens.")),
    "markdown-underscore-in-a-key": (first(F[:-1] + r', "max\_tokens": 1}'), "missing_field"),
    "latex-parentheses": (saying(r'"It is \(x^2\)."'), said(r"It is \(x^2\).")),
    "latex-dollar": (saying(r'"It costs \$5."'), said(r"It costs \$5.")),
    "latex-commands": (saying(r'"$\sigma \times \frac{1}{2}$"'), said(r"$\sigma \times \frac{1}{2}$")),
    "escaped-apostrophe": (saying(r'"It\'s 8000."'), said(r"It\'s 8000.")),
    "hexadecimal-escape": (saying(r'"Port \x38000."'), said(r"Port \x38000.")),
    "unicode-escape-too-short": (saying(r'"Port \u38."'), said(r"Port \u38.")),
    "unicode-escape-in-braces": (saying(r'"Go \u{1F680}."'), said(r"Go \u{1F680}.")),
    "regular-expression": (saying(r'"Match \d+\.\d+."'), said(r"Match \d+\.\d+.")),
    "backslash-at-the-end-of-a-line": (saying('"Port \\\n8000."'), said("Port \\\n8000.")),
    "path-with-a-newline-or-a-folder": (saying(r'"Open C:\Users\new."'), "invalid_json"),
}
"""Replies that are read differently where nobody enforced the schema; where the server was to, they are no JSON."""


@pytest.mark.slow
@pytest.mark.parametrize("lenient", [True, False], ids=["lenient", "strict"])
@pytest.mark.parametrize(("text", "expected"), [pytest.param(*case, id=name) for name, case in SAME.items()])
def test_a_reply_is_read_exactly_or_refused_in_both_modes(
    text: str, expected: Expected, lenient: bool
) -> None:
    assert read(text, lenient) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [pytest.param(*case, id=name) for name, case in MENDED.items()]
)
def test_what_surrounds_json_is_forgiven_in_lenient_mode_alone(text: str, expected: Expected) -> None:
    assert read(text, lenient=True) == expected
    assert read(text, lenient=False) == "invalid_json"
