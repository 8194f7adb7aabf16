"""What cannot work is refused with one clear error that leaves nothing about the model changed."""

import json
import shutil

import pytest
import torch
import transformers as tf
from transformers import DynamicCache

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, RunningReward, enable_best_of_n, score_generation
from oracle import assert_rewards_close, oracle_rewards
from tiny_models import CONFIGS, ragged_prompts, tiny_head, tiny_model


@pytest.fixture
def watched(model):
    """The model, checked afterwards for hooks, settings, mode and attributes."""
    # transformers installs its own capture hooks when hidden states are first asked for, and keeps them
    ElhsrConfig.for_model(model)
    model.train()
    attributes = set(vars(model))
    config = model.generation_config.to_dict()
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    yield model
    assert set(vars(model)) == attributes
    assert model.generation_config.to_dict() == config
    assert model.training
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks


@pytest.fixture
def head(watched):
    head = tiny_head(watched)
    return head


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"best_of_n": 0}, "best_of_n=0: expected a whole number of at least 1"),
        ({"best_of_n": -3}, "best_of_n=-3: expected a whole number of at least 1"),
        ({"best_of_n": 2.0}, "best_of_n=2.0: expected a whole number of at least 1"),
        ({"best_of_n": True}, "best_of_n=True: expected a whole number of at least 1"),
        ({"num_return_sequences": 5}, "num_return_sequences=5 is more than the best_of_n=4 candidates"),
        ({"num_return_sequences": 0}, "num_return_sequences=0: expected a whole number of at least 1"),
        ({"num_return_sequences": -1}, "num_return_sequences=-1: expected a whole number of at least 1"),
        ({"num_return_sequences": 2.0}, "num_return_sequences=2.0: expected a whole number of at least 1"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha"),
        ({"output_hidden_states": [0, 1]}, "selects layers"),
        ({"num_beams": 2}, "cannot be combined with beam sample"),
        ({"num_beams": 2, "num_return_sequences": 2}, "cannot be combined with beam"),
        ({"do_sample": False}, "makes all 4 candidates the same"),
        ({"prompt_lookup_num_tokens": 3}, "cannot be combined with assisted generation"),
        ({"cache_implementation": "paged"}, "paged cache"),
        ({"synced_gpus": True}, "synced_gpus"),
        ({"custom_generate": "org/name"}, "custom_generate brings its own decoding loop"),
        ({"input_ids": torch.zeros(0, 5, dtype=torch.long), "attention_mask": None}, "batch of prompts is empty"),
        ({"input_ids": torch.ones(1, 128, dtype=torch.long), "attention_mask": None}, "context holds 128"),
        ({"input_ids": torch.ones(2, 0, dtype=torch.long), "attention_mask": None}, r"prompts are empty .*\(2, 0\)"),
        ({"input_ids": torch.ones(5, dtype=torch.long), "attention_mask": None}, r"expected \(batch, length\)"),
        ({"past_key_values": DynamicCache(), "use_cache": False}, "past_key_values is a cache, and use_cache=False"),
        ({"generation_config": {"top_k": 5}}, "generation_config=.*: expected a GenerationConfig"),
        ({"best_of_n": 10**9}, "best_of_n=1000000000: expected at most 1,048,576"),
        ({"reward_head": None}, "best_of_n needs a reward_head"),
        ({"reward_head": 3}, "got int"),
        ({"reward_head": "no such thing"}, "neither a folder nor a repository id"),
        ({"reward_head": "gpt2"}, "neither a folder nor a repository id"),
        ({"reward_head": "/no/such/folder"}, "neither a folder nor a repository id"),
        ({"reward_head": "some-org/some-head"}, "could not be loaded from the Hub"),
        ({"nonsense": 1}, "nonsense"),
    ],
    ids=str,
)
def test_arguments(watched, head, inputs, kwargs, message):
    settings = {**inputs, "best_of_n": 4, "reward_head": head, "max_new_tokens": 4} | kwargs
    with pytest.raises(ValueError, match=message):
        watched.generate(**settings)


def test_do_sample_false_in_a_generation_config_or_the_model(model, inputs):
    head = tiny_head(model)
    config = tf.GenerationConfig(do_sample=False, max_new_tokens=4)
    with pytest.raises(ValueError, match="do_sample=False makes all 4"):
        model.generate(**inputs, best_of_n=4, reward_head=head, generation_config=config)
    model.generation_config.do_sample = False
    with pytest.raises(ValueError, match="do_sample=False makes all 4"):
        model.generate(**inputs, best_of_n=4, reward_head=head, max_new_tokens=4)


def test_assistant_model(model, inputs):
    with pytest.raises(ValueError, match="cannot be combined with assisted generation"):
        model.generate(
            **inputs, best_of_n=2, reward_head=tiny_head(model), assistant_model=tiny_model(), max_new_tokens=4
        )


@pytest.mark.parametrize(
    "kwargs", [{"reward_head": "org/head"}, {"signal_processor": []}, {"output_token_rewards": True}], ids=str
)
def test_arguments_of_best_of_n_without_it_are_refused(model, inputs, kwargs):
    with pytest.raises(ValueError, match="without best_of_n"):
        model.generate(**inputs, **kwargs)


def test_ends_at_different_lengths_need_a_padding_token(model, inputs):
    model.generation_config.pad_token_id = None
    model.generation_config.eos_token_id = None
    model.config.pad_token_id = model.config.eos_token_id = None
    head = tiny_head(model)
    from transformers import StoppingCriteria

    class StopsAtSix(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return input_ids[:, -1] == 6

    with pytest.raises(ValueError, match="pass pad_token_id"):
        model.generate(**inputs, best_of_n=2, reward_head=head, max_new_tokens=4, stopping_criteria=[StopsAtSix()])
    out = model.generate(**inputs, best_of_n=2, reward_head=head, max_new_tokens=4)
    assert out.shape == (3, 13)


def test_cache_passed_in_is_untouched_by_a_refusal(model, inputs):
    cache = DynamicCache(config=model.config)
    with pytest.raises(ValueError, match="do_sample=False"):
        model.generate(**inputs, best_of_n=2, reward_head=tiny_head(model), past_key_values=cache, do_sample=False)
    assert cache.get_seq_length() == 0


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_a_failure_during_decoding_leaves_the_model_as_it_was(model, inputs, failure):
    head = tiny_head(model)
    attributes = set(vars(model))

    class Fails(RunningReward):
        def __call__(self, input_ids, signal):
            raise failure("stopped")

    cache = DynamicCache(config=model.config)
    with pytest.raises(failure):
        model.generate(**inputs, best_of_n=2, reward_head=head, signal_processor=[Fails(head)], past_key_values=cache)
    assert set(vars(model)) == attributes
    assert cache.get_seq_length() == 0
    model.generate(**inputs, best_of_n=2, reward_head=head, max_new_tokens=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tf.T5ForConditionalGeneration(
            tf.T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
        ), "encoder-decoder"),
        (lambda: tf.LlamaModel(CONFIGS["llama"]()), "cannot generate"),
        (lambda: torch.nn.Linear(2, 2), "PreTrainedModel"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_enabled(make, message):
    with pytest.raises(ValueError, match=message):
        enable_best_of_n(make())


def test_a_model_with_a_custom_generate_of_its_own():
    model = tiny_model()
    model.generate = lambda *args, **kwargs: None
    with pytest.raises(ValueError, match="has a custom generate"):
        enable_best_of_n(model)


def other_model(**changes):
    config = CONFIGS["llama"]()
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(9)
    return tf.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: other_model(hidden_size=64), "hidden size 64 .head. against 32 .model."),
        (lambda: other_model(num_hidden_layers=2), "number of layers 2 .head. against 3 .model."),
        (lambda: other_model(vocab_size=70), "embedding weights that are .* away"),
        (lambda: tiny_model("qwen2"), "model_type qwen2 .head. against llama .model."),
        (lambda: tiny_model(seed=1), "embedding weights that are .* away"),
    ],
)
def test_a_head_for_another_model(watched, inputs, make, message):
    head = ElhsrRewardHead(ElhsrConfig.for_model(make(), base_model="org/other"))
    with pytest.raises(ValueError, match=message) as error:
        watched.generate(**inputs, best_of_n=2, reward_head=head)
    assert "org/other" in str(error.value)
    assert "LlamaForCausalLM" in str(error.value)


@pytest.fixture
def saved_head(watched, head, tmp_path):
    head.save_pretrained(tmp_path / "head")
    return tmp_path / "head"


def damage(folder, what):
    weights = folder / "model.safetensors"
    if what == "no config":
        (folder / "config.json").unlink()
    elif what == "no weights":
        weights.unlink()
    elif what == "only a pickle":
        torch.save({"weight": torch.zeros(2, 128)}, folder / "pytorch_model.bin")
        weights.unlink()
    elif what == "truncated":
        weights.write_bytes(weights.read_bytes()[:-50])
    elif what == "empty":
        weights.write_bytes(b"")
    elif what in ("nan", "another shape", "missing bias"):
        tensors = {"weight": torch.full((2, 128), float("nan")), "bias": torch.zeros(2)}
        if what == "another shape":
            tensors["weight"] = torch.zeros(2, 96)
        if what == "missing bias":
            tensors = {"weight": torch.zeros(2, 128)}
        from safetensors.torch import save_file

        save_file(tensors, weights, metadata={"format": "pt"})
    elif what == "config no JSON":
        (folder / "config.json").write_text("{half")
    elif what == "another type":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no config", "no config.json"),
        ("config no JSON", "not a valid JSON"),
        ("no weights", "cannot be loaded"),
        ("only a pickle", "cannot be loaded.*never from pickled files"),
        ("truncated", "cannot be read"),
        ("empty", "cannot be read"),
        ("nan", "NaN or infinity"),
        ("another shape", "do not fit the head's config.json"),
        ("missing bias", "do not fit the head's config.json"),
        ("another type", "type 'llama', not a reward head"),
    ],
)
def test_damaged_folders(watched, saved_head, inputs, what, message):
    damage(saved_head, what)
    with pytest.raises(ValueError, match=message):
        watched.generate(**inputs, best_of_n=2, reward_head=saved_head)


def test_the_undamaged_folder_works_by_path_and_by_string(model, saved_head, inputs, tmp_path):
    for source in (saved_head, str(saved_head), shutil.copytree(saved_head, tmp_path / "copy")):
        assert model.generate(**inputs, best_of_n=2, reward_head=source, max_new_tokens=2).shape == (3, 11)


def test_hidden_states_with_nan_are_not_ranked(inputs):
    model = enable_best_of_n(tiny_model())
    head = tiny_head(model)

    class Spoils(torch.nn.Module):
        def forward(self, hidden):
            hidden = hidden.clone()
            # Only in decoding: the check of the cache has fewer rows
            if hidden.shape[1] == 1 and len(hidden) == 6:
                hidden[1] = float("nan")
            return hidden

    # Row 1 of the last layer's hidden state becomes NaN, after the logits were computed from the valid one
    model.model.norm = torch.nn.Sequential(model.model.norm, Spoils())
    weight = model.lm_head.weight
    model.lm_head = torch.nn.Linear(32, 64, bias=False)
    model.lm_head.weight = weight
    model.lm_head.register_forward_pre_hook(lambda module, args: (args[0].nan_to_num(0.0),))
    with pytest.raises(ValueError, match="reward of candidate 1 of prompt 0 is nan"):
        model.generate(**inputs, best_of_n=2, reward_head=head, max_new_tokens=3)


def test_nan_logits_are_not_sampled_from(model, inputs):
    head = tiny_head(model)
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    with pytest.raises(ValueError, match="next-token distribution has NaN"):
        model.generate(**ragged_prompts(), best_of_n=2, reward_head=head, max_new_tokens=3)


def test_gradient_checkpointing_in_training_mode(model, inputs):
    """The model ignores its cache then, and every token would be decoded without its prompt."""
    head = tiny_head(model)
    model.activation_checkpointing_enable()
    model.train()
    with pytest.raises(ValueError, match=r"call model.eval"):
        model.generate(**inputs, best_of_n=2, reward_head=head, max_new_tokens=4)
    out = model.generate(
        **inputs, best_of_n=2, reward_head=head, max_new_tokens=4, use_cache=False, return_dict_in_generate=True
    )
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))
    model.eval()
    out = model.generate(**inputs, best_of_n=2, reward_head=head, max_new_tokens=4, return_dict_in_generate=True)
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_mode_and_gradient_checkpointing_are_left_as_they_were(model, inputs, training, checkpointing):
    head = tiny_head(model)
    if checkpointing:
        model.gradient_checkpointing_enable()
    model.train(training)

    def state():
        return [(module.training, getattr(module, "gradient_checkpointing", None)) for module in model.modules()]

    class Fails(RunningReward):
        def __call__(self, input_ids, signal):
            raise RuntimeError("stopped")

    before = state()
    assert {mode for mode, _ in before} == {training}
    assert any(checkpoints for _, checkpoints in before) == checkpointing
    arguments = {
        "best_of_n": 2,
        "reward_head": head,
        "max_new_tokens": 3,
        "use_cache": not (training and checkpointing),
    }
    model.generate(**inputs, **arguments)
    assert state() == before
    with pytest.raises(RuntimeError, match="stopped"):
        model.generate(**inputs, **arguments, signal_processor=[Fails(head)])
    assert state() == before
    with pytest.raises(ValueError, match="cannot be combined with beam"):
        model.generate(**inputs, **arguments, num_beams=2)
    assert state() == before


def test_inside_score_generation(model, inputs):
    head = tiny_head(model)
    with score_generation(model, head), pytest.raises(ValueError, match="outside of score_generation"):
        model.generate(**inputs, best_of_n=2, reward_head=head, max_new_tokens=4)


@pytest.mark.parametrize("method", ["_sample", "generate"])
def test_a_class_with_a_loop_of_its_own(method):
    own = type("Own", (tf.LlamaForCausalLM,), {method: lambda self, *args, **kwargs: None})
    with pytest.raises(ValueError, match=f"has its own {method} .from Own."):
        enable_best_of_n(own(CONFIGS["llama"]()))


def test_sample_candidates_has_nothing_to_stream(model, inputs):
    with pytest.raises(ValueError, match="nothing to stream"):
        model.sample_candidates(**inputs, n=2, streamer=object())
    model.generation_config.do_sample = True
    model.generation_config.num_return_sequences = 3
    assert model.sample_candidates(**inputs, n=2, max_new_tokens=2, eos_token_id=63).token_ids.shape == (3, 2, 11)


def test_a_language_model_named_as_reward_head(model, inputs, tmp_path):
    tiny_model().save_pretrained(tmp_path / "llama")
    with pytest.raises(ValueError, match="type 'llama', not a reward head"):
        model.generate(**inputs, best_of_n=2, reward_head=tmp_path / "llama", max_new_tokens=2)


def test_a_model_whose_state_is_not_a_cache_works_only_without_one():
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}
    model = enable_best_of_n(tf.RwkvForCausalLM(tf.RwkvConfig(**sizes, bos_token_id=1, eos_token_id=2)).eval())
    model.generation_config.pad_token_id = 0
    head, inputs = tiny_head(model), ragged_prompts(batch=1)
    arguments = {"best_of_n": 3, "reward_head": head, "max_new_tokens": 5, "return_dict_in_generate": True}
    with pytest.raises(ValueError, match="Pass use_cache=False"):
        model.generate(**inputs, **arguments)
    out = model.generate(**inputs, **arguments, use_cache=False)
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


@pytest.mark.parametrize("side", ["mask", "no mask"])
def test_padding_on_the_right(model, head, inputs, side):
    """Candidates would begin after padding, at positions that are not theirs."""
    flipped = {name: value.flip(1) for name, value in inputs.items()}
    if side == "no mask":
        # generate finds padding by its token
        flipped.pop("attention_mask")
    with pytest.raises(ValueError, match=r"padding at the end of prompt 1.*padding_side = 'left'"):
        model.generate(**flipped, best_of_n=2, reward_head=head, max_new_tokens=2)


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "gptj", "gpt_neo"])
def test_more_tokens_than_a_model_has_positions(architecture):
    """The last token is fed for its hidden states, so a prompt and its completion have to fit; told before decoding."""
    configs = {
        "gpt2": CONFIGS["gpt2"],
        "opt": lambda: tf.OPTConfig(
            vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=128, word_embed_proj_dim=32,
        ),
        "gptj": lambda: tf.GPTJConfig(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128, rotary_dim=4),
        "gpt_neo": lambda: tf.GPTNeoConfig(
            vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=128,
            attention_types=[[["global", "local"], 1]],
        ),
    }  # fmt: skip
    model = enable_best_of_n(tf.AutoModelForCausalLM.from_config(configs[architecture]()).eval())
    head, runs = tiny_head(model), []
    model.register_forward_hook(lambda *args: runs.append(1))
    ids = torch.randint(5, 64, (1, 120))
    arguments = {"best_of_n": 2, "pad_token_id": 0, "eos_token_id": None, "return_dict_in_generate": True}
    for reads, most in (({}, 8), ({"signal": "logits", "gate": False}, 9)):
        own = ElhsrRewardHead(ElhsrConfig.for_model(model, **reads)) if reads else head
        runs.clear()
        with pytest.raises(ValueError, match=f"prompt is 120 tokens long.*has 128 positions.*max_new_tokens={most} or"):
            model.generate(ids, reward_head=own, max_new_tokens=most + 1, **arguments)
        assert not runs
        out = model.generate(ids, reward_head=own, max_new_tokens=most, **arguments)
        assert out.lengths.tolist() == [[most, most]]


def test_computed_positions_have_no_end(model, head):
    ids = torch.randint(5, 64, (1, 120))
    out = model.generate(ids, best_of_n=2, reward_head=head, max_new_tokens=20, eos_token_id=63)
    assert out.shape[1] > 120
