"""What can be asked of a library: a table of intents, each a pattern over the masked question, and what answers it.

A question fits an intent where the pattern is found, a name of the kind that it needs is there, and no other word is left but those
that talk of books is made of: see `chat/library_questions.py`. A new intent is one row here and one function.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from stilnovo.chat import from_records, from_sections
from stilnovo.chat.extracted import Extract
from stilnovo.chat.from_records import Inquiry
from stilnovo.chat.from_sections import PART
from stilnovo.text.italian import listed, stem

BOOK = "(?:oper[ae]|libr[oi]|romanz[oi]|test[oi]|titol[oi]|volum[ei]|novell[ae]|raccont[oi]|poesi[ae]|poem[ai]|commedi[ae]|tragedi[ae])"
WRITER = "(?:autor[ei]|autric[ei]|scrittor[ei]|scrittric[ei]|poet[ai]|poetess[ae]|narrator[ei]|romanzier[ei])"
_PLACE = "(?:biblioteca|catalogo|scaffale|collezione)"
_LINES = "(?:pagin[ae]|fras[ei]|parol[ae]|righ[ae]|vers[oi]|period[oi])"
_CENTURIES = " secolo duecento trecento quattrocento cinquecento seicento settecento ottocento novecento"
_CENTURY = f"(?:{'|'.join(_CENTURIES.split())})"
_MEASURED = r"piu (?:lung|brev|cort|grand|piccol)\w*"
_AGED = r"piu (?:antic|vecchi|recent|nuov|modern|lontan)\w*"
_LIST = r"(?:quali|quale|che|quant[eioa]|qualche|altr[ieo]|elenc\w*|list[ae]|tutt[ieo]|mostra\w*|dammi|nomina\w*)"
_THERE = r"(?:hai|avete|possiedi|possedete|c e|ci sono|esiste|esistono|trovo|posso leggere|posso trovare)"
#: Words that questions about books are made of, whatever they ask.
FILLER = frozenset(
    stem(word)
    for word in listed(
        """
        romanzo romanzi opera opere libro libri testo testi volume volumi titolo titoli novella novelle racconto racconti poesia poesie
        poema commedia tragedia autore autrice autori scrittore scrittrice scrittori capitolo capitoli brano raccolta raccolte
        biblioteca catalogo scaffale collezione archivio elenco lista scheda sai sapete sapresti dire dirmi dimmi ditemi vorrei voglio
        sapere puoi potresti potete favore grazie prego conosci ricordi avete possiedi possiede possedete contiene conservi tieni
        presente presenti disponibile disponibili leggere letto trovo trovare trova trovano consultare totale complessivamente numero
        italiano italiana italiani famoso famosa celebre intitolato intitolata chiamato chiamata qualcosa qualche nulla niente scritto
        scritta scritti scrisse scritte fammi dammi fai ha esiste esistono ebbe
        """
    )
)
#: Ways to open a question that ask nothing.
OPENER = re.compile(
    r"\b(?:mi|ci) (?:sai |puoi |potresti |sapresti |sapete )?(?:dici|dire|dite|indichi|elenchi|mostri|fai|ricordi|trovi|daresti|dai)\b"
)


Answerer = Callable[[Inquiry], Extract | None]


class Intent(NamedTuple):
    """A pattern over the masked question, the kinds of names that it needs (`-`: no author, work or section is named), its answer,
    and words of its own."""

    pattern: re.Pattern[str]
    needs: str
    answer: Answerer
    own: frozenset[str]


def _row(needs: str, answer: Answerer, own: str, *patterns: str) -> Intent:
    return Intent(re.compile("|".join(patterns)), needs, answer, frozenset(stem(word) for word in own.split()))


_SHOWS = "inizio fine frase frasi parola parole riga righe verso versi incipit finale conclusione storia leggi"
#: The first that fits answers.
INTENTS = (
    _row(
        "WP", from_sections.how_many, "diviso divisa divide composto composta suddiviso suddivisa conta comprende formato formata articola",
        rf"\bquant[eioa] (?:sono |ci sono )?(?:i |le |gli )?{PART}\b", r"\bquanto e divis",
    ),
    _row("W", from_sections.extreme_section, "", rf"\b{PART} {_MEASURED}"),
    _row(
        "W", from_records.how_long, "lungo lunga pagine parole caratteri",
        r"\bquant[oe]? (?:e )?lung[oa]\b", r"\bquant[ei] (?:pagine|parole|caratteri)\b",
    ),
    _row(
        "S", from_sections.title_of, "porta intestazione",
        r"\bcome si (?:intitol|chiam)\w+", r"\btitol[oi]\b", r"\bche nome ha\b", r"\bintitolat[oa]\b", r"^(?:qual|quale) e S\b",
    ),
    _row(
        "T", from_sections.where_is, "contenuto contenuta compare sta parte intitola intitolato",
        rf"\b(?:in|a) (?:che|quale|quali) (?:{BOOK}|{PART}|raccolta)\b", r"\bdove (?:si trova|sta|e|leggo|posso leggere)\b",
        rf"\b(?:quale|che|qual e|quale e) (?:il )?(?:{PART}|numero)\b",
    ),
    _row(
        "W", from_sections.index_of, "fammi mostrami dammi",
        r"\b(?:titoli|elenc\w*|lista|come si (?:intitolano|chiamano)|quali sono) (?:titoli |i |le |gli )*"
        rf"(?:de[il] |delle |degli |di )*{PART}\b",
        r"\bindice\b", r"\bsommario\b",
    ),
    _row(
        "W", from_records.who_wrote, "",
        r"^(?:e |ma )?W (?:e|sono|fu|furono|sarebbe)(?: stat[oaie])?(?: scritt[oaie]| un \w+| oper[ae])* (?:di|da) A\b",
        r"^(?:e vero che|e|sono)\b(?=.*\b(?:di|da) A\b)",
        r"\bA (?:ha scritto|scrisse|e l autore di|e l autrice di) W",
        r"\bA (?:a scrivere|ad aver scritto|a comporre) W",
    ),
    _row(
        "WT", from_records.who_wrote, "nome attribuito attribuita appartiene composto deve",
        r"\bchi (?:l |lo |la )?(?:ha |abbia |aveva )?(?:scritt|scriss|scriv|compos|pubblic|firm)\w*", rf"\b{WRITER}\b", r"\bdi chi\b",
        r"\b(?:da|a) chi (?:e|fu|si deve|dobbiamo|va|appartiene)\b",
    ),
    _row(
        "W", from_records.of_what_year,
        "anno uscito uscita usci pubblicato pubblicata pubblico pubblicazione stampato stampata apparve apparso edito edita composto "
        "composta compose risale luce vide venne prima volta edizione uscirono",
        r"\b(?:che|quale|qual|l) ?anno\b", r"\bquando\b", r"\bdata di\b", r"\bche data\b", r"\bquanti anni ha\b",
    ),
    _row(
        "-", from_records.most_represented, "rappresentato rappresentata maggior maggiore",
        rf"\b{WRITER}\b(?=.*\b(?:piu|maggior\w*|soprattutto)\b)", rf"\bchi\b(?=.*\bpiu {BOOK})",
    ),
    _row(
        "-", from_records.all_authors, "nomi diversi",
        rf"\b(?:{_LIST}|chi sono|nomi)\b(?=.*\b{WRITER}\b)", r"\bdi chi (?:hai|ci sono|avete|possiedi)",
    ),
    _row(
        "A-", from_records.extreme_work, "lungo breve corto antico vecchio recente nuovo moderno lontano nel tempo",
        rf"\b(?:{BOOK}|quale|qual e|cosa)\b(?=.*\b(?:{_MEASURED}|{_AGED}))", rf"\b(?:{_MEASURED}|{_AGED}) {BOOK}",
    ),
    _row(
        "WTSP", from_sections.beginning, _SHOWS,
        r"\bcome (?:comincia|inizia|si apr|attacca|principia|parte)\w*", rf"\bprim[aeio] (?:\w+ )?{_LINES}\b",
        rf"\bcon (?:quale|quali|che) {_LINES} (?:si apr|comincia|inizia|attacca)\w*",
        rf"\b(?:inizial[ei] {_LINES}|{_LINES} inizial[ei])\b", r"\bincipit\b", r"\binizio\b", r"\bprincipio\b",
    ),
    _row(
        "WTSP", from_sections.end, _SHOWS,
        r"\bcome (?:finisc|termina|si conclud|si chiud|va a fini|conclud)\w*", rf"\b(?:ultim[aeio]|final[ei]) (?:\w+ )?{_LINES}\b",
        rf"\bcon (?:quale|quali|che) {_LINES} (?:si chiud|finisc|termina|si conclud)\w*",
        rf"\b{_LINES} final[ei]\b",
        r"\bfinale\b",
        r"\bexplicit\b",
        r"\b(?:fine|conclusione) di\b",
    ),
    _row(
        "WTS", from_sections.reading, _SHOWS + " intero intera completo sonetto lettera canto capitolo",
        r"\b(?:legg|recita|trascriv|mostra|cita|riporta)\w*", r"\bfammi (?:leggere|vedere|sentire)\b", r"\bdammi\b",
        r"\btesto (?:di|complet\w+|integral\w+)\b",
    ),
    _row(
        "WT", from_sections.content, "parla parlano tratta racconta narra storia spiegami breve",
        r"\b(?:che cosa|cosa|che) (?:parla|tratta|racconta|narra|succed|accad)\w*", r"\b(?:riassum|riassunt|sintetizz)\w+",
        r"\bche (?:libro|romanzo|opera|novella|poesia) e\b", r"\b(?:trama|sintesi|argomento|contenuto|parlami|raccontami|che storia)\b",
    ),
    _row("A", from_records.who_is, "", r"^(?:e )?(?:mi )?(?:sai |puoi )?(?:dirmi |dire )?chi (?:e|era|fu|sono|e stat[oa])\b"),
    _row(
        "W", from_records.is_there, "cosa libro",
        rf"^(?!.*\baltr)(?:e )?(?:{_THERE}|e presente|sono presenti|si trova|si puo leggere|conosci|ce l hai|ci sarebbe)\b",
        rf"\b(?:in|nella|la) {_PLACE}\b", r"\b(?:l|ce l) hai\b",
    ),
    _row(
        "AY", from_records.which_works,
        "uscite usciti uscirono usci apparve pubblicate pubblicati pubblicato apparsi stampati prima dopo anno secolo composti "
        "cosa altro altri risalgono data datate anni fammi oltre" + _CENTURIES,
        rf"\b(?:{_LIST}|{_THERE})\b(?=.*\b(?:{BOOK}|di)\b)",
        r"\b(?:cosa|qualcosa|qualche cosa|nulla|niente|altro)\b",
        rf"\b{BOOK} (?:di|da|del)\b",
        r"\bbibliografia\b", r"\b(?:che|cosa) (?:ha|abbia|aveva) (?:scritto|pubblicato)\b",
    ),
    _row(
        "-", from_records.which_works,
        "dentro cosa secolo fammi" + _CENTURIES,
        rf"\b(?:{_LIST}|{_THERE}|cosa|titoli)\b(?=.*\b(?:{BOOK}|{_PLACE}|{_CENTURY})\b)", rf"\bcosa (?:{_THERE}|contiene)\b",
    ),
)  # fmt: skip
