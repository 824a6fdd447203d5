"""The model, server or neither that writes answers, opened from a command's options."""

from __future__ import annotations

from pathlib import Path

from stilnovo.chat.writing import SYSTEM, AnswerWriter
from stilnovo.errors import InputError, reported


def writer_of(
    model: str | None,
    adapter: Path | None,
    quantization: str | None,
    server: str | None,
    server_model: str | None,
    server_context: int | None,
    device: str = "auto",
) -> AnswerWriter | None:
    """The writer of answers that the options name; None for quotations only.

    Raises:
        InputError: they contradict each other.
    """
    if server is not None:
        if model not in (None, "none") or adapter is not None:
            raise InputError("--server and --model cannot be combined.", next="Give one of them.")
        if not server_model:
            raise InputError("--server needs the name of a model on that server.", next="Add --server-model NAME.")
        from stilnovo.remote import ServerWriter

        return ServerWriter(server, server_model, server_context)
    if server_model or server_context:
        raise InputError("--server-model and --server-context need a server.", next="Add --server URL.")
    if model in (None, "none"):
        if adapter is not None:
            raise InputError("--adapter needs the model it was trained on.", next="Add --model NAME.")
        return None
    from stilnovo.generate.generator import open_engine
    from stilnovo.spec import spec_of

    return open_engine(spec_of(model, adapter, quantization, device))


def system_of(text: str | None, file: Path | None) -> str:
    """The system prompt: as given, from a file, or the Italian default.

    Raises:
        InputError: both are given, or the file cannot be read or is empty.
    """
    if file is None:
        return text or SYSTEM
    if text is not None:
        raise InputError("--system and --system-file cannot be combined.", next="Give one of them.")
    with reported(f"Cannot read the system prompt {file}.", "It must be a UTF-8 text."):
        prompt = file.read_text(encoding="utf-8").strip()
    if not prompt:
        raise InputError(f"The system prompt {file} is empty.")
    return prompt
