"""The signs of quotations: pairs of marks, apostrophes that are none, words that announce, lines of their own kind.

Every mark also counts as HTML's entity (&laquo; &#171;). The lists of words are Italian, with a few English ones.
"""

from __future__ import annotations

import re
from html.entities import html5


def forms(marks: str) -> str:
    """The pattern of some marks, as characters or as HTML's entities."""
    names = [entity.rstrip(";") for entity, char in html5.items() if char in marks and entity.endswith(";")]
    names += [form for mark in marks for form in (f"#{ord(mark)}", f"#x0*{ord(mark):x}")]
    return rf"(?:[{re.escape(marks)}]|&(?i:{'|'.join(sorted(names, key=len, reverse=True))});)"


#: LaTeX's environments for quotations.
_QUOTED_PLACE = r"(?:quot(?:e|ation)|displayquote|verse|citazione)"
#: Pairs: opening pattern, closing pattern, whether opening and closing can be told apart (and so be nested).
PAIRS: dict[str, tuple[str, str, bool]] = {
    "«": (forms("«"), forms("»"), True),
    "»": (forms("»"), forms("«"), True),
    "“": (forms("“‟❝〝"), forms("”❞〞"), True),
    "„": (forms("„"), rf"(?:{forms('“”')}|''|\")", False),
    "”": (forms("”"), forms("”"), False),
    '"': (forms('"＂″'), forms('"＂″'), False),
    "‹": (forms("‹"), forms("›"), True),
    "›": (forms("›"), forms("‹"), True),
    "<<": (r"<<(?!<)", r">>", True),
    "``": (r"``(?!`)", r"(?:''|``)", False),
    "''": (r"''", r"''", False),
    ",,": (r",,", rf"(?:''|{forms('“”')}|\")", False),
    "「": ("[「『《〈❮⟪≪⟨❛]", "[」』》〉❯⟫≫⟩❜]", True),
    "\\": (r"\\(?:enquote|textquote)\*?\{", r"\}", False),
    "\\b": (rf"\\begin\{{{_QUOTED_PLACE}\}}", rf"\\end\{{{_QUOTED_PLACE}\}}", True),
    "<q": (r"<(?i:q)\b[^<>]{0,200}>", r"</(?i:q)\s*>", True),
    "<b": (r"<(?i:blockquote|pre)\b[^<>]{0,200}>", r"</(?i:blockquote|pre)\s*>", True),
}
OPENING = {kind: re.compile(opening) for kind, (opening, _, _) in PAIRS.items()}
STOPS = {
    kind: re.compile(rf"(?P<close>{closing})|(?P<open>{opening})|(?P<blank>\n[ \t]*\n\s*)")
    for kind, (opening, closing, _) in PAIRS.items()
}
TAG = re.compile(
    r"<(?P<tag>(?i:i|em|b|strong|cite))\b[^<>]{0,80}>(?P<inner>(?:[^<>]|<(?i:br)\s{0,3}/?>){1,600})</(?P=tag)\s*>"
)
TAG_BEGUN = re.compile(
    r"<(?:/?[a-zA-Z]{0,10}(?:\s[^<>]{0,200})?)?\Z|"
    r"<(?i:i|em|b|strong|cite)\b[^<>]{0,80}>(?:[^<>]|<(?i:br)\s{0,3}/?>){0,600}(?:<[^<>]{0,14})?\Z"
)
ENTITY_BEGUN = re.compile(r"&#?\w{0,12}\Z")
#: Single marks: what closes each.
SINGLE = {"‘": "’'", "‛": "’'", "'": "'’", "’": "’'", "‚": "‘’'", "`": "'`’´", "´": "´'’", "＇": "＇'’"}
SINGLE_FORMS = re.compile(forms("'’‘‚`´‛＇"))
#: Words that an apostrophe opens: ’Ntoni, 'l, 'sto, '60; elsewhere it opens a quotation.
APHAERESIS = re.compile(
    r"(?:[nmNM][^\W\daeiouàèéìòù]\w*|[aeioulnu](?!\w)|st[aoei]\b|gn(?:or|ur)\w*|\d{2,4}\b|(?i:tis|twas|em|cause)\b)"
)
#: Words that an apostrophe ends: de', po', piè', fra'; there it closes no quotation while another may.
CLIPPED = re.compile(
    r"(?<!\w)(?:po|mo|de|da|a|e|i|ne|co|be|ca|fa|va|di|sta|to|vo|vuo|pie|que|su|tra|fra|me|se|pe|ve|ma|bra|o|die|son|un|"
    r"cotest|quest|pare|sie|altr|tut|mie|tuo|suo|cape|anima|figliuo|lacciuo|capei|tai|ta|qua|mar|lor|frate)\Z", re.I,
)  # fmt: skip
BLANK = re.compile(r"\n[ \t]*\n")
SAYING = (
    r"(?:dic[eo]\w*|disse\w*|dett[aoei]|scriv\w+|scriss\w+|scritt[aoei]|recit\w+|legg(?:e|iamo|ono|ere)|lesse|afferm\w+|rispon\w+|rispos\w+|"
    r"dichiar\w+|defini\w+|chiam\w+|cit(?:a|o|ano|ando|azione|azioni|ato|are)|paro(?:la|le)|vers[oi]|passo|passi|brano|frase|frasi|incipit|"
    r"esclam\w+|aggiun\w+|racconta\w*|sentenzia|osserva\w*|ricorda\w*|comincia\w*|inizia\w*|conclude\w*|cant[aò]\w*|testo|"
    r"says?|said|writes?|wrote|reads?|quotes?|words?)"
)
INTRODUCED = re.compile(
    rf"(?:\b{SAYING}(?:\s+(?:che|così|come|con|di|in|questo|testualmente|infatti))?(?:(?:\s+(?-i:[A-ZÀ-Ý])\w+){{1,3}},)?\s*[,:—–-]?|:[*_]{{0,3}})"
    r"\s*[(\[]?\s*\Z",
    re.I,
)
#: *dice:*, *scrive così:*
ANNOUNCED = re.compile(rf"\b{SAYING}\b[^\n:]{{0,60}}:", re.I)
LIST = re.compile(r"\s*(?:[-*+•·]\s|\d{1,3}[.)]\s|#{1,6}\s|\||>|```|~~~)")
QUOTED_LINE = re.compile(r"[ ]{0,3}>")
FENCE = re.compile(r"[ ]{0,3}(?P<fence>`{3,}|~{3,})[ \t]*(?P<name>[^\n`]*)")
#: Names of fenced text that is code.
CODE = frozenset([
    "python", "py", "js", "javascript", "ts", "typescript", "json", "jsonl", "yaml", "yml", "html", "xml", "css", "bash", "sh", "shell",
    "console", "c", "cpp", "c++", "java", "go", "rust", "ruby", "php", "sql", "r", "toml", "ini", "diff",
])  # fmt: skip
EMPHASIS = re.compile(r"(?<!\w)[*_]{1,3}(?=\S)|(?<=\S)[*_]{1,3}(?!\w)")
LINE_MARK = re.compile(r"(?m)^[ \t]*(?:>[ \t]?)+|[ \t]*(?:\\|<br\s*/?>)[ \t]*$")
#: Where something may begin: a mark, a line of its own kind.
STARTS = re.compile(
    rf"{forms('«»“”„‟‹›❝〝＂″「『《〈❮⟪≪⟨❛‘’‚‛´＇')}|[\"'`&<*_\\]|,(?:,|\Z)|(?<=[\s(])[—–](?=\s|\Z)|:[ \t]*(?=\n|\Z)|"
    r"(?m:^)(?:[ ]{0,3}>|[ ]{0,3}~|[ \t]*[—–―]|(?:[ ]{4}|[ ]{0,3}\t)[ \t]*\S)"
)  # fmt: skip
