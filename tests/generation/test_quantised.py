"""Quantised models: rewards follow from what the model computes, and weights that unpack are compared with the head's.

torchao's int8 is tested itself where it is installed. bitsandbytes 0.50.2 in 8 bits was tried by hand on a CPU; its
weights cannot be read, which is simulated here as an example of packed weights of any kind.
"""

import logging

import pytest
import torch
from transformers import AutoModelForCausalLM, TorchAoConfig
from transformers.utils import logging as transformers_logging

from hf_elhsr import ElhsrConfig, enable_best_of_n
from oracle import assert_rewards_close, oracle_rewards
from tiny_models import tiny_head, tiny_model


class Packed(torch.Tensor):
    """Reports float32, and supports almost no tensor operation."""

    @staticmethod
    def __new__(cls, dense):
        packed = torch.Tensor._make_wrapper_subclass(cls, dense.shape, dtype=dense.dtype)
        packed.dense = dense
        return packed

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].dense)
        raise NotImplementedError(f"packed weights cannot do {func}")


class Unpackable(Packed):
    def dequantize(self):
        return self.dense


def with_late_weight(kind, seed: int = 0):
    model = tiny_model(seed=seed)
    layer = model.model.layers[-1].mlp.down_proj
    layer.weight = torch.nn.Parameter(kind(layer.weight.detach()), requires_grad=False)
    return model


def test_weights_that_unpack_are_compared():
    config = ElhsrConfig.for_model(tiny_model())
    config.check_fits(with_late_weight(Unpackable))
    other = with_late_weight(Unpackable, seed=1)
    other.model.embed_tokens.load_state_dict(tiny_model().model.embed_tokens.state_dict())
    with pytest.raises(ValueError, match="late_weight weights that are"):
        config.check_fits(other)


def test_weights_that_do_not_unpack_are_not_compared_and_a_warning_says_so(caplog):
    config = ElhsrConfig.for_model(tiny_model())
    # A test that ran before may have used up the one warning
    transformers_logging.warning_once.cache_clear()
    transformers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        config.check_fits(with_late_weight(Packed))
    transformers_logging.disable_propagation()
    assert "late_weight weights are packed or offloaded" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_torchao_int8(inputs, tmp_path):
    pytest.importorskip("torchao", reason="torchao is not installed")
    from torchao.quantization import Int8WeightOnlyConfig

    tiny_model().save_pretrained(tmp_path)
    quantised = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()), dtype=torch.float32
    )
    assert type(quantised.model.layers[0].mlp.down_proj.weight) is not torch.nn.Parameter
    head = tiny_head(tiny_model())
    torch.manual_seed(0)
    out = enable_best_of_n(quantised).generate(
        **inputs, best_of_n=3, reward_head=head, max_new_tokens=6, return_dict_in_generate=True
    )
    assert_rewards_close(out.rewards, oracle_rewards(quantised, head, out, inputs))
    other = ElhsrConfig.for_model(tiny_model(seed=1))
    with pytest.raises(ValueError, match="late_weight weights that are"):
        other.check_fits(quantised)
