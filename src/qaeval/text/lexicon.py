"""Word lists: stop words, abbreviations, English and German verbs."""

from __future__ import annotations

import re


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

BE = word_set("is are was were")
MODALS = word_set("must should can may will cannot could shall would might")
DETERMINERS = word_set("the a an each every all any some no its their your this these that those both our")
PREPOSITIONS = word_set(
    "in on for at with without within from under by of to into onto after before during between through via "
    "per about across against along among around over since until as up down out off than"
)
CLAUSE_WORDS = word_set(
    "that which who whom whose if when where whether because while whereas unless until although though what "
    "how why so but than whenever whoever whatever whichever wherever"
)
PRONOUNS = word_set(
    "it they he she we i this that these those there here such one what who which you both neither either "
    "none whoever whatever"
)
FREQUENCY = word_set(
    "also always often usually typically normally generally sometimes still then therefore now already "
    "currently only just thus first both"
)
VERBS = word_set(
    "accept access add adjust affect allow answer apply assign attach avoid balance become begin bind block "
    "bring build cache calculate call carry cause change charge check choose collect combine compare "
    "compress compute connect consist contain control convert copy cost count cover create decide define "
    "delay delete deliver depend describe detect determine disable distribute divide drop enable encrypt end "
    "enforce ensure enter estimate evaluate exceed exclude execute expect expire expose extend extract fail "
    "fill filter find flag follow force form forward gain generate get give go group grow guarantee handle "
    "help hide hold identify ignore improve include increase indicate inherit insert inspect install "
    "invalidate keep last lead learn leave let lie limit list listen load lock log look lose lower maintain "
    "make manage map mark match mean measure merge migrate monitor mount move need notify occur offer omit "
    "open order override own parse pass pay perform permit place point poll prefer present preserve prevent "
    "print process produce protect provide publish pull push put raise reach read rebuild receive recommend "
    "record recover reduce refer refresh refuse register reject release rely remain remove render renew "
    "replace report represent request require reserve reset resolve respond restart restore restrict result "
    "retain retrieve retry return reuse review rewrite rise roll rotate route run save scale scan schedule "
    "search select send separate serve set share show shut sign skip slow solve sort specify split stand "
    "start state stay stop store strip submit supply support suspend switch take tell terminate test "
    "throttle track transfer transform translate treat trigger trim turn unlock update upgrade use validate "
    "verify wait want warn weigh work wrap write yield consume act arrive belong break cancel cause clear "
    "close come confirm contact correspond cut differ disappear discard document draw eat escalate explain "
    "fall feed finish fix flow fly forget grant hang happen invite issue join launch link live mask meet "
    "melt mix observe operate pause pin play predict prepare prove purge quote ran rank refund relate repeat "
    "reply rest reverse round settle ship sit sleep speak spread step stream suggest survive tag tend touch "
    "train travel tune undo vary visit wake watch wear widen amount ferment compile archive automate monitor "
    "encode decode accelerate face replicate deploy consume emit query route retry belong weaken harden "
    "dissolve absorb reflect contract expand bake boil cool heat rinse taste ask say appear fit pass teach "
    "inform charge forbid exist promise justify obey permit name collect overflow arise matter succeed "
    "deserve flatter land share agree announce seem shrink spend bias round overestimate underestimate lower "
    "invite demand state rent buy sell charge"
)
# Verbs whose -s form is as often a plural noun: they count as verbs only before a determiner or a number.
NOUN_VERBS = word_set(
    "access answer balance block cache call cause change charge check control copy cost count cover delay "
    "drop end filter flag force form gain group handle help hold increase limit list load lock log look map "
    "mark match measure need offer order own pass place point poll present process pull push read record "
    "release report request reserve reset result return review rise roll route run scale scan schedule "
    "search set share show sign start state stay stop store supply support switch test track transfer "
    "trigger turn update upgrade use wait want work wrap yield act break document draw fall feed finish fix "
    "flow grant hang issue join launch link mask mix pause pin play quote rank refund reply rest round ship "
    "sleep spread step stream tag tend touch train travel tune visit wake watch move access print record "
    "lead promise name matter fit pass land charge share repeat bias demand state rent"
)
INTRANSITIVE = word_set(
    "become begin belong come consist correspond depend differ disappear expire fail fall fly go grow happen "
    "lead last lie listen live look occur operate point refer relate rely remain respond rest result rise "
    "run sit sleep speak stand stay survive tend travel vary wait wake weigh work apply act arrive let make "
    "help cost mean want put tell appear exist arise matter succeed land fit agree seem shrink"
)
PRONE_TO_PREPOSITION = {
    "consist": "of", "depend": "on", "belong": "to", "refer": "to", "rely": "on", "apply": "to", "lead": "to",
    "point": "to", "result": "in", "correspond": "to", "listen": "on", "connect": "to", "wait": "for",
    "respond": "with", "amount": "to", "run": "on", "act": "as", "look": "for", "bind": "to",
    "protect": "against", "vary": "with",
}  # fmt: skip
IMPERATIVES = VERBS | word_set(
    "configure try do ask click press consider see note rename back dry rinse wash"
)
# Words that often open a sentence and are not names.
COMMON_WORDS = word_set(
    "larger smaller higher lower longer shorter faster slower fewer newer older cheaper heavier lighter "
    "better worse small large big new old full empty long short high low hot cold warm wet dry fast slow "
    "cheap heavy light early late good bad strong weak local remote public private personal shared internal "
    "external normal standard default daily weekly monthly nightly manual automatic static dynamic active "
    "inactive young adult wild raw fresh modern white black red green blue brown water rain snow wind air "
    "soil sand stone wood paper glass metal iron steel gold silver milk bread rice wheat rye flour butter "
    "oil salt sugar meat fish fruit tea coffee beer wine honey support staff access software hardware data "
    "traffic memory storage time money work life food medium whole green single double multiple additional "
    "optional required existing previous current next following last half part most dense sparse hybrid "
    "plain rail main opened closed open frozen shared dedicated managed custom simple complex common rare "
    "safe unsafe deep shallow upper lower inner outer front back central rolling running incremental "
    "differential horizontal vertical primary secondary tertiary global regional electric electronic "
    "mechanical digital analog synchronous asynchronous read write late recent natural artificial human "
    "animal plant tree leaf root solar nuclear thermal chemical biological medical legal financial technical "
    "physical virtual logical random sequential parallel serial linear circular round flat thin thick broad "
    "narrow wide ripe dark pale clear clean dirty soft hard loose tight sharp blunt sweet sour bitter "
    "freight passenger city country mountain river sea ocean lake forest desert island coal gas power energy "
    "heat bank tax rent price wage interest loan school university hospital police fire army church village "
    "town child parent worker employee user client server customer tenant landlord visitor guest member "
    "travel private annual vacation sick paid unpaid"
)
# What follows these verbs says what something is for or leads to.
EFFECTS = word_set(
    "prevent avoid ensure allow enable protect reduce guarantee cause improve mean require affect"
)
GERMAN_ADVERBS = word_set(
    "danach dann hier dort heute zuerst dabei damit außerdem jedoch deshalb daher dadurch anschließend meist "
    "oft häufig zudem dazu nun jetzt sonst andernfalls allerdings bei unter dafür dagegen hingegen darüber "
    "darum später zunächst seit direkt selbst erst fast statt nicht gestern morgen bisher derzeit immer nie "
    "gut schlecht leicht zuletzt je trotzdem dennoch zusätzlich insgesamt bereits künftig beide viele einige "
    "mehrere wer was anders gemäß laut zwischen innerhalb außerhalb aufgrund wegen nachts tagsüber bitte "
    "sofort"
)
GERMAN_FINITE = word_set(
    "ist sind war waren wird werden wurde wurden kann können muss müssen soll sollen sollte sollten darf "
    "dürfen hat haben hatte gilt gelten bleibt bleiben enthält enthalten braucht brauchen liegt liegen gibt "
    "steht stehen läuft laufen beträgt erhält erhalten verwendet nutzt nutzen prüft prüfen speichert "
    "speichern sendet senden schreibt liest lesen startet endet dauert kostet erzeugt liefert misst zeigt "
    "führt führen benötigt benötigen bietet besteht bestehen verhindert fasst fassen erhalten erhält schützt "
    "regelt steuert schaltet kommt kommen geht gehen verfällt entscheidet erlaubt setzt löscht ersetzt "
    "ändert entscheidet hängt beginnt verlangt umfasst"
)
# Predicate and preposition that may end a question: "What is X limited to?"
STRANDED = word_set(
    "determined-by defined-by controlled-by set-to limited-to based-on known-as used-for used-to made-of "
    "measured-in required-for caused-by followed-by replaced-by restricted-to called-for meant-for "
    "intended-for designed-for responsible-for compatible-with equal-to similar-to reserved-for bound-to "
    "mounted-at available-to available-for available-as capped-at billed-to subject-to composed-of served-by "
    "recommended-for allowed-to suited- to suitable-for reduced-to signed-with exposed-to derived-from "
    "written-in identified-by protected-by named-after tied-to part-of due-to built-on triggered-by "
    "sorted-by encrypted-with driven-by connected-to mapped-to converted-to kept-for retained-for"
)


_VOWEL_Y = re.compile(r"[^aeiou]ies$")


def present_verb(word: str) -> tuple[str, str] | None:
    """Return the infinitive of a known present-tense verb and its auxiliary, ``does`` or ``do``."""
    if word in VERBS:
        return word, "do"
    candidates = [word[:-1]] if word.endswith("s") else []
    if word.endswith("es"):
        candidates.append(word[:-2])
    if _VOWEL_Y.search(word):
        candidates.append(word[:-3] + "y")
    for candidate in candidates:
        if candidate in VERBS:
            return candidate, "does"
    return None
