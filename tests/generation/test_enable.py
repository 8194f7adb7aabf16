"""enable_best_of_n changes only generate: name, pickles, copies, saving, pipelines, wrappers and hooks stay."""

import copy
import json
import pickle

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM, pipeline

from hf_elhsr import BestOfNGenerationMixin, disable_best_of_n, enable_best_of_n
from hf_elhsr.generation.mixin import best_of_n_view
from oracle import assert_rewards_close, oracle_rewards
from tiny_models import ragged_prompts, tiny_head, tiny_model


def best_of_n(model, head, inputs, **kwargs):
    torch.manual_seed(0)
    return model.generate(
        **inputs, best_of_n=3, reward_head=head, max_new_tokens=6, return_dict_in_generate=True, **kwargs
    )


def test_same_object_same_name_and_idempotent():
    model = tiny_model()
    enabled = enable_best_of_n(model)
    assert enabled is model
    assert isinstance(model, BestOfNGenerationMixin)
    assert isinstance(model, LlamaForCausalLM)
    assert type(model).__name__ == "LlamaForCausalLM"
    cls = type(model)
    assert type(enable_best_of_n(model)) is cls
    assert type(enable_best_of_n(tiny_model())) is cls


def test_reversible(inputs):
    model = enable_best_of_n(tiny_model())
    head = tiny_head(model)
    assert disable_best_of_n(model) is model
    assert type(model) is LlamaForCausalLM
    with pytest.raises(ValueError, match="best_of_n"):
        model.generate(**inputs, best_of_n=2, reward_head=head, max_new_tokens=2)
    assert disable_best_of_n(model) is model


def test_a_users_class_with_the_mixin(inputs):
    class Mine(BestOfNGenerationMixin, LlamaForCausalLM):
        pass

    model = Mine(tiny_model().config).eval()
    head = tiny_head(model)
    out = best_of_n(enable_best_of_n(model), head, inputs)
    assert type(model) is Mine
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))
    assert type(disable_best_of_n(model)) is Mine


def test_pickle_and_deepcopy(inputs):
    model = enable_best_of_n(tiny_model())
    pickled = pickle.loads(pickle.dumps(model))
    head = tiny_head(model)
    expected = best_of_n(model, head, inputs)
    for other in (pickled, copy.deepcopy(model), copy.copy(model)):
        assert type(other) is type(model)
        assert torch.equal(best_of_n(other, head, inputs).candidates, expected.candidates)
    assert type(disable_best_of_n(pickled)) is LlamaForCausalLM


def test_save_pretrained_names_the_original_class(tmp_path, inputs):
    model = enable_best_of_n(tiny_model())
    best_of_n(model, tiny_head(model), inputs)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert "best_of_n" not in (tmp_path / "generation_config.json").read_text()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is LlamaForCausalLM


def test_pipeline(smollm2):
    model, tokenizer = smollm2
    from hf_elhsr import ElhsrConfig, ElhsrRewardHead

    head = ElhsrRewardHead(ElhsrConfig.for_model(model))
    torch.nn.init.normal_(head.weight, std=1e-4)
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    chat = [{"role": "user", "content": "Name a colour."}]
    # The pipeline would set its own temperature
    arguments = {"best_of_n": 3, "reward_head": head, "max_new_tokens": 8, "do_sample": True, "temperature": 0.9}
    torch.manual_seed(0)
    answer = pipe(chat, **arguments)[0]["generated_text"][-1]
    assert answer["role"] == "assistant"
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    torch.manual_seed(0)
    sequences = model.generate(**inputs, **arguments)
    text = tokenizer.decode(sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer["content"].strip() == text.strip()


def test_torch_compile_wrapper(inputs):
    model = tiny_model()
    compiled = torch.compile(model, backend="eager")
    assert enable_best_of_n(compiled) is compiled
    head = tiny_head(compiled)
    out = best_of_n(compiled, head, inputs)
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


def test_accelerate_device_hooks(inputs):
    from accelerate import dispatch_model
    from accelerate.hooks import remove_hook_from_submodules

    model = tiny_model()
    head = tiny_head(model)
    enable_best_of_n(model)
    expected = best_of_n(model, head, inputs)
    dispatch_model(model, device_map={"": "cpu"}, force_hooks=True)
    assert hasattr(model, "_hf_hook") or any(hasattr(module, "_hf_hook") for module in model.modules())
    assert torch.equal(best_of_n(model, head, inputs).candidates, expected.candidates)
    remove_hook_from_submodules(model)


def test_peft_enables_the_base_model(inputs):
    from peft import LoraConfig, get_peft_model

    model = tiny_model()
    head = tiny_head(model)
    wrapped = get_peft_model(
        model, LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    )
    assert enable_best_of_n(wrapped) is wrapped
    assert isinstance(wrapped.get_base_model(), BestOfNGenerationMixin)
    out = best_of_n(wrapped, head, inputs)
    # The adapter is active, in decoding and in the plain forward pass alike
    assert_rewards_close(out.rewards, oracle_rewards(wrapped, head, out, inputs))
    with wrapped.disable_adapter():
        without = oracle_rewards(wrapped, head, out, inputs)
    assert abs(without - out.rewards.numpy()).max() > 1e-3


def test_hidden_states_need_no_hooks_of_the_package(model, head, inputs):
    before = [len(module._forward_hooks) for module in model.modules()]
    best_of_n(model, head, inputs)
    assert [len(module._forward_hooks) for module in model.modules()] == before


def test_training_mode_is_kept(model, head):
    model.train()
    best_of_n(model, head, ragged_prompts())
    assert model.training


def test_a_view_leaves_the_model_its_class_and_shares_everything_else(inputs):
    model = tiny_model()
    head = tiny_head(model)
    view = best_of_n_view(model)
    assert type(model) is LlamaForCausalLM
    out = best_of_n(view, head, inputs)
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))
    assert torch.equal(out.rewards, best_of_n(enable_best_of_n(tiny_model()), head, inputs).rewards)
    view.train()
    assert model.training
    model.mark = "seen"
    assert view.mark == "seen"
    with pytest.raises(ValueError, match="best_of_n"):
        model.generate(**inputs, best_of_n=2, reward_head=head, max_new_tokens=2)
    with pytest.raises(ValueError, match="cannot generate"):
        best_of_n_view(head)
