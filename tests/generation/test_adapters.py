"""PEFT adapters: allowed on the base model with one warning, and recognised by heads that were made with them."""

import logging

import pytest
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from transformers.utils import logging as transformers_logging

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, enable_best_of_n
from oracle import assert_rewards_close, oracle_rewards
from tiny_models import ragged_prompts, tiny_head, tiny_model

# Initialised at random, so that they change what the model computes
ADAPTERS = {
    "lora": lambda: LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False),
    "lora on queries": lambda: LoraConfig(target_modules=["q_proj"], init_lora_weights=False),
    "dora": lambda: LoraConfig(target_modules=["q_proj"], use_dora=True, init_lora_weights=False),
    "lora on embeddings": lambda: LoraConfig(target_modules=["embed_tokens", "q_proj"], init_lora_weights=False),
    "trained copies": lambda: LoraConfig(
        target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"], init_lora_weights=False
    ),
    "trained tokens": lambda: LoraConfig(
        target_modules=["q_proj"], trainable_token_indices=[5, 6], init_lora_weights=False
    ),
    "ia3": lambda: IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False
    ),
    "vera": lambda: VeraConfig(target_modules=["q_proj", "o_proj"], init_weights=False),
    "loha": lambda: LoHaConfig(target_modules=["q_proj"], init_weights=False),
}


def adapted(adapter: str = "lora", seed: int = 0):
    torch.manual_seed(100 + seed)
    model = tiny_model()
    torch.manual_seed(100 + seed)
    return enable_best_of_n(get_peft_model(model, ADAPTERS[adapter]()).eval())


def generate(model, head, **kwargs):
    torch.manual_seed(0)
    return model.generate(
        **ragged_prompts(), best_of_n=3, reward_head=head, max_new_tokens=5, return_dict_in_generate=True, **kwargs
    )


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_rewards_are_those_of_the_adapted_model(adapter):
    head = tiny_head(tiny_model())
    model = adapted(adapter)
    out = generate(model, head)
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, ragged_prompts()))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_leaves_the_fingerprint_of_the_base_model_alone(adapter):
    bare, config = ElhsrConfig.for_model(tiny_model()), ElhsrConfig.for_model(adapted(adapter))
    assert config.fingerprint == bare.fingerprint
    assert bare.adapter is None
    assert config.adapter is not None
    config.check_fits(adapted(adapter))


def test_a_head_for_the_bare_model_warns_once(caplog):
    head = tiny_head(tiny_model(), base_model="org/bare")
    transformers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        generate(tiny_model_enabled(), head)
        assert "org/bare" not in caplog.text
        model = adapted()
        generate(model, head)
        generate(model, head)
        head.score(model, torch.tensor([[5, 6, 7]]), torch.tensor([[0, 1, 1]]))
    transformers_logging.disable_propagation()
    [warning] = [record.message for record in caplog.records if "org/bare" in record.message]
    assert "made for org/bare without an adapter" in warning
    assert "'default'" in warning


def tiny_model_enabled():
    return enable_best_of_n(tiny_model())


def test_a_head_made_with_an_adapter_recognises_it(caplog, tmp_path):
    tiny_head(adapted(), base_model="org/adapted").save_pretrained(tmp_path)
    head = ElhsrRewardHead.from_pretrained(tmp_path)
    transformers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        assert generate(adapted(), head).rewards.shape == (3, 3)
        head.config.check_fits(adapted().to(torch.bfloat16))
    transformers_logging.disable_propagation()
    assert "org/adapted" not in caplog.text
    with pytest.raises(ValueError, match="a different adapter: its lora_A is"):
        generate(adapted(seed=1), head)
    with pytest.raises(ValueError, match=r"an adapter .head. against none active .model."):
        generate(tiny_model_enabled(), head)
    model = adapted()
    with model.disable_adapter(), pytest.raises(ValueError, match="against none active"):
        generate(model, head)
    with pytest.raises(ValueError, match=r"against ia3_l .model."):
        generate(adapted("ia3"), head)


def test_one_kind_of_weights_is_enough_to_tell_adapters_apart():
    """For example after two fine-tunings from the same start, in which the A have hardly changed."""
    model = adapted()
    config = ElhsrConfig.for_model(model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    with pytest.raises(ValueError, match="a different adapter: its lora_B is"):
        config.check_fits(model)
    model = adapted()
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict) and "default" in module.scaling:
            module.scaling["default"] *= 2
    with pytest.raises(ValueError, match=r"a different adapter: its scaling is 1.00 away"):
        config.check_fits(model)


def test_the_adapters_name_and_wrapper_do_not_matter(tmp_path):
    model = adapted()
    config = ElhsrConfig.for_model(model)
    model.save_pretrained(tmp_path)
    wrapped = PeftModel.from_pretrained(tiny_model(), tmp_path, adapter_name="mine")
    config.check_fits(wrapped)
    # transformers' own way, without a wrapper
    plain = tiny_model()
    plain.load_adapter(str(tmp_path), adapter_name="other")
    config.check_fits(plain)
    out = generate(enable_best_of_n(plain), head := ElhsrRewardHead(config))
    assert_rewards_close(out.rewards, oracle_rewards(plain, head, out, ragged_prompts()))
    # which of two is active
    wrapped.add_adapter("second", LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    config.check_fits(wrapped)
    wrapped.set_adapter("second")
    with pytest.raises(ValueError, match="a different adapter"):
        config.check_fits(wrapped)


def test_merged_adapters():
    config = ElhsrConfig.for_model(adapted("lora on queries"))
    merged = adapted("lora on queries")
    merged.merge_adapter()
    config.check_fits(merged)
    merged.unmerge_adapter()
    config.check_fits(merged)
    merged = adapted("lora on queries").merge_and_unload()
    with pytest.raises(
        ValueError, match=r"merged permanently into the model's weights, set head.config.adapter = None"
    ):
        config.check_fits(merged)
    config.adapter = None
    config.check_fits(merged)


@pytest.mark.parametrize("damage", [3, [], {"lora_A": ["x"]}, {"lora_A": []}], ids=str)
def test_a_damaged_record_is_a_clear_error(damage):
    model = adapted()
    config = ElhsrConfig.for_model(model)
    config.adapter = damage
    with pytest.raises(ValueError, match=r"adapter's fingerprint in the head's config.json is damaged"):
        config.check_fits(model)


def test_offloaded_adapters_give_no_fingerprint(caplog):
    config = ElhsrConfig.for_model(adapted())
    transformers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        model = adapted(seed=1)
        for name, module in model.named_modules():
            if name.endswith(("lora_A", "lora_B")):
                module.to("meta")
        config.check_fits(model)
    transformers_logging.disable_propagation()
    assert "adapter weights are packed or offloaded" in caplog.text
    with pytest.raises(ValueError, match="adapter's lora_A cannot be read"):
        ElhsrConfig.for_model(model)


@pytest.mark.parametrize("kind", [PromptTuningConfig, PrefixTuningConfig])
def test_learned_prompts_are_refused(kind, inputs):
    model = tiny_model_enabled()
    head = tiny_head(model)
    wrapped = get_peft_model(model, kind(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()
    for call in (enable_best_of_n, ElhsrConfig.for_model, head.config.check_fits):
        with pytest.raises(ValueError, match="adapter learns prompts"):
            call(wrapped)
    with pytest.raises(ValueError, match="does not support adapters that learn prompts"):
        generate(wrapped, head)
    # The wrapper still works without best_of_n
    assert wrapped.generate(**inputs, max_new_tokens=2, min_new_tokens=2).shape == (3, 11)
