"""Every argument of generate either works for the winners or is refused."""

import copy
import threading

import pytest
import torch
from tiny_tokenizer import tiny_tokenizer
from transformers import (
    CompileConfig,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    StaticCache,
    TextIteratorStreamer,
    TextStreamer,
)
from transformers.generation import BaseStreamer

from hf_elhsr import enable_best_of_n
from oracle import assert_rewards_close, oracle_rewards
from tiny_models import ragged_prompts, tiny_model


def generate(model, head, inputs, seed=0, **kwargs):
    torch.manual_seed(seed)
    settings = {"best_of_n": 4, "max_new_tokens": 10, "return_dict_in_generate": True} | kwargs
    return model.generate(**inputs, reward_head=head, **settings)


def assert_law(model, head, out, inputs):
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


def test_without_best_of_n_generate_is_untouched(inputs):
    plain, enabled = tiny_model(), enable_best_of_n(tiny_model())
    for kwargs in ({"do_sample": True, "top_p": 0.9, "num_return_sequences": 3}, {"num_beams": 3}, {}):
        results = []
        for model in (plain, enabled):
            torch.manual_seed(5)
            results.append(
                model.generate(**inputs, max_new_tokens=8, return_dict_in_generate=True, output_scores=True, **kwargs)
            )
        assert torch.equal(results[0].sequences, results[1].sequences)
        assert all(torch.equal(a, b) for a, b in zip(results[0].scores, results[1].scores, strict=True))
        assert type(results[0]) is type(results[1])


def test_winner_is_the_candidate_with_the_highest_reward(model, head, inputs):
    out = generate(model, head, inputs)
    best = out.rewards.argmax(dim=-1)
    for row, winner in enumerate(best.tolist()):
        end = 9 + int(out.lengths[row, winner])
        assert torch.equal(out.sequences[row, :end], out.candidates[row, winner, :end])
        assert (out.sequences[row, end:] == 0).all()
    plain = generate(model, head, inputs, return_dict_in_generate=False)
    assert torch.equal(plain, out.sequences)


def test_same_seed_same_result(model, head, inputs):
    first, second = generate(model, head, inputs, seed=7), generate(model, head, inputs, seed=7)
    assert torch.equal(first.candidates, second.candidates)
    assert torch.equal(first.rewards, second.rewards)
    assert not torch.equal(
        first.candidates, generate(model, head, inputs, seed=8).candidates[:, :, : first.candidates.shape[2]]
    )


def test_num_return_sequences_returns_the_k_best_best_first(model, head, inputs):
    out = generate(model, head, inputs, num_return_sequences=3)
    assert out.sequences.shape[0] == 9
    ordered = out.rewards.sort(dim=-1, descending=True).indices[:, :3]
    assert torch.equal(out.winners, ordered)
    for row in range(3):
        for place in range(3):
            candidate = out.candidates[row, ordered[row, place], : out.sequences.shape[1]]
            assert torch.equal(out.sequences[3 * row + place], candidate)


def warm_up(model, head, inputs, **kwargs):
    """A model's cache is tried in its first call."""
    generate(model, head, inputs, max_new_tokens=2, **kwargs)


def test_prompt_is_prefilled_once(model, head, inputs):
    warm_up(model, head, inputs)
    rows = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    generate(model, head, inputs)
    handle.remove()
    assert rows[0] == (3, 9)
    assert rows[1] == (12, 1)


def test_finished_candidates_leave_the_batch(model, head, inputs):
    warm_up(model, head, inputs)
    rows = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    out = generate(model, head, inputs)
    handle.remove()
    lengths = out.lengths.flatten()
    running = [int((lengths >= t).sum()) for t in range(1, int(lengths.max()) + 1)]
    # The forward pass of token t has the rows of all candidates with at least t tokens, and few idle ones
    assert all(fed >= needed for fed, needed in zip(rows[1:], running, strict=True))
    assert rows[-1] < rows[1]
    assert sum(rows[1:]) < sum(running) + rows[1]


@pytest.mark.parametrize(
    "kwargs",
    [
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.5},
        {"min_p": 0.2},
        {"typical_p": 0.5},
        {"epsilon_cutoff": 0.01},
        {"eta_cutoff": 0.02},
        {"top_h": 0.5},
        {"sequence_bias": {(7,): 3.0, (8, 9): -2.0}},
        {"encoder_no_repeat_ngram_size": 2},
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"bad_words_ids": [[7], [8, 9]]},
        {"suppress_tokens": [5, 6]},
        {"min_new_tokens": 4},
        {"max_length": 15, "max_new_tokens": None},
        {"eos_token_id": 11},
        {"eos_token_id": [11, 12, 13, 14]},
        {"encoder_repetition_penalty": 1.5},
        {"use_cache": False},
        {"guidance_scale": 1.5},
        {"renormalize_logits": True, "exponential_decay_length_penalty": (2, 1.5)},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 4},
    ],
    ids=str,
)
def test_settings_work_and_the_law_holds(model, head, inputs, kwargs, monkeypatch):
    out = generate(model, head, inputs, **kwargs)
    assert_law(model, head, out, inputs)
    assert_scores_are_transformers_own(model, head, inputs, kwargs, monkeypatch)
    new = out.candidates[:, :, 9:]
    if "eos_token_id" in kwargs:
        ends = torch.tensor(kwargs["eos_token_id"]).view(-1)
        last = new.gather(-1, (out.lengths - 1)[..., None])[..., 0]
        assert torch.isin(last, ends)[out.lengths < 10].all()
        before_last = torch.arange(new.shape[-1]) < (out.lengths - 1)[..., None]
        assert not torch.isin(new[before_last], ends).any()
    if "suppress_tokens" in kwargs:
        assert not torch.isin(new, torch.tensor([5, 6])).any()
    if "min_new_tokens" in kwargs:
        assert out.lengths.min() >= 4
    if "max_length" in kwargs:
        assert out.lengths.max() == 6


def assert_scores_are_transformers_own(model, head, inputs, kwargs, monkeypatch):
    """The scores each winner was drawn from are those of transformers' own loop, forced to draw the same tokens."""
    out = generate(model, head, inputs, output_scores=True, **kwargs)
    winners = iter(())
    monkeypatch.setattr(torch, "multinomial", lambda probabilities, num_samples: next(winners).view(-1, 1))
    settings = {"max_new_tokens": 10, "do_sample": True, "output_scores": True, "return_dict_in_generate": True}
    for row in range(3):
        length = int(out.lengths[row, out.winners[row, 0]])
        winners = iter(out.sequences[row, 9 : 9 + length])
        alone = {name: value[row : row + 1] for name, value in inputs.items()}
        plain = model.generate(**alone, **(settings | kwargs))
        assert len(plain.scores) == length
        for step, scores in enumerate(plain.scores):
            torch.testing.assert_close(out.scores[step][row], scores[0], rtol=1e-3, atol=1e-3)


def test_repetition_penalty_follows_its_rows(head, inputs):
    """The penalty ignores each row's padding, and must still match the rows after some have left."""
    model = enable_best_of_n(tiny_model())
    seen = []

    class Spy(LogitsProcessor):
        def __call__(self, input_ids, scores):
            seen.append((input_ids.clone(), scores.clone()))
            return scores

    from transformers import RepetitionPenaltyLogitsProcessor

    from hf_elhsr.generation.batch import multiply_processors, select_processor_rows

    padding = torch.tensor([0, 2, 4])
    [processor] = multiply_processors(
        [RepetitionPenaltyLogitsProcessor(1.5, padding)], batch=3, prompt_of_row=torch.arange(6) // 2
    )
    assert processor.prompt_ignore_length.tolist() == [0, 0, 2, 2, 4, 4]
    [processor] = select_processor_rows([processor], torch.tensor([1, 2, 5]))
    assert processor.prompt_ignore_length.tolist() == [0, 2, 4]
    assert padding.tolist() == [0, 2, 4]
    out = generate(model, head, inputs, repetition_penalty=1.5, logits_processor=[Spy()])
    assert {len(ids) for ids, _ in seen} == {12}
    assert_law(model, head, out, inputs)


def test_stop_strings_with_tokenizer(smollm2):
    model, tokenizer = smollm2
    head = tiny_head_for(model)
    inputs = tokenizer(["The days of the week are Monday,"], return_tensors="pt")
    torch.manual_seed(0)
    out = model.generate(
        **inputs,
        best_of_n=3,
        reward_head=head,
        max_new_tokens=24,
        stop_strings=["day"],
        tokenizer=tokenizer,
        return_dict_in_generate=True,
    )
    for candidate, length in zip(out.candidates[0], out.lengths[0].tolist(), strict=True):
        prompt = inputs["input_ids"].shape[1]
        text = tokenizer.decode(candidate[prompt : prompt + length])
        assert ("day" in text) == (length < 24)
        assert "day" not in tokenizer.decode(candidate[prompt : prompt + length - 1])
    assert int(out.lengths.min()) < 24
    assert_law(model, head, out, inputs)


def tiny_head_for(model):
    from hf_elhsr import ElhsrConfig, ElhsrRewardHead

    head = ElhsrRewardHead(ElhsrConfig.for_model(model))
    torch.nn.init.normal_(head.weight, std=1e-4)
    return head


def test_generation_config_object_is_used_and_not_changed(model, head, inputs):
    config = GenerationConfig(
        do_sample=True, max_new_tokens=6, temperature=0.7, num_return_sequences=2, pad_token_id=0, eos_token_id=2
    )
    before = copy.deepcopy(config)
    torch.manual_seed(0)
    out = model.generate(
        **inputs, best_of_n=4, reward_head=head, generation_config=config, return_dict_in_generate=True
    )
    assert config.to_dict() == before.to_dict()
    assert out.sequences.shape[0] == 6
    assert out.lengths.max() == 6


def test_the_models_generation_config_is_honoured_and_not_changed(model, head, inputs):
    model.generation_config.max_new_tokens = 5
    model.generation_config.do_sample = True
    model.generation_config.num_return_sequences = 2
    before = model.generation_config.to_dict()
    out = model.generate(**inputs, best_of_n=4, reward_head=head, return_dict_in_generate=True)
    assert out.lengths.max() == 5
    assert out.sequences.shape[0] == 6
    assert model.generation_config.to_dict() == before


def test_do_sample_true_in_the_call_beats_false_in_the_model(model, head, inputs):
    model.generation_config.do_sample = False
    out = generate(model, head, inputs, do_sample=True)
    assert len({tuple(c) for c in out.candidates[0].tolist()}) > 1


def test_one_candidate_without_sampling_is_greedy(model, head, inputs):
    out = generate(model, head, inputs, best_of_n=1)
    assert torch.equal(out.sequences, model.generate(**inputs, max_new_tokens=10))
    assert_law(model, head, out, inputs)


def test_custom_logits_processor_sees_all_rows_to_the_end(model, head, inputs):
    shapes = []

    class OnlyEven(LogitsProcessor):
        def __call__(self, input_ids, scores):
            shapes.append(tuple(scores.shape))
            return scores.masked_fill(torch.arange(scores.shape[-1]) % 2 == 1, -float("inf"))

    out = generate(model, head, inputs, logits_processor=[OnlyEven()])
    assert set(shapes) == {(12, 64)}
    assert (out.candidates[:, :, 9:] % 2 == 0).all()
    assert_law(model, head, out, inputs)


def test_custom_stopping_criterion_gets_scores_when_they_are_recorded(model, head, inputs):
    from transformers import StoppingCriteria

    class StopsOnEven(StoppingCriteria):
        scores_seen: list = []

        def __call__(self, input_ids, scores, **kwargs):
            self.scores_seen.append(scores)
            return input_ids[:, -1] % 2 == 0

    criterion = StopsOnEven()
    out = generate(model, head, inputs, stopping_criteria=[criterion], output_scores=True)
    last = out.candidates[:, :, 9:].gather(-1, (out.lengths - 1)[..., None])[..., 0]
    assert (last % 2 == 0)[(out.lengths < 10)].all()
    assert [len(scores) for scores in criterion.scores_seen] == list(range(1, len(criterion.scores_seen) + 1))


def test_prefix_function_is_called_with_the_prompt(model, head, inputs):
    def allowed(prompt, ids):
        return [10 + prompt, 20 + prompt, 2]

    out = generate(model, head, inputs, prefix_allowed_tokens_fn=allowed)
    for row in range(3):
        new = out.candidates[row, :, 9:]
        assert torch.isin(new, torch.tensor([10 + row, 20 + row, 2, 0])).all()
    assert_law(model, head, out, inputs)


def test_classifier_free_guidance_with_a_negative_prompt(model, head, inputs):
    out = generate(model, head, inputs, guidance_scale=2.0, negative_prompt_ids=torch.randint(5, 64, (3, 4)))
    assert_law(model, head, out, inputs)


@pytest.mark.parametrize("kind", ["green", "synthid"])
def test_watermarking(model, head, inputs, kind):
    from transformers import SynthIDTextWatermarkingConfig, WatermarkingConfig

    config = (
        WatermarkingConfig(bias=4.0) if kind == "green" else SynthIDTextWatermarkingConfig(keys=[3, 5, 7], ngram_len=3)
    )
    out = generate(model, head, inputs, watermarking_config=config)
    assert_law(model, head, out, inputs)


@pytest.mark.parametrize("may_leave", [True, False])
def test_recorded_outputs_are_the_winners(head, inputs, may_leave):
    model = enable_best_of_n(tiny_model(attn_implementation="eager"))

    class Same(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores

    names = ("scores", "logits", "hidden_states", "attentions")
    out = generate(
        model,
        head,
        inputs,
        num_return_sequences=2,
        temperature=0.7,
        top_k=0,
        logits_processor=[] if may_leave else [Same()],
        **{f"output_{name}": True for name in names},
    )
    lengths = out.lengths.gather(1, out.winners).flatten()
    steps = int(lengths.max())
    for name in names:
        assert len(out[name]) == steps, name
    for row, length in enumerate(lengths.tolist()):
        prompt_row = row // 2
        start = int((inputs["attention_mask"][prompt_row] == 0).sum())
        plain = model(input_ids=out.sequences[row, start : 9 + length][None], output_hidden_states=True)
        for step in range(length):
            position = 9 - start + step - 1
            logits = plain.logits[0, position]
            torch.testing.assert_close(out.logits[step][row], logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(out.scores[step][row], logits / 0.7, rtol=1e-4, atol=1e-4)
            for layer in range(4):
                recorded = out.hidden_states[step][layer][row, -1]
                torch.testing.assert_close(recorded, plain.hidden_states[layer][0, position], rtol=1e-4, atol=1e-4)
            assert out.attentions[step][0].shape[-1] == 9 + step
        if may_leave and length < steps:
            assert (out.scores[length][row] == 0).all()
    transition = model.compute_transition_scores(out.sequences, out.scores)
    assert transition.shape == (6, steps)


def test_a_cache_passed_in_is_used_and_left_alone(model, head):
    inputs = ragged_prompts(batch=1, length=12)
    ids = inputs["input_ids"]
    cache = DynamicCache(config=model.config)
    model(input_ids=ids[:, :8], past_key_values=cache, use_cache=True)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]
    fed = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    out = generate(model, head, inputs, past_key_values=cache)
    handle.remove()
    assert fed[0] == 4
    for layer, (keys, values) in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
    assert_law(model, head, out, inputs)
    uncached = generate(model, head, inputs)
    assert torch.equal(out.candidates, uncached.candidates)


def test_a_static_cache_passed_in_needs_room_for_the_last_token(model, head, inputs):
    with pytest.raises(ValueError, match=r"holds 18 tokens and best_of_n needs 19"):
        generate(model, head, inputs, past_key_values=StaticCache(config=model.config, max_cache_len=18))
    cache = StaticCache(config=model.config, max_cache_len=19)
    out = generate(model, head, inputs, past_key_values=cache)
    assert not cache.is_initialized
    assert_law(model, head, out, inputs)


def test_inputs_embeds(model, head, inputs):
    ids = inputs["input_ids"]
    embeds = model.get_input_embeddings()(ids)
    torch.manual_seed(0)
    out = model.generate(
        inputs_embeds=embeds,
        attention_mask=inputs["attention_mask"],
        best_of_n=4,
        reward_head=head,
        max_new_tokens=10,
        return_dict_in_generate=True,
    )
    with_ids = generate(model, head, inputs)
    assert torch.equal(out.candidates, with_ids.candidates[:, :, 9:])
    assert_rewards_close(out.rewards, with_ids.rewards)


def test_quantised_cache(model, head, inputs):
    """Quantising changes what is decoded, so the law cannot hold to rounding; everything else does."""
    out = generate(model, head, inputs, cache_implementation="quantized", cache_config={"backend": "fp8"})
    assert out.lengths.max() == 10
    assert len(set(out.lengths.flatten().tolist())) > 2
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs), tolerance=0.05)


class Collector(BaseStreamer):
    def __init__(self):
        self.tokens, self.ended = [], False

    def put(self, value):
        self.tokens.append(value)

    def end(self):
        self.ended = True


def test_streamer_gets_the_winner_only(model, head):
    inputs = ragged_prompts(batch=1)
    streamer = Collector()
    out = generate(model, head, inputs, streamer=streamer, num_return_sequences=2)
    assert streamer.ended
    assert torch.equal(streamer.tokens[0], inputs["input_ids"])
    winner_length = int(out.lengths[0, out.winners[0, 0]])
    assert torch.equal(torch.cat(streamer.tokens[1:]), out.sequences[0, 9 : 9 + winner_length])


def test_text_streamer_prints_the_winner(smollm2, capsys):
    model, tokenizer = smollm2
    inputs = tokenizer(["Once upon a time"], return_tensors="pt")
    streamer = TextStreamer(tokenizer, skip_prompt=True)
    sequences = model.generate(
        **inputs, best_of_n=2, reward_head=tiny_head_for(model), max_new_tokens=8, streamer=streamer
    )
    assert capsys.readouterr().out.strip() == tokenizer.decode(sequences[0, inputs["input_ids"].shape[1] :]).strip()


def test_text_iterator_streamer_receives_the_winner(model, head):
    """As in web servers: generate runs in one thread, another reads the text."""
    tokenizer, inputs, results = tiny_tokenizer(), ragged_prompts(batch=1), []
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    thread = threading.Thread(target=lambda: results.append(generate(model, head, inputs, streamer=streamer)))
    thread.start()
    text = "".join(streamer)
    thread.join()
    [out] = results
    assert text.split() == tokenizer.decode(out.sequences[0, 9:]).split()
    assert len(text.split()) > 1


@pytest.mark.parametrize("own", [False, True])
def test_embeddings_with_a_static_cache(model, head, inputs, own):
    """max_length does not count a prompt given as embeddings, but the cache must."""
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    arguments = {"best_of_n": 2, "reward_head": head, "max_new_tokens": 10, "eos_token_id": 63, "pad_token_id": 0}
    mask = inputs["attention_mask"]
    if own:
        cache = StaticCache(config=model.config, max_cache_len=11)
        with pytest.raises(ValueError, match="holds 11 tokens and best_of_n needs 19"):
            model.generate(inputs_embeds=embeds, attention_mask=mask, past_key_values=cache, **arguments)
        cache = StaticCache(config=model.config, max_cache_len=19)
        arguments["past_key_values"] = cache
    else:
        arguments["cache_implementation"] = "static"
    sequences = model.generate(inputs_embeds=embeds, attention_mask=mask, **arguments)
    assert sequences.shape == (3, 10)


def test_autocast_and_default_dtype(model, head, inputs):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = generate(model, head, inputs)
    assert out.rewards.dtype == torch.float32
    torch.set_default_dtype(torch.bfloat16)
    try:
        out = generate(model, head, inputs)
    finally:
        torch.set_default_dtype(torch.float32)
    assert out.rewards.dtype == torch.float32


def test_a_processor_that_works_in_place_does_not_change_the_raw_logits(model, head, inputs):
    from hf_elhsr import RunningLogProbability

    class Triples(LogitsProcessor):
        def __init__(self, in_place):
            self.in_place = in_place

        def __call__(self, input_ids, scores):
            return scores.mul_(3) if self.in_place else scores * 3

    means = []
    for in_place in (True, False):
        processor = RunningLogProbability()
        generate(model, head, inputs, logits_processor=[Triples(in_place)], signal_processor=[processor])
        means.append(processor.mean)
    assert torch.equal(*means)


def test_max_time_ends_all_candidates_and_the_law_holds(model, head, inputs):
    out = generate(model, head, inputs, max_new_tokens=100, max_time=0.0, eos_token_id=63)
    assert (out.lengths == 1).all()
    assert_law(model, head, out, inputs)


def test_positional_arguments(model, head):
    ids = ragged_prompts(batch=1)["input_ids"]
    config = GenerationConfig(max_new_tokens=4, pad_token_id=0, eos_token_id=2)
    torch.manual_seed(0)
    by_position = model.generate(ids, config, best_of_n=2, reward_head=head)
    torch.manual_seed(0)
    by_name = model.generate(inputs=ids, generation_config=config, best_of_n=2, reward_head=head)
    assert torch.equal(by_position, by_name)


def test_compiled_decoding_steps_keep_their_rows(model, head, inputs):
    """With a static cache generate compiles its steps, and so does best-of-n; the batch keeps its shape."""
    config = CompileConfig(backend="eager", mode=None, fullgraph=False)
    config._compile_all_devices = True
    warm_up(model, head, inputs, cache_implementation="static", compile_config=config)
    rows = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    out = generate(model, head, inputs, cache_implementation="static", compile_config=config)
    handle.remove()
    assert len(set(out.lengths.flatten().tolist())) > 2
    assert set(rows) <= {3, 12}
    assert_law(model, head, out, inputs)


def test_compiled_model_and_compiled_decoding(head, inputs):
    """Capture survives torch.compile of the model (the eager backend traces without generating code)."""
    model = tiny_model()
    model.forward = torch.compile(model.forward, backend="eager")
    enable_best_of_n(model)
    out = generate(model, head, inputs, max_new_tokens=4)
    assert_law(model, head, out, inputs)
