"""Tiny random models that read images and text; token 63 stands for an image's features, four to an image."""

import torch
import transformers as tf

from tiny_models import _COMMON

IMAGE = 63
_TOKENS = 4
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
_QWEN_VISION = {
    "depth": 2,
    "embed_dim": 32,
    "hidden_size": 32,
    "num_heads": 4,
    "mlp_ratio": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0}

CONFIGS = {
    "llava": lambda: tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**_VISION, projection_dim=32),
        text_config=tf.LlamaConfig(**_COMMON),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        image_seq_length=_TOKENS,
    ),
    "gemma3": lambda: tf.Gemma3Config(
        text_config=tf.Gemma3TextConfig(
            **{**_COMMON, "num_hidden_layers": 4}, head_dim=8, sliding_window=6, sliding_window_pattern=2
        ),
        vision_config=tf.SiglipVisionConfig(**_VISION, vision_use_head=False),
        mm_tokens_per_image=_TOKENS,
        image_token_index=IMAGE,
    ),
    "idefics3": lambda: tf.Idefics3Config(
        text_config=tf.LlamaConfig(**_COMMON),
        vision_config=tf.Idefics3VisionConfig(**_VISION),
        image_token_id=IMAGE,
        scale_factor=1,
    ),
    # positions in three dimensions
    "qwen2_vl": lambda: tf.Qwen2VLConfig(
        text_config={**_COMMON, "rope_parameters": _ROPE},
        vision_config=_QWEN_VISION,
        image_token_id=IMAGE,
        vision_start_token_id=62,
        vision_end_token_id=61,
        video_token_id=60,
    ),
}


def tiny_multimodal(architecture: str, seed: int = 0) -> tf.PreTrainedModel:
    torch.manual_seed(seed)
    model = tf.AutoModelForImageTextToText.from_config(CONFIGS[architecture]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
                if not parameter.any():
                    # Gemma 3's projection of the image starts at zero
                    torch.nn.init.normal_(parameter, std=0.1)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = [2, 3, 4]
    # A sampled token that asks for an image would have none
    model.generation_config.suppress_tokens = [60, 61, 62, IMAGE]
    return model


def image_prompts(architecture: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Two prompts of 12 and 8 tokens, the second left-padded, with an image each."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (2, 12), generator=generator)
    for row, first in enumerate((2, 6)):
        ids[row, first], ids[row, first + 1 + _TOKENS] = 62, 61
        ids[row, first + 1 : first + 1 + _TOKENS] = IMAGE
    ids[1, :4] = 0
    mask = (ids != 0).long()
    inputs = {"input_ids": ids, "attention_mask": mask}
    if architecture == "qwen2_vl":
        # 4 x 4 patches of an image, of which 2 x 2 become a token
        inputs["pixel_values"] = torch.randn(32, 3 * 2 * 4 * 4, generator=generator)
        inputs["image_grid_thw"] = torch.tensor([[1, 4, 4]] * 2)
        inputs["mm_token_type_ids"] = (ids == IMAGE).long()
    elif architecture == "idefics3":
        inputs["pixel_values"] = torch.randn(2, 1, 3, 16, 16, generator=generator)
    else:
        inputs["pixel_values"] = torch.randn(2, 3, 16, 16, generator=generator)
    if architecture == "gemma3":
        inputs["token_type_ids"] = (ids == IMAGE).long()
    return inputs


def of_prompt(inputs: dict[str, torch.Tensor], row: int, new_tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """The inputs of one prompt alone, without its padding and with these tokens, (tokens,) long, after it."""
    present = inputs["attention_mask"][row].bool()
    own = {}
    for name, value in inputs.items():
        if name == "input_ids":
            own[name] = torch.cat([value[row][present], new_tokens])[None]
        elif name.endswith("token_type_ids"):
            own[name] = torch.cat([value[row][present], torch.zeros_like(new_tokens)])[None]
        elif name != "attention_mask":
            own[name] = value.view(2, len(value) // 2, *value.shape[1:])[row]
    return own
