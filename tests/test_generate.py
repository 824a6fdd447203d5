"""Writing: the cache against full forward passes, batches against single texts, sampling against its definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stilnovo.errors import InputError
from stilnovo.generate.cache import KVCache
from stilnovo.generate.engine import Engine, Sampling
from stilnovo.generate.sampling import Sampler, nucleus
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
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
            expected = tiny.hidden(whole, positions_of([len(whole)]), Blocks.documents([len(whole)]))
            assert torch.allclose(torch.cat(got[text]), expected, atol=1e-5)


def test_greedy_writing_is_the_likeliest_token_each_time(smollm2: tuple[Llama, Tokenizer]) -> None:
    model, tokenizer = smollm2
    messages = [Message("user", "What is the capital of Italy?")]
    written = Engine(model, tokenizer).complete([messages], [GREEDY])[0]
    ids = tokenizer.render(messages, generation=True)
    start = len(ids)
    with torch.no_grad():
        while len(ids) - start < 12:
            logits = model(torch.tensor(ids), positions_of([len(ids)]), Blocks.documents([len(ids)]))[-1]
            if int(logits.argmax()) in tokenizer.turn_end_ids:
                break
            ids.append(int(logits.argmax()))
    assert written.text == tokenizer.decode(ids[start:])
    assert written.text


def test_batch_equals_alone_and_stream_equals_whole(smollm2: tuple[Llama, Tokenizer]) -> None:
    engine = Engine(*smollm2)
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
    engine = Engine(*smollm2)
    talk = [Message("user", "What is the capital of Italy?")]
    whole = engine.complete([talk], [GREEDY])[0].text
    stop = whole[4:9]
    cut = engine.complete([talk], [replace(GREEDY, stop=(stop,))])[0]
    assert cut.text == whole[: whole.index(stop)]
    assert cut.stopped
    assert "".join(engine.stream(talk, replace(GREEDY, stop=(stop,)))) == cut.text


def test_a_prompt_longer_than_the_context(smollm2: tuple[Llama, Tokenizer]) -> None:
    with pytest.raises(InputError, match="longer than the model's context"):
        Engine(*smollm2).complete([[Message("user", "parola " * 9000)]], [GREEDY])


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
        found = nucleus(probabilities, p)
        if p < 1:
            assert set(found.nonzero().flatten().tolist()) == kept
        assert float(found.sum()) == pytest.approx(1, abs=1e-5)


def test_sampling_follows_the_probabilities_and_the_seed() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0]).log_softmax(-1)
    draws = [Sampler(Sampling(temperature=1, top_p=1, seed=s)).choose(logits) for s in range(2000)]
    share = torch.bincount(torch.tensor(draws), minlength=3) / 2000
    assert torch.allclose(share, logits.exp(), atol=0.04)
    again = [Sampler(Sampling(temperature=1, top_p=1, seed=s)).choose(logits) for s in range(50)]
    assert again == draws[:50]


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_new_tokens": 0}])
def test_bad_settings(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        Sampling(**bad)  # type: ignore[arg-type]
