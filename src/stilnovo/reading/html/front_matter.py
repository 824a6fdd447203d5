"""Read the block of fields on top of a Markdown file: YAML between `---`, TOML between `+++`, or Pandoc's `%` lines."""

from __future__ import annotations

import re
import tomllib
from typing import Any, NamedTuple

from stilnovo.reading.names import Names, direct_name, from_header

_BLOCK = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.*?)^(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.S | re.M)
_PERCENT = re.compile(
    r"\A%(?P<title>[^\n]*\n(?:[ \t]+\S[^\n]*\n)*)(?:%(?P<author>[^\n]*\n(?:[ \t]+\S[^\n]*\n)*))?(?:%(?P<date>[^\n]*)\n)?"
)
_TITLES = ("title", "titolo", "opera", "booktitle")
_AUTHORS = ("author", "authors", "autore", "autori", "autrice", "creator", "creators")
_DATES = ("date", "data", "anno", "year", "published", "issued", "pubdate")
_YEAR = re.compile(r"(?<!\d)(?:1[2-9]|20)\d\d(?!\d)")


class FrontMatter(NamedTuple):
    """The names that the block gives, its text, and where the document's own text begins."""

    names: Names
    text: str
    end: int


def _words(value: Any) -> str:
    """A field as words: of a list its entries, of a person the name."""
    if isinstance(value, dict):
        person = (" ".join(_words(value[key]) for key in ("given", "family") if key in value)).strip()
        return _words(next((value[key] for key in ("name", "text", "literal") if key in value), person))
    if isinstance(value, list):
        return ", ".join(
            filter(None, (direct_name(_words(entry)) for entry in value[:10] if not isinstance(entry, list)))
        )
    return " ".join(str(value).split()) if value is not None else ""


def _first(fields: dict[Any, Any], keys: tuple[str, ...]) -> Any:
    plain = {str(key).strip().lower().rpartition(":")[2]: value for key, value in fields.items()}
    return next((plain[key] for key in keys if plain.get(key)), "")


def _names(fields: dict[Any, Any]) -> Names:
    author, year = _first(fields, _AUTHORS), _YEAR.search(_words(_first(fields, _DATES)))
    name = _words(author) if isinstance(author, (list, dict)) else direct_name(_words(author))
    return Names(_words(_first(fields, _TITLES)), name, int(year.group()) if year else None)


def _parsed(kind: str, block: str) -> dict[Any, Any] | None:
    """The fields of a block; None where it is none: a rule, then text."""
    import yaml

    try:
        fields = tomllib.loads(block) if kind == "+++" else yaml.load(block, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, tomllib.TOMLDecodeError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def front_matter(content: str) -> FrontMatter:
    """Read the fields on top of a document; without any, nothing is taken from it."""
    match = _BLOCK.match(content)
    if match:
        fields = _parsed(match.group(1), match.group(2))
        if fields is not None:
            return FrontMatter(_names(fields), match.group(2), match.end())
        # Not quite YAML (a colon in a title that is not quoted): its lines say enough.
        lines = [re.sub(r"""^([^:]*:\s*)(["'])(.*)\2\s*$""", r"\1\3", line) for line in match.group(2).split("\n")]
        names = from_header("\n".join(lines))
        if names != Names():
            return FrontMatter(names, match.group(2), match.end())
    percent = _PERCENT.match(content)
    if percent and percent.group("title").strip():
        author = re.split(r"[;\n]", (percent.group("author") or "").strip())[0]
        year = _YEAR.search(percent.group("date") or "")
        title = " ".join(percent.group("title").split())
        return FrontMatter(
            Names(title, direct_name(author), int(year.group()) if year else None), percent.group(), percent.end()
        )
    return FrontMatter(Names(), "", 0)
