"""Which options of a model's `config.json` are understood: an allow-list.

Of every option it is known that it is read, that it must have one of a few values, or that it changes nothing in what the
model computes. Anything else that is switched on is refused by name: a model computed by another rule answers wrongly
without a word. Options of other versions of transformers that are switched off (null, false, zero, empty) pass.
"""

from __future__ import annotations

from typing import Any

from stilnovo.plan.rope import KEYS

_OFF: tuple[object, ...] = (None, False, 0, "", [], {})
#: Read into the model's shape.
_READ = frozenset(
    ("architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
     "num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings",
     "max_position_embeddings", "original_max_position_embeddings", "sliding_window", "use_sliding_window", "attention_bias",
     "mlp_bias")
)  # fmt: skip
#: Without effect on what the model computes: where it comes from, how it was trained, how others run it or write with it.
_INFORMATIVE = frozenset(
    ("model_type", "transformers_version", "torch_dtype", "dtype", "initializer_range", "attention_dropout", "use_cache",
     "vocab_file", "name_or_path", "unsloth_fixed", "unsloth_version", "transformers.js_config", "is_llama_config", "use_sdpa",
     "max_window_layers",
     "pretraining_tp",  # the same products, cut into parts
     "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "cls_token_id", "decoder_start_token_id",
     "mask_token_id", "tokenizer_class", "prefix", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id",
     "return_dict", "return_dict_in_generate", "output_hidden_states", "output_attentions", "output_scores", "torchscript",
     "chunk_size_feed_forward", "is_decoder", "id2label", "label2id", "num_labels", "finetuning_task", "problem_type",
     "task_specific_params", "architecture", "max_length", "min_length", "max_new_tokens", "model_max_length", "do_sample",
     "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p",
     "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences",
     "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
     "max_sequence_length", "tf_legacy_loss", "use_bfloat16", "gradient_checkpointing", "hidden_dropout", "resid_pdrop",
     "embd_pdrop", "attn_pdrop")
)  # fmt: skip
#: With an effect, and only these values supported.
_LIMITED: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu",), "rope_type": tuple(KEYS), "partial_rotary_factor": (None, 1),
    "layer_types": (None, "full_attention", "sliding_attention"),
}  # fmt: skip
#: Of families that have no such switch: what the model computes does not depend on it.
_FIXED = {"mistral": ("attention_bias", "mlp_bias"), "qwen2": ("mlp_bias",)}
_ROPE = ("rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings")


def unsupported_options(c: dict[str, Any], rope: dict[str, Any], kind: str, family: str) -> list[str]:
    """List the options of a `config.json` that are not understood, each as `name=value`.

    Args:
        c: The file's content.
        rope: Its rotary settings, of whichever name.
        kind: Their kind, `rope_type`.
        family: The model's `model_type`.
    """
    given = {"hidden_act": "silu"} | c | {"rope_type": kind}
    odd = [name for name, value in given.items() if not _understood(name, value)]
    odd += [name for name in _FIXED.get(family, ()) if c.get(name)]
    inside = [name for name, value in rope.items() if name in _LIMITED and not _understood(name, value)]
    if kind in KEYS:
        inside += [name for name, value in rope.items() if name not in (*_ROPE, *KEYS[kind]) and value not in _OFF]
    inside = [name for name in inside if name not in ("rope_type", "type")]
    return [f"{name}={_short(given[name])}" for name in odd] + [f"rope {name}={_short(rope[name])}" for name in inside]


def _understood(name: str, value: Any) -> bool:
    if name in _LIMITED:
        values = value if isinstance(value, list) else [value]
        return all(item in _LIMITED[name] for item in values)
    if name == "quantization_config" and isinstance(value, dict):  # of bitsandbytes, what it stores in 4 bits
        return value.get("quant_method", "bitsandbytes") == "bitsandbytes" and not _in_8_bits(value)
    return name in _READ or name in _INFORMATIVE or name.startswith("_") or value in _OFF


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = f"{value.get('quant_method', value)}{' in 8 bits' if _in_8_bits(value) else ''}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _in_8_bits(quantization: dict[str, Any]) -> bool:
    return bool(quantization.get("load_in_8bit") or quantization.get("_load_in_8bit"))
