"""Tiny random models of every architecture that transformers' causal language models have, as far as they can be small.

A config gets those of [`SIZES`] that it has fields for, and its own [`OVERRIDES`].
"""

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

VOCABULARY, CONTEXT = 64, 64

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "sliding_window": 6,
    # Experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    # Latent attention
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    # Recurrent states
    "state_size": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}

OMITTED = object()
# What a config needs besides; a field that is OMITTED is not set
OVERRIDES: dict[str, dict] = {
    **{
        key: {"is_decoder": True}
        for key in ("bert", "bert-generation", "big_bird", "electra", "rembert", "roberta", "roformer")
    },
    "axk1": {"head_dim": 4, "num_key_value_heads": 4},
    "axk2": {"head_dim": 4, "num_key_value_heads": 4},
    "codegen": {"rotary_dim": 4},
    "deepseek_v2": {"head_dim": 4, "num_key_value_heads": 4},
    "deepseek_v3": {"head_dim": 4, "num_key_value_heads": 4},
    "falcon": {"head_dim": OMITTED},
    "glm4_moe_lite": {"head_dim": 4, "num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 6},
    "gptj": {"rotary_dim": 4},
    "jamba": {"num_hidden_layers": 8, "mamba_d_state": 4},
    "lfm3": {"num_hidden_layers": 4},
    "longcat_flash": {"head_dim": 4, "num_key_value_heads": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "minicpm3": {"head_dim": 4, "num_key_value_heads": 4},
    "qwen3_5_text": {"num_hidden_layers": 4},
    "qwen3_next": {"num_hidden_layers": 4},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 8},
    "youtu": {"head_dim": 4, "num_key_value_heads": 4},
}

ARCHITECTURES = tuple(
    [
        "afmoe",
        "apertus",
        "arcee",
        "aria_text",
        "axk1",
        "axk2",
        "beam",
        "bert",
        "bert-generation",
        "big_bird",
        "biogpt",
        "bitnet",
        "bloom",
        "codegen",
        "cohere",
        "cohere2",
        "cohere2_moe",
        "cwm",
        "deepseek_v2",
        "deepseek_v3",
        "diffllama",
        "doge",
        "dots1",
        "electra",
        "ernie4_5",
        "ernie4_5_moe",
        "exaone4",
        "exaone_moe",
        "falcon",
        "falcon_mamba",
        "flex_olmo",
        "flint",
        "gemma",
        "gemma2",
        "gemma3_text",
        "glm",
        "glm4",
        "glm4_moe",
        "glm4_moe_lite",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gpt_neox_japanese",
        "gpt_oss",
        "gptj",
        "granite",
        "granite_swa",
        "granitemoe",
        "granitemoe_swa",
        "granitemoeshared",
        "helium",
        "hunyuan_v1_dense",
        "hunyuan_v1_moe",
        "hy_v3",
        "hyperclovax",
        "jais2",
        "jamba",
        "jetmoe",
        "kolibri1",
        "laguna",
        "lfm2",
        "lfm3",
        "llama",
        "llama4_text",
        "longcat_flash",
        "mamba",
        "mamba2",
        "mellum",
        "mimo_v2_flash",
        "minicpm3",
        "minimax",
        "minimax_m2",
        "minimax_m3_vl_text",
        "ministral",
        "ministral3",
        "mistral",
        "mixtral",
        "modernbert-decoder",
        "mpt",
        "nanochat",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "olmo_hybrid",
        "olmoe",
        "openai-gpt",
        "opt",
        "persimmon",
        "phi",
        "phi3",
        "phimoe",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_5_text",
        "qwen3_moe",
        "qwen3_next",
        "recurrent_gemma",
        "rembert",
        "roberta",
        "roformer",
        "rwkv",
        "seed_oss",
        "smollm3",
        "solar_open",
        "stablelm",
        "starcoder2",
        "trocr",
        "vaultgemma",
        "xglm",
        "youtu",
    ]
)


def tiny_config(architecture: str):
    kind = CONFIG_MAPPING[architecture]
    default = kind()
    sizes = {name: size for name, size in SIZES.items() if hasattr(default, name)}
    sizes |= OVERRIDES.get(architecture, {})
    return kind(**{name: size for name, size in sizes.items() if size is not OMITTED})


def fuzz_model(architecture: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(architecture), dtype=dtype).eval()
    if dtype == torch.float64:
        # The other implementations take no float64
        model.set_experts_implementation("eager")
    # Larger weights than at initialisation, so that tokens and hidden states depend on what came before
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = [2, 3, 4]
    return model
