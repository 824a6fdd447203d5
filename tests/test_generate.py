"""Writing: the cache against full forward passes, batches against single texts, sampling against its definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stilnovo.errors import InputError
from stilnovo.generate.generator import Generator, Sampling, _Text
from stilnovo.generate.kv_cache import KVCache
from stilnovo.generate.sampler import Sampler, nucleus
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.model.processor import VARIABLE
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0, max_new_tokens=12)


def test_cache_equals_full_passes(tiny: Llama) -> None:
    torch.manual_seed(0)
    prompts = [torch.randint(0, 97, (n,)) for n in (9, 4, 1)]
    extra = torch.randint(0, 97, (6, 3))
    cache = KVCache(tiny.config, 3, 20, tiny.device, tiny.dtype)
    steps = (
        [list(prompts)]
        + [[row[i : i + 1] for i in range(3)] for row in extra]
        + [[p[:2] for p in prompts[:2]] + [prompts[0][:3]]]
    )
    got: list[list[torch.Tensor]] = [[], [], []]
    with torch.no_grad():
        for parts in steps:
            counts = [len(part) for part in parts]
            hidden = tiny.hidden(torch.cat(parts), cache.expect(counts), cache)
            cache.advance()
            for text, piece in enumerate(hidden.split(counts)):
                got[text].append(piece)
        for text in range(3):
            whole = torch.cat([parts[text] for parts in steps])
            expected = tiny.hidden(whole, positions_of([len(whole)]), Blocks([len(whole)]))
            assert torch.allclose(torch.cat(got[text]), expected, atol=1e-5)


def test_greedy_writing_is_the_likeliest_token_each_time(smollm2: tuple[Llama, Tokenizer]) -> None:
    model, tokenizer = smollm2
    messages = [Message("user", "What is the capital of Italy?")]
    written = Generator(model, tokenizer).complete([messages], [GREEDY])[0]
    ids = tokenizer.render(messages, generation=True)
    start = len(ids)
    with torch.no_grad():
        while len(ids) - start < 12:
            logits = model(torch.tensor(ids), positions_of([len(ids)]), Blocks([len(ids)]))[-1]
            if int(logits.argmax()) in tokenizer.turn_end_ids:
                break
            ids.append(int(logits.argmax()))
    assert written.text == tokenizer.decode(ids[start:])
    assert written.text


def test_batch_equals_alone_and_stream_equals_whole(smollm2: tuple[Llama, Tokenizer]) -> None:
    engine = Generator(*smollm2)
    talks = [[Message("user", text)] for text in ("Ciao!", "Scrivi una frase sulla luna, perché è bella.")]
    settings = [Sampling(max_new_tokens=10, seed=3), Sampling(max_new_tokens=6, seed=4)]
    together = engine.complete(talks, settings)
    for talk, setting, one in zip(talks, settings, together, strict=True):
        assert engine.complete([talk], [setting])[0] == one
        pieces = list(engine.stream(talk, setting))
        assert "".join(pieces) == one.text
        assert not any("\ufffd" in piece for piece in pieces[:-1])
    other = engine.complete(talks[:1], [replace(settings[0], seed=5, temperature=2.0)])
    assert other[0].text != together[0].text


def test_stop_strings_are_cut(smollm2: tuple[Llama, Tokenizer]) -> None:
    engine = Generator(*smollm2)
    talk = [Message("user", "What is the capital of Italy?")]
    whole = engine.complete([talk], [GREEDY])[0].text
    stop = whole[4:9]
    cut = engine.complete([talk], [replace(GREEDY, stop=(stop,))])[0]
    assert cut.text == whole[: whole.index(stop)]
    assert cut.stopped
    assert "".join(engine.stream(talk, replace(GREEDY, stop=(stop,)))) == cut.text


def test_a_prompt_longer_than_the_context(smollm2: tuple[Llama, Tokenizer]) -> None:
    with pytest.raises(InputError, match="longer than the model's context"):
        Generator(*smollm2).complete([[Message("user", "parola " * 9000)]], [GREEDY])


TALK = [Message("user", "Ciao!")]


def test_greedy_writing_from_four_bits_is_the_likeliest_token_each_time(bytewise: Generator) -> None:
    model, tokenizer = bytewise.model, bytewise.tokenizer
    ids = tokenizer.render(TALK, generation=True)
    start = len(ids)
    written = bytewise.complete([TALK], [replace(GREEDY, max_new_tokens=40)])[0]
    with torch.no_grad():
        while len(ids) - start < 40:
            likeliest = int(model(torch.tensor(ids), positions_of([len(ids)]), Blocks([len(ids)]))[-1].argmax())
            if likeliest in tokenizer.turn_end_ids:
                break
            ids.append(likeliest)
    assert written.tokens == len(ids) - start
    assert written.text == tokenizer.decode(ids[start:]).rstrip("\ufffd")


@pytest.mark.parametrize("seed", range(6))
def test_pieces_of_a_stream_make_the_whole_text(bytewise: Generator, seed: int) -> None:
    setting = Sampling(temperature=1.5, top_p=1, max_new_tokens=60, seed=seed, stop=("e", "zz"))
    whole = bytewise.complete([TALK], [setting])[0]
    pieces = list(bytewise.stream(TALK, setting))
    assert "".join(pieces) == whole.text
    assert all(pieces)
    assert not whole.text.endswith("\ufffd")
    assert "e" not in whole.text


def written(tokenizer: Tokenizer, text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], _Text]:
    """What a stream shows after each token of a text that is given."""
    ids = tokenizer.encode(text)
    one = _Text(tokenizer, Sampling(max_new_tokens=len(ids), stop=stop))
    shown = []
    for token in ids:
        one.add(token)
        shown.append(one.fresh())
        if one.done:
            break
    return shown, one


def test_half_a_character_waits_and_is_never_shown(bytewise: Generator) -> None:
    shown, _ = written(bytewise.tokenizer, "è 🙂!")
    assert shown == ["", "è", " ", "", "", "", "🙂", "!"]
    one = _Text(bytewise.tokenizer, Sampling(max_new_tokens=6))
    for token in bytewise.tokenizer.encode("è 🙂")[:6]:  # the last character is cut by the limit
        one.add(token)
    assert one.done
    assert one.fresh() == "è "


def test_the_beginning_of_a_stop_string_waits(bytewise: Generator) -> None:
    shown, one = written(bytewise.tokenizer, "aabaX fine", stop=("aba!", "baX"))
    assert "".join(shown) == "aa"
    assert one.stopped
    shown, one = written(bytewise.tokenizer, "ab ab", stop=("abc",))  # never completed: shown in the end
    assert "".join(shown) == "ab ab"
    assert not one.stopped


def test_the_callers_code_does_not_run_in_inference_mode(bytewise: Generator) -> None:
    first, second = (bytewise.stream(TALK, Sampling(max_new_tokens=30, temperature=2, seed=s)) for s in (1, 2))
    alone = "".join(bytewise.stream(TALK, Sampling(max_new_tokens=30, temperature=2, seed=2)))
    next(first)
    piece = next(second)
    assert not torch.is_inference_mode_enabled()
    first.close()
    assert piece + "".join(second) == alone  # two streams at once do not disturb each other
    assert torch.ones(1, requires_grad=True).mul(2).requires_grad


def test_an_abandoned_stream_lets_the_dense_weights_go(bytewise: Generator) -> None:
    linear = bytewise.model.layers[0].self_attn.q_proj  # type: ignore[union-attr]
    stream = Generator(bytewise.model, bytewise.tokenizer, products="fp32").stream(TALK, Sampling(max_new_tokens=30))
    next(stream)
    assert linear._kept is not None  # type: ignore[union-attr]
    stream.close()
    assert linear._kept is None  # type: ignore[union-attr]


def test_writing_ends_where_the_context_ends(bytewise: Generator) -> None:
    room = bytewise.context_tokens - bytewise.count([Message("user", "")])
    message = [Message("user", "a" * (room - 5))]
    assert bytewise.count(message) == bytewise.context_tokens - 5
    one = bytewise.complete([message], [Sampling(max_new_tokens=50, temperature=2, seed=1)])[0]
    assert one.tokens == 5
    assert not one.stopped
    with pytest.raises(InputError, match=r"(?s)longer than the model's context.*512"):
        bytewise.complete([[Message("user", "a" * room)]], [GREEDY])
    assert bytewise.complete([], []) == []


def test_many_of_different_lengths_equal_each_alone(bytewise: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)  # in bf16 a product of many rows rounds otherwise than one of a few
    talks = [[Message("user", "x" * length)] for length in (1, 40, 7, 90)]
    settings = [Sampling(max_new_tokens=n, seed=n, temperature=1.2) for n in (30, 3, 17, 9)]
    together = bytewise.complete(talks, settings)
    assert [one.tokens for one in together][:2] == [30, 3]  # texts that end at different steps
    for talk, setting, one in zip(talks, settings, together, strict=True):
        assert bytewise.complete([talk], [setting]) == [one]
    assert bytewise.complete(talks, settings) == together  # the same seeds give the same texts


def test_nucleus_is_the_smallest_set_that_reaches_p() -> None:
    generator = torch.Generator().manual_seed(1)
    for p in (0.1, 0.5, 0.95, 1.0):
        probabilities = torch.softmax(3 * torch.randn(40, generator=generator), -1)
        kept, mass = set(), 0.0
        for index in probabilities.argsort(descending=True).tolist():
            kept.add(index)
            mass += float(probabilities[index])
            if mass >= p:
                break
        ids, weights = nucleus(probabilities, p)
        found = torch.zeros_like(probabilities).scatter(-1, ids, weights)
        if p < 1:
            assert set(found.nonzero().flatten().tolist()) == kept
        assert float(found.sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])  # from even, where no token is likely, to peaked
@pytest.mark.parametrize("p", [0.3, 0.9, 0.9999, 1.0])
def test_nucleus_of_a_whole_vocabulary_is_that_of_sorting_it(spread: float, p: float) -> None:
    generator = torch.Generator().manual_seed(7)
    probabilities = torch.softmax(spread * torch.randn(30_000, generator=generator), -1)
    ordered, index = probabilities.sort(descending=True, stable=True)
    members = ordered.masked_fill(ordered.cumsum(-1) - ordered >= p, 0.0)
    expected = torch.zeros_like(probabilities).scatter(-1, index, members / members.sum())
    ids, weights = nucleus(probabilities, p)
    assert torch.allclose(torch.zeros_like(probabilities).scatter(-1, ids, weights), expected, rtol=1e-5, atol=0)


def test_sampling_follows_the_probabilities_and_the_seed() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0]).log_softmax(-1)
    draws = [Sampler(Sampling(temperature=1, top_p=1, seed=s)).choose(logits) for s in range(2000)]
    share = torch.bincount(torch.tensor(draws), minlength=3) / 2000
    assert torch.allclose(share, logits.exp(), atol=0.04)
    again = [Sampler(Sampling(temperature=1, top_p=1, seed=s)).choose(logits) for s in range(50)]
    assert again == draws[:50]


BAD = [
    {"temperature": -1},
    {"temperature": float("nan")},
    {"top_p": 0},
    {"top_p": 1.1},
    {"max_new_tokens": 0},
    {"stop": ("",)},
]


@pytest.mark.parametrize("bad", BAD)
def test_bad_settings(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"cannot be used|stop string is empty"):
        Sampling(**bad)  # type: ignore[arg-type]
