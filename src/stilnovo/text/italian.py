"""Process Italian, old and new: folding, words, sentences, stems.

Unusual here: words are cut at elisions on both kinds of apostrophe (dell’amore gives *amore*), accents never decide
(perché = perchè = perche' = perche), and every cut keeps its place in the original text, because a quotation has to be
found again letter by letter. Stems are Snowball's Italian ones, taken after folding: Snowball alone leaves typographic
apostrophes and accents where they are; old spellings become today's first (*core*, *foco*, *virtute*, *etade*, *studj*):
a word is exchanged only where its old form is no other common word of today, so the list is short and closed.
`analyse` gives a whole passage's words at once, without places, at several megabytes a second.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import Stemmer

_APOSTROPHES = dict.fromkeys(map(ord, "’‘ʼʹ′＇`´‛"), "'")
_INVISIBLE = dict.fromkeys([0x00AD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF])
_LETTERS = {ord("æ"): "ae", ord("œ"): "oe", ord("ß"): "ss", ord("ø"): "o", ord("ſ"): "s"}
_FOLDING = {**_APOSTROPHES, **_INVISIBLE, **_LETTERS}
_FINAL_APOSTROPHE = re.compile(r"(?<=[aeiou])'(?![^\W_])")
# Cyrillic and Greek letters that look like Latin ones: exchanged only inside a word that has Latin letters too.
_LOOKALIKE = dict(zip(map(ord, "аеосрухіјѕһԁԛԝαορινκ"), "aeocpyxijshdqwaopivk", strict=True))
_MIXED = re.compile(r"(?=\w*[a-z])(?=\w*[\u0370-\u03ff\u0400-\u052f])\w+")
# A letter or digit, then letters, digits, combining accents, soft hyphens and zero-width characters.
_INSIDE = r"\u0300-\u036f\u00ad\u200b-\u200d\u2060\ufeff"
_WORD = re.compile(rf"[^\W_]+(?:[{_INSIDE}]+[^\W_]*)*")
_APOSTROPHE = frozenset("'") | {chr(code) for code in _APOSTROPHES}


def listed(words_in_a_row: str) -> frozenset[str]:
    """A set of words written in a row."""
    return frozenset(words_in_a_row.split())


#: What stands before an apostrophe and carries no meaning of its own.
ELIDED = listed(
    "l un d s m t v c n ch gl dell all nell sull dall coll quell quest bell com cos dov ov anch quand sott dev"
)

#: Function words and interrogatives, folded: what a question is made of besides what it asks about.
STOP_WORDS = listed(
    """
    il lo la i gli le un uno una l d di a da in con su per tra fra del dello della dei degli delle dell al allo alla ai
    agli alle all dal dallo dalla dai dagli dalle dall nel nello nella nei negli nelle nell sul sullo sulla sui sugli
    sulle sull col coi e ed o od ma se non che ch ne ci vi si mi ti c v s m t n anche pure poi piu meno molto tanto
    cosi come quando dove donde ove chi cosa quale quali quanto quanta quanti quante perche cui qual dov cos com quel
    quello quella quelli quelle quei quegli quest questo questa questi queste cio io tu egli ella esso essa essi esse
    noi voi loro lui lei me te mio mia miei mie tuo tua tuoi tue suo sua suoi sue nostro nostra nostri nostre vostro
    vostra vostri vostre e sono sei siamo siete era erano ero fu furono fui essere stato stata stati state sia ha ho
    hai hanno abbiamo avete aveva avevano avere avuto ebbe fa fare del sul qui li ecco gia mai sempre ancora dunque
    forse quindi infatti mentre dopo prima verso presso senza contro
    sotto sopra dentro fuori durante secondo davanti dietro altro altra altri altre tutto tutta tutti tutte
    stesso stessa stessi stesse alcuni alcune ogni qualche nessuno nessuna
    """
)

_ABBREVIATIONS = listed(
    """
    sig sigg dott dottssa prof avv ing arch rag geom cav comm on mons rev s ss d st fr cap pag pagg p pp vol voll n nn
    num art artt fig figg vv v cfr es ecc etc ca vs mss edd trad tom lib op cit ibid id sec a.c d.c v.e v.s s.e v.m ill
    illmo ecc.ma e.v dr mr mrs gen card egr tav
    """
)
# These end a sentence as often as not: they only hold it together before a small letter.
_LOOSE = listed("ecc etc cit id ibid v n p")
_STOP = re.compile(r"(?<![.!?…])[.!?…]++[»”\"’')\]]*+(?=\s)")
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_LAST_WORD = re.compile(r"[^«“\"(\['’‘]*['’]?$")  # after opening marks and elisions: *avv* in *(dell'avv*
_OPENING = "«“\"‘'([—–-―‒ \t\n"

_stemmer = Stemmer.Stemmer("italian", 0)


class Word(NamedTuple):
    """A word and its place: `form` is folded, `text[start:end]` the original; `elided` marks *dell* in *dell'amore*."""

    form: str
    start: int
    end: int
    elided: bool


def fold(text: str) -> str:
    """Fold a text: lower case, no accents, plain apostrophes; `perche'` and `perché` become `perche`. The length may change."""
    plain = _unmarked(text)
    return _FINAL_APOSTROPHE.sub("", plain) if "'" in plain else plain


def _unmarked(text: str) -> str:
    """Fold a text, every apostrophe left."""
    plain = unicodedata.normalize("NFKD", text.lower().translate(_FOLDING))
    if not plain.isascii():
        plain = "".join(c for c in plain.translate(_FOLDING) if not unicodedata.combining(c))
        if not plain.isascii():
            plain = _MIXED.sub(lambda word: word.group().translate(_LOOKALIKE), plain)
    return plain


_fold_word = lru_cache(maxsize=200_000)(fold)


# Old spellings and modern ones, folded; for the stemmed index only.
_LISTED = """
core=cuore cori=cuori foco=fuoco fochi=fuochi loco=luogo lochi=luoghi giuoco=gioco giuochi=giochi giuocare=giocare
giuocava=giocava novo=nuovo nova=nuova novi=nuovi nove=nuove bono=buono bona=buona boni=buoni bone=buone omo=uomo
omini=uomini homo=uomo homini=uomini move=muove movono=muovono more=muore pote=puo puote=puo vole=vuole rota=ruota
rote=ruote scola=scuola scole=scuole figliuolo=figliolo figliuola=figliola figliuoli=figlioli figliuole=figliole
spagnuolo=spagnolo spagnuola=spagnola spagnuoli=spagnoli lenzuolo=lenzolo pruova=prova pruove=prove truova=trova
truovano=trovano brieve=breve brievi=brevi priego=prego prieghi=preghi priega=prega niego=nego niega=nega
leggiero=leggero leggiera=leggera leggieri=leggeri leggiere=leggere dilicato=delicato dilicata=delicata
dilicati=delicati disio=desiderio disii=desideri desio=desiderio desire=desiderio disire=desiderio spene=speranza
speme=speranza alma=anima alme=anime augello=uccello augelli=uccelli angiolo=angelo angioli=angeli dimonio=demonio
dimoni=demoni imperadore=imperatore imperadori=imperatori ambasciadore=ambasciatore ambasciadori=ambasciatori
servidore=servitore servidori=servitori peccadore=peccatore amadore=amatore lagrima=lacrima lagrime=lacrime
lagrimare=lacrimare lagrimoso=lacrimoso secreto=segreto secreta=segreta secreti=segreti sagro=sacro sagra=sacra
lito=lido liti=lidi etterno=eterno etterna=eterna etterni=eterni maraviglia=meraviglia maraviglie=meraviglie
maraviglioso=meraviglioso maravigliosa=meravigliosa maravigliato=meravigliato giovine=giovane giovini=giovani
giovinetto=giovanetto giovinetta=giovanetta danaro=denaro danari=denari quistione=questione quistioni=questioni
eguale=uguale eguali=uguali obbedire=ubbidire obbediva=ubbidiva stromento=strumento stromenti=strumenti
istrumento=strumento istrumenti=strumenti romore=rumore romori=rumori nimico=nemico nimici=nemici nimica=nemica
inimico=nemico inimici=nemici serocchia=sorella sirocchia=sorella veggio=vedo veggo=vedo deggio=devo debbo=devo
dicea=diceva dicean=dicevano avea=aveva avean=avevano aveano=avevano dovea=doveva potea=poteva poteano=potevano
volea=voleva sapea=sapeva vedea=vedeva facea=faceva parea=pareva stridea=strideva credea=credeva tenea=teneva
vivea=viveva ridea=rideva piangea=piangeva correa=correva parean=parevano
virtute=virtu virtuti=virtu servitute=servitu gioventute=gioventu cittate=citta cittati=citta pietate=pieta
libertate=liberta veritate=verita bontate=bonta beltate=belta maestate=maesta umilitate=umilta umiltate=umilta
caritate=carita dignitate=dignita povertate=poverta nobilitate=nobilta nobiltate=nobilta etate=eta unitate=unita
trinitate=trinita onestate=onesta volontate=volonta santitate=santita felicitate=felicita castitate=castita
"""
_TODAY = dict(pair.split("=") for pair in _LISTED.split())
_ADE = re.compile(r"(?<=[a-z]t)([au])d[ei]$")


def modern(word: str) -> str:
    """Modernise a folded word: *foco* → *fuoco*, *cittade* → *citta*, *notajo* → *notaio*; others unchanged."""
    if "j" in word and len(word) > 2:
        word = word.replace("j", "i")
    if word.endswith(("tade", "tude", "tadi", "tudi")):
        return _ADE.sub(r"\1", word)
    return _TODAY.get(word, word)


def tokens(text: str) -> list[Word]:
    """Split a text into words with offsets; elided articles and prepositions are included and marked."""
    words = []
    for match in _WORD.finditer(text):
        form = _fold_word(match.group())
        end = match.end()
        elided = form in ELIDED and text[end : end + 1] in _APOSTROPHE and text[end + 1 : end + 2].strip() != ""
        words.append(Word(form, match.start(), end, elided))
    return words


def words(text: str) -> list[str]:
    """Split into folded words without elided articles and prepositions: *l'amore*, *dell’amore* give `amore`."""
    return [token.form for token in tokens(text) if not token.elided]


@lru_cache(maxsize=400_000)
def stem(word: str) -> str:
    """The Snowball stem of one word, folded and in today's spelling first: *amori*, *Amore* → `amor`."""
    return str(_stemmer.stemWord(modern(_fold_word(word))))


class _Stems(dict[str, str]):
    """Cache from words of folded text (with an eliding apostrophe) to their stems."""

    def __missing__(self, raw: str) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        bare = raw.rstrip("'")
        self[raw] = form = "" if bare != raw and bare in ELIDED else stem(bare)
        return form


# For the few letters and signs that Italian has, replacing one by one is faster than a table.
_COMMON = tuple(zip("’‘àèéìíòóùúáâäëïîôöüûç«»“”„—–―…•¡¿°\u00a0", "''aeeiioouuaaaeiioouuc" + "." * 14, strict=True))
_ASCII_WORD = re.compile(r"[a-z0-9]+(?:'(?=\S))?")
_ANY_WORD = re.compile(r"[^\W_]+(?:'(?=\S))?")
_REMEMBERED = 500_000
_stems = _Stems()


def analyse(text: str) -> tuple[str, str]:
    """Analyse a text for the index: the folded text, and the stems of its words without elided articles, joined by spaces.

    The words are those that `tokens` finds, in one pass over the folded text and with every form looked up once. The
    folded text is to be cut at all that is neither letter nor digit.
    """
    plain = text.lower()
    for letter, ascii_letter in _COMMON:
        plain = plain.replace(letter, ascii_letter)
    if plain.isascii():
        forms = _ASCII_WORD.findall(plain)
    else:
        plain = _unmarked(text)
        forms = _ANY_WORD.findall(plain)
    return plain, " ".join(map(_stems.__getitem__, forms))


def content_words(text: str) -> list[str]:
    """Content words of a question: no function words, no interrogatives, each once, in order."""
    return list(
        dict.fromkeys(word for word in words(text) if word not in STOP_WORDS and (len(word) > 1 or word.isdigit()))
    )


def _ends_sentence(text: str, start: int, at: int) -> bool:
    """Whether the punctuation `text[start:at]`, followed by white space, closes a sentence."""
    following = text[at : at + 12].lstrip(_OPENING)
    if following[:1].islower():
        return False
    if text[start] != "." or text[start + 1] in ".!?…":
        return True
    before = text[max(0, start - 24) : start].split()
    last = before[-1] if before and not text[start - 1].isspace() else ""
    if len(last) > 12:  # with opening marks and dots, longer than any abbreviation
        return True
    last = _LAST_WORD.search(last).group()  # type: ignore[union-attr]  # it matches the empty string too
    if len(last) == 1 and last.isupper() and last not in "IVX":
        return False
    word = _fold_word(last).strip("'.,;:-—–")
    return word not in _ABBREVIATIONS or word in _LOOSE


def sentences(text: str) -> list[tuple[int, int]]:
    """Split into sentences: spans `(start, end)` without the white space around them; together they hold every letter.

    A blank line always ends a sentence. Titles (*sig.*, *dott.*), initials and a dash with a small letter after «?»
    (the narrator going on: — Che fai? — disse) do not.
    """
    cuts: list[int] = [match.end() for match in _PARAGRAPH.finditer(text)]
    cuts += [stop.end() for stop in _STOP.finditer(text) if _ends_sentence(text, stop.start(), stop.end())]
    pieces = [(start, text[start:end]) for start, end in pairwise([0, *sorted(cuts), len(text)])]
    return [
        (start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip()))
        for start, piece in pieces
        if piece.strip()
    ]
