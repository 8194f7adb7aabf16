"""Tiny random models of many architectures, built from configs: two to four layers, a vocabulary of 64."""

import torch
import transformers as tf

from hf_elhsr import ElhsrConfig, ElhsrRewardHead

_COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CONFIGS = {
    "llama": lambda: tf.LlamaConfig(**_COMMON),
    "qwen2": lambda: tf.Qwen2Config(**_COMMON),
    "qwen3": lambda: tf.Qwen3Config(**_COMMON, head_dim=8),
    "gemma3": lambda: tf.Gemma3TextConfig(
        **{**_COMMON, "num_hidden_layers": 4}, head_dim=8, sliding_window=6, sliding_window_pattern=2
    ),
    "gpt2": lambda: tf.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2, pad_token_id=0
    ),
    "mistral": lambda: tf.MistralConfig(**_COMMON, sliding_window=7),
    "mixtral": lambda: tf.MixtralConfig(**_COMMON, num_local_experts=4, num_experts_per_tok=2),
    # tiles keys after they were cached
    "jetmoe": lambda: tf.JetMoeConfig(
        **{k: v for k, v in _COMMON.items() if k != "num_attention_heads"},
        kv_channels=8,
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
    # makes a mask of its own from the cached values
    "doge": lambda: tf.DogeConfig(**_COMMON),
    # calls attention twice in every layer
    "diffllama": lambda: tf.DiffLlamaConfig(**_COMMON),
    "mamba": lambda: tf.MambaConfig(
        vocab_size=64, hidden_size=32, state_size=4, num_hidden_layers=3, bos_token_id=1, eos_token_id=2, pad_token_id=0
    ),
    "lfm2": lambda: tf.Lfm2Config(**_COMMON, full_attn_idxs=[1]),
    "qwen3_next": lambda: tf.Qwen3NextConfig(
        **{**_COMMON, "num_hidden_layers": 4},
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
}


def tiny_model(architecture: str = "llama", seed: int = 0, **kwargs) -> tf.PreTrainedModel:
    torch.manual_seed(seed)
    model = tf.AutoModelForCausalLM.from_config(CONFIGS[architecture](), **kwargs).eval()
    # Larger weights than at initialisation, so that tokens and hidden states depend on what came before
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = [2, 3, 4]
    return model


def tiny_classifier(architecture: str = "llama", labels: int = 1, seed: int = 0, **changes) -> tf.PreTrainedModel:
    """A text reward model."""
    torch.manual_seed(seed)
    config = CONFIGS[architecture]()
    config.num_labels, config.pad_token_id = labels, 0
    for name, value in changes.items():
        setattr(config, name, value)
    model = tf.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model


def tiny_head(model, seed: int = 0, **config) -> ElhsrRewardHead:
    """A random head, scaled so that W h is of order one."""
    head = ElhsrRewardHead(ElhsrConfig.for_model(model, **config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        ids = torch.randint(5, 64, (1, 16), generator=generator)
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
        scale = torch.cat([states[layer][0] for layer in head.config.layers], dim=-1).norm(dim=-1).mean()
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) / scale * 1.5)
        head.bias.copy_(torch.randn(head.bias.shape, generator=generator) * 0.1)
    return head


def ragged_prompts(batch: int = 3, length: int = 9, seed: int = 0) -> dict[str, torch.Tensor]:
    """Left-padded prompts of lengths `length`, `length - 2`, `length - 4`, ..."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 64, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(batch):
        ids[row, : 2 * row] = 0
        mask[row, : 2 * row] = 0
    return {"input_ids": ids, "attention_mask": mask}
