"""Writing as on a card, played on the CPU: the same texts as the model's own passes, from steps that ask nothing of the host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import recorded
from stilnovo.errors import InputError, StilnovoError
from stilnovo.generate import card_writer, generator
from stilnovo.generate.card_cache import CardCache
from stilnovo.generate.card_writer import CardTexts, CardWriter
from stilnovo.generate.generator import Completion, Generator, Sampling, sample_answers
from stilnovo.model import card_products, lora, qat
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import DenseLinear, FrozenLinear
from stilnovo.plan.account import ModelUse, account
from stilnovo.plan.shape import LlamaConfig, LoraConfig
from stilnovo.text.template import Message

CONFIG = LlamaConfig(
    vocab_size=97, hidden_size=128, intermediate_size=192, layers=3, heads=4, kv_heads=2, head_dim=32, max_positions=2048,
    rms_eps=1e-5, rope_theta=10000.0, rope_scaling=None, tie_embeddings=False,
)  # fmt: skip
GREEDY = Sampling(temperature=0, max_new_tokens=30)
TALK = [Message("user", "Ciao!")]


def made(scheme: str = "nf4", seed: int = 0, std: float = 0.15) -> Llama:
    from stilnovo.model.llama import random_source
    from stilnovo.model.quantize import quantized_linear

    linear = lambda weight: quantized_linear(weight, scheme)  # type: ignore[arg-type] # noqa: E731
    return Llama(CONFIG, random_source(seed, std), linear).requires_grad_(False).eval()


def greedy(model: Llama, prompt: list[int], count: int) -> list[int]:
    """The likeliest tokens by full passes, which know no cache."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            logits = model(torch.tensor(ids), positions_of([len(ids)]), Blocks([len(ids)]))[-1]
            ids.append(int(logits.argmax()))
    return ids[len(prompt) :]


def write(writer: CardWriter, prompts: list[list[int]], samplings: list[Sampling]) -> list[list[int]]:
    """The tokens of texts that end when they are as long as they may be."""
    room = max(len(p) + s.max_new_tokens for p, s in zip(prompts, samplings, strict=True))
    found: list[list[int]] = [[] for _ in prompts]
    live = list(range(len(prompts)))
    with torch.inference_mode(), writer.texts(samplings, room) as texts:
        tokens = texts.read(prompts)
        while True:
            for text, token in zip(live, tokens, strict=True):
                found[text].append(token)
            left = [i for i, text in enumerate(live) if len(found[text]) < samplings[text].max_new_tokens]
            if not left:
                return found
            if len(left) < len(live):
                texts.keep(left)
                live = [live[i] for i in left]
            tokens = texts.next([])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many steps were recorded, and how many run by themselves."""
    counts = {"recorded": 0, "steps": 0}
    record, step = CardTexts._record, CardTexts._step

    def recording(self: CardTexts, *given: object) -> None:
        counts["recorded"] += 1
        record(self, *given)  # type: ignore[arg-type]

    def stepping(self: CardTexts) -> None:
        counts["steps"] += 1
        step(self)

    monkeypatch.setattr(CardTexts, "_record", recording)
    monkeypatch.setattr(CardTexts, "_step", stepping)
    return counts


@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8", "int4", "none"])
def test_a_recorded_step_writes_what_full_passes_do(scheme: str, counted: dict[str, int]) -> None:
    model = made(scheme)
    writer = CardWriter(model, recorded.played)
    for prompt in ([3, 1, 4, 1, 5], [9, 2]):  # the second text uses buffers and graph of the first
        assert write(writer, [prompt], [GREEDY]) == [greedy(model, prompt, 30)]
    assert counted == {"recorded": 1, "steps": 2}  # one warms up, one is recorded


def test_texts_of_one_batch_end_at_their_own_time_and_the_rest_move_together(counted: dict[str, int]) -> None:
    model, prompts = made(), [[7, 8], [1, 2, 3, 4, 5, 6], [11], [20, 21, 22]]
    samplings = [replace(GREEDY, max_new_tokens=count) for count in (4, 9, 30, 2)]
    found = write(CardWriter(model, recorded.played), prompts, samplings)
    assert found == [greedy(model, p, s.max_new_tokens) for p, s in zip(prompts, samplings, strict=True)]
    assert counted["recorded"] == 3  # four rows, two, one


def test_a_growing_cache_gets_a_graph_for_each_reach(monkeypatch: pytest.MonkeyPatch, counted: dict[str, int]) -> None:
    monkeypatch.setattr(card_writer, "REACH", 64)
    model, prompt = made(), list(range(1, 50))
    found = write(CardWriter(model, recorded.played), [prompt], [replace(GREEDY, max_new_tokens=100)])
    assert found == [greedy(model, prompt, 100)]
    assert counted["recorded"] == 3  # up to 64, 128 and 192 tokens


def adapted(model: Llama) -> Llama:
    lora.attach(model, LoraConfig(r=4, projections=("q_proj", "v_proj", "down_proj", "up_proj"), first_layer=1))
    for module in lora.adapters(model).values():
        torch.nn.init.normal_(module.lora_B, std=0.3, generator=torch.Generator().manual_seed(8))
    return model


def test_adapters_count_as_they_are_when_a_text_begins_and_as_they_are_enabled() -> None:
    model = adapted(made())
    writer = CardWriter(model, recorded.played)
    tuned = greedy(model, [5, 6, 7], 30)
    assert write(writer, [[5, 6, 7]], [GREEDY]) == [tuned]
    with lora.disabled(model):
        base = greedy(model, [5, 6, 7], 30)
        assert write(writer, [[5, 6, 7]], [GREEDY]) == [base]
    assert base != tuned
    with torch.no_grad():
        for module in lora.adapters(model).values():
            module.lora_B.mul_(-1.0)
    turned = greedy(model, [5, 6, 7], 30)
    assert write(writer, [[5, 6, 7]], [GREEDY]) == [turned]
    assert turned != tuned


def test_an_adapter_on_a_frozen_one_and_a_rounding_behind(counted: dict[str, int]) -> None:
    model = made()
    for path in ("model.layers.0.self_attn.k_proj", "model.layers.2.mlp.gate_proj"):
        base = model.get_submodule(path.removeprefix("model."))
        generator_ = torch.Generator().manual_seed(4)
        update = lora.LowRank(
            torch.randn(3, base.in_features, generator=generator_) * 0.1,  # type: ignore[operator, arg-type]
            torch.randn(base.out_features, 3, generator=generator_) * 0.1, 1.5,  # type: ignore[operator, arg-type]
        )  # fmt: skip
        lora.replace_projection(model, path, lora.FrozenLoraLinear(base, update, model.dtype))  # type: ignore[arg-type]
    lora.attach(model, LoraConfig(r=2))
    for module in lora.adapters(model).values():
        torch.nn.init.normal_(module.lora_B, std=0.2, generator=torch.Generator().manual_seed(8))
    writer = CardWriter(model, recorded.played)
    assert write(writer, [[5, 6, 7]], [GREEDY]) == [greedy(model, [5, 6, 7], 30)]
    other = adapted(made())
    qat.make_aware(other, 4)
    assert writer.made_of(model, recorded.played)
    assert not writer.made_of(other, recorded.played)
    assert not writer.made_of(model, None)
    before = counted["recorded"]
    assert write(CardWriter(other, recorded.played), [[5, 6, 7]], [GREEDY]) == [greedy(other, [5, 6, 7], 30)]
    assert counted["recorded"] == before  # what is not known is not recorded


def test_where_recording_fails_that_is_said_once_and_writing_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def failing(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    model = made()
    writer = CardWriter(model, failing)
    for prompt in ([5, 6], [7]):
        assert write(writer, [prompt], [GREEDY]) == [greedy(model, prompt, 30)]
    assert [record.message for record in caplog.records if "launched one by one" in record.message] == [
        caplog.records[0].message
    ]


def test_without_a_recorder_every_step_runs_by_itself(counted: dict[str, int]) -> None:
    model = made()
    assert write(CardWriter(model, None), [[5, 6]], [GREEDY]) == [greedy(model, [5, 6], 30)]
    assert counted == {"recorded": 0, "steps": 29}


DRAWN = [Sampling(temperature=0.9, top_p=0.9, max_new_tokens=40, seed=seed) for seed in (1, 2, 3)]


def test_draws_depend_on_a_texts_own_seed_alone() -> None:
    writer = CardWriter(made(), recorded.played)
    prompts = [[1, 2], [3], [4, 5, 6]]
    together = write(writer, prompts, [*DRAWN[:2], replace(DRAWN[2], max_new_tokens=7)])
    for prompt, sampling, text in zip(
        prompts, [*DRAWN[:2], replace(DRAWN[2], max_new_tokens=7)], together, strict=True
    ):
        assert write(writer, [prompt], [sampling]) == [text]
    assert write(writer, [[1, 2]], [replace(DRAWN[0], max_new_tokens=300)])[0][:40] == together[0]
    assert write(writer, [[1, 2]], [replace(DRAWN[0], seed=9)])[0] != together[0]


def test_a_nucleus_larger_than_what_is_looked_at_is_drawn_from_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(std=0.02)  # nearly even probabilities
    sampling = Sampling(temperature=2.0, top_p=0.95, max_new_tokens=25, seed=5)
    expected = write(CardWriter(model, None), [[1, 2], [3]], [sampling, GREEDY])
    monkeypatch.setattr("stilnovo.generate.sampler.LIKELIEST", 8)
    for recorder in (None, recorded.played):
        assert write(CardWriter(model, recorder), [[1, 2], [3]], [sampling, GREEDY]) == expected


def test_scores_that_are_no_numbers_end_the_text() -> None:
    model = made()
    model.norm.fill_(torch.nan)
    with pytest.raises(StilnovoError, match="no numbers"):
        write(CardWriter(model, None), [[1, 2]], [DRAWN[0]])


def test_two_streams_at_a_time_have_buffers_of_their_own() -> None:
    model = made()
    writer = CardWriter(model, recorded.played)
    with torch.inference_mode(), writer.texts([GREEDY], 64) as first, writer.texts([GREEDY], 64) as second:
        found = [first.read([[5, 6]]), second.read([[9]])]
        for _ in range(9):
            found[0] += first.next([])
            found[1] += second.next([])
    assert found == [greedy(model, [5, 6], 10), greedy(model, [9], 10)]
    assert len(writer._idle) == 1


def test_the_account_counts_what_a_card_keeps() -> None:
    model = adapted(made())
    adapter = sum(parameter.numel() for parameter in lora.parameters(model))
    use = ModelUse(command="chat", config=CONFIG, adapter=adapter, cached=100, tokens=100, value_bytes=4)
    items = {item.name: item.size for item in account(use).items}
    writer = CardWriter(model, recorded.played)
    with torch.inference_mode(), writer.texts([GREEDY], 100) as texts:
        assert texts._buffers.cache.nbytes == items["keys and values"]
        others = [x for x in vars(texts._buffers).values() if isinstance(x, Tensor)]
        parts = [part for product in writer.decoder._on_card for part in product._parts]
        copies = {id(x): x.nbytes for part in parts for x in (part.stacked, part.b)}
        assert sum(copies.values()) == items["copies of the adapter"]
        assert 0 < sum(x.nbytes for x in others) < items["recorded step"]


# The cache


def test_a_cache_writes_key_and_value_by_one_copy_and_never_repeats_keys() -> None:
    cache = CardCache(CONFIG, 2, 60, torch.device("cpu"), torch.float32)
    assert cache.room == 64
    cache.positions.copy_(torch.tensor([5, 9]))
    with recorded.Recording() as recording:
        cache.begin_step(2)
        cache.attend_rows(torch.randn(2, 8, 32), 1)
    names = [str(call[0]) for call in recording.calls]
    assert sum("index_copy" in name for name in names) == 1
    assert not any("repeat" in name or "clone" in name for name in names)


def flash(
    q: Tensor, k: Tensor, v: Tensor, q_bounds: Tensor, k_bounds: Tensor, _most_q: int, most_k: int, _drop: float, causal: bool,
    _mask: bool, *, seqused_k: Tensor | None = None,
) -> tuple[Tensor]:  # fmt: skip
    """torch's variable-length flash attention as its source says: the contract of its arguments, and its result in fp32."""
    for bounds in (q_bounds, k_bounds, *([] if seqused_k is None else [seqused_k])):
        assert bounds.dtype == torch.int32
        assert bounds.is_contiguous()
    assert all(x.stride(-1) == 1 for x in (q, k, v))
    assert k.shape == v.shape
    outs = []
    for text in range(len(q_bounds) - 1):
        rows = slice(int(q_bounds[text]), int(q_bounds[text + 1]))
        start = int(k_bounds[text])
        used = int(k_bounds[text + 1]) - start if seqused_k is None else int(seqused_k[text])
        assert used <= most_k
        groups = q.shape[1] // k.shape[1]
        keys, values = (x[start : start + used].float().repeat_interleave(groups, 1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[rows].float(), keys) / q.shape[2] ** 0.5
        if causal:
            seen = torch.ones(scores.shape[1:], dtype=torch.bool).tril(used - scores.shape[1])
            scores = scores.masked_fill(~seen, -torch.inf)
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), values))
    return (torch.cat(outs).to(q.dtype),)


@pytest.fixture
def with_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stilnovo.generate.card_cache.has_flash", lambda *_: True)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", flash)


def test_with_flash_attention_the_texts_are_the_same(with_flash: None) -> None:
    model, prompts = made(), [[7, 8], [1, 2, 3, 4, 5, 6], [11]]
    samplings = [replace(GREEDY, max_new_tokens=count) for count in (4, 9, 30)]
    found = write(CardWriter(model, None), prompts, samplings)
    assert found == [greedy(model, p, s.max_new_tokens) for p, s in zip(prompts, samplings, strict=True)]


# The products


@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8", "int4"])
@pytest.mark.parametrize("tokens", [1, 5, card_products.FUSED_TOKENS + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_that_of_the_dequantised_matrix(scheme: str, tokens: int, dtype: torch.dtype) -> None:
    from stilnovo.model.quantize import quantized_linear

    numbers = torch.Generator().manual_seed(1)
    base = quantized_linear(torch.randn(96, 192, generator=numbers) + 0.3, scheme)  # type: ignore[arg-type]
    x = (torch.randn(tokens, 192, generator=numbers) + 0.5).to(dtype)
    expected = x.double() @ base.dense(torch.float32).double().T
    found = card_products.few_tokens_product(base)(x)
    assert found.dtype == dtype
    limit = 1e-6 if dtype == torch.float32 else 6e-3
    assert float((found.double() - expected).norm() / expected.norm()) < limit


def test_a_matrix_whose_rows_are_no_multiple_of_a_block_is_dequantised() -> None:
    from stilnovo.model.quantize import quantized_linear

    for scheme in ("nf4", "int8"):
        base = quantized_linear(torch.randn(32, 100), scheme)  # type: ignore[arg-type]
        assert card_products.few_tokens_product(base) is base


def test_four_bits_go_to_the_kernel_with_their_nested_scales_as_they_are() -> None:
    from stilnovo.model.quantize import FourBitLinear, quantized_linear

    base = quantized_linear(torch.randn(64, 128), "nf4")
    assert isinstance(base, FourBitLinear)
    product, x = card_products.few_tokens_product(base), torch.randn(3, 128)
    with torch.inference_mode(), recorded.Recording() as recording:
        product(x)
    ((operator, given, _, _),) = recording.calls
    assert "gemm_4bit" in str(operator)
    _, packed, shape, absmax, block, kind, bias, levels, code, offset = given
    kept = (base.packed, base.nested_absmax, base.absmax, base.nested_code)
    assert [x.data_ptr() for x in (packed, absmax, levels, code)] == [x.data_ptr() for x in kept]
    assert (tuple(shape), block, kind, bias, offset.dim()) == ((64, 128), 64, "nf4", None, 0)


def shapes(scheme: str, dtype: torch.dtype) -> Llama:
    """A model without storage, with an adapter."""
    from stilnovo.model.quantize import AffineLinear, FourBitLinear, quantized_linear

    card = torch.device("meta")

    def linear(weight: Tensor) -> FrozenLinear:
        if scheme == "nf4":
            return FourBitLinear.of_shape(weight.shape[0], weight.shape[1], "nf4", card)
        made = quantized_linear(torch.zeros(weight.shape, dtype=dtype), scheme)  # type: ignore[arg-type]
        return made.to(card) if isinstance(made, AffineLinear) else DenseLinear(weight)

    model = Llama(CONFIG, lambda _, shape: torch.empty(shape, device=card, dtype=dtype), linear).eval()
    model.rotary.to(card)
    lora.attach(model, LoraConfig(r=4))
    return model


def test_a_steps_kernels_compute_what_torch_does() -> None:
    pytest.importorskip("triton")
    child = Path(recorded.__file__).with_name("step_child.py")
    done = subprocess.run(
        [sys.executable, str(child)], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "same", done.stderr


@pytest.mark.parametrize(("tokens", "by_kernel"), [(1, True), (4, True), (5, False)])
def test_affine_weights_go_to_our_kernel_for_a_few_tokens(
    tokens: int, by_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stilnovo.model.quantize import quantized_linear

    monkeypatch.setattr("stilnovo.model.kernels.wanted", lambda device: device.type == "meta")
    product = card_products.few_tokens_product(quantized_linear(torch.randn(64, 128), "int8").to("meta"))
    with torch.inference_mode(), recorded.Recording() as recording:
        assert product(torch.empty(tokens, 128, device="meta")).shape == (tokens, 64)
    assert any("stilnovo.affine_product" in str(call[0]) for call in recording.calls) is by_kernel


# Nothing for the host


class NoHost(recorded.Recording):
    """Records nothing, and lets no operation pass that a CUDA graph could not repeat."""

    def __torch_dispatch__(self, function: object, types: object, args: object = (), kwargs: object = None) -> object:
        result = function(*args, **(kwargs or {}))  # type: ignore[operator, misc]
        leaves = torch.utils._pytree.tree_leaves
        inputs = [x for x in leaves((args, kwargs)) if isinstance(x, Tensor)]
        recorded.check(str(function).rpartition(".")[0], inputs, [x for x in leaves(result) if isinstance(x, Tensor)])
        return result


@pytest.mark.parametrize("scheme", ["nf4", "int8", "int4", "none"])
@pytest.mark.parametrize("flash", [False, True])
def test_a_step_asks_nothing_of_the_host(scheme: str, flash: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device `meta` plays the card: what lies there the host cannot read."""
    monkeypatch.setattr("stilnovo.generate.card_cache.has_flash", lambda *_: flash)
    model = shapes(scheme, torch.bfloat16 if flash else torch.float16)
    writer = CardWriter(model, None)
    with torch.inference_mode(), writer.texts([GREEDY, DRAWN[0]], 50) as texts:
        texts._lengths = [3, 4]
        with NoHost():
            texts._step()
        assert texts._logits.shape == (2, CONFIG.vocab_size)
        assert texts._logits.is_meta


def test_what_asks_the_host_is_refused_by_the_played_graph() -> None:
    x = torch.arange(6.0)
    for step in (
        lambda: x[x > 2], lambda: x.sum().item(), lambda: x.nonzero(), lambda: torch.tensor([1.0]), lambda: bool(x[0] > 1),
    ):  # fmt: skip
        with pytest.raises(recorded.HostAsked):
            recorded.played(step, x.device)  # type: ignore[arg-type]


# Through the generator


@pytest.fixture
def on_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU's models are written with as on a card."""
    monkeypatch.setattr(generator, "writes_on_card", lambda model: True)
    monkeypatch.setattr(generator, "cuda_graph", recorded.played)


def test_a_generator_writes_the_same_on_a_card(
    bytewise: Generator, on_card: None, monkeypatch: pytest.MonkeyPatch, counted: dict[str, int]
) -> None:
    prompts = [bytewise.tokenizer.encode(text) for text in ("Nel mezzo", "del cammin di nostra vita", "mi")]
    samplings = [replace(GREEDY, max_new_tokens=count) for count in (5, 40, 12)]

    def written(way: str) -> list[Completion]:
        monkeypatch.setenv(card_products.VARIABLE, way)
        return Generator(bytewise.model, bytewise.tokenizer, products="fp32").continue_tokens(prompts, samplings)

    plain = written("plain")
    assert counted == {"recorded": 0, "steps": 0}
    assert written("fused") == plain
    assert counted["recorded"] == 0
    assert written("captured") == plain
    assert written("auto") == plain
    assert counted["recorded"] > 0
    with pytest.raises(InputError, match="Did you mean captured"):
        written("capture")


def test_streams_end_early_and_begin_again(bytewise: Generator, on_card: None) -> None:
    engine = Generator(bytewise.model, bytewise.tokenizer)
    settings = Sampling(max_new_tokens=30, temperature=1.5, seed=2)
    whole = "".join(engine.stream(TALK, settings))
    first = engine.stream(TALK, replace(settings, seed=1))
    next(first)
    second = engine.stream(TALK, settings)
    piece = next(second)
    assert not torch.is_inference_mode_enabled()
    first.close()
    assert piece + "".join(second) == whole
    assert len(engine._on_card._idle) == 1  # type: ignore[union-attr]


def test_a_trainings_samples_record_nothing(bytewise: Generator, on_card: None, counted: dict[str, int]) -> None:
    assert sample_answers(bytewise.model, bytewise.tokenizer, ["Ciao"], 6)
    assert counted["recorded"] == 0
    assert counted["steps"] > 0


def test_threads_that_write_at_once_do_not_disturb_each_other(bytewise: Generator, on_card: None) -> None:
    engine = Generator(bytewise.model, bytewise.tokenizer)
    settings = [Sampling(max_new_tokens=25, temperature=1.3, seed=seed) for seed in range(6)]
    alone = ["".join(engine.stream(TALK, one)) for one in settings]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda one: "".join(engine.stream(TALK, one)), settings)) == alone
