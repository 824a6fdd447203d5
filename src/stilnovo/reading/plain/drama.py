"""Tell the words of a play's persons from their names and from what the stage does.

Only where the text is a play by strong evidence: acts or scenes, and names that come again and again at the heads of
speeches, in most paragraphs. Unusual: a novel may well call its chapters acts and scenes (Dossi does); it has no speakers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from stilnovo.reading.headings import Heading
from stilnovo.reading.text_builder import Book, Edit, disjoint, edited, paragraphs

_NAME = r"[A-ZÀ-Þ][A-ZÀ-Þ'’.]*(?:[ ]+(?:[A-ZÀ-Þ][A-ZÀ-Þ'’.]*|[eE](?=[ ]))){0,4}"
_SHORT = r"(?:(?:[A-ZÀ-Þ][a-zà-ÿ'’]{0,11}\.?[ ]){0,2}?[A-ZÀ-Þ][a-zà-ÿ'’]{0,13})"
_DIRECTION = r"(?:[ ]*,?[ ]*[(\[][^()\[\]\n]{1,160}[)\]])?"
# MARCHESE: …   CAVALIERE. – …   Mir. …   Mirandolina (ridendo): …
_BESIDE = re.compile(
    rf"[ \t]*(?:(?P<name>{_NAME}|{_SHORT})(?P<direction>{_DIRECTION})[ ]*(?P<mark>[:.]|\t|(?<=[)\]]))[ ]*[–—-]*[ ]*(?=\S)"
    # LUISA -- …   MARCO (piano) — …   ELENA   …
    rf"|(?P<capitals>{_NAME})(?P<aside>{_DIRECTION})(?:[ ]+(?:--?|—|–)[ ]+|[ ]{{2,8}})(?=\S))"
)
# The name on a line of its own.
_ABOVE = re.compile(rf"[ \t]*(?P<name>{_NAME})(?P<direction>{_DIRECTION})[ ]*[:.]?[ \t]*(?=\n[ \t]*\S|\Z)")
_BRACKET = re.compile(r"[(\[](?P<words>[^()\[\]]{2,300})[)\]]")
_STAGE_WORDS = re.compile(
    r"\W*(?:da s[eéè]|a parte|parte|partono|via|entra\w*|esce|escono|ride\w*|piange\w*|al?\b|all[oa]?\b|agli|alle|verso|si \w+|s['’]\w+"
    r"|come sopra|c\. s\.|piano|forte|con \w+|in (?:atto|disparte)|mostra\w*|legge\w*|siede\w*|guarda\w*|accenna\w*|interrompendo\w*)",
    re.I,
)
# The end of an act is no words of the last speaker's.
_CURTAIN = re.compile(
    r"\W*(?:cala (?:la tela|il sipario)|si cala la tela|tela|sipario|fine dell['’](?:atto|opera|intermezzo)(?: \w+)?"
    r"|fine del (?:primo|secondo|terzo|quarto|quinto|prologo|dramma|melodramma)(?: \w+)?"
    r"|fine della (?:commedia|tragedia|farsa|scena)(?: \w+)?)\W*\Z",
    re.I,
)
_CAST = re.compile(
    r"^[ \t_*]*(?:PERSONAGGI|Personaggi|PERSONE|INTERLOCUTORI|Interlocutori|ATTORI|DRAMATIS PERSONAE"
    r"|P(?:ERSONNAGES|ersonnages))\b[^\n]{0,30}$",
    re.M,
)
_SPEAKER_LINE = re.compile(rf"\n(?:[ \t]*)({_NAME}|{_SHORT})(?:[.:]|[ ](?:--?|—|–))[ ]")
#: What may be spoken before the first act.
_BEFORE_ACTS = ("Prologo", "Introduzione", "Proemio")
#: What stands below an act and above its first scene says where it plays.
_SETTING = 1500
#: In a text without acts, so many of the paragraphs are speeches, of so few persons.
_DIALOGUE, _PERSONS = 0.6, 8
#: A name that speaks as often as this is a speaker's; so many of the paragraphs of scenes are speeches.
_OFTEN, _SPEECHES = 3, 0.4


def arrange(book: Book) -> Book:
    """Keep names of speakers, stage directions and the list of persons of a play apart; other books come back as they are."""
    headings = [_untitled(book.text, heading) for heading in book.headings or ()]
    edits = _edits(book.text, headings)
    return edited(replace(book, headings=tuple(headings)), edits) if edits else book


def _untitled(text: str, heading: Heading) -> Heading:
    """A scene's heading without what stands below it, which in a play is no title but the stage."""
    if not heading.title or not (heading.kind in ("scena", "atto") or _CAST.fullmatch(heading.title)):
        return heading
    end = heading.start + len(text[heading.start : text.find(heading.title, heading.start)].rstrip())
    return replace(heading, end=end, title="")


def _edits(text: str, headings: Sequence[Heading]) -> list[Edit]:
    """Changes to a play or a dialogue, in order; none where the text is none."""
    play = any(h.kind in ("scena", "atto") for h in headings)
    if not play and not _may_speak(text):
        return []
    ends = [*(h.start for h in headings), len(text)]
    scenes = [
        (h.end, following)
        for h, following in zip(headings, ends[1:], strict=True)
        if not play or h.kind in ("scena", "atto", "nome", "parte")
    ]
    scenes = scenes if play else [(0, ends[0]), *scenes]
    blocks = [block for start, end in scenes for block in _speeches(text, start, end)]
    heads = [(start, end, _head(text, start, end)) for start, end in blocks]
    names = Counter(_plain(_name(match)) for _, _, match in heads if match)
    often = {name for name, n in names.items() if n >= _OFTEN}
    speaking = [match for _, _, match in heads if match and _speaks(match, names, often)]
    if len(often) < 2 or len(speaking) < (_SPEECHES if play else _DIALOGUE) * len(blocks):
        return []
    if not play and len(often) > _PERSONS:
        return []
    speakers = {match.start(): match for match in speaking}
    edits = _cast(text, headings, min(speakers))
    acts = {heading.end for heading in headings if heading.kind == "atto"}
    for start, end in scenes:
        if start in acts and not any(start <= at < end for at in speakers) and end - start < _SETTING:
            edits += [Edit(*block, "stage") for block in paragraphs(text, start, end)]
            continue
        edits += _scene(text, list(_speeches(text, start, end)), speakers, play)
    return disjoint(edits)


def _head(text: str, start: int, end: int) -> re.Match[str] | None:
    """The name that may begin a speech. Without a stop, before a direction or in a cell of its own, it has to be in capitals."""
    match = _BESIDE.match(text, start, end)
    if match and (match["mark"] in (":", ".") or (_name(match).isupper() and len(_name(match)) > 2)):
        return match
    return _ABOVE.match(text, start, end)


def _plain(name: str) -> str:
    return name.rstrip(".").upper()


def _name(match: re.Match[str]) -> str:
    """The name at the head of a speech, however it is written."""
    return str(match.groupdict().get("capitals") or match["name"])


def _speaks(match: re.Match[str], names: Counter[str], often: set[str]) -> bool:
    """A name that comes often speaks; so does one in capitals before a colon or a dash, or one that comes twice."""
    name = _name(match)
    beside = match.groupdict().get("mark")
    return _plain(name) in often or (name.isupper() and len(name) > 1 and (beside == ":" or names[_plain(name)] > 1))


def _speeches(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Paragraphs, and lines at which a new speech begins inside one."""
    pieces = []
    for begin, stop in paragraphs(text, start, end):
        cuts = [begin]
        at = text.find("\n", begin, stop)
        while at >= 0:
            if _head(text, at + 1, stop):
                cuts.append(at + 1)
            at = text.find("\n", at + 1, stop)
        pieces += list(pairwise([*cuts, stop]))
    return pieces


def _may_speak(text: str) -> bool:
    """Whether two names begin several paragraphs each, before a stop or a dash: a cheap test of all texts for dialogues."""
    names = Counter(match[1] for match in _SPEAKER_LINE.finditer(text))
    return sum(n >= _OFTEN for n in names.values()) >= 2


def _scene(text: str, blocks: Sequence[tuple[int, int]], speakers: dict[int, re.Match[str]], play: bool) -> list[Edit]:
    edits: list[Edit] = []
    spoken = False
    for start, end in blocks:
        match = speakers.get(start)
        if match is None:
            block = text[start:end].strip()
            if _CURTAIN.match(block):
                edits.append(Edit(start, end, "stage"))
            elif not play:
                continue
            elif not spoken or (block[:1] in "([" and block[-1:] in ")]." and _BRACKET.match(block)):
                edits.append(Edit(start, end, "stage"))  # who is on stage, and where; or what happens between speeches
            else:
                edits += _directions(text, start, end)
            continue
        spoken = True
        direction = "aside" if match.groupdict().get("capitals") else "direction"
        if match[direction].strip():
            edits.append(Edit(match.start(), match.start(direction), "speaker"))
            edits.append(Edit(match.start(direction), match.end(), "stage"))
        else:
            edits.append(Edit(match.start(), match.end(), "speaker"))
        edits += _directions(text, match.end(), end)
    return edits if spoken else []


def _directions(text: str, start: int, end: int) -> list[Edit]:
    """Stage directions in brackets inside a speech: at its head or end, or between sentences, in small letters."""
    edits = []
    for match in _BRACKET.finditer(text, start, end):
        words = match["words"]
        before, after = text[start : match.start()].rstrip(), text[match.end() : end].lstrip(" \t")
        apart = not before or before[-1] in ".!?…;:)" or not after or after[0] in ".\n"
        if (
            apart
            and len(words) <= 160
            and (words[:1].islower() or _STAGE_WORDS.match(words))
            and words[-1:] not in "!?"
        ):
            stop = match.end() + (
                1 if text[match.end() : match.end() + 1] == "." and before and before[-1] in ".!?…" else 0
            )
            left = match.start()
            while left > start and text[left - 1] in " \t":
                left -= 1
            edits.append(Edit(left, stop, "stage"))
    return edits


def _cast(text: str, headings: Sequence[Heading], speech: int) -> list[Edit]:
    """The list of persons before the first act, or before the first speech of a dialogue."""
    acts = ("atto", "scena")
    first = next((heading.start for heading in headings if heading.kind in acts), speech)
    match = next((match for match in _CAST.finditer(text, 0, first) if first - match.start() < 6000), None)
    if match is None:
        return []
    spoken = (h.start for h in headings if match.end() < h.start < first and h.label in _BEFORE_ACTS)
    return [Edit(match.start(), min([first, *spoken]), "other")]
