"""The prompt is stored once and shared by its candidates, with the same results, and nothing is left behind."""

import contextlib
import copy
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from hf_elhsr import SignalNeeds, SignalProcessor, enable_best_of_n
from hf_elhsr.generation import packed_linear, shared_prompt
from hf_elhsr.generation.packed_linear import packed_linears
from hf_elhsr.generation.shared_prompt import SharedPromptCache
from oracle import assert_rewards_close, oracle_rewards
from tiny_models import ragged_prompts, tiny_head, tiny_model


def prefilled(model, inputs):
    with torch.no_grad():
        outputs = model(**inputs, past_key_values=DynamicCache(config=model.config), use_cache=True)
    return outputs.past_key_values


def positions(mask):
    return (mask.cumsum(-1) - 1).clamp_min(0)[:, -1:]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gpt2", "mixtral"])
def test_logits_equal_those_of_a_cache_with_multiplied_rows(architecture):
    """Five steps of the same tokens; rows leave unevenly, one prompt loses all of its rows."""
    model = tiny_model(architecture)
    inputs = ragged_prompts()
    cache = prefilled(model, inputs)
    assert SharedPromptCache.can_hold(model, cache, inputs["attention_mask"])
    prompt_of_row = torch.tensor([0, 0, 0, 1, 2, 2])
    shared = SharedPromptCache(cache, inputs["attention_mask"], prompt_of_row)
    plain = prefilled(model, inputs)
    plain.reorder_cache(prompt_of_row)
    mask = inputs["attention_mask"][prompt_of_row]
    generator = torch.Generator().manual_seed(1)
    leaving = {1: torch.tensor([0, 2, 3, 4, 5]), 3: torch.tensor([1, 3, 4])}
    for step in range(5):
        tokens = torch.randint(5, 64, (len(mask), 1), generator=generator)
        mask = torch.cat([mask, torch.ones(len(mask), 1, dtype=torch.long)], dim=-1)
        step_inputs = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions(mask)}
        with torch.no_grad():
            expected = model(**step_inputs, past_key_values=plain, use_cache=True).logits
            with shared.in_use(model):
                actual = model(**step_inputs, past_key_values=shared, use_cache=True).logits
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
        assert shared.get_seq_length() == plain.get_seq_length() == 10 + step
        if step in leaving:
            for either in (shared, plain):
                either.reorder_cache(leaving[step])
            mask = mask[leaving[step]]
    # After the last rows leave, prompt 1 has none
    assert len(shared.layers[0].prompt_keys) == 2


def test_the_prompts_cache_is_read_not_changed():
    model, inputs = tiny_model(), ragged_prompts()
    cache = prefilled(model, inputs)
    before = [layer.keys.clone() for layer in cache.layers]
    shared = SharedPromptCache(cache, inputs["attention_mask"], torch.tensor([0, 1, 1]))
    tokens = torch.full((3, 1), 7)
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, 1, dtype=torch.long)], dim=-1)
    with torch.no_grad(), shared.in_use(model):
        model(input_ids=tokens, attention_mask=mask, past_key_values=shared, use_cache=True)
    shared.reorder_cache(torch.tensor([1]))
    assert all(torch.equal(layer.keys, keys) for layer, keys in zip(cache.layers, before, strict=True))


def test_the_prompt_is_not_multiplied_while_decoding(model, head, inputs, monkeypatch):
    """The cache never holds prompt times candidates."""
    seen = []
    attend = SharedPromptCache.attend
    monkeypatch.setattr(
        SharedPromptCache,
        "attend",
        lambda self, layer, *args: seen.append(self.layers[layer].prompt_keys.shape) or attend(self, layer, *args),
    )
    model.generate(**inputs, best_of_n=16, reward_head=head, max_new_tokens=4)
    assert seen
    assert max(shape[0] for shape in seen) == 3


@pytest.mark.parametrize("architecture", ["gemma3", "mistral", "mamba", "lfm2"])
def test_other_caches_multiply_their_rows(architecture, monkeypatch):
    """Sliding windows and recurrent states do not share prompts."""
    monkeypatch.setattr(SharedPromptCache, "__init__", lambda *args: pytest.fail("shared"))
    model = enable_best_of_n(tiny_model(architecture))
    inputs = ragged_prompts()
    head = tiny_head(model)
    out = model.generate(
        **inputs, best_of_n=3, reward_head=head, max_new_tokens=5, return_dict_in_generate=True, max_parallel=4
    )
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


def test_eager_attention_does_not_share_prompts(inputs):
    model = enable_best_of_n(tiny_model(attn_implementation="eager"))
    head = tiny_head(model)
    torch.manual_seed(0)
    out = model.generate(**inputs, best_of_n=4, reward_head=head, max_new_tokens=6, return_dict_in_generate=True)
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


def test_attention_that_bypasses_the_interface_is_detected(model, head, inputs):
    """A model may claim to support the interface but not use it: its completions would not see the prompt."""
    layer = model.model.layers[1].self_attn
    forward, shared = layer.forward, []

    def own(hidden_states, position_embeddings, attention_mask=None, past_key_values=None, **kwargs):
        if isinstance(past_key_values, SharedPromptCache):
            shared.append(past_key_values)
            return torch.zeros_like(hidden_states), None
        return forward(hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs)

    layer.forward = own
    out = model.generate(**inputs, best_of_n=4, reward_head=head, max_new_tokens=6, return_dict_in_generate=True)
    assert len(shared) == 1
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("architecture", ["jetmoe", "doge", "diffllama"])
@pytest.mark.parametrize("max_parallel", [None, 5])
def test_unusual_attention_falls_back_to_multiplied_rows(architecture, max_parallel, monkeypatch):
    """Such models look plain until their first step; sharing is attempted once."""
    tried = []
    in_use = SharedPromptCache.in_use
    monkeypatch.setattr(SharedPromptCache, "in_use", lambda *args: tried.append(args) or in_use(*args))
    model = enable_best_of_n(tiny_model(architecture))
    inputs = ragged_prompts()
    head = tiny_head(model)
    torch.manual_seed(0)
    out = model.generate(
        **inputs,
        best_of_n=4,
        reward_head=head,
        max_new_tokens=8,
        return_dict_in_generate=True,
        max_parallel=max_parallel,
    )
    assert len(tried) == 1
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


def test_a_sliding_window_in_a_cache_that_keeps_everything(inputs):
    """A cache made without the model's config has plain layers, but the model masks a sliding window."""
    model = enable_best_of_n(tiny_model("mistral"))
    head = tiny_head(model)
    out = model.generate(
        **inputs,
        best_of_n=4,
        reward_head=head,
        max_new_tokens=8,
        return_dict_in_generate=True,
        past_key_values=DynamicCache(),
    )
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


def test_another_thread_sees_plain_attention_meanwhile(inputs):
    model = tiny_model()
    cache = prefilled(model, inputs)
    shared = SharedPromptCache(cache, inputs["attention_mask"], torch.arange(3))
    with torch.no_grad():
        expected = model(**inputs).logits
        results = []
        thread = threading.Thread(target=lambda: results.append(_logits(model, inputs)))
        with pytest.raises(ValueError, match="0 times in 3 layers"), shared.in_use(model):
            _run(thread)
    torch.testing.assert_close(results[0], expected)
    assert model.config._attn_implementation == "sdpa"


def test_threads_decode_with_the_same_model(model, head, inputs):
    """A thread that finishes first leaves the attention in place for the others."""

    def decode(number):
        out = model.generate(
            **inputs, best_of_n=4, reward_head=head, max_new_tokens=10 + number, return_dict_in_generate=True
        )
        return out.rewards, oracle_rewards(model, head, out, inputs)

    with ThreadPoolExecutor(3) as threads:
        for rewards, expected in threads.map(decode, range(3)):
            assert_rewards_close(rewards, expected)
    assert model.config._attn_implementation == "sdpa"


def _run(thread):
    thread.start()
    thread.join()


@torch.no_grad()
def _logits(model, inputs):
    return model(**inputs).logits


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU does not multiply bfloat16")
def test_packed_linears_give_the_same_bits():
    model = tiny_model().bfloat16()
    linear = model.model.layers[0].mlp.down_proj
    inputs = torch.randn(6, linear.in_features).bfloat16()
    with torch.no_grad():
        expected = linear(inputs)
        with packed_linears(model):
            assert "forward" in vars(linear)
            assert torch.equal(linear(inputs), expected)
            assert torch.equal(linear(inputs.view(2, 3, -1)), expected.view(2, 3, -1))
    assert "forward" not in vars(linear)


def test_packed_linears_leave_everything_else_alone():
    """float32 weights and wrapped or replaced layers are not packed, and a failure restores everything."""
    model = tiny_model()
    with packed_linears(model):
        assert not any("forward" in vars(module) for module in model.modules())
    model = model.bfloat16()
    wrapped = model.model.layers[0].mlp.up_proj
    own = wrapped.forward = lambda x: x
    with pytest.raises(AssertionError, match="stop"), packed_linears(model):
        assert wrapped.forward is not own, "stop"
    assert wrapped.forward is own
    assert [module for module in model.modules() if "forward" in vars(module)] == [wrapped]


class _Copying(SignalProcessor):
    """Copies the model in the middle of decoding, as a checkpointing callback may."""

    needs = SignalNeeds()

    def __init__(self, model):
        self._model, self.copies = model, []

    def begin(self, num_candidates, device):
        pass

    def __call__(self, input_ids, signal):
        if not self.copies:
            self.copies.append(copy.deepcopy(self._model))
            linears = [module for module in self._model.modules() if type(module) is nn.Linear]
            self.copies += pickle.loads(pickle.dumps(linears))


def test_copies_made_while_decoding_are_those_of_the_plain_model(inputs):
    model = enable_best_of_n(tiny_model().bfloat16())
    copying = _Copying(model)
    with torch.no_grad():
        expected = model(**inputs).logits
    model.generate(
        **inputs, best_of_n=2, reward_head=tiny_head(model), signal_processor=[copying], max_new_tokens=3, top_k=0
    )
    copied, *linears = copying.copies
    assert copied.config._attn_implementation == "sdpa"
    own = [module for module in model.modules() if type(module) is nn.Linear]
    x = torch.randn(3, 48).bfloat16()
    for layer, plain in zip([m for m in copied.modules() if type(m) is nn.Linear] + linears, own * 2, strict=True):
        forward = vars(layer).get("forward", layer.forward)
        # The copy's own weights, by the plain method
        assert forward.__func__ is nn.Linear.forward
        assert forward.__self__ is layer
        assert torch.equal(layer(x[:, : layer.in_features]), plain(x[:, : layer.in_features]))
    # Another forward pass leaves the copy as it is, and it can be decoded from
    with torch.no_grad():
        assert torch.equal(copied(**inputs).logits, expected)
    copied.generate(**inputs, best_of_n=2, reward_head=tiny_head(copied), max_new_tokens=3, top_k=0)


def _lines(function):
    code = getattr(function, "__wrapped__", function).__code__
    return [(code, line) for line in sorted({line for _, _, line in code.co_lines() if line})]


@pytest.mark.parametrize(
    ("code", "line"),
    [
        pytest.param(code, line, id=f"{code.co_name}:{line - code.co_firstlineno}")
        for function in (SharedPromptCache.in_use, packed_linears, packed_linear._unpack, shared_prompt._install)
        for code, line in _lines(function)
    ],
)
def test_an_interrupt_at_any_line_leaves_nothing_behind(code, line, inputs):
    model = enable_best_of_n(tiny_model().bfloat16())
    head = tiny_head(model)
    expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    interrupted = False

    def trace(frame, event, argument):
        nonlocal interrupted
        if frame.f_code is code and event == "line" and frame.f_lineno == line and not interrupted:
            interrupted = True
            raise KeyboardInterrupt
        return trace if frame.f_code is code else None

    sys.settrace(trace)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            model.generate(**inputs, best_of_n=2, reward_head=head, max_new_tokens=3, top_k=0)
    finally:
        sys.settrace(None)
    assert shared_prompt._in_use.get() is None
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False), expected)
