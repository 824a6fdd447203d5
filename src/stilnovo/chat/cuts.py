"""Where a quotation was cut out of its sentence: words before or behind it that deny, condition, ask or attribute what it says.

«Non è vero che [Lucia ami don Rodrigo]»: the quoted words stand in the source, and the source says the contrary. A rule of
words finds such a rest of the sentence (it need not understand it: to show too much of a sentence is no harm). It is shown
in brackets with the quotation: all of it while the sentence is short, else the words from the turning one to the quotation.
"""

from __future__ import annotations

import re

from stilnovo.text.italian import sentences

#: A sentence is looked for within so many characters on either side.
REACH = 1000
#: The rest of a sentence is shown whole up to so many characters, and abridged to about so many.
WHOLE, ABRIDGED = 300, 160
_DENIES = (
    "non|n[éè]|ne['’](?=\\s)|nessun[oa]?|niente|nulla|mai|mica|neanche|neppure|nemmeno|senza|neg(?:a|ano|ò|ava|avano|ando)|smentì|smentisc\\w+"
    "|smentiv\\w+|fals[oaie]|falsità|menzogn[ae]|bugi[ae]|bugiard[oaie]|mente|mentono|mentì|mentiva|mentivano|mentire|impossibile|improbabile"
    "|assurd[oaie]|errore|sbagli\\w+|guai|lungi|invece|anziché|anzichè|piuttosto|manc(?:a|ò|ava)|proibi\\w+|viet\\w+|impedi\\w+|rifiut\\w+"
    "|smett\\w+|smis\\w+|smess[oa]|cess(?:ò|a|ava|ato|arono)|rinunci\\w+|evit\\w+|dimentic\\w+"
)
#: Ways of saying that something is only somebody's view, or no fact.
_VIEWS = (
    "a\\s+(?:sentir\\w*|detta|parole|quanto\\s+(?:pare|dicono|si\\s+dice))|stando\\s+a\\w*|in\\s+(?:apparenza|sogno|teoria)|apparentemente|per\\s+(?:burla|finta|ridere)"
    "|così\\s+(?:almeno\\s+)?(?:vogli|cred|dic|pens|vuol|vorrebb|pare|sembra|si\\s+dic|si\\s+cred)\\w*"
)
_CONDITIONS = (
    "se|qualora|purch[éè]|purche|caso|patto|condizione|meno|tranne|salvo|eccetto|fuorch[éè]|fuorche|soltanto|solo(?=\\s+(?:se|quando|per|in|a|chi|dopo|allora|così|con)\\b)|solamente"
    "|quasi|forse|magari|probabilmente|chiss[àa]|ove|allorch[éè]|allorquando"
)
_OPINIONS = (
    "cred(?:o|i|e|iamo|ete|ono|ev\\w+|ea|eano|ett\\w+|é|eranno|erei|erebbe\\w*|endo)|pare|par(?:eva|evano|ea|ve|vero|rà|rebbe|rebbero|endo)"
    "|sembr(?:a|ano|ava|avano|ò|ando|erebbe)|pens(?:o|i|a|ano|ava|avano|ò|arono|ando)|immagin(?:o|a|ava|ò|ando)|sogn(?:o|a|ava|ò|ando)"
    "|fing(?:e|eva|evano|endo|ono)|fint[oa]|fins(?:e|ero)|tem(?:o|e|eva|evano|ette|ettero|endo)|sper(?:o|a|ava|avano|ò|ando|anza)"
    "|dubit\\w+|dubbi[oa]?|suppon\\w+|suppost[oa]|ammett\\w+|ammess[oa]|vorre\\w+|vorrà|voglia|dic(?:o|e|ono|eva|evano|ea|ean|eano|endo)|dett[oa]"
    "|diss(?:e|ero|i)|assicur\\w+|giur(?:o|a|ava|ò|ando|ano)|sostien\\w+|sosten\\w+|pretend\\w+|raccont\\w+|afferm\\w+|sospett\\w+|illus[oaie]"
    "|illud\\w+|secondo|scherzo|burla|potrebbe\\w*|sarebbe\\w*|avrebbe\\w*|potesse\\w*|fosse\\w*|avesse\\w*|opinione"
)
_ADVERSATIVES = "ma|però|pero|tuttavia|eppure|anzi|bens[ìi]|sebbene|bench[éè]|quantunque|ancorch[éè]"


def _of(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])", re.I)


_TURNS = _of(f"{_DENIES}|{_CONDITIONS}|{_OPINIONS}|{_VIEWS}")
#: These govern a whole sentence, the others a clause.
_CONDITION = _of(f"se|qualora|purch[éè]|purche|caso|patto|condizione|meno\\s+che|{_VIEWS}")
#: Behind a quotation: in its own clause; first in the next one; anywhere in the next one; in a later one.
_TURNS_BEHIND = _of(
    f"{_DENIES}|{_CONDITIONS}|{_VIEWS}|(?:{_OPINIONS})(?!\\s+(?:che|di)\\b)|{_ADVERSATIVES}|quando|finch[éè]|come"
)
_TURNS_FIRST = re.compile(
    rf"[\s,;:—–»”\"-]*(?:(?:ed?|od?)\s+)?(?:{_DENIES}|{_CONDITIONS}|{_VIEWS}|{_ADVERSATIVES}|quando|finch[éè]|come|mezz[oa])(?![^\W_])",
    re.I,
)
_OPINION_NEXT = re.compile(
    rf"[\s,;:]*[^,;:.»”\"—–]{{0,60}}?(?<![^\W_])(?:{_OPINIONS})(?!\s+(?:che|di)\b)(?![^\W_])", re.I
)
_TURNS_LATER = re.compile(
    rf"[,;:—–]\s*(?:(?:ed?|od?)\s+)?(?:{_ADVERSATIVES}|purch[éè]|tranne|salvo|eccetto|fuorch[éè]|a meno"
    r"|se|soltanto|solo se)(?![^\W_])",
    re.I,
)
_UNTRUE = _of(
    "fals[oaie]|falsità|menzogn[ae]|bugi[ae]|bugiard[oaie]|mente|mentono|mentì|mentiva|mentivano|impossibile|scherzo|burla"
    "|(?:non|mai|poco|niente)(?:\\s+\\w+){1,2}\\s+(?:ver[oaie]|verità|certo)"
)
#: What a clause begins with that depends on the words before it.
_LINK = re.compile(r"(?<![^\W_])(?:che|ch['’]|come|chi|quando|onde)(?![^\W_])[^,;:]*$", re.I)
_OWN_LINK = re.compile(r"\W*(?:che|ch['’]|se|come|quasi|purch[éè]|a meno)(?![^\W_])", re.I)
#: One of two things: *O Renzo o* Lucia partirà.
_EITHER = re.compile(r"(?<![^\W_])(?:od?|oppure|ovvero)\s*$", re.I)
#: An infinitive says what the words before it make of it: *smise di* amare.
_GOVERNS = re.compile(r"(?<![^\W_])(?:di|d['’]|dal|dall['’]|da|nel|per|a|ad)\s*$", re.I)
_INFINITIVE = re.compile(r"\W*[^\W\d_]+[aei]r(?:e|si|mi|ti|ci|vi|gli|n?e|l[oaie])?(?![^\W_])", re.I)
_SPEECH_BEGUN = re.compile(r"(?:[«“„\"‘:—–]|(?<!\w)')[\s«“„\"‘—–']*$")
_AGAINST = re.compile(
    rf"[\s,;:—–-]*(?:e\s+)?(?:{_ADVERSATIVES}|salvo|tranne|eccetto|purch[éè]|a meno|se non|invece|piuttosto|fuorch[éè])(?![^\W_])",
    re.I,
)
_OVER = re.compile(r"[!?][»”\"’')\]]*(?=\s|$)")
_FINAL = re.compile(r"\s*[»”\"’')\]*_]*(?:[.!?…]+|$)")
_COMMA_NEXT = re.compile(r"[.!?…»”\"’')\]]*[,;]")
_DOTS_AND_SMALL = re.compile(r"(?:…|\.\.)[.…»”\"’')\]]*\s+[a-zàèéìòù]")
_SPEECH_OVER = re.compile(r"[\s,.;:]*[»”\"—–]")
_CLAUSE = re.compile(r"[,;:—–]")
_COORDINATE = re.compile(r"\s*(?:ed?|od?|poi|quindi|allora)\s", re.I)
_DENIAL = _of(_DENIES)
_CLOSED = '»”"’‘*_'
_OPENING = ' \t\n«“„"‘'
_CLOSING = "»”\"’')] \n"


_OMISSION_TURNS = _of(
    "non|no|n[éè]|ne['’](?=\\s)|nessun[oa]?|niente|nulla|mai|mica|neanche|neppure|nemmeno|senza|se|ma|però|purch[éè]|meno|tranne|salvo"
    "|eccetto|fuorch[éè]|soltanto|solo|invece|anziché|falso|impossibile"
)


def denies(words: str) -> bool:
    """Whether words deny or condition what stands beside them."""
    return _OMISSION_TURNS.search(words) is not None


def denied_beside(before: str, after: str) -> bool:
    """Whether the clauses directly before and behind a quotation deny or condition it."""
    return denies(_CLAUSE.split(before)[-1]) or denies(_CLAUSE.split(after, maxsplit=1)[0])


def _said(rest: str) -> str:
    return rest if any(char.isalnum() for char in rest) else ""


def _head(text: str, start: int) -> str:
    """The words of the sentence before the quotation."""
    left = max(0, start - REACH)
    window = text[left : start + 200]
    at = start - left
    begin = next((a for a, _ in reversed(sentences(window)) if a <= at), 0)
    head = window[begin:at]
    over = [stop.end() for stop in _OVER.finditer(head)]
    return _said(head[max(over[-1] if over else 0, head.rfind(";") + 1) :])


def _tail(text: str, end: int) -> str:
    """The words of the sentence behind the quotation, to its final mark."""
    left = max(0, end - 200)
    window = text[left : end + REACH]
    at = end - left
    tail = window[at : next((b for _, b in sentences(window) if b >= at), len(window))]
    if (over := _OVER.search(tail)) is not None:
        tail = tail[: over.end()]
    semicolon = tail.find(";")
    return _said(tail[:semicolon] if semicolon >= 0 and not _AGAINST.match(tail, semicolon) else tail)


def turned(text: str, start: int, end: int) -> tuple[str, str]:
    """The words of the sentence around `text[start:end]` that turn what it says: those before it, those behind; empty for none.

    Args:
        text: The source, one section.
        start: Where the quotation begins.
        end: Where it ends.
    """
    quoted = text[start:end]
    head = _head(text, start)
    tail = "" if _closed(text, start, end) else _tail(text, end)
    before = head.strip(_OPENING) if head and _depends(head, quoted) else ""
    after = tail.lstrip(_CLOSED).rstrip() if tail and _takes_back(quoted, tail) else ""
    return _abridged_head(before), _abridged_tail(after)


def _closed(text: str, start: int, end: int) -> bool:
    """Whether the sentence ends with the quotation: behind a comma, or behind dots with a small letter, it goes on."""
    marked = text[start:end].rstrip(_CLOSING).endswith((".", "!", "?", "…")) or _FINAL.match(text, end) is not None
    return (
        marked and not _COMMA_NEXT.match(text, end) and not _DOTS_AND_SMALL.search(text, max(start, end - 4), end + 12)
    )


def _depends(head: str, quoted: str) -> bool:
    """Whether words before a quotation turn what it says: those of its clause, a condition, a denial in the clause before."""
    *_, before, last = "", *_CLAUSE.split(head)
    near = last if _COORDINATE.match(last) else f"{before},{last}"
    if _SPEECH_BEGUN.search(head):
        return any((_CONDITION.search(near), _DENIAL.search(near)))
    governed = (_GOVERNS.search(head) and _INFINITIVE.match(quoted)) or _EITHER.search(head)
    return any((_CONDITION.search(head), _TURNS.search(near), _LINK.search(head), _OWN_LINK.match(quoted), governed))


def _takes_back(quoted: str, tail: str) -> bool:
    """Whether words behind a quotation turn what it says: those of its clause, or a clause that denies, excepts or asks."""
    if (
        tail.rstrip(_CLOSING).endswith("?")
        or _TURNS_LATER.search(tail)
        or _UNTRUE.search(tail)
        or _TURNS_FIRST.match(tail)
    ):
        return True
    if quoted.endswith(("»", "”", '"', "—", "–")) or _SPEECH_OVER.match(tail):
        return False
    own = _CLAUSE.split(tail, maxsplit=1)[0]
    return bool(_TURNS_BEHIND.search(own) if own.strip() else _OPINION_NEXT.match(tail))


def _abridged_head(head: str) -> str:
    if len(head) <= WHOLE:
        return head
    turning = [match.start() for match in _TURNS.finditer(head)] or [len(head) - ABRIDGED]
    begin = turning[-1]
    rest = head[begin:]
    if len(rest) > WHOLE:
        rest = f"{rest[:ABRIDGED].rsplit(None, 1)[0]} … {rest[-ABRIDGED:].split(None, 1)[-1]}"
    return f"… {rest}"


def _abridged_tail(tail: str) -> str:
    if len(tail) <= WHOLE:
        return tail
    match = _TURNS_BEHIND.search(tail)
    begin, end = match.span() if match else (0, 0)
    clause = re.compile(r"[,;:.!?]").search(tail, end)
    stop = min(clause.start() if clause else len(tail), begin + WHOLE)
    if stop <= WHOLE:
        return f"{tail[:stop]} …"
    return f" … {tail[begin:stop]} …"
