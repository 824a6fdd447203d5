"""OpenAI's API as OpenAI's own client sees it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from serving import DIED, QUESTION, Scripted, sample_file, serving
from stilnovo.chat.conversation import ask
from stilnovo.generate.generator import Sampling, open_engine
from stilnovo.library.location import sample_library
from stilnovo.serve.wire import Cut
from stilnovo.spec import ModelSpec
from stilnovo.text.template import Message


class Lengths:
    """An embedder whose vectors are told by their texts."""

    name = "lunghezze"

    def passages(self, texts: Sequence[str]) -> Any:
        return np.array([[float(len(text)), 0.25, -1.0] for text in texts], dtype=np.float32)

    def query(self, text: str) -> Any:
        return np.array([float(len(text)), 0.5, -1.0], dtype=np.float32)


@contextmanager
def client_of(service: httpx.Client) -> Iterator[openai.OpenAI]:
    """OpenAI's own client of the service; its connections end with the block, not when the collector comes by."""
    with openai.OpenAI(base_url=f"{service.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with (
        serving(sample_file(tmp_path_factory.mktemp("openai")), embedder=Lengths()) as service,
        client_of(service) as one,
    ):
        yield one


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_models_are_what_is_offered(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["stilnovo-library", "lunghezze"]
    assert client.models.retrieve("stilnovo-library").owned_by == "stilnovo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


def test_an_answer_is_the_librarys_streamed_or_not(client: openai.OpenAI) -> None:
    with sample_library() as library:
        expected = ask(library, QUESTION)
    whole = client.chat.completions.create(model="stilnovo-library", messages=user(QUESTION))
    assert whole.choices[0].message.content == expected.text
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.usage.completion_tokens == len(expected.text.split())
    extra = whole.model_extra or {}
    cited = extra["stilnovo"]["citations"][0]
    assert cited["status"] == "verified"
    assert cited["quote"] == expected.quotes[0].text

    chunks = list(
        client.chat.completions.create(
            model="stilnovo-library", messages=user(QUESTION), stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected.text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_history_makes_a_follow_up_self_contained(client: openai.OpenAI) -> None:
    messages = [*user("Chi è Anselmo Corvi?"), {"role": "assistant", "content": "Il guardiano."}, *user("E dove vive?")]
    with_history = client.chat.completions.create(model="stilnovo-library", messages=messages)
    alone = client.chat.completions.create(model="stilnovo-library", messages=user("E dove vive?"))
    assert with_history.choices[0].message.content != alone.choices[0].message.content


def test_parts_of_text_are_read(client: openai.OpenAI) -> None:
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    answer = client.chat.completions.create(model="stilnovo-library", messages=parts)
    assert "Tecla" in (answer.choices[0].message.content or "")
    picture: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    with pytest.raises(openai.BadRequestError, match="image_url"):
        client.chat.completions.create(model="stilnovo-library", messages=picture)


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"model": "gpt-5"}, openai.NotFoundError, "model"),
        ({"model": "stilnovo-chat"}, openai.NotFoundError, "model"),  # no writer here
        ({"n": 2}, openai.BadRequestError, "n"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"top_p": 0}, openai.BadRequestError, "top_p"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"role": "assistant", "content": "Io?"}]}, openai.BadRequestError, "messages"),
        ({"stop": [""]}, openai.BadRequestError, "stop"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, openai.BadRequestError, "tools"),
    ],
)
def test_bad_requests_get_openais_errors(
    client: openai.OpenAI, change: dict[str, Any], error: type[openai.APIStatusError], param: str
) -> None:
    request: dict[str, Any] = {"model": "stilnovo-library", "messages": user(QUESTION), **change}
    with pytest.raises(error) as caught:
        client.chat.completions.create(**request)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_no_json_is_a_bad_request(client: openai.OpenAI) -> None:
    response = httpx.post(
        f"{client.base_url}chat/completions", content=b"{nonsense", headers={"content-type": "application/json"}
    )
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_stop_strings_end_an_extractive_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="stilnovo-library", messages=user(QUESTION)).choices[0].message.content
    assert whole
    stop = " dopo il"
    assert stop in whole
    for stream in (False, True):
        answer = client.chat.completions.create(
            model="stilnovo-library", messages=user(QUESTION), stop=stop, stream=stream
        )
        if stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
        else:
            text = answer.choices[0].message.content or ""
        assert text == whole[: whole.index(stop)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_cut_is_the_same_however_the_text_comes(size: int) -> None:
    text = "uno due tre due quattro FINE cinque"
    for stops in [("FINE",), ("tre due", "quattro"), ("FINI",), ("due", "uno"), ()]:
        cut = Cut(stops)
        out = "".join(cut.feed(text[i : i + size]) for i in range(0, len(text), size)) + cut.feed("", final=True)
        places = [text.index(stop) for stop in stops if stop in text]
        assert out == (text[: min(places)] if places else text)


def test_embeddings_reach_the_client_as_they_are(client: openai.OpenAI) -> None:
    texts = ["Nel mezzo", "del cammin di nostra vita"]
    answer = client.embeddings.create(model="lunghezze", input=texts)  # the client asks for base64
    assert [one.embedding for one in answer.data] == [[9.0, 0.25, -1.0], [25.0, 0.25, -1.0]]
    plain = client.embeddings.create(model="lunghezze", input="ab", encoding_format="float")
    assert plain.data[0].embedding == [2.0, 0.25, -1.0]
    raw = httpx.post(
        f"{client.base_url}embeddings", json={"model": "lunghezze", "input": "ab", "encoding_format": "base64"}
    )
    import base64

    assert struct.unpack("<3f", base64.b64decode(raw.json()["data"][0]["embedding"])) == (2.0, 0.25, -1.0)
    asked = client.embeddings.create(model="lunghezze", input="ab", extra_body={"input_type": "query"})
    assert asked.data[0].embedding == [2.0, 0.5, -1.0]
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="lunghezze", input=[""])


def test_without_an_embedder_there_are_no_embeddings(tmp_path: Path) -> None:
    with (
        serving(sample_file(tmp_path)) as service,
        client_of(service) as client,
        pytest.raises(openai.NotFoundError),
    ):
        client.embeddings.create(model="text-embedding-3-small", input="ciao")


def test_the_engine_behind_the_api_is_the_engine(tiny_folder: Path, tmp_path: Path) -> None:
    engine = open_engine(ModelSpec(str(tiny_folder), quantization="none", device="cpu"))
    messages = [Message("system", "Breve."), Message("user", "ciao")]
    sampling = Sampling(temperature=1.3, top_p=0.9, max_new_tokens=12, seed=7)
    expected = "".join(engine.stream(messages, sampling))
    with serving(sample_file(tmp_path), engine, answers=1) as service, client_of(service) as client:
        assert [model.id for model in client.models.list()] == [
            "stilnovo-library",
            "stilnovo-library-plus",
            "stilnovo-chat",
        ]
        spoken: Any = [{"role": "system", "content": "Breve."}, *user("ciao")]
        settings: dict[str, Any] = {"temperature": 1.3, "top_p": 0.9, "max_tokens": 12, "seed": 7}
        answer = client.chat.completions.create(model="stilnovo-chat", messages=spoken, **settings)
        assert answer.choices[0].message.content == expected
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == engine.count(messages)
        chunks = client.chat.completions.create(model="stilnovo-chat", messages=spoken, stream=True, **settings)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
        other = client.chat.completions.create(model="stilnovo-chat", messages=spoken, **{**settings, "seed": 8})
        assert other.choices[0].message.content != expected
        with pytest.raises(openai.BadRequestError, match=r"context|long"):
            client.chat.completions.create(model="stilnovo-chat", messages=user("parola " * 2000), max_tokens=4)


def test_a_model_that_dies_is_an_error_not_an_answer(tmp_path: Path) -> None:
    writer = Scripted(["Ecco ", "che "], after=DIED)
    with serving(sample_file(tmp_path), writer) as service, client_of(service) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="stilnovo-chat", messages=user("ciao"))
        assert caught.value.status_code == 502
        said = ""
        with pytest.raises(openai.APIError, match="chiuso"):  # noqa: PT012 - the stream raises while it is read
            for chunk in client.chat.completions.create(model="stilnovo-chat", messages=user("ciao"), stream=True):
                said += chunk.choices[0].delta.content or ""
        assert said == "Ecco che "


def test_defaults_are_the_reports() -> None:
    assert Sampling() == Sampling(0.6, 0.95, 256, 42, ())
