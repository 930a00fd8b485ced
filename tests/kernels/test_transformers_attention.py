"""Patterns inside models of Hugging Face transformers: the numbers of eager attention with their mask."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from graphrec.kernels.patterns import (
    Causal,
    Full,
    Global,
    KeyPadding,
    Pattern,
    PerHead,
    Streaming,
    Strided,
    Window,
)
from graphrec.kernels.transformers import register

hub = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _one_seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def llama(**changes: Any) -> Any:
    """A small causal model with random weights and two query heads per key head."""
    options: dict[str, Any] = {
        "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "attn_implementation": "eager", "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    model = hub.LlamaForCausalLM(hub.LlamaConfig(**{**options, **changes}))
    for name, weight in model.named_parameters():  # sharper attention than at initialisation
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 12
    return model.eval()


def with_attention(model: Any, name: str) -> Any:
    twin = copy.deepcopy(model)
    twin.set_attn_implementation(name)
    return twin


def tokens(*shape: int) -> Tensor:
    return torch.randint(2, 61, shape)


def padded(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Prompts padded on the left, and their mask."""
    ids, mask = (
        torch.zeros(len(lengths), max(lengths), dtype=torch.int64),
        torch.zeros(len(lengths), max(lengths)),
    )
    for row, length in enumerate(lengths):
        ids[row, -length:], mask[row, -length:] = tokens(length), 1
    return ids, mask.long()


def additive(pattern: Pattern, length: int) -> Tensor:
    """A prepared mask for eager attention, (1, 1 or heads, length, length)."""
    seen = (pattern.mask(length, length) & Causal().mask(length, length)).view(1, -1, length, length)
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)


@torch.no_grad()
def generate_by_hand(model: Any, ids: Tensor, steps: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Greedy decoding of one prompt by eager attention over the whole sequence: tokens and their logits."""
    logits = []
    for _ in range(steps):
        found = model(ids[None], attention_mask=additive(pattern, len(ids)), use_cache=False).logits[0, -1]
        logits.append(found)
        ids = torch.cat([ids, found.argmax()[None]])
    return ids[-steps:], torch.stack(logits)


def generate(model: Any, ids: Tensor, mask: Tensor, steps: int, **options: Any) -> tuple[Tensor, Tensor]:
    found = model.generate(
        ids, attention_mask=mask, max_new_tokens=steps, min_new_tokens=steps, do_sample=False,
        output_logits=True, return_dict_in_generate=True, **options,
    )  # fmt: skip
    return found.sequences[:, -steps:], torch.stack(found.logits, 1)


def test_register_names_what_it_made() -> None:
    assert register() == "graphrec_full"
    assert register("graphrec_near", Window(3, 0)) == "graphrec_near"
    assert llama(attn_implementation="graphrec_near").config._attn_implementation == "graphrec_near"
    assert llama(attn_implementation="graphrec_causal").config._attn_implementation == "graphrec_causal"


@pytest.mark.parametrize("name", ["graphrec_full", "graphrec_causal"])
def test_prefill_equals_eager(name: str) -> None:
    register()
    eager, ids = llama(), tokens(3, 23)
    ours = with_attention(eager, name)
    torch.testing.assert_close(ours(ids).logits, eager(ids).logits, rtol=1e-4, atol=1e-5)
    ids, mask = padded([23, 4, 11])
    real = mask.bool()
    found, truth = ours(ids, attention_mask=mask).logits, eager(ids, attention_mask=mask).logits
    torch.testing.assert_close(found[real], truth[real], rtol=1e-4, atol=1e-5)
    flipped = (
        ours(ids.flip(1), attention_mask=mask.flip(1)).logits,
        eager(ids.flip(1), attention_mask=mask.flip(1)).logits,
    )
    torch.testing.assert_close(*(one[real.flip(1)] for one in flipped), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"cache_implementation": "static"}, {"use_cache": False}], ids=str
)
def test_generation_of_unequal_prompts_equals_eager(options: dict[str, Any]) -> None:
    register()
    eager = llama()
    ids, mask = padded([12, 3, 7])
    truth = generate(eager, ids, mask, 10, **options)
    found = generate(with_attention(eager, "graphrec_causal"), ids, mask, 10, **options)
    assert torch.equal(found[0], truth[0])
    torch.testing.assert_close(found[1], truth[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "pattern",
    [
        Streaming(2, 5),
        Window(4, 0),
        Global(1) | Strided(3),
        PerHead(Causal(), Streaming(1, 3), Window(6, 0), Full()),
        Window(3, 3),
    ],
    ids=repr,
)
def test_a_patterns_generation_equals_eager_with_its_mask(pattern: Pattern) -> None:
    name = register("graphrec_tested", pattern)
    eager = llama()
    ours = with_attention(eager, name)
    lengths = [15, 4, 9]
    ids, mask = padded(lengths)
    found = generate(ours, ids, mask, 8)
    for row, length in enumerate(lengths):
        chosen, logits = generate_by_hand(eager, ids[row, -length:], 8, pattern)
        assert torch.equal(found[0][row], chosen)
        torch.testing.assert_close(found[1][row], logits, rtol=1e-4, atol=1e-5)
    plain = generate(eager, ids, mask, 8)[1]
    assert not torch.allclose(found[1], plain, atol=1e-3)  # the pattern does hide something


def test_prefill_in_chunks_equals_prefill_at_once() -> None:
    name = register("graphrec_tested", Streaming(2, 5))
    ours, ids = with_attention(llama(), name), tokens(2, 20)
    cache = hub.DynamicCache()
    parts = [ours(chunk, past_key_values=cache, use_cache=True).logits for chunk in ids.split(7, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), ours(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_training_gives_the_gradients_of_eager(checkpoints: bool) -> None:
    name = register("graphrec_tested", Streaming(2, 5))
    eager = llama().train()
    ours = with_attention(eager, name)
    if checkpoints:
        ours.activation_checkpointing_enable()
    ids = tokens(2, 19)
    eager(ids, attention_mask=additive(Streaming(2, 5), 19).expand(2, -1, -1, -1), labels=ids).loss.backward()
    ours(ids, labels=ids).loss.backward()
    for (name, one), other in zip(ours.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=name)


def mistral(**changes: Any) -> Any:
    options: dict[str, Any] = {
        "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 5, "eos_token_id": None,
        "attn_implementation": "eager", "pad_token_id": 0,
    }  # fmt: skip
    return hub.MistralForCausalLM(hub.MistralConfig(**{**options, **changes})).eval()


def test_a_models_own_sliding_window_holds() -> None:
    register()
    eager = mistral()
    ours = with_attention(eager, "graphrec_full")
    ids, mask = padded([17, 3, 9])
    truth, found = generate(eager, ids, mask, 10), generate(ours, ids, mask, 10)
    assert torch.equal(found[0], truth[0])
    torch.testing.assert_close(found[1], truth[1], rtol=1e-4, atol=1e-5)
    narrow = with_attention(eager, register("graphrec_tested", Window(2, 0)))
    found = generate(narrow, ids, mask, 10)
    truth = generate(with_window(eager, 3), ids, mask, 10)
    assert torch.equal(found[0], truth[0])
    torch.testing.assert_close(found[1], truth[1], rtol=1e-4, atol=1e-5)


def with_window(model: Any, window: int) -> Any:
    twin = mistral(sliding_window=window)
    twin.load_state_dict(model.state_dict())
    return twin


def test_an_encoder_sees_both_sides_within_the_pattern() -> None:
    options: dict[str, Any] = {
        "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "attention_probs_dropout_prob": 0.0, "attn_implementation": "eager",
    }  # fmt: skip
    eager = hub.BertModel(hub.BertConfig(**options)).eval()
    ids, mask = padded([13, 5])
    real = mask.bool()
    register()
    found = with_attention(eager, "graphrec_full")(ids, attention_mask=mask).last_hidden_state
    truth = eager(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[real], truth[real], rtol=1e-4, atol=1e-5)
    near = with_attention(eager, register("graphrec_tested", Window(2, 1)))
    seen = torch.where(Window(2, 1).mask(13, 13), 0.0, torch.finfo(torch.float32).min).expand(1, 1, -1, -1)
    found = near(ids[:1]).last_hidden_state
    torch.testing.assert_close(
        found, eager(ids[:1], attention_mask=seen).last_hidden_state, rtol=1e-4, atol=1e-5
    )
    forward = with_attention(eager, "graphrec_causal")(ids[:1]).last_hidden_state
    changed = ids[:1].clone()
    changed[:, 8:] = 3
    again = with_attention(eager, "graphrec_causal")(changed).last_hidden_state
    assert torch.equal(forward[:, :8], again[:, :8])


def test_learned_sinks_join_the_softmax() -> None:
    options: dict[str, Any] = {
        "vocab_size": 61, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2,
        "num_experts_per_tok": 1, "sliding_window": 4, "attn_implementation": "eager", "pad_token_id": 0,
    }  # fmt: skip
    register()
    eager = hub.GptOssForCausalLM(hub.GptOssConfig(**options)).eval()
    for name, weight in eager.named_parameters():
        if name.endswith("sinks"):
            torch.nn.init.normal_(weight)
    ids = tokens(2, 15)
    found = with_attention(eager, "graphrec_full")(ids).logits
    torch.testing.assert_close(found, eager(ids).logits, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_honoured_is_refused() -> None:
    register()
    ids = tokens(2, 9)
    with pytest.raises(ValueError, match=r"dropout=0\.5"):
        llama(attn_implementation="graphrec_full", attention_dropout=0.5).train()(ids)
    ours = llama(attn_implementation="graphrec_full")
    with pytest.raises(ValueError, match="output_attentions"):
        ours(ids, output_attentions=True)
    with pytest.raises(ValueError, match=r"attention_mask of shape \(2, 1, 9, 9\) was prepared outside"):
        ours(ids, attention_mask=torch.zeros(2, 1, 9, 9))
    with pytest.raises(ValueError, match="packed_sequence"):
        ours(ids, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]]).expand(2, -1), use_cache=False)
    ours.model.layers[0].self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "softcap": 30.0}), with_kwargs=True
    )
    with pytest.raises(ValueError, match="softcap"):
        ours(ids)


def test_a_dropped_start_is_refused() -> None:
    ours = with_attention(mistral(), register("graphrec_tested", Streaming(1, 3)))
    ids = tokens(1, 12)
    with pytest.raises(ValueError, match="counts from the start of the sequence"):
        generate(ours, ids, torch.ones_like(ids), 3)
    generate(ours, ids, torch.ones_like(ids), 3, past_key_values=hub.DynamicCache())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("graphrec_a",), "give a name and a pattern"),
        (("window", Window(1, 0)), "must start with 'graphrec_'"),
        (("graphrec_a", KeyPadding(torch.ones(1, 3, dtype=torch.bool))), "without tensors"),
        (("graphrec_a", "window"), "without tensors"),
    ],
)
def test_bad_registrations_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        register(*arguments)
