"""The language of a text, told by its letters and function words: for the form of a model's answer, and for pages and instructions.

Unusual: no model of letter sequences. Thirty languages are told apart by script, and those of one script by which one's function
words a text has; a text of a few words can leave that open. It is the same on every machine and run.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Name of a script in Unicode → languages written in it → function words (none where it is the only one).
_LANGUAGES = {
    "LATIN": {
        "it": "il lo gli le un uno una di del della dei delle degli che è non con sono nel nella più anche questo questa si da dal"
        " al alla ai su sul tra fra ma se quando dove perché molto essere ha hanno può suo sua loro cui",
        "en": "the of and to is that it for are with as this be you your an can by from was were has have not they their there"
        " which what when will would should these those its at",
        "es": "el los las un una de del que es no con son en por para más también este esta y o se su al lo como pero muy ser ha"
        " han puede cuando donde porque fue",
        "pt": "o os um uma de do da dos das que é não com são no na em por para mais também este esta e se seu sua ao à como mas"
        " muito ser foi pode quando onde porque você",
        "fr": "le les un une de du des que est ne pas avec sont dans en par pour plus aussi ce cette et se son sa au aux comme mais"
        " très être a ont peut quand où parce il elle je nous vous",
        "de": "der die das ein eine und ist nicht mit sind im in von für mehr auch dieser diese sich zu auf als aber sehr sein hat"
        " haben kann wenn wo weil es den dem ich wir sie",
        "pl": "i w na z do się nie jest to że jak o po dla od przez być są ale więcej także ten ta który która może gdy gdzie",
        "vi": "và của là các có cho trong được không một với này những khi đã để người từ như cũng tôi bạn về ra",
        "sw": "na ya wa kwa ni katika za la kuwa hii hiyo au cha pia kama lakini si sana yake wake watu",
        "fi": "ja on ei että se hän mutta kuin myös ovat tämä niin tai kun joka oli olla sekä voi hyvin minä sinä",
    },
    "CYRILLIC": {
        "ru": "и в не на что с по это как он она они мы вы к из у за для от но же был была быть или все так его ее",
        "uk": "і в не на що з по це як він вона вони ми ви до із у за для від але та є був була бути або все так його її",
        "bg": "и в не на че с по това как той тя те ние вие към от за но е беше да се си са или всички така му което",
    },
    "ARABIC": {
        "ar": "في من على إلى أن هذا هذه التي الذي عن مع كان لا ما هو هي أو ذلك كل بعد لم و",
        "fa": "که از به است در را این با برای آن یک می های تا بر شود بود هم یا خود و",
        "ur": "ہے کے کی میں کا اور سے کو ہیں نے پر یہ وہ کہ ایک تھا لیے بھی کر جو",
    },
    "DEVANAGARI": {
        "hi": "है के में की का और को से हैं ने पर यह वह कि एक था लिए भी कर जो नहीं",
        "mr": "आहे आणि च्या मध्ये हा ही हे ते तो एक आहेत या व नाही होते करून साठी वर की ती",
        "ne": "छ को मा र हो लाई यो त्यो एक छन् गर्न पनि थियो हुन्छ भने गरेको छैन बाट का",
    },
    "BENGALI": {"bn": ""}, "THAI": {"th": ""}, "TAMIL": {"ta": ""}, "TELUGU": {"te": ""}, "HANGUL": {"ko": ""},
    "HEBREW": {"he": ""}, "KANNADA": {"kn": ""}, "GUJARATI": {"gu": ""}, "GURMUKHI": {"pa": ""}, "MALAYALAM": {"ml": ""},
    "HIRAGANA": {"ja": ""}, "CJK": {"zh": ""}, "GREEK": {"el": ""},
}  # fmt: skip
# Common words besides, by which short answers are told apart; not those by which `language` counts.
_COMMON = {
    "it": "la i e o a in per ciao sì no grazie prego buongiorno oggi ieri domani casa cosa ecco bene tutto tutti ogni sempre mai"
    " ancora così poi sei siamo siete era erano stato fa fare dire vita giorno anno tempo grande buono nuovo ho io tu noi voi",
    "en": "hello hi yes no thanks thank please good morning day today yesterday tomorrow house thing here well all every always"
    " never still so then i he she we do does did make say life year time big new my our a in or if on",
    "es": "la hola sí no gracias buenos días hoy ayer mañana casa cosa aquí bien todo todos siempre nunca entonces yo tú él ella a",
    "pt": "a e olá sim obrigado bom dia hoje ontem amanhã casa coisa aqui bem tudo todos sempre nunca então eu ele ela nós",
    "fr": "la bonjour oui non merci jour hier demain maison chose ici bien tout tous toujours jamais encore alors suis es avez à",
    "de": "hallo ja nein danke bitte guten tag heute gestern morgen haus hier gut alle immer nie noch dann du er bin war",
}
_SCRIPTS = {code: script for script, languages in _LANGUAGES.items() for code in languages}
_FUNCTION_WORDS = {
    code: frozenset(words.split()) for languages in _LANGUAGES.values() for code, words in languages.items()
}
_KNOWN_WORDS = {code: words | set(_COMMON.get(code, "").split()) for code, words in _FUNCTION_WORDS.items()}
LANGUAGES = tuple(_SCRIPTS)  # codes that `is_written_in` knows
_WORD = re.compile(r"[^\W\d_]+(?:[\u0300-\u036f\u0900-\u0dff]+[^\W\d_]*)*")
_ALL_OF_IT = 0.8  # share of letters in one script; names and borrowed words are the rest
_LONG = 8  # words of a paragraph that show its language


def language(text: str) -> str:
    """Detect the language, `it` or `en`, by function words; empty where undecided."""
    words = re.findall(r"[a-zà-ù]+", text.lower())
    counts = {code: sum(word in _FUNCTION_WORDS[code] for word in words) for code in ("it", "en")}
    return max(counts, key=counts.__getitem__) if len(set(counts.values())) > 1 else ""


def is_written_in(text: str, code: str) -> bool:
    """Whether all of a text is in the language `code` (ISO 639-1, one of `LANGUAGES`), whatever its case.

    A text without letters is in none. No language of the same script may have more function words in it, nor clearly more
    in any of its paragraphs.

    Raises:
        ValueError: the language is not known here.
    """
    if code not in _SCRIPTS:
        raise ValueError(f"language {code!r} is none of {', '.join(LANGUAGES)}")
    text = unicodedata.normalize("NFC", text).lower()
    words = _WORD.findall(text)
    letters = [letter for word in words for letter in word if letter.isalpha()]
    fitting = sum(_is_of(letter, _SCRIPTS[code]) for letter in letters)
    if not letters or fitting < _ALL_OF_IT * len(letters):
        return False
    if code == "zh" and any(_is_of(letter, "HIRAGANA") and not _is_of(letter, "CJK") for letter in letters):
        return False
    if code == "ja" and all(_is_of(letter, "CJK") for letter in letters):
        return False
    paragraphs = [part for part in map(_WORD.findall, text.split("\n")) if len(part) >= _LONG]
    own, rival = _hits(words, code)
    if own == 0 and rival >= 0 and (len(words) >= _LONG or not _may_be(words, code)):
        return False
    return own >= rival and all(there <= here + 1 for here, there in (_hits(part, code) for part in paragraphs))


def _may_be(words: Iterable[str], code: str) -> bool:
    """Whether words of which none is known may be of a language: Italian ones end in vowels, those of its northern neighbours not."""
    long = [word for word in words if len(word) > 2]
    vowels = sum(word[-1] in "aeiouàèéìòù" for word in long) / max(1, len(long))
    return vowels >= 0.6 if code == "it" else vowels < 0.8 or code not in ("en", "de", "fr", "pl")


def _hits(words: Iterable[str], code: str) -> tuple[int, int]:
    """Function words of a language among `words`, and the most of another one of its script; -1 where there is none."""
    listed = list(words)
    counts = {other: sum(word in _KNOWN_WORDS[other] for word in listed) for other in _LANGUAGES[_SCRIPTS[code]]}
    own = counts.pop(code)
    return own, max(counts.values(), default=-1)


def _is_of(letter: str, script: str) -> bool:
    name = unicodedata.name(letter, "")
    return name.startswith(("HIRAGANA", "KATAKANA", "CJK") if script == "HIRAGANA" else script)
