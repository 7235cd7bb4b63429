"""Texts of the label page, in English and German."""

import re
from typing import Final, Literal, TypeAlias

Language: TypeAlias = Literal["en", "de"]

LANGUAGES: Final[dict[Language, str]] = {"en": "English", "de": "Deutsch"}

TEXTS: Final[dict[str, tuple[str, str]]] = {
    "title": ("Label items", "Einträge bewerten"),
    "settle_title": ("Settle differences", "Abweichungen klären"),
    "rater": ("Rater", "Bewertung durch"),
    "language": ("Language", "Sprache"),
    "no_script": (
        "This page needs JavaScript; its one script comes from this server.",
        "Diese Seite braucht JavaScript; ihr einziges Skript kommt von diesem Server.",
    ),
    "loading": ("Loading …", "Wird geladen …"),
    # the item
    "source": ("Source", "Quelle"),
    "no_source": (
        "This item has no source text.",
        "Zu diesem Eintrag gibt es keinen Quelltext.",
    ),
    "new_source": ("new source", "neue Quelle"),
    "same_source": ("same source as before", "Quelle wie zuvor"),
    "question": ("Question", "Frage"),
    "prompt": ("Prompt", "Anfrage"),
    "answer": ("Answer", "Antwort"),
    "chosen": ("Chosen answer", "Bevorzugte Antwort"),
    "rejected": ("Rejected answer", "Verworfene Antwort"),
    "opinions": ("Labels that differ", "Abweichende Bewertungen"),
    "opinion": ("Rater {number}", "Bewertung {number}"),
    "mark": ("Mark support", "Belege markieren"),
    "no_support": (
        "No sentence of the source shares most of its words with the answer.",
        "Kein Satz der Quelle hat die meisten Wörter mit der Antwort gemeinsam.",
    ),
    "rubric": ("Rubric, as the judge reads it", "Bewertungsregeln, wie das Judge-Modell sie liest"),
    "scale": ("Label", "Bewertung"),
    "flags": ("Flags", "Merkmale"),
    "note": ("Note", "Notiz"),
    "note_hint": ("Esc: back to the item", "Esc: zurück zum Eintrag"),
    "skip": ("Skip", "Überspringen"),
    "undo": ("Undo", "Rückgängig"),
    "help": ("Help", "Hilfe"),
    "close": ("Close", "Schließen"),
    # progress
    "progress": ("{done} of {total}", "{done} von {total}"),
    "pace": ("{seconds} s per item", "{seconds} s je Eintrag"),
    "remaining": ("about {minutes} min left", "noch etwa {minutes} min"),
    # skipping
    "skip_title": ("Why skip this item?", "Warum diesen Eintrag überspringen?"),
    "skip_undecidable": ("The source does not decide it", "Die Quelle entscheidet es nicht"),
    "skip_language": ("I do not read this language well", "Ich lese diese Sprache nicht gut"),
    "skip_expertise": ("I lack the expertise", "Mir fehlt das Fachwissen"),
    "skip_broken": ("The text is broken", "Der Text ist beschädigt"),
    "cancel": ("Cancel", "Abbrechen"),
    # help
    "help_letters": ("Label the item and show the next one", "Bewerten und den nächsten Eintrag zeigen"),
    "help_flag": (
        "Raise or lower the flag; digits raise further ones",
        "Merkmal setzen oder löschen; Ziffern für weitere",
    ),
    "help_note": ("Write a note for this item", "Notiz zu diesem Eintrag schreiben"),
    "help_skip": ("Skip the item, with a reason", "Eintrag überspringen, mit Grund"),
    "help_undo": ("Take the last label back", "Letzte Bewertung zurücknehmen"),
    "help_mark": (
        "Mark the sentences of the source that share most words with the answer",
        "Die Sätze der Quelle markieren, die mit der Antwort die meisten Wörter gemeinsam haben",
    ),
    "help_help": ("Show or hide this help", "Diese Hilfe zeigen oder schließen"),
    "help_order": (
        "Raise flags and write the note first: a letter stores the label and moves on.",
        "Zuerst Merkmale und Notiz: Ein Buchstabe speichert die Bewertung und geht weiter.",
    ),
    "help_blind": (
        "The page shows neither the candidate nor the judge's letter. Every label is on disk before the next item appears.",
        "Die Seite zeigt weder den Kandidaten noch die Note des Judge-Modells. Jede Bewertung ist gespeichert, bevor der nächste Eintrag erscheint.",
    ),
    # messages
    "stored": ("Stored: {letter}", "Gespeichert: {letter}"),
    "skipped": ("Skipped", "Übersprungen"),
    "undone": ("Taken back; label the item again", "Zurückgenommen; bitte neu bewerten"),
    "nothing_to_undo": (
        "There is no label to take back",
        "Es gibt keine Bewertung, die sich zurücknehmen lässt",
    ),
    "elsewhere": (
        "This item was labelled in another window; nothing was changed. Here is the next one.",
        "Dieser Eintrag wurde in einem anderen Fenster bewertet; nichts wurde geändert. Hier ist der nächste.",
    ),
    "offline": (
        "The server does not answer, and this label is not stored. Start the command again and open the address that it prints.",
        "Der Server antwortet nicht, diese Bewertung ist nicht gespeichert. Bitte den Befehl neu starten und die angezeigte Adresse öffnen.",
    ),
    "refused": (
        "The server refuses this window. Open the address that the terminal shows.",
        "Der Server weist dieses Fenster ab. Bitte die Adresse öffnen, die das Terminal zeigt.",
    ),
    "not_stored": ("Not stored: {reason}", "Nicht gespeichert: {reason}"),
    # the end
    "finished": ("The sitting is over", "Die Sitzung ist zu Ende"),
    "counting": ("Counting …", "Wird ausgewertet …"),
    "counts": (
        "{labels} labels, {skipped} skipped. Undo still takes the last one back.",
        "{labels} Bewertungen, {skipped} übersprungen. Die letzte lässt sich noch zurücknehmen.",
    ),
    "close_window": (
        "This window can be closed; Ctrl-C in the terminal ends the server.",
        "Dieses Fenster kann geschlossen werden; Strg-C im Terminal beendet den Server.",
    ),
    "judge": ("Judge", "Judge-Modell"),
    "kappa": (
        "κ of the judge with your labels, agreement beyond chance: {kappa}, {n} items.",
        "κ des Judge-Modells mit Ihren Bewertungen (Übereinstimmung jenseits des Zufalls): {kappa}, {n} Einträge.",
    ),
    "no_kappa": (
        "κ of the judge with your labels is not defined: {reason}.",
        "κ des Judge-Modells mit Ihren Bewertungen ist nicht definiert: {reason}.",
    ),
    "no_labels": ("No label of this rater counts yet.", "Noch zählt keine Bewertung dieser Person."),
    "differences": ("Usable items", "Verwendbare Einträge"),
    "corrected": (
        "{b} minus {a}, corrected by {rater}’s labels of {n} chunks: {difference}.",
        "{b} minus {a}, korrigiert durch {n} von {rater} bewertete Abschnitte: {difference}.",
    ),
    "by_judge": (
        "{b} minus {a}, by the judge’s letters: {difference}.",
        "{b} minus {a}, nach dem Judge-Modell: {difference}.",
    ),
    "verdict": ("Verdict", "Urteil"),
    "decided": ("Decided by labels: {verdict}", "Durch Bewertungen entschieden: {verdict}"),
    "conditional": (
        "Decided only if the judge is right: {verdict}",
        "Nur entschieden, falls das Judge-Modell recht hat: {verdict}",
    ),
    "undecided": ("Not decided.", "Nicht entschieden."),
    "no_verdict": ("No verdict.", "Kein Urteil."),
    "judge_refuted": (
        "No verdict: by these labels the judge does not beat chance.",
        "Kein Urteil: Nach diesen Bewertungen ist das Judge-Modell nicht besser als der Zufall.",
    ),
    "judge_tells_nothing_apart": (
        "No verdict: the judge tells good items from bad ones no better than a constant letter.",
        "Kein Urteil: Das Judge-Modell unterscheidet gute Einträge nicht besser von schlechten als eine feste Note.",
    ),
    "one_candidate": (
        "No verdict: the run has one candidate.",
        "Kein Urteil: Der Lauf hat nur einen Kandidaten.",
    ),
    "nothing_graded": ("No verdict: no item was graded.", "Kein Urteil: Kein Eintrag wurde bewertet."),
    "nothing_usable": (
        "No verdict: no candidate wrote a usable item.",
        "Kein Urteil: Kein Kandidat hat einen verwendbaren Eintrag geschrieben.",
    ),
    "embedded_only": (
        "No verdict: no language model was measured.",
        "Kein Urteil: Es wurde kein Sprachmodell gemessen.",
    ),
    "shown_from": (
        "Labels decide from {least} chunks on, without a condition from {shown}; {n} chunks are labelled for all candidates.",
        "Bewertungen entscheiden ab {least} Abschnitten, ohne Vorbehalt ab {shown}; {n} Abschnitte sind für alle Kandidaten bewertet.",
    ),
    "intervals": ("In brackets: 95 % intervals.", "In Klammern: 95-%-Intervalle."),
    "use": ("use {names}", "{names} verwenden"),
    "equal": (
        "{names} are equal within the margin",
        "{names} unterscheiden sich um weniger als die Toleranz",
    ),
    "stopping": (
        "About {estimand}, with {n} of {total} chunks labelled: {outcome}.",
        "Für {estimand}, {n} von {total} Abschnitten bewertet: {outcome}.",
    ),
    "estimand_pool": ("the chunks of this run", "die Abschnitte dieses Laufs"),
    "estimand_future": ("documents to come that are like these", "künftige Dokumente dieser Art"),
    "stop_best": ("{names} is best", "{names} ist am besten"),
    "stop_equal": (
        "{names} are equal within the margin",
        "{names} unterscheiden sich um weniger als die Toleranz",
    ),
    "stop_undecided": ("more labels can still change it", "weitere Bewertungen können es noch ändern"),
    "more": (
        "{n} more labels would narrow the interval of {b} minus {a} from {now} to about {then} points.",
        "{n} weitere Bewertungen würden das Intervall von {b} minus {a} von {now} auf etwa {then} Punkte verengen.",
    ),
    "quality": ("Your labels", "Ihre Bewertungen"),
    "median": ("Median time of a label: {seconds} s.", "Median der Zeit je Bewertung: {seconds} s."),
    "drift": (
        "Median time: first third {first} s, last third {last} s.",
        "Median der Zeit: erstes Drittel {first} s, letztes Drittel {last} s.",
    ),
    "drift_best": (
        "Share of the best letter: first half {first} %, second half {last} %.",
        "Anteil der besten Note: erste Hälfte {first} %, zweite Hälfte {last} %.",
    ),
    "repeats": (
        "{same} of {n} repeated items got the same letter.",
        "{same} von {n} wiederholten Einträgen bekamen dieselbe Note.",
    ),
    "too_fast": (
        "{fast} of {n} labels came faster than the text can be read.",
        "{fast} von {n} Bewertungen kamen schneller, als sich der Text lesen lässt.",
    ),
    "settled": (
        "{settled} of {total} differences are settled",
        "{settled} von {total} Abweichungen sind geklärt",
    ),
    "settled_counts": (
        "The settled letters count in agreement, report and gate in place of both.",
        "Die geklärten Noten zählen in Übereinstimmung, Bericht und Gate anstelle der abweichenden.",
    ),
}
"""Text by name: English, German, with placeholders ``{…}``."""

SKIP_REASONS: Final = ("undecidable", "language", "expertise", "broken")
"""Reasons to skip an item, in the order of the dialog; the stored reason is the English text."""


def text(name: str, language: Language, **values: object) -> str:
    """Return a text in a language, with values filled in."""
    template = TEXTS[name][tuple(LANGUAGES).index(language)]
    return template.format(**values) if values else template


def preferred_language(accept: str) -> Language:
    """Return the language of an ``Accept-Language`` header; English if it has neither."""
    weights: dict[Language, float] = {}
    for part in accept.split(","):
        match = re.fullmatch(r"\s*([a-zA-Z]{2})(?:-[\w-]+)?\s*(?:;\s*q=([01](?:\.\d*)?)\s*)?", part)
        for language in LANGUAGES:
            if match and match[1].lower() == language:
                weights[language] = max(weights.get(language, 0.0), float(match[2] or 1))
    return max(weights, key=lambda language: weights[language], default="en")


def localised(printed: str, language: Language) -> str:
    """Return numbers printed by `qaeval.report.numbers` as a language writes them: ``+1,5 Punkte [−0,5; +3,5]``."""
    if language != "de":
        return printed
    return re.sub(r"(?<=\d)\.(?=\d)", ",", printed.replace(", ", "; ")).replace(" points", " Punkte")


def number(value: float, language: Language, digits: int = 0) -> str:
    """Print a number with the decimal mark of a language."""
    return localised(f"{value:.{digits}f}", language)
