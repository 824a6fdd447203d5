"""Licences of models and data: found, named as the hub names them, with what they ask of whoever passes the result on.

A model's licence is what its own README.md says in its front matter, else what the licence file in its folder is, else what is
known of its Hugging Face id. Of data it is what the data set's card says; files of one's own say theirs in a README.md beside them
that begins as the hub's do: `---`, `license: cc-by-4.0`, `---`. Nothing is guessed: what nobody states is `unknown`.

Unusual: data under two licences that forbid commercial use, or a base under Meta's, do not become one licence of the result. All
are named, and the stricter ones are told.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from stilnovo.data.corpora import find
from stilnovo.hub import base_reference, hub_readme
from stilnovo.io.gguf_file import gguf_contents
from stilnovo.io.sample import NAMED

UNKNOWN = "unknown"
_META = "{0} is licensed under the {0} Community License, Copyright © Meta Platforms, Inc. All Rights Reserved."
#: By the hub's name: written out, where it stands, and what a copy must show.
_LICENCES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "apache-2.0": ("Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0", ()),
    "mit": ("MIT License", "https://opensource.org/license/mit", ()),
    "gfdl": ("GNU Free Documentation License", "https://www.gnu.org/licenses/fdl-1.3.html", ()),
    "odc-by": ("Open Data Commons Attribution License", "https://opendatacommons.org/licenses/by/1-0/", ()),
    "cc0-1.0": ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/", ()),
    "llama2": ("Llama 2 Community License", "https://ai.meta.com/llama/license/", (
        "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta Platforms, Inc. All Rights Reserved.",)),
    "llama3": ("Meta Llama 3 Community License", "https://www.llama.com/llama3/license/", (
        "Built with Meta Llama 3", _META.format("Meta Llama 3"))),
    "llama3.1": ("Llama 3.1 Community License", "https://www.llama.com/llama3_1/license/", (
        "Built with Llama", _META.format("Llama 3.1"))),
    "llama3.2": ("Llama 3.2 Community License", "https://www.llama.com/llama3_2/license/", (
        "Built with Llama", _META.format("Llama 3.2"))),
    "llama3.3": ("Llama 3.3 Community License", "https://www.llama.com/llama3_3/license/", (
        "Built with Llama", _META.format("Llama 3.3"))),
}  # fmt: skip
#: Licences of families by their Hugging Face id, as commonly known and not read from their cards; what a card or file says goes before.
_MODELS = (
    (r"HuggingFaceTB/SmolLM.*", "apache-2.0"),
    (r"swap-uniba/LLaMAntino-3-.*", "llama3"),
    (r"swap-uniba/LLaMAntino-2-.*", "llama2"),
    (r"meta-llama/Meta-Llama-3-.*", "llama3"),
    (r"meta-llama/(Meta-)?Llama-3\.1-.*", "llama3.1"),
    (r"meta-llama/Llama-3\.2-.*", "llama3.2"),
    (r"meta-llama/Llama-3\.3-.*", "llama3.3"),
    (r"meta-llama/Llama-2-.*", "llama2"),
    (r"mistralai/Mistral-7B-.*", "apache-2.0"),
)
#: What licence files say of themselves.
_TEXTS = (
    (r"META LLAMA 3 COMMUNITY LICENSE", "llama3"),
    (r"LLAMA (3\.[123]|2) COMMUNITY LICENSE", "llama{}"),
    (r"Apache License\s+Version 2\.0", "apache-2.0"),
    (r"MIT License|Permission is hereby granted, free of charge", "mit"),
    (r"CC0 1\.0 Universal", "cc0-1.0"),
    (r"Open Data Commons Attribution License", "odc-by"),
    (r"GNU Free Documentation License", "gfdl"),
)
_CC = re.compile(r"cc-(by(?:-nc|-sa|-nd)*)-(\d\.\d)")
_CREATIVE = re.compile(r"(?i)Attribution(-NonCommercial)?(-ShareAlike|-NoDerivatives)?\s+(\d\.\d)")
_NON_COMMERCIAL = re.compile(r"(?i)(\b|-)nc(\b|-)|non[- ]?commercial|research[- ]only")
_CARRIED = ("LICENSE*", "LICENCE*", "USE_POLICY*", "NOTICE*")


@dataclass(frozen=True)
class LicenceTerms:
    """The licence of a model or of data.

    Attributes:
        of: What stands under it.
        name: The hub's name of it, or words of its own; `unknown` where nobody states it.
        link: Where it can be read, perhaps a file in the folder; empty where that is not known.
        source: Where it is stated.
        repository: The Hugging Face id of what stands under it, where it has one.
        files: Licence files that go along with a copy.
        weights: Whether it is a part of the result's weights, an adapter of others, and no data.
        custom: Whether the name is no licence of the hub's list but what a card calls its own.
    """

    of: str
    name: str = UNKNOWN
    link: str = ""
    source: str = ""
    repository: str | None = None
    files: tuple[Path, ...] = ()
    weights: bool = False
    custom: bool = False

    @property
    def title(self) -> str:
        """The licence written out."""
        if self.name in _LICENCES:
            return _LICENCES[self.name][0]
        found = _CC.fullmatch(self.name)
        return f"CC {found[1].upper()} {found[2]}" if found else self.name

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences that a copy of the model must show."""
        return _LICENCES[self.name][2] if self.name in _LICENCES else ()

    @property
    def non_commercial(self) -> bool:
        """Whether commercial use is not allowed."""
        return bool(_NON_COMMERCIAL.search(self.name))


def front_matter(text: str) -> dict[str, Any]:
    """The metadata at the beginning of a card, between two lines `---`; empty where there is none that can be read."""
    if not (found := re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", text, re.S)):
        return {}
    with contextlib.suppress(yaml.YAMLError):
        read = yaml.safe_load(found[1])
        return read if isinstance(read, dict) else {}
    return {}


def folder_card(folder: Path) -> dict[str, Any]:
    """The metadata of a folder's README.md; empty where it has none."""
    with contextlib.suppress(OSError, ValueError):
        return front_matter((folder / "README.md").read_text(encoding="utf-8"))
    return {}


def terms_of_model(name: str) -> LicenceTerms:
    """The licence of a model by its short name, folder, GGUF file or Hugging Face id."""
    path = Path(name).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        return _of_file(path)
    return _of_id(base_reference(name)[0], fetch=True)


def _of_file(path: Path) -> LicenceTerms:
    card = beside_file(path)
    if isinstance(own := card.get("base_license"), dict):
        return _stated(own, path.name, "the README.md beside it") or LicenceTerms(path.name)
    said: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # what is wrong with the file is told where it is opened
        fields = gguf_contents(path).fields
        said = {
            name: fields.get(f"general.{name.replace('_', '.')}")
            for name in ("license", "license_name", "license_link")
        }
    return _stated(said, path.name, "the file's general.license") or LicenceTerms(path.name)


def beside_file(path: Path) -> dict[str, Any]:
    """The metadata of the card that an export wrote beside a GGUF file; empty where it has none."""
    card = folder_card(path.parent)
    ours = isinstance(tags := card.get("tags"), list) and "stilnovo" in tags and card.get("library_name") == "gguf"
    return card if ours else {}


def _of_folder(folder: Path) -> LicenceTerms:
    card, repository = folder_card(folder), base_reference(str(folder))[0]
    files = tuple(sorted({path for pattern in _CARRIED for path in folder.glob(pattern) if path.is_file()}))
    of = repository if not repository.startswith("/") else folder.resolve().name
    own = card.get("base_license")  # of a card of ours whose licence names those of adapter and data too
    found = _stated(own if isinstance(own, dict) else card, of, "its README.md")
    for file in files if found is None else ():
        found = found or _named(of, _recognised(file), file.name, f"its {file.name}")
    if found is None and not repository.startswith("/"):
        found = _of_id(repository)
    base = card.get("base_model")
    if found is None and isinstance(base, str) and base.count("/") == 1:
        found = _of_id(base)
    if found is None and files:
        found = LicenceTerms(of, "other", files[0].name, f"its {files[0].name}")
    found = found or LicenceTerms(of)
    return replace(found, of=of, files=files)


def _of_id(repository: str, *, fetch: bool = False) -> LicenceTerms:
    """The licence of a model of the hub: of a known one as known, else as its card says; `fetch`: which may be asked for."""
    known = next((name for pattern, name in _MODELS if re.fullmatch(pattern, repository)), None)
    found = _named(repository, known, "", f"what is commonly known (its card: https://huggingface.co/{repository})")
    if found is None and repository.count("/") == 1 and not repository.startswith("/"):
        found = _stated(front_matter(hub_readme(repository, fetch=fetch) or ""), repository, "its card")
    found = found or LicenceTerms(repository)
    return replace(found, repository=repository)


def _stated(card: dict[str, Any], of: str, source: str) -> LicenceTerms | None:
    """What a card's metadata says."""
    stated = card.get("license")
    said = ", ".join(map(str, stated)) if isinstance(stated, list) else stated
    if said in (None, UNKNOWN) or not str(said).strip():
        return None
    own = card.get("license_name") if said == "other" else None
    found = _named(of, str(own or said), str(card.get("license_link") or ""), source)
    return replace(found, custom=own is not None) if found is not None else None


def _named(of: str, name: str | None, link: str, source: str) -> LicenceTerms | None:
    if not name:
        return None
    plain = name.strip().lower() if name.strip().lower() in _LICENCES else name.strip()
    if not link and (creative := _CC.fullmatch(plain)):
        link = f"https://creativecommons.org/licenses/{creative[1]}/{creative[2]}/"
    return LicenceTerms(of, plain, link or (_LICENCES[plain][1] if plain in _LICENCES else ""), source)


def _of_licence_file(folder: Path, of: str, source: str) -> LicenceTerms | None:
    """The licence of the first licence file of a folder whose text is known; `source`: where it is stated, {} for the file's name."""
    named = (_named(of, _recognised(file), "", source.format(file.name)) for file in sorted(folder.glob("LICEN[SC]E*")))
    return next((terms for terms in named if terms is not None), None)


def _recognised(file: Path) -> str | None:
    """The licence whose text a file is."""
    with contextlib.suppress(OSError):
        text = file.read_bytes()[:20_000].decode("utf-8", "replace")
        for pattern, name in _TEXTS:
            if found := re.search(pattern, text, re.I):
                return name.format(*found.groups())
        if found := _CREATIVE.search(text):
            parts = [
                "by",
                *(short for word, short in (("NonC", "nc"), ("ShareA", "sa"), ("NoD", "nd")) if word in found[0]),
            ]
            return f"cc-{'-'.join(parts)}-{found[3]}"
    return None


# — Adapters and data —


def terms_of_adapter(folder: Path) -> tuple[LicenceTerms, ...]:
    """The licences of an adapter that others made, and of the data sets that its card lists; nobody is asked for theirs."""
    card, of = folder_card(folder), f"the adapter {folder.resolve().name}"
    stated = _stated(card, of, "its README.md")
    stated = stated or _of_licence_file(folder, of, "its {}")
    own, listed = stated or LicenceTerms(of), card.get("datasets")
    names = [name for name in listed if isinstance(name, str) and name] if isinstance(listed, list) else []
    rows = [terms for name in names for terms in _of_data(name, fetch=False)]
    return (LicenceTerms(of, own.name, own.link, own.source, weights=True), *rows)


def terms_of_data(names: Sequence[str]) -> tuple[LicenceTerms, ...]:
    """The licences of training data, by what a recipe names: corpora, files, folders, prepared corpora; each once."""
    found: dict[tuple[str, str], LicenceTerms] = {}
    for name in names:
        for terms in _of_data(name):
            found.setdefault((terms.of, terms.name), terms)
    return tuple(found.values())


def _of_data(name: str, *, fetch: bool = True) -> Iterator[LicenceTerms]:
    if name in NAMED:
        yield LicenceTerms(f"{name} (built into stilnovo)", "apache-2.0", _LICENCES["apache-2.0"][1], "the project")
        return
    path = Path(name).expanduser()
    repository = _repository(path) if path.exists() else name
    source = find(repository) if repository is not None else None
    if source is not None:
        licence = None if source.licence.startswith("not ") else source.licence
        stated = _stated(_data_card(path) if path.exists() else {}, source.repository, "its card")
        if stated is None and licence is None:
            stated = _stated(
                front_matter(hub_readme(source.repository, "dataset", fetch=fetch and not path.exists()) or ""),
                source.repository,
                "its card",
            )
        known = stated or _named(source.repository, licence, "", "its card")
        link = f"https://huggingface.co/datasets/{source.repository}"
        known = known or LicenceTerms(source.repository)
        yield LicenceTerms(known.of, known.name, known.link or link, known.source, source.repository)
        return
    if (sources := _prepared_from(path)) and (inner := terms_of_data(sources)):
        yield from inner
        return
    of, folder = path.name or name, path if path.is_dir() else path.parent
    stated = _stated(_data_card(path), of, "the README.md beside it")
    if stated is None and path.exists():
        stated = _of_licence_file(folder, of, "the {} beside it")
    yield stated or LicenceTerms(of)


def _data_card(path: Path) -> dict[str, Any]:
    """The nearest card that states a licence: in the folder of the data, or in one of the two above, as data sets are laid out."""
    folder = path if path.is_dir() else path.parent
    cards = (folder_card(place) for place in (folder, *list(folder.resolve().parents)[:2]))
    return next((card for card in cards if card.get("license")), {})


def _repository(path: Path) -> str | None:
    """The hub's data set in whose copy a path lies: in the hub's cache, or in a mirror that holds `owner/name/…`."""
    parts = path.resolve().parts
    for part in parts:
        if part.startswith("datasets--"):
            return part.removeprefix("datasets--").replace("--", "/", 1)
    pairs = (f"{owner}/{name}" for owner, name in pairwise(parts))
    return next((pair for pair in pairs if (known := find(pair)) is not None and known.licence != _NOT_KNOWN), None)


_NOT_KNOWN = "not known: see its card"  # of a data set that is in no list


def _prepared_from(path: Path) -> list[str]:
    """What a prepared corpus was made of; empty for anything else."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        sources = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["settings"]["sources"]
        return [str(source) for source in sources]
    return []
