"""Word lists: stop words, marks of a language, abbreviations, months and number words."""


def word_set(text: str) -> frozenset[str]:
    """Return the words of a list that is written as one string."""
    return frozenset(text.split())


ENGLISH_STOP = word_set(
    "a an the this that these those and or but nor so if then than as of at by for from in into on onto off "
    "over under to up down out with without within about after before between during through per via is are "
    "was were be been being am do does did doing done has have had having can could may might must shall "
    "should will would not no yes it its he she they them their his her we us our you your i me my who whom "
    "whose which what when where why how all any both each every few more most other some such only own same "
    "too very just also there here once again because since while until unless whereas however therefore "
    "thus hence although though either neither instead rather ever never always still yet already one ones s "
    "t don e.g i.e etc vs upon across twice"
)
GERMAN_STOP = word_set(
    "der die das den dem des ein eine einen einem einer eines und oder aber denn doch sondern nicht kein "
    "keine keinen ist sind war waren sein bin wird werden wurde wurden worden hat haben hatte hatten kann "
    "können konnte muss müssen musste soll sollen sollte darf dürfen ich du er sie es wir ihr ihm ihn ihnen "
    "sich mich uns man in im ins an am auf aus bei beim mit nach von vom vor zu zum zur über unter um durch "
    "für gegen ohne bis als wie wenn weil da dass daß ob damit so auch nur noch schon sehr mehr hier dort "
    "dann dabei dazu jede jeder jedes jeden diese dieser dieses diesen diesem welche welcher welches was wer "
    "wo wann warum während falls sobald nachdem bevor zwischen pro je etwa sowie bzw z.b d.h"
)
# Words of one language only: "in", "an", "am", "die", "war", "so", "was" and "will" are words of both.
GERMAN_MARKS = word_set(
    "der das den dem des und ist nicht ein eine einen einem einer mit sich auf für von zu wird werden sind "
    "auch bei wenn weil oder kann muss nur über durch nach zum zur im vom als wie sie es dass aus jede jeder "
    "pro"
)
ENGLISH_MARKS = word_set(
    "the and of to is are that for with it as on by this be or from which you can not if must has have when "
    "each its at a every what does how why"
)
# Words that are common in one language and in no other of Europe: "der" is Danish too, "worden" Dutch, "ich" Polish,
# "es" French and Spanish; "is" is Dutch, "to" Polish, "not" Turkish.
GERMAN_EVIDENCE = word_set(
    "und ist nicht eine einen einem einer eines sich auf für zu von wird auch sind wenn weil oder kann können muss "
    "müssen soll sollen darf dürfen nur über durch nach zum zur beim aus dass daß jede jeder jedes jeden jedem kein "
    "keine keinen diese dieser dieses diesen diesem welche welcher welches welchen welchem warum wieso weshalb wann "
    "wozu wofür woran wodurch worauf womit worin wer zwischen ohne gegen aber sondern wurde wurden haben seit sowie "
    "damit dabei dazu dann mehr viele ihre ihren ihrer wir gibt während bevor nachdem"
)
ENGLISH_EVIDENCE = word_set(
    "the and that with this those which you your from its they their there what when where why how each every only "
    "would should could must does did were than then because about into while through between both such after before "
    "without until unless whether whose however cannot can't don't doesn't isn't aren't many much other if"
)
ABBREVIATIONS = word_set(
    "e.g i.e etc vs dr mr mrs ms prof fig figs no nos approx cf al inc ltd st ca eq sec vol pp ed est dept "
    "resp bzw usw nr abs art vgl ggf evtl inkl exkl max min std mio mrd tel str z.b d.h u.a o.ä s.o z.t "
    "i.d.r sog geb"
)
MONTHS = word_set("januar februar märz april mai juni juli august september oktober november dezember")
NUMBER_WORDS = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "eleven": "11", "twelve": "12", "zwei": "2", "drei": "3", "vier": "4", "fünf": "5",
    "sechs": "6", "sieben": "7", "acht": "8", "neun": "9", "zehn": "10", "elf": "11", "zwölf": "12",
}  # fmt: skip
