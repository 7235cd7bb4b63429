from hypothesis import given
from hypothesis import strategies as st

from qaeval.text.units import content_words, is_german, named_terms, numbers, sentences, stem, units, words


def test_an_abbreviation_does_not_end_a_sentence() -> None:
    text = "Use a broker, e.g. RabbitMQ, for Dr. Lee. It works, i.e. It queues."
    assert sentences(text) == [
        "Use a broker, e.g. RabbitMQ, for Dr. Lee.",
        "It works, i.e. It queues.",
    ]


def test_german_abbreviations_and_dates_do_not_end_a_sentence() -> None:
    text = "Nutzen Sie z. B. PostgreSQL. Am 3. Mai endet der Support, d. h. Updates entfallen."
    assert sentences(text) == [
        "Nutzen Sie z. B. PostgreSQL.",
        "Am 3. Mai endet der Support, d. h. Updates entfallen.",
    ]


def test_decimals_and_versions_stay_whole() -> None:
    text = "Python 3.11.2 needs 1.5 GB. Version 2.0 needs more."
    assert sentences(text) == ["Python 3.11.2 needs 1.5 GB.", "Version 2.0 needs more."]


def test_each_list_item_is_a_unit() -> None:
    text = "Steps:\n\n1. Stop the server\n2. Copy the files\n   to the disk\n- [x] Start it"
    assert sentences(text) == ["Steps:", "Stop the server", "Copy the files to the disk", "Start it"]


def test_a_table_row_names_its_columns() -> None:
    text = "| Code | Meaning | Retry |\n|---|:-:|---|\n| 429 | too many | yes |\n| 401 | no token | |"
    assert sentences(text) == ["429: Meaning too many; Retry yes", "401: Meaning no token"]


def test_a_table_without_a_rule_keeps_its_first_row() -> None:
    assert sentences("| a | b |\n| c | d |") == ["a: b", "c: d"]


def test_code_blocks_and_headings_are_no_sentences() -> None:
    text = "# Title. With dot\n\nRun it.\n\n```bash\nmake. Not prose. ok\n```\nThen wait."
    assert sentences(text) == ["Run it.", "Then wait."]
    assert [unit.kind for unit in units(text)] == ["heading", "sentence", "code", "sentence"]


def test_units_know_their_heading() -> None:
    found = units("# One\nA b.\n## Two\nC d.")
    assert [(unit.text, unit.heading) for unit in found if unit.kind == "sentence"] == [
        ("A b.", "One"),
        ("C d.", "Two"),
    ]


def test_emphasis_and_links_are_removed_and_code_is_kept() -> None:
    text = "**Never** use [the old API](https://x.example/a) or `my_flag_*`."
    assert sentences(text) == ["Never use the old API or `my_flag_*`."]


def test_words_keep_hyphens_units_and_identifiers() -> None:
    assert words("The low-rank `max_tokens` is 24GB, 5% of utf-8.") == [
        *("the", "low-rank", "max_tokens", "is", "24gb", "5%", "of", "utf-8"),
    ]


def test_content_words_join_inflections_and_drop_stop_words() -> None:
    assert set(content_words("The caches are cached by caching a cache")) == {"cach"}
    assert content_words("Der Server und die Server") == ["server", "server"]


def test_numbers_have_one_spelling() -> None:
    assert numbers("1,000 of 1,5 and 5 % in three steps of v2 with utf-8") == ["1000", "1.5", "5%", "3"]
    assert numbers("between 10-20 and 3.11.2") == ["10", "20", "3.11.2"]


def test_named_terms_are_not_words_at_the_start_of_a_sentence() -> None:
    text = "The gateway sends JSON to PostgreSQL. Requests use OAuth and `retry`. Ask Grafana."
    assert named_terms(text) == ["JSON", "PostgreSQL", "OAuth", "retry", "Grafana"]


def test_german_nouns_are_not_names() -> None:
    assert named_terms("Der Server ist mit der Datenbank und mit vLLM verbunden.") == ["vLLM"]


def test_language_is_told_by_common_words() -> None:
    assert is_german("Der Server startet nicht, wenn der Speicher voll ist.")
    assert not is_german("The server does not start when the disk is full.")
    assert not is_german("")


@given(st.text())
def test_sentences_invent_no_words(text: str) -> None:
    # A stray `|` or `*` may join or part tokens, so the letters are compared, not the tokens.
    letters = set(text.casefold())
    assert all(set(word) <= letters | set("-_.'’:/@%") for one in sentences(text) for word in words(one))


@given(st.text(alphabet="abcdefginrsty", min_size=1))
def test_stemming_a_stem_changes_little(word: str) -> None:
    assert len(stem(word)) <= len(word)
    assert stem(word)
