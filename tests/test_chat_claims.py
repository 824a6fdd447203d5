"""Whatever shape its signs have, a quotation in an answer is looked up; nothing false is shown with a citation."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stilnovo.chat.claims import HELD
from stilnovo.chat.quotes import Quote
from stilnovo.chat.writing import UNVERIFIED, Checker, checked
from stilnovo.library.read import read
from stilnovo.library.records import Passage
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book, VerseLine

TRUE, FALSE = "Aveva venduto la barca al mercante di Levanto", "Nina uccise il mercante nel sonno"
SOURCE = (
    "Capitolo I\n\n" + TRUE + ". Nina non disse nulla a suo padre, e lui restò solo tutta la notte.\n\n"
    "Scese la sera, e 'Ntoni, coi fratelli de' Ferrari, tirò su un po' di rete. Il podestà scrisse al duca: «Signore, il "
    "popolo ha fame». Un assassino passò.\n"
)
CITED = "(Ada Rossi, La barca, cap. I)"
MARKS = [
    "« »", "“ ”", "„ “", "„ ”", "‘ ’", "‚ ‘", "‚ ’", '" "', "' '", "` '", "` `", "`` ''", "» «", "‹ ›", "› ‹", "<< >>", "” ”",
    "’ ’", "&laquo; &raquo;", "&#171; &#xBB;", "&ldquo; &rdquo;", "&quot; &quot;", "「 」", "『 』", "＂ ＂", ",, “", ",, ''",
    "<q> </q>", '<q lang="it"> </q>', "<blockquote> </blockquote>", "* *", "_ _", "** **", "*** ***", "<i> </i>", "<em> </em>",
    "–  –", "—  —", "❝ ❞", "《 》", "❮ ❯", "❛ ❜", "⟪ ⟫", "≪ ≫", "⟨ ⟩", "＇ ＇", "\\enquote{ }", "\\textquote{ }", "<pre> </pre>",
]  # fmt: skip


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    with Library.open(None) as library:
        library.add(Book(Names("La barca", "Ada Rossi"), SOURCE, "barca.txt"))
        yield library


@pytest.fixture(scope="module")
def passages(library: Library) -> list[Passage]:
    return passages_of(library)


def passages_of(library: Library) -> list[Passage]:
    return [p for work in library.works() for s in library.sections(work) for p in library.passages_of(s)]


def wrapped(marks: str, words: str) -> str:
    left, right = marks.rsplit(" ", 1)
    return left + words + (" " if left.endswith(" ") else "") + right


def shown_false(shown: str, quotes: tuple[Quote, ...]) -> None:
    """What holds for an answer whose only quotation is invented."""
    assert [quote.status for quote in quotes] == ["unverified"], shown
    assert UNVERIFIED in shown
    assert "Ada Rossi" not in shown
    assert "P1" not in shown


@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize(
    "key", ["[P1]", "(P1)", "[p1]", "P1", "[P1, P2]", " [P1][P7]", "¹", "[^1]", CITED, ", Ada Rossi, La barca, cap. I"]
)
def test_every_pair_of_marks_claims(library: Library, passages: list[Passage], marks: str, key: str) -> None:
    between = "" if key.startswith((",", "¹", "[^")) else " "
    shown_false(*checked(f"Il testo dice {wrapped(marks, FALSE)}{between}{key}.", passages, library))
    shown, quotes = checked(f"Il testo dice {wrapped(marks, TRUE)}{between}{key}.", passages, library)
    assert shown == f"Il testo dice «{TRUE}» {CITED}."
    assert [quote.status for quote in quotes] == ["verified"]


@pytest.mark.parametrize(
    "layout",
    [
        "Il testo dice:\n> {}\n[P1]",
        "> {}\n\n[P1]",
        "Dice:\n\n> {}\n> — Ada Rossi, *La barca*, cap. I",
        ">> {}\n[P1]",
        "> > {} [P1]",
        "> «{}» [P1]",
        "> *{}*\n>\n> [P1]",
        "Scrive:\n\n    {}\n\n[P1]",
        "Scrive:\n\t{}\n[P1]",
        "```\n{}\n```\n[P1]",
        "~~~text\n{}\n~~~ [P1]",
        "```italian\n{}\n```\n[P1]",
        "Come dice Ada Rossi, *{}*. [P1]",
        "— {} [P1]",
        "Il testo dice:\n— {}\n[P1]",
        "Il testo dice:\n– {} –\n[P1]",
        "«{} [P1]",
        "Dice: “{}\n\n[P1]",
        "Scrive ‘{} [P1].",
        '"{}',
        "[P1] scrive: «{}».",
        "«{}». Così Ada Rossi. [P1]",
        "«{}», come è scritto (Ada Rossi, La barca, cap. I).",
        "«{}»\n— Ada Rossi, La barca",
        "«{}»\n— Ada Rossi",
        "«{}»¹.\n\n¹ Ada Rossi, La barca, cap. I",
        "«{}»[^a].\n\nAltro ancora si legge nelle pagine seguenti.\n\n[^a]: Ada Rossi, La barca, cap. I",
        "«{}»<sup>1</sup>\n\n[1] Ada Rossi, La barca, cap. I",
        "- «{}» [P1]\n",
        "1. **«{}»** [P1]\n",
        "Il passo («{}» [P1]) è noto.",
        "«{} [P1]»",
        "«{} (Ada Rossi, La barca, cap. I)»",
        "«{}»\n\nFonte: Ada Rossi, La barca, cap. I",
        "| «{}» | [P1] |",
        "«{}» **[P1]**",
        "«{}» _(Ada Rossi, La barca)_",
        "> {}\n\n*Ada Rossi, La barca, cap. I*",
        "> {}\n\nAda Rossi, La barca, cap. I",
        'Dice " {} " [P1].',
        "Dice ‘ {} ’ [P1].",
        '“{}" [P1]',
        "Secondo il brano [P1]:\n\n> {}\n",
        "## «{}»\n\n[P1]",
    ],
)  # fmt: skip
def test_every_layout_claims(library: Library, passages: list[Passage], layout: str) -> None:
    shown, quotes = checked(layout.format(FALSE), passages, library)
    shown_false(shown.replace("Così Ada Rossi", "").replace("Come dice Ada Rossi", ""), quotes)
    shown, quotes = checked(layout.format(TRUE), passages, library)
    assert [quote.status for quote in quotes] == ["verified"], shown
    assert f"«{TRUE}» {CITED}" in shown
    assert shown.count("La barca") == 1
    assert "P1" not in shown


@pytest.mark.parametrize(
    "layout",
    [
        'Il testo dice "{}\n{}" [P1].', "Il testo dice «{} / {}» [P1].", "Recita:\n{}  \n{}\n\n[P1]", "Recita:\n\n    {}\n    {}\n\n[P1]",
        "> {}  \n> {}\n\n[P1]", "> {}\n{} [P1]", "Recita così:\n{}\n{}\n[P1]", "```\n{}\n{}\n```\n[P1]", "Leggo: *{}<br>{}* [P1]",
    ],
)  # fmt: skip
def test_verses_over_lines_claim(layout: str) -> None:
    with Library.open(None) as library:
        first, second = "La barca tornò sola sul mare", "e nessuno seppe perché"
        poem = f"{first},\n{second};\nla vela era rotta, la notte era chiara,\nil vento taceva con me."
        verses = [VerseLine(match.start(), match.end(), None) for match in re.finditer(".+", poem)]
        library.add(Book(Names("La barca", "Ada Rossi"), poem, "a", lines=verses))
        passages = passages_of(library)
        shown, quotes = checked(layout.format(f"{first},", second), passages, library)
        assert [quote.status for quote in quotes] == ["verified"], shown
        assert f"«{first}, / {second}» (Ada Rossi, La barca, vv. 1-2)" in shown
        shown, quotes = checked(layout.format(f"{first},", "e ognuno seppe perché"), passages, library)
        assert [quote.status for quote in quotes] == ["unverified"], shown
        assert "(Ada Rossi" not in shown


def test_of_nested_quotations_the_outer_one_counts(library: Library, passages: list[Passage]) -> None:
    shown, quotes = checked(f"Scrive: «Nina uccise tutti e poi disse «{TRUE}» [P1]", passages, library)
    shown_false(shown, quotes)
    shown, quotes = checked(f"Scrive: «Nina uccise tutti e poi disse “{TRUE}”» [P1]", passages, library)
    shown_false(shown, quotes)
    shown, quotes = checked("“Il podestà scrisse al duca: «Signore, il popolo ha fame»” [P1].", passages, library)
    assert [quote.status for quote in quotes] == ["verified"]


def test_each_paragraph_of_a_quotation_is_opened_again(library: Library, passages: list[Passage]) -> None:
    shown, quotes = checked(f"«{FALSE}.\n\n«{TRUE}» [P1].", passages, library)
    assert [quote.status for quote in quotes] == ["unverified", "verified"]
    assert shown.count("Ada Rossi") == 1


@pytest.mark.parametrize(
    "text",
    [
        "L'amico e ’Ntoni, 'Ntoni e i fratelli de' Ferrari tirano un po' di rete.",
        "Padron 'Ntoni vide ch'era tardi, e gli altri de' suoi dormivano.",
        "Negli anni '60 e ’70 c'era un po’ di pace.",
        'Un tubo da 5" e una corda di 12\' e 30".',
        "‘Ntoni dorme; ‘Ntoni sogna.",
        "La *barca* e il _mare_ sono **molto importanti per tutto il racconto**.",
        "Nina – la figlia del vecchio pescatore – non parla.",
        "- primo punto del riassunto\n- secondo punto del riassunto\n* terzo",
        "Il romanzo «La barca» è di Ada Rossi; *La barca* piace, e La barca resta.",
        "Un «assassino» passò.",
        "Si ha 3 << 4 e 5 > 2, a*b*c, nome_di_file_lungo.",
        "```python\nprint('ciao a tutti quanti')\n```",
        "Tre opere:\n\n1. La barca\n2. Il mare\n3. Il vento",
    ],
)
def test_what_is_no_quotation_stays(library: Library, passages: list[Passage], text: str) -> None:
    assert checked(text, passages, library) == (text, ())


def test_short_ones_are_looked_up_or_lose_their_marks(library: Library, passages: list[Passage]) -> None:
    assert checked("Un «drago verde» dorme.", passages, library) == ("Un drago verde dorme.", ())
    assert checked("La «barc» dorme.", passages, library)[0] == "La barc dorme."
    shown_false(*checked("Nina è definita «assassino infame» [P1].", passages, library))
    assert checked("Passa un «assassino» [P1].", passages, library)[0] == "Passa un «assassino»."


def test_a_key_is_a_reference_only_where_nothing_is_quoted(library: Library, passages: list[Passage]) -> None:
    reference = "(cfr. Ada Rossi, La barca, cap. I)"
    assert checked("Nina tace a lungo. [P1]", passages, library)[0] == f"Nina tace a lungo. {reference}"
    assert checked("Nina tace [P1, P9] e aspetta.", passages, library)[0] == f"Nina tace {reference} e aspetta."
    assert checked("Nina tace [P9].", passages, library)[0] == "Nina tace."
    assert checked(f"Dice testualmente {FALSE} [P1].", passages, library)[0] == f"Dice testualmente {FALSE}."
    assert checked(f"Il testo dice: {FALSE} [P1].", passages, library)[0] == f"Il testo dice: {FALSE}."
    shown, _ = checked(f"«{FALSE}». Nina tace a lungo con suo padre [P1].", passages, library)
    assert shown.endswith(f"{UNVERIFIED}. Nina tace a lungo con suo padre {reference}.")
    assert (
        checked("In «La barca» [P1] si parla di mare.", passages, library)[0]
        == f"In «La barca» {reference} si parla di mare."
    )


def test_a_wrong_place_gives_way_to_the_right_one(library: Library, passages: list[Passage]) -> None:
    for wrong in ("(Giovanni Verga, cap. XX)", "(La barca, cap. IX)", "[Ada Rossi, p. 12]", "— Ada Rossi, Il mare"):
        shown, _ = checked(f"«{TRUE}» {wrong}", passages, library)
        assert shown == f"«{TRUE}» {CITED}"
    assert checked(f"«{TRUE}» (bella frase)", passages, library)[0] == f"«{TRUE}» {CITED} (bella frase)"


@pytest.mark.parametrize("mark", ["' '", "‘ ’", "’ ’"])
def test_apostrophes_inside_single_marks_end_nothing(library: Library, passages: list[Passage], mark: str) -> None:
    left, right = mark.split(" ")
    false = "E Nina, coi fratelli de' Ferrari e ’Ntoni, uccise un po' di gente"
    shown_false(*checked(f"Il testo dice {left}{false}{right} [P1].", passages, library))
    true = "e 'Ntoni, coi fratelli de' Ferrari, tirò su un po' di rete"
    shown, quotes = checked(f"Il testo dice {left}{true}{right} [P1].", passages, library)
    assert [quote.status for quote in quotes] == ["verified"], shown


def test_one_speech_follows_another(library: Library, passages: list[Passage]) -> None:
    shown, quotes = checked(f"Dice:\n— {FALSE}.\n— {FALSE}!\n— {FALSE}. [P1]", passages, library)
    assert [quote.status for quote in quotes] == ["unverified"] * 3
    assert shown.count(FALSE) == 3
    assert "Ada Rossi" not in shown


def test_what_is_longer_than_can_be_held_is_checked_in_parts(library: Library, passages: list[Passage]) -> None:
    long = " ".join([FALSE] * (3 * HELD // len(FALSE)))
    shown, quotes = checked(f"Dice: «{long}» [P1]. Fine.", passages, library)
    assert len(quotes) > 2
    assert {quote.status for quote in quotes} == {"unverified"}
    assert "Ada Rossi" not in shown
    assert shown.endswith("Fine.")


@pytest.mark.parametrize("signs", ["\\textit{{{}}}", "[{}]", "{}»", '{}"', "({})", "=={}==", "/{}/", "|{}|", "~{}~"])
def test_no_reference_stands_beside_what_is_enclosed(library: Library, passages: list[Passage], signs: str) -> None:
    assert checked(f"{signs.format(FALSE)} [P1]", passages, library)[0] == signs.format(FALSE)


PIECES = [
    "«", "»", "“", "”", "„", "‘", "’", "'", '"', "``", "''", "<<", ">>", "<q>", "</q>", "<i>", "</i>", "&laquo;", "&raquo;",
    "&", "<", "*", "**", "_", "`", "```\n", "> ", "\n> ", "\n", "\n\n", "\n    ", "— ", " – ", "\n— ", ":\n", "dice: ", "scrive:\n",
    "[P1]", " [P1, P2]", "(P1)", " P1", f" {CITED}", "(", "[", ")", "]", "¹", "[1]", "[^1]", "\n[^1]: Ada Rossi, La barca",
    "<sup>1</sup>", ", Ada Rossi, La barca, cap. I", "\n— Ada Rossi", ". ", ", ", "? ", " ", FALSE, TRUE, "Nina non disse nulla",
    "l'amico", "un po' di", "de' Ferrari", "’Ntoni", "'60", "La barca", "  \n", "\\\n", "brano P1", "…",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(400))
def test_however_it_is_cut_an_answer_reads_the_same(library: Library, passages: list[Passage], seed: int) -> None:
    """Made of anything that quotes or cites, cut anywhere."""
    draw = random.Random(seed)
    text = "".join(draw.choice(PIECES) + draw.choice(["", "", " "]) for _ in range(draw.randrange(2, 25)))
    sizes = [draw.randrange(1, draw.choice([2, 10])) for _ in range(30)]
    whole, quotes = checked(text, passages, library)
    checker, shown, at, turn = Checker(passages, library), "", 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        shown += checker.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    assert (shown + checker.end(), tuple(checker.quotes)) == (whole, quotes)
    for quote in quotes:
        place = whole[quote.answer_start : quote.answer_end]
        assert place.endswith(UNVERIFIED) if quote.status == "unverified" else place == quote.printed()
    bare = re.sub(r"\(cfr\. [^()]*\)", "", whole)
    if not any(quote.sound for quote in quotes) and "Ada Rossi" not in text:
        assert "Ada Rossi" not in bare


@pytest.mark.parametrize(
    "answer",
    [
        f"Si legge {FALSE}:\n[P1]", f"Brano:\n\n{FALSE}\n\n[P1]", f"&gt; {FALSE}\n[P1]", f":::quote\n{FALSE}\n:::\n[P1]",
        f"{FALSE} / e poi fuggì nella notte [P1]", f"Nina venne,\n{FALSE}\n[P1].",
    ],
)  # fmt: skip
def test_nothing_is_cited_that_lines_of_their_own_present(
    library: Library, passages: list[Passage], answer: str
) -> None:
    shown, _ = checked(answer, passages, library)
    assert "Ada Rossi" not in shown and FALSE in shown


def test_a_line_after_a_colon_is_a_quotation_where_a_citation_follows(
    library: Library, passages: list[Passage]
) -> None:
    shown_false(*checked(f"Vi si legge:\n\n{FALSE}\n\n(La barca, cap. I)", passages, library))
    shown, _ = checked(f"Vi si legge:\n\n{TRUE}\n\n(La barca, cap. I)", passages, library)
    assert f"«{TRUE}» {CITED}" in shown
    shown, quotes = checked(f"Vi si legge:\n\n{FALSE}\n\nAltro.", passages, library)
    assert not quotes and UNVERIFIED not in shown


def test_a_word_or_two_are_shown_without_their_sentence(library: Library, passages: list[Passage]) -> None:
    assert checked("L'«assassino» [P1] passa.", passages, library)[0] == "L'«assassino» passa."
    assert "non" in checked("Nina «disse nulla» [P1].", passages, library)[0]


@pytest.mark.parametrize(
    "said", [" – dice Nina – ", ", – disse Nina, – ", " — scrive Ada Rossi — ", ", dice la Rossi, "]
)
def test_who_says_it_may_stand_inside_the_marks(library: Library, passages: list[Passage], said: str) -> None:
    first, rest = TRUE[:25], TRUE[26:]
    shown, (quote,) = checked(f"«{first}{said}{rest}» [P1]", passages, library)
    assert shown == f"«{TRUE}» {CITED}" and quote.status == "repaired"


def test_the_cases(shared_data: Path) -> None:
    cases = shared_data.parent / "cases" / "library"
    if not cases.is_dir():
        pytest.skip("needs the cases beside the data")
    with Library.open(None) as library:
        library.add(read(cases / "quotes_source.txt"))
        passages = passages_of(library)
        for line in (cases / "quotes.jsonl").read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            if case["how"] == "answer":
                shown, quotes = checked(case["claim"], passages, library)
                assert [quote.status for quote in quotes] == ["unverified"], case
                assert UNVERIFIED in shown
                assert "Autore Uno" not in shown
                assert "[P" not in shown
