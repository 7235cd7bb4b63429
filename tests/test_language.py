"""The language of a text: English and German by enough words of their own, all others by their code."""

from pathlib import Path
from typing import Final

import pytest

from qaeval.checks.check import CheckedItem
from qaeval.checks.patterns import language
from qaeval.corpus.loading import load_chunks
from qaeval.records import Chunk, Item, Sample
from qaeval.run.generate import language_in_words
from qaeval.text.language import language_code, language_of

ROOT: Final = Path(__file__).parents[1]
FOREIGN: Final = {
    "da": (
        "Certifikatet er gyldigt i 90 dage. Det skal fornyes i portalen, før det udløber. Eksterne medarbejdere har kun "
        "adgang i 30 dage, og der er ingen undtagelser, men man kan spørge den, der har ansvaret for det."
    ),
    "es": (
        "El certificado VPN es válido por 90 días. Debe renovarse en el portal antes de que venza. Los contratistas solo "
        "tienen acceso por 30 días, según el contrato. Has de pedirlo, o no es posible."
    ),
    "fr": (
        "La gestion des accès est assurée par le service informatique. Les demandes des collaborateurs sont traitées dans "
        "un délai de deux jours. On peut demander un accès par le formulaire « Terms of the Service »."
    ),
    "it": (
        "Il certificato VPN è valido per 90 giorni. I dati degli utenti sono salvati a Milano, sia in sede sia a distanza. "
        "Non è possibile in altri modi, as is, a causa delle regole di sicurezza."
    ),
    "nl": (
        "Het certificaat is 90 dagen geldig. De toegang die men aanvraagt moet door de beheerder worden goedgekeurd. Was "
        "het account geblokkeerd, dan helpt de servicedesk, als die open is. Wie kan het van de lijst halen?"
    ),
    "pl": (
        "Certyfikat VPN jest ważny przez 90 dni. To jest czas, w którym trzeba go odnowić. Ich konta by wygasły, a on do "
        "tego nie ma dostępu."
    ),
    "pt": (
        "O certificado VPN é válido por 90 dias. A conta do usuário vence com o contrato. As senhas devem ser trocadas a "
        "cada 60 dias, as contas das pessoas a cada ano, e do mesmo modo as chaves."
    ),
    "sv": (
        "Certifikatet är giltigt i 90 dagar. Det måste förnyas i portalen innan det går ut. Man kan ansöka om en "
        "förlängning, men det tar tid, och den som har ett konto i en by får vänta på det."
    ),
    "tr": (
        "VPN sertifikası 90 gün geçerlidir. Süresi dolmadan önce portaldan yenilenmelidir. Not: her can için bir hesap on "
        "gün açık kalır, der yönetici."
    ),
}  # fmt: skip
ENGLISH_CODE: Final = (
    '```python\nif not x and y:\n    """The value that this returns, from the cache."""\n```\n'
)


@pytest.mark.parametrize("code", FOREIGN)
def test_a_text_in_another_language_is_neither_english_nor_german(code: str) -> None:
    text = FOREIGN[code]
    for part in (text, *text.split(". "), f"{text}\n\n{ENGLISH_CODE}"):
        assert language_of(part) == "", part
    assert language_in_words(sample_of(text)) == "the language of the source text"
    question = text.rpartition(". ")[2]
    assert language_in_words(sample_of(text, question)) == "the language of the question"
    assert language_in_words(sample_of(text, question, code)) != "the language of the question"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("When is the filter changed?", "en"),
        ("Wann wird der Filter gewechselt?", "de"),
        ("What is it?", ""),  # one word of English alone
        ("Was ist das?", ""),
        ("What is „und“ there?", ""),  # a short text with words of both
        ("The title « The Lord of the Rings » " + "est un livre de fantasy en trois volumes " * 20, ""),
        ("Die Option heißt „and the“, und sie ist nicht für alle Server, sondern für diesen.", "de"),
    ],
)
def test_a_language_takes_two_words_of_its_own_in_a_question_and_a_share_of_a_longer_text(
    text: str, code: str
) -> None:
    assert language_of(text) == code


def test_guesses_about_the_shipped_chunks_are_what_the_chunks_state() -> None:
    chunks = [chunk for file in ROOT.glob("evals/*/chunks*.jsonl") for chunk in load_chunks(file)]
    guesses = [(language_of(f"{chunk.title}\n{chunk.text}"), chunk.language) for chunk in chunks]
    assert {stated for _, stated in guesses} == {"de", "en"}
    assert all(guess in {"", stated} for guess, stated in guesses)
    assert sum(not guess for guess, _ in guesses) <= len(guesses) // 100


PAGES: Final = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "evals").glob("*/README.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name + page.name)
def test_the_documentation_is_english(page: Path) -> None:
    assert language_of(page.read_text()) == "en"


def sample_of(text: str, question: str = "", code: str = "") -> Sample:
    return Sample.of(Chunk(chunk_id="c", text=text, language=code), question)


@pytest.mark.parametrize(
    ("question", "code", "words"),
    [
        ("Why should the certificate be renewed, and when?", "fr", "French"),  # a guess knows no French
        ("Why should the certificate be renewed, and when?", "de", "English"),
        ("Certificate?", "de", "German"),
        ("Certificate?", "", "the language of the question"),
        ("", "sv-SE", "Swedish"),
        ("", "deu", "German"),
        ("", "tlh", "English"),
    ],
)
def test_a_stated_language_counts_where_the_guess_could_not_know_it(
    question: str, code: str, words: str
) -> None:
    text = "The certificate is valid for 90 days and must be renewed before that date."
    assert language_in_words(sample_of(text, question, code)) == words


@pytest.mark.parametrize("code", FOREIGN)
@pytest.mark.parametrize("stated", [True, False])
def test_a_right_answer_in_another_language_is_no_finding(code: str, stated: bool) -> None:
    text = FOREIGN[code]
    sample = sample_of(text, code=code if stated else "")
    for answer in (text, *text.split(". ")):
        item = Item.of(sample.sample_id, 0, type="factual", question=answer, answer=answer)
        assert language(CheckedItem(item, (), sample, "")) == ""


def test_codes_are_read_with_country_and_in_three_letters() -> None:
    codes = ("de-DE", "pt_BR", " EN ", "eng", "nb-NO", "python", "tlh", "")
    assert [language_code(code) for code in codes] == ["de", "pt", "en", "en", "nb", "", "", ""]


@pytest.mark.parametrize(
    ("three", "two"),
    [
        *(
            ("ces", "cs"),
            ("dan", "da"),
            ("deu", "de"),
            ("dut", "nl"),
            ("eng", "en"),
            ("fra", "fr"),
            ("fre", "fr"),
        ),
        *(
            ("ger", "de"),
            ("ita", "it"),
            ("jpn", "ja"),
            ("kor", "ko"),
            ("nld", "nl"),
            ("pol", "pl"),
            ("por", "pt"),
        ),
        *(
            ("rus", "ru"),
            ("spa", "es"),
            ("swe", "sv"),
            ("tha", "th"),
            ("tur", "tr"),
            ("ukr", "uk"),
            ("zho", "zh"),
        ),
    ],
)
def test_codes_of_three_letters_are_those_of_iso_639_2(three: str, two: str) -> None:
    assert language_code(three) == two
