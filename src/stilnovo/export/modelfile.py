"""What lies beside a GGUF file: a model card, licences, and a Modelfile, by which Ollama runs it.

A Modelfile (github.com/ollama/ollama, docs/modelfile.mdx and parser/parser.go) is a list of instructions, each a word and a value; a
value of several lines stands between triple quotes, and nothing in it can be escaped. TEMPLATE is in Go's template language, the
model's own chat template in Jinja.

Unusual: no template is translated. A conversation's text is rendered by the model's own template; what stands before, between and
behind the words is taken out of it and written as a Go template. That is right where a template puts the same text around every turn
of a role, and is checked on conversations with and without a system turn; where they differ, TEMPLATE is left out, and Ollama takes
the template inside the GGUF file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError
from stilnovo.export.folder import made_lines
from stilnovo.export.gguf_vocabulary import turn_end
from stilnovo.export.opened import Opened
from stilnovo.generate.sampling import Sampling
from stilnovo.modelcard.provenance import Provenance
from stilnovo.modelcard.readme import licence_files, model_card
from stilnovo.modelcard.terms import LicenceTerms
from stilnovo.plan.shape import read_json
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer, open_tokenizer

_CONTEXT = 8192  # tokens that Ollama makes room for, where the model can read as many
_SYSTEM, _ASKED, _SAID, _ASKED_AGAIN = "Regole0", "Domanda1", "Risposta1", "Domanda2"


@dataclass(frozen=True)
class TurnTexts:
    """What a chat template writes around the words of a conversation in which user and assistant alternate.

    Attributes:
        opening: Before the first user's words, where there is no system turn.
        system: Before and behind the system's words, up to the first user's; None where the template has no system turn.
        answer: Between a user's words and the answer.
        ended: Behind an answer.
        again: Before the next user's words.
    """

    opening: str
    system: tuple[str, str] | None
    answer: str
    ended: str
    again: str

    def text(self, messages: Sequence[Message]) -> str:
        """A conversation that asks for an answer, as the Go template writes it."""
        turns = list(messages)
        system = turns.pop(0).content if turns[0].role == "system" else ""
        text = self.opening
        if self.system is not None and system:
            text = f"{self.system[0]}{system}{self.system[1]}"
        for number, turn in enumerate(turns):
            if turn.role == "user":
                text += f"{self.again if number else ''}{turn.content}{self.answer}"
            else:
                text += f"{turn.content}{self.ended}"
        return text

    def go_template(self) -> str:
        """The same as a template in Go's language."""
        opening, answer, ended, again = map(_literal, (self.opening, self.answer, self.ended, self.again))
        if self.system is not None:
            before, behind = map(_literal, self.system)
            opening = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{behind}{{{{ else }}}}{opening}{{{{ end }}}}"
        return (
            f'{opening}{{{{ $later := false }}}}{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{{{{ if $later }}}}{again}'
            f'{{{{ end }}}}{{{{ $later = true }}}}{{{{ .Content }}}}{answer}{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}'
            f"{ended}{{{{ end }}}}{{{{ end }}}}"
        )

    def default_system(self) -> str | None:
        """The words of the system turn that the template writes where there is none."""
        if self.system is None:
            return None
        before, behind = self.system
        inside = self.opening.removeprefix(before).removesuffix(behind)
        return inside if inside and self.opening == f"{before}{inside}{behind}" else None


def _literal(text: str) -> str:
    """Text as Go's template language writes it as it is."""
    return text.replace("{{", '{{ "{{" }}')


def turn_texts(tokenizer: Tokenizer) -> TurnTexts | None:
    """What the model's template writes around the words; None where it has none, or does not treat all turns of a role alike."""
    if tokenizer.jinja is None:
        return None
    asked, said, again = Message("user", _ASKED), Message("assistant", _SAID), Message("user", _ASKED_AGAIN)
    system = Message("system", _SYSTEM)
    first = _parts(tokenizer, [asked])
    longer = _parts(tokenizer, [asked, said, again])
    if first is None or longer is None:
        return None
    opening, answer = first
    between = longer[2]
    end = tokenizer.spelt([turn_end(tokenizer)])
    at = between.find(end) + len(end) if end in between else 0
    ruled = _parts(tokenizer, [system, asked])
    found = TurnTexts(opening, None if ruled is None else (ruled[0], ruled[1]), answer, between[:at], between[at:])
    talks = [[asked], [asked, said, again], [asked, said, again, said, asked]]
    talks += [] if ruled is None else [[system, *talk] for talk in talks]
    if any(_rendered(tokenizer, talk) != found.text(talk) for talk in talks):
        return None
    return found


def _parts(tokenizer: Tokenizer, messages: list[Message]) -> list[str] | None:
    """The text before, between and behind the words of a conversation that asks for an answer; None where a word is changed."""
    text, parts = _rendered(tokenizer, messages), []
    if text is None:
        return None
    for message in messages:
        before, found, text = text.partition(message.content)
        if not found:
            return None
        parts.append(before)
    return [*parts, text]


def _rendered(tokenizer: Tokenizer, messages: list[Message]) -> str | None:
    """The text of a conversation behind its opening token, which Ollama adds itself; None where the template refuses it."""
    if tokenizer.chat is None:
        return None
    try:
        text = tokenizer.chat.prompt(messages).text
    except InputError:
        return None
    return text.removeprefix(tokenizer.special_text(tokenizer.bos_id) or "")


def gguf_companions(opened: Opened, gguf_name: str, type_name: str) -> dict[str, bytes]:
    """Contents of the files beside a GGUF file, by name: Modelfile, model card, licences."""
    config = opened.files.path / "generation_config.json"
    given = read_json(config) if config.is_file() else {}
    settings = {**_sampling(given), "num_ctx": min(opened.config.max_positions, _CONTEXT)}
    text = modelfile(f"./{gguf_name}", opened.tokenizer, settings, terms=opened.origin.terms)
    card = model_card(
        opened.origin, made_lines(opened.spec, type_name.upper()), library="gguf", use=_use(f"-m {gguf_name}")
    )
    return {**licence_files(opened.origin), "Modelfile": text.encode(), "README.md": card.encode()}


def adapter_companions(origin: Provenance, adapter: Path, gguf_name: str) -> dict[str, bytes]:
    """Contents of the files beside an adapter's GGUF file, by name: Modelfile, model card, licences."""
    tokenizer = open_tokenizer(origin.model)
    text = modelfile("./model-Q8_0.gguf", tokenizer, _sampling({}), adapter=f"./{gguf_name}", terms=origin.terms)
    made = [f"A LoRA adapter alone, for the base as a GGUF file; made from `{adapter.resolve().name}`"]
    card = model_card(origin, made, library="gguf", use=_use(f"-m BASE.gguf --lora {gguf_name}"))
    return {**licence_files(origin), "Modelfile": text.encode(), "README.md": card.encode()}


def _use(arguments: str) -> list[str]:
    """Lines of a model card that show how a GGUF file is run."""
    return [
        "```", "ollama create NAME -f Modelfile && ollama run NAME", f"llama-cli {arguments}", "```", "",
        "LM Studio: put the folder into its folder of models, or open the file there.",
    ]  # fmt: skip


def modelfile(
    base: str,
    tokenizer: Tokenizer,
    settings: dict[str, Any],
    *,
    adapter: str | None = None,
    terms: LicenceTerms | None = None,
) -> str:
    """Text of a Modelfile.

    Args:
        base: Path of the model's GGUF file, from the Modelfile.
        tokenizer: The model's.
        settings: Values of Ollama's parameters.
        adapter: Path of an adapter's GGUF file.
        terms: The base's licence.
    """
    lines = ["# For Ollama: ollama create NAME -f Modelfile"]
    if adapter is not None:
        lines.append(
            "# FROM: the base as a GGUF file (stilnovo export --format gguf), or its name in Ollama's library."
        )
    lines.append(f"FROM {base}")
    lines += [] if adapter is None else [f"ADAPTER {adapter}"]
    texts = turn_texts(tokenizer)
    if texts is not None:
        lines.append(f"TEMPLATE {quoted(texts.go_template())}")
        lines += [f"SYSTEM {quoted(default)}"] if (default := texts.default_system()) else []
    elif tokenizer.jinja is not None:
        lines.append(
            "# No TEMPLATE: the model's chat template says more than turns in Go's language; the GGUF file holds it."
        )
    ends = dict.fromkeys(tokenizer.spelt([index]) for index in (turn_end(tokenizer), tokenizer.eos_id))
    lines += [f"PARAMETER stop {quoted(end)}" for end in ends]
    lines += [f"PARAMETER {name} {value}" for name, value in settings.items()]
    lines += [] if terms is None else [f"LICENSE {quoted(text)}" for text in _licence(terms)]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A value of a Modelfile.

    Raises:
        InputError: when it holds triple quotes, which no value can.
    """
    if '"""' in text:
        raise InputError(
            "A Modelfile cannot hold triple quotes.", f"Found in: {text[:80]!r}.", "Write it without them."
        )
    if "\n" in text or '"' in text:
        return f'"""{text}"""'
    return f'"{text}"'


def _licence(terms: LicenceTerms) -> list[str]:
    """The base's licence: its name, where it is found, what it asks to be said; then its own files."""
    head = [terms.title, *([terms.link] if terms.link else []), *terms.notices]
    files = [file.read_text(encoding="utf-8", errors="replace") for file in terms.files]
    return [text.replace('"""', "'''") for text in ("\n".join(head), *files)]


def _sampling(given: dict[str, Any]) -> dict[str, Any]:
    """Settings of sampling by Ollama's names: the model's own of its generation_config.json, else those of `stilnovo chat`."""
    names = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "repeat_penalty"}
    known = {"temperature": Sampling.temperature, "top_p": Sampling.top_p}
    return known | {theirs: given[ours] for ours, theirs in names.items() if isinstance(given.get(ours), int | float)}
