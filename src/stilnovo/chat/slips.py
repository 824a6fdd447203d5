"""Differences between a quoted word and the source's word that change nothing: what may be *repaired*.

The rule is narrow on purpose, because one letter makes another word (*amato*, *armato*; *molto*, *morto*; *traduzione*,
*tradizione*) and no list of words is complete. So a wrong letter is a slip only where it makes what is no word of Italian at
all: letters that cannot stand together (*antiico*, *bbarca*), or a double consonant written single where that is no word
either (*legere*). Everything else is told from how Italian is written: capitals,
letters of other alphabets, the direction of a final accent, an apostrophe for an accent, *j* for *i*.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from stilnovo.chat.wording import skeleton
from stilnovo.text.italian import STOP_WORDS, listed, modern

#: Unaccented, these are no words: whoever leaves the accent out means the accented one.
_NO_WORDS = listed(
    """
    perche poiche benche affinche purche finche giacche sicche dacche cosicche anziche allorche ancorche
    fuorche nonche acciocche imperciocche conciossiache macche cosi piu gia cio puo giu cioe percio lassu
    laggiu quaggiu quassu lunedi martedi mercoledi giovedi venerdi mezzodi caffe gesu po ahime ohime oime
    """
)
#: Ending in -ta or -tu without an accent, these are words of their own; the others are not.
_WORDS_IN_TA = listed(
    """
    meta onesta felicita facilita debilita nobilita mobilita capacita abilita stabilita unita infinita
    gravita eredita pieta quantita regolarita
    """
)
#: With an accent, these are misspellings of the word without one.
_MISSPELT = listed(
    """
    quì quà sù fù nò mè trè rè sò stò stà fà và pò blù dò
    """
)
#: Cut short, not accented: *de'* is *dei*, *ne'* is *nei*, *da'* is *dai* or *dà!*: no way of writing an accent.
_CUT_SHORT = listed(
    """
    a be co da de di e fa fe fra ga i mo ne pe pie que qua se so sta sto su te to tra va ve vo
    """
)
_NUMBERS = re.compile(
    "(?:un(?:o|a|dic)|due|duec|tre|quattr|quart|quaran|cinqu|quint|quind|sei|seic|sed|sess|sest|sett|ott|nov|non[oai]$|diec|dec"
    "|dod|tred|dicia|dicio|vent|trent|terz|cent|mill|mila$|prim|second|miliard|milion|zero|mezz|dopp|tripl|ambed|entramb)"
)
#: Words that are another word with one letter of a double consonant left out (*soleva*, *solleva*); that slip makes no word else.
_SINGLE_CONSONANT = listed(
    """
    abiti accade accadono acceso adotta adotto adorno affido alato amala amalo amanti amare amarla amarlo amine amino annota appreso
    appresa aridi arida asseta assetato attero avide avidi aversi avero barato bari baro basano bruta bruti bruto bufalo cacio cader
    cadero calotta calo camini camino canone canoni capelli capello caretta casino casini cesare colera colare colate colpa comando
    comodo complesi comprese compreso compresa console contati contato contesa convene copia copie coretti coretto corono decade
    digiuna dotato edito elise esteso facendo fate fati fatale fato fichi fiero fioca fioco fumo fisa fisare fisano grata grate grati
    grato greto immola imola impresa imprese impreso invita invito invitai latore legano legate legato legava legavano legavo
    leghe libra libre lucio moria moto nasce nasceva nella nelle nocciolo notata notate notato novero numero ottene palata palate pania
    pecora penato peloso piove placa placo porera posano posate posato presa prese presi preso provide regia regie regio resero resi
    ricade risano ritene rivene rosa rosea rosetta roseto rotolo saliva salvo scapa scapato scapati scola scolo scopi scopo score sela
    sera serata serate serato sereno seta sete soleva solevano solevi solevo sono sotteso spesa spese speso spelato spineta stavi stela
    stele stesa stese stesi steso stesero stile stilo stimate susurro tacera tenero tener tenera tono tosetta tragi trota trovera vale
    vene venero venite viene vile villano voluta vano sposa sposare sposata sposate sposati sposato sposava sposavano aprendo averti
    metano butano sofia aride adito anodo grafi fiochi mogia mogio paria casetta casette penata tira tirano bara barare camino
    """
)
_LEGAL_PAIRS = frozenset(
    [c + c for c in "bcdfglmnprstvzq"]
    + [a + b for a in "bcdfgptv" for b in "lr"]
    + [a + b for a in "lrn" for b in "bcdfgpqstvz"]
    + [f"s{c}" for c in "bcdfglmnpqrtvz"]
    + list(
        listed(
            "rl rm rn lm ln nl nr nm mb mp mn cq ch gh gn gm ct pt ps pn tm dm cn ft bn bd bs bt dv cs tn gd ms th ph rh"
        )
    )
)
#: Endings in which a double consonant is the tense or the mood: *avremmo*, *credette*, *vanno*.
_DOUBLE_ENDING = re.compile(r"(?:mm[oi]|tt[eioa]|nno|ss[eiaoe]|ll[aeio]|dde|bbe|vve|lle|nne|ppe|cq\w+)$")


def _base(word: str) -> str:
    """A word in plain letters, without accents, i for j."""
    apart = unicodedata.normalize("NFKD", skeleton(word).lower())
    return "".join(c for c in apart if not unicodedata.combining(c)).replace("j", "i")


def _accents(word: str, marked: bool) -> dict[int, str]:
    """Position of each accented letter and its accent; an apostrophe at the end stands for one, a final î for none."""
    accents: dict[int, str] = {}
    at = -1
    for char in unicodedata.normalize("NFKD", skeleton(word).lower()):
        if unicodedata.combining(char):
            accents[at] = char
        else:
            at += 1
    if word.lower().endswith("î"):
        accents.pop(at, None)
    if marked and at not in accents and word and _base(word)[-1:] in "aeiou":
        accents[at] = "'"
    return accents


@lru_cache(maxsize=50_000)
def _no_word(word: str) -> bool:
    """Whether a word in plain letters cannot be one of Italian: letters that never stand together."""
    if re.search(r"(.)\1\1|aa|uu|ii(?!$)|q(?![uq])|(?<=.)(?<![cgtpr])h|^([^aeiou])\2|[kwxy]", word):
        return True
    for run in re.findall(r"[bcdfghlmnpqrstvz]{2,}", word):
        if any(run[i : i + 2] not in _LEGAL_PAIRS for i in range(len(run) - 1)):
            return True
        three = [run[i : i + 3] for i in range(len(run) - 2)]
        if any(t[2] not in "lrh" and t[1] != "s" and t[0] != "s" for t in three) or len(run) > 4:
            return True
    return False


def distance(a: str, b: str, limit: int) -> int:
    """Levenshtein distance, or `limit` + 1 when it is larger."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    row = list(range(len(b) + 1))
    for i, char in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char != other))
    return min(row[-1], limit + 1)


def _one_slip(a: str, b: str) -> bool:
    """Whether one letter put in, left out, exchanged, or two neighbours swapped, make `b` of `a`."""
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
    swapped = a[:start] + a[start + 1 : start + 2] + a[start : start + 1] + a[start + 2 :]
    return swapped == b or distance(a, b, 1) == 1


def is_number(word: str) -> bool:
    """Whether a word in plain letters is a number or begins like one (*settimo*, *settantacinque*; *settimana* too)."""
    return word.isdigit() or _NUMBERS.match(word) is not None


def typing_slip(claimed: str, word: str) -> bool:
    """Whether a claimed word is the source's word with one wrong letter that makes no word of it; both as they are written.

    Never in names, numbers, function words, the first letter or the last two, nor in words of fewer than four letters.
    """
    if word[0].isupper() or claimed[0].isupper():
        return False
    a, b = _base(claimed), _base(word)
    if min(len(a), len(b)) < 4 or a[0] != b[0] or a[-2:] != b[-2:] or not (a + b).isalpha():
        return False
    if a in STOP_WORDS or b in STOP_WORDS or is_number(b) or is_number(a):
        return False
    return _one_slip(a, b) and not _no_word(b) and (_no_word(a) or _single_for_double(a, b))


def _single_for_double(a: str, b: str) -> bool:
    """Whether `a` is `b` with one letter of a double consonant left out, and as such no word: *legere*."""
    if len(b) < 6 or len(a) != len(b) - 1 or a in _SINGLE_CONSONANT or _DOUBLE_ENDING.search(b):
        return False
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    return b[at] == b[at - 1] and b[at] not in "aeiou" and a[:at] + b[at] + a[at:] == b


def same_word(claimed: str, word: str, apostrophes: tuple[bool, bool], no_accents: bool, ascii_source: bool) -> bool:
    """Whether two spellings are of one word.

    Args:
        claimed: As quoted.
        word: As the source has it.
        apostrophes: Whether each ends in an apostrophe that joins it to nothing.
        no_accents: The quoter writes no accents at all, nor capitals: a missing one says nothing.
        ascii_source: The source writes its accents as apostrophes.
    """
    base = _base(word)
    if _base(claimed) != base:
        return _old_spelling(_base(claimed), base)
    theirs, ours = _accents(claimed, apostrophes[0]), _accents(word, apostrophes[1])
    last = len(base) - 1
    if theirs.keys() == ours.keys():
        changed = {at for at in ours if theirs[at] != ours[at]}
        if changed and "'" in (theirs.get(last), ours.get(last)):
            capital = (claimed + word).startswith(("E", "È", "É")) and base == "e"
            return changed == {last} and (base not in _CUT_SHORT or ascii_source or capital)
        return changed <= {last}
    if theirs.keys() < ours.keys():
        return (no_accents and not theirs) or (ours.keys() - theirs.keys() == {last} and _accent_missing(base))
    if ours.keys() < theirs.keys():
        return theirs.keys() - ours.keys() == {last} and unicodedata.normalize("NFC", claimed.lower()) in _MISSPELT
    return False


def _old_spelling(claimed: str, base: str) -> bool:
    """Whether two words are one in the spelling of two times: *move*, *muove*; *maraviglia*, *meraviglia*."""
    if modern(claimed) != modern(base) or is_number(claimed) or is_number(base) or {claimed, base} & STOP_WORDS:
        return False
    return claimed[0] == base[0] and claimed[-1] == base[-1] and distance(claimed, base, 1) == 1


def _accent_missing(base: str) -> bool:
    """Whether a word without its final accent is no other word."""
    return base in _NO_WORDS or (base.endswith(("ta", "tu")) and len(base) > 4 and base not in _WORDS_IN_TA)


def shows_no_accents(claimed: str, word: str) -> bool:
    """Whether the claimed word is no word but for the accents that its writer leaves out everywhere: *piu*, *citta*."""
    return bool(_accents(word, False)) and claimed.isascii() and _accent_missing(_base(word))
