"""The packed, shared-context scorer against the plain thing: every ending its own forward pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers

from stilnovo.benchmarks.task import Draw, MultipleChoice, select
from stilnovo.benchmarks.tasks import find_tasks
from stilnovo.model.attention import Blocks
from stilnovo.model.llama import Llama, LlamaConfig, random_source
from stilnovo.scoring.encode import TokenTree, encode_endings
from stilnovo.scoring.packed import ItemScore, score
from stilnovo.text.tokenizer import Tokenizer

ITEMS = (
    MultipleChoice(
        "siblings", "Domanda: chi?\nRisposta:", (" il gatto nero", " il gatto bianco", " il gatto", " lei"), 1
    ),
    MultipleChoice("alone", "Uno", (" due", " tre"), 0),
    MultipleChoice("twins", "La luna è", (" alta", " alta", " bassa"), 2),
    MultipleChoice("spaces", "Il conto torna  ", ("sempre", " mai"), 0),
    MultipleChoice("empty context", "", ("Buongiorno", "Buonasera a tutti"), 1),
    MultipleChoice("long", "parola " * 30 + "fine:", (" ecco", " no, e poi ancora molto altro da dire"), 0),
)


def byte_tokenizer(bos: bool) -> Tokenizer:
    """Bytes and a few merges, so that joint tokenisation can cross the seam: `e:` + ` ` never, `tt` + `o` yes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "t"), ("i", "l"), ("tt", "o"), ("Ġ", "il"), ("a", "t"), ("Ġ", "a"), ("Ġ", "Ġ")]
    words = ["<s>", "</s>", *alphabet, *(a + b for a, b in merges)]
    fast = Fast(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    specials = {"<s>": 0, "</s>": 1}
    return Tokenizer(fast, specials=specials, bos="<s>" if bos else None, eos="</s>")


def tiny_llama(max_positions: int = 512, seed: int = 0) -> Llama:
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, layers=2, heads=4, kv_heads=2, head_dim=8,
        max_positions=max_positions,
    )  # fmt: skip
    return Llama(config, random_source(seed, std=0.3))


def plain_loglikelihood(model: Llama, tokenizer: Tokenizer, context: str, ending: str) -> float:
    """One ending, one causal pass over its own tokens, log-softmax over everything."""
    stem = context.rstrip()
    opening = [tokenizer.bos_id] if tokenizer.bos_id is not None else [] if stem else [tokenizer.end_of_text_id]
    tokens = torch.tensor(opening + tokenizer.encode(context + ending))
    start = len(opening) + len(tokenizer.encode(stem))
    with torch.no_grad():
        logits = model(tokens, torch.arange(len(tokens)), Blocks([len(tokens)]))
    logs = torch.log_softmax(logits.double(), dim=-1)
    return float(sum(logs[row - 1, tokens[row]] for row in range(start, len(tokens))))


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("token_budget", [1, 64, 2048])
def test_equals_one_pass_an_ending(bos: bool, token_budget: int) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos)
    for item, found in zip(ITEMS, score(model, tokenizer, ITEMS, token_budget=token_budget), strict=True):
        expected = [plain_loglikelihood(model, tokenizer, item.context, ending) for ending in item.endings]
        assert found.loglikelihoods == pytest.approx(expected, abs=1e-5), item.id
        lengths = [len(ending.removeprefix(" ")) for ending in item.endings]
        assert found.choice == max(range(len(expected)), key=lambda i: round(expected[i], 6))
        assert found.choice_norm == max(range(len(expected)), key=lambda i: round(expected[i] / lengths[i], 8))
        assert (found.id, found.answer, found.truncated) == (item.id, item.answer, False)


def test_endings_whose_context_is_tokenised_differently() -> None:
    """`gatt` + `o` becomes one token across the seam, so this ending leaves the shared path before the context ends."""
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    item = MultipleChoice("seam", "Un gatt", ("o nero", "ino", "ucci"), 0)
    (merged, _), (kept, _), _ = encode_endings(tokenizer, item.context, item.endings)
    assert merged[: len(kept)] != kept[: len(merged)]
    assert tokenizer.decode(merged[1:]) == "Un gatto nero"
    (found,) = score(model, tokenizer, [item])
    expected = [plain_loglikelihood(model, tokenizer, item.context, ending) for ending in item.endings]
    assert found.loglikelihoods == pytest.approx(expected, abs=1e-5)


def test_trailing_spaces_belong_to_the_ending() -> None:
    tokenizer = byte_tokenizer(True)
    ((tokens, start),) = encode_endings(tokenizer, "Uno  ", ("due",))
    assert tokenizer.decode(tokens[start:]) == "  due"
    assert tokenizer.decode(tokens[1:start]) == "Uno"


def test_vocabulary_slices_do_not_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    whole = score(model, tokenizer, ITEMS)
    monkeypatch.setattr("stilnovo.scoring.likelihood.TILE_ROWS", 3)
    monkeypatch.setattr("stilnovo.scoring.likelihood.TILE_BYTES", 4 * 3 * 7)  # the least width, 256 of 300 words
    for found, expected in zip(score(model, tokenizer, ITEMS), whole, strict=True):
        assert found.loglikelihoods == pytest.approx(expected.loglikelihoods, abs=1e-5)


def test_an_item_longer_than_the_model_is_cut_on_the_left_and_says_so() -> None:
    model, tokenizer = tiny_llama(max_positions=40), byte_tokenizer(True)
    found = {item.id: item for item in score(model, tokenizer, ITEMS)}
    assert [name for name, item in found.items() if item.truncated] == ["long"]
    context, ending = ITEMS[-1].context, ITEMS[-1].endings[1]
    tokens = tokenizer.encode(context + ending)[-41:]
    start = 41 - len(tokenizer.encode(ending))
    with torch.no_grad():
        logits = model(torch.tensor(tokens[:-1]), torch.arange(40), Blocks([40]))
    logs = torch.log_softmax(logits, dim=-1)
    expected = float(sum(logs[row - 1, tokens[row]] for row in range(start, 41)))
    assert found["long"].loglikelihoods[1] == pytest.approx(expected, abs=1e-4)


def test_progress_and_mode_are_kept() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    model.train()
    calls: list[tuple[int, int]] = []
    score(model, tokenizer, ITEMS, token_budget=100, progress=lambda done, total: calls.append((done, total)))
    assert model.training
    assert calls[-1] == (len(ITEMS), len(ITEMS))
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_tree_shares_prefixes_and_isolates_branches() -> None:
    tree = TokenTree()
    paths = [tree.add([5, 6, 7]), tree.add([5, 6, 8, 9]), tree.add([5, 6, 7, 4]), tree.add([3])]
    assert tree.tokens == [5, 6, 7, 8, 9, 4, 3]
    assert tree.positions == [0, 1, 2, 2, 3, 3, 0]
    assert paths == [[0, 1, 2], [0, 1, 3, 4], [0, 1, 2, 5], [6]]
    mask = tree.mask()
    for node in range(len(tree)):
        ancestors, at = {node}, node
        while (at := tree.parents[at]) >= 0:
            ancestors.add(at)
        assert set(mask[node].nonzero().flatten().tolist()) == ancestors
    assert tree.parents != list(range(-1, len(tree) - 1))
    chain = TokenTree()
    chain.add([1, 2, 3])
    assert chain.parents == [-1, 0, 1]
    assert torch.equal(chain.mask(), torch.ones(3, 3, dtype=torch.bool).tril())


def _arc(shared_data: Path, limit: int) -> tuple[MultipleChoice, ...]:
    return select(find_tasks(["arc_it"])[0], shared_data / "benchmarks", "validation", Draw(limit)).items


def _reference(model: Any, encode: Any, item: MultipleChoice) -> ItemScore:
    """lm-evaluation-harness' arithmetic on a stock transformers model, one ending at a time."""
    sums = []
    for ending in item.endings:
        context, whole = encode(item.context), encode(item.context + ending)
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([whole])).logits[0].float(), dim=-1)
        sums.append(float(sum(logs[row - 1, whole[row]].double() for row in range(len(context), len(whole)))))
    norm = [total / (len(ending) - 1) for total, ending in zip(sums, item.endings, strict=True)]
    return ItemScore(item.id, item.answer, sums.index(max(sums)), norm.index(max(norm)), tuple(sums))


def _assert_same(found: list[ItemScore], expected: list[ItemScore]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.loglikelihoods == pytest.approx(theirs.loglikelihoods, abs=1e-3), ours.id
        assert (ours.id, ours.choice, ours.choice_norm) == (theirs.id, theirs.choice, theirs.choice_norm)


def test_equals_transformers_on_smollm2(shared_data: Path, smollm2: tuple[Llama, Tokenizer]) -> None:
    """The same weights in transformers' own Llama; loader and tokeniser have tests of their own."""
    transformers = pytest.importorskip("transformers")
    ours, tokenizer = smollm2
    config = ours.config
    theirs = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        rms_norm_eps=config.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        stock = transformers.LlamaForCausalLM(theirs)
    stock.model.rotary_emb = type(stock.model.rotary_emb)(theirs)
    stock.load_state_dict(
        {_their_name(name): value for name, value in ours.state_dict().items()}, strict=False, assign=True
    )
    stock.tie_weights()
    items = _arc(shared_data, 6)
    expected = [_reference(stock.eval(), tokenizer.encode, item) for item in items]
    _assert_same(score(ours, tokenizer, items), expected)


def _their_name(name: str) -> str:
    return f"model.{name}" + (".weight" if not name.endswith(".weight") else "")


@pytest.mark.slow
def test_equals_stock_transformers_from_its_own_loader(
    shared_data: Path, smollm2: tuple[Llama, Tokenizer], smollm2_gguf: Path
) -> None:
    """Loader, tokeniser and arithmetic, all theirs."""
    transformers = pytest.importorskip("transformers")
    folder, name = smollm2_gguf.parent, smollm2_gguf.name
    stock = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    encode = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name).encode
    items = _arc(shared_data, 60)
    _assert_same(score(*smollm2, items), [_reference(stock, encode, item) for item in items])


def test_item_scores_are_json() -> None:
    (found,) = score(tiny_llama(), byte_tokenizer(True), ITEMS[:1])
    assert json.loads(json.dumps(found.loglikelihoods)) == list(found.loglikelihoods), "written and read unchanged"
