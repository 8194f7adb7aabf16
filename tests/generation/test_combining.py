"""Several sources in one generate: each gives the same rewards as alone, and the combination selects the winner."""

import pytest
import torch
from tiny_tokenizer import tiny_tokenizer

from hf_elhsr import ElhsrRewardHead, LearnedCombination, TextRewardModel
from hf_elhsr.decisions.selection import COMBINATIONS
from tiny_models import tiny_classifier, tiny_head


def length_of_text(prompts, completions):
    """A user's scorer: the number of words."""
    return [float(len(completion.split())) for completion in completions]


def generate(model, inputs, sources, seed=0, **kwargs):
    torch.manual_seed(seed)
    settings = {"best_of_n": 6, "max_new_tokens": 10, "tokenizer": tiny_tokenizer(), "return_dict_in_generate": True}
    return model.generate(**inputs, reward_head=sources, **{**settings, **kwargs})


def texts(out, prompt_length=9):
    """Every completion as (batch, n) strings, decoded on their own."""
    return [
        [
            " ".join(f"w{i}" for i in ids[prompt_length : prompt_length + length] if i > 2)
            for ids, length in zip(*rows, strict=True)
        ]
        for rows in zip(out.candidates.tolist(), out.lengths.tolist(), strict=True)
    ]


def assert_winners_are(out, combined, ties):
    """Winners have the highest combined reward, and among equal ones the highest reward from the first source."""
    for prompt, (own, first) in enumerate(zip(combined.tolist(), ties.tolist(), strict=True)):
        expected = max(range(len(own)), key=lambda candidate: (own[candidate], first[candidate]))
        assert int(out.winners[prompt, 0]) == expected
        length = out.sequences.shape[1]
        assert torch.equal(out.sequences[prompt], out.candidates[prompt, expected, :length])


@pytest.mark.parametrize("combine", [*COMBINATIONS, LearnedCombination((0.3, 0.2, -0.1, 0.05), 0.0)])
def test_heads_a_text_reward_model_and_a_function_together(model, inputs, combine):
    first, second = tiny_head(model, seed=1), tiny_head(model, seed=2, layers=[1], signal="hidden_states")
    reward_model = TextRewardModel(tiny_classifier(), tiny_tokenizer(), format=lambda p, c: f"{p} {c}")
    out = generate(model, inputs, [first, second, reward_model, length_of_text], combine=combine)
    alone = generate(model, inputs, first)
    assert torch.equal(alone.candidates, out.candidates)
    assert torch.equal(alone.rewards, out.source_rewards[..., 0])
    assert torch.equal(generate(model, inputs, second).rewards, out.source_rewards[..., 1])
    # Scored again from the token ids, prompts without their padding
    for row, (own, ids, mask) in enumerate(zip(texts(out), inputs["input_ids"], inputs["attention_mask"], strict=True)):
        prompt = " ".join(f"w{i}" for i in ids[mask.bool()].tolist())
        torch.testing.assert_close(out.source_rewards[row, :, 2], reward_model([prompt] * 6, own), rtol=0, atol=1e-4)
        assert out.source_rewards[row, :, 3].tolist() == length_of_text([], own)
    combined = (COMBINATIONS[combine] if isinstance(combine, str) else combine)(out.source_rewards)
    torch.testing.assert_close(out.rewards, combined)
    assert_winners_are(out, out.rewards, out.source_rewards[..., 0])
    assert out.confidence is None


def test_the_combination_matters(model, inputs):
    sources = [tiny_head(model, seed=1), length_of_text]
    by_first = generate(model, inputs, sources, combine=lambda rewards: rewards[..., 0])
    by_length = generate(model, inputs, sources, combine=lambda rewards: rewards[..., 1])
    assert torch.equal(by_first.winners, generate(model, inputs, sources[0]).winners)
    assert not torch.equal(by_first.winners, by_length.winners)
    expected = [max(len(text.split()) for text in row) for row in texts(by_length)]
    won = by_length.source_rewards[..., 1].gather(1, by_length.winners).flatten().tolist()
    assert won == expected


def test_a_function_alone(model, inputs):
    out = generate(model, inputs, length_of_text, num_return_sequences=2)
    assert out.rewards.tolist() == [length_of_text([], row) for row in texts(out)]
    assert out.source_rewards is None
    assert out.sequences.shape[0] == 6
    best = out.rewards.sort(dim=1, descending=True).values[:, :2]
    assert torch.equal(out.rewards.gather(1, out.winners), best)


def test_prompts_without_a_mask_are_given_without_their_padding(model, inputs):
    seen = []

    def scorer(prompts, completions):
        seen.append(prompts)
        return [0.0] * len(completions)

    generate(model, {"input_ids": inputs["input_ids"]}, scorer)
    generate(model, inputs, scorer)
    assert seen[0] == seen[1]
    assert [len(prompt.split()) for prompt in seen[0]] == [9] * 6 + [7] * 6 + [5] * 6


def first_word(text):
    """Answers with few values, so that candidates agree; some have none."""
    words = text.split()
    return None if not words or int(words[0][1:]) % 4 == 0 else str(int(words[0][1:]) % 4)


@pytest.mark.parametrize("combine", ["majority_vote", "weighted_vote"])
def test_votes(model, inputs, combine):
    head = tiny_head(model)
    out = generate(model, inputs, head, best_of_n=12, combine=combine, extract_answer=first_word)
    rewards = out.source_rewards[..., 0]
    assert torch.equal(rewards, generate(model, inputs, head, best_of_n=12).rewards)
    votes = torch.ones_like(rewards) if combine == "majority_vote" else rewards.sigmoid()
    answers = [[first_word(text) for text in row] for row in texts(out)]
    assert any(answer is None for row in answers for answer in row)
    for row, own in enumerate(answers):
        for candidate, answer in enumerate(own):
            expected = sum(float(v) for v, a in zip(votes[row], own, strict=True) if a == answer and a is not None)
            assert float(out.rewards[row, candidate]) == pytest.approx(expected, abs=1e-5)
    assert_winners_are(out, out.rewards, rewards)


def test_without_any_answer_the_head_decides(model, inputs):
    head = tiny_head(model)
    out = generate(model, inputs, head, combine="majority_vote", extract_answer=lambda text: None)
    assert torch.equal(out.winners, generate(model, inputs, head).winners)


def test_heads_of_several_signals(model, inputs):
    heads = [tiny_head(model), ElhsrRewardHead(type(tiny_head(model).config).for_model(model, signal="logits"))]
    torch.nn.init.normal_(heads[1].weight, std=0.1, generator=torch.Generator().manual_seed(3))
    out = generate(model, inputs, heads, combine="min_max")
    for place, head in enumerate(heads):
        assert torch.equal(generate(model, inputs, head).rewards, out.source_rewards[..., place])


@pytest.mark.parametrize(
    ("sources", "kwargs", "message"),
    [
        (lambda head: [], {}, "reward_head is empty"),
        (lambda head: [head, head], {}, "names 2 sources: pass combine="),
        (
            lambda head: [head, head],
            {"combine": "mean"},
            "combine='mean': expected a function or one of worse_of_ranks",
        ),
        (lambda head: [head], {"combine": "min_max"}, "reward_head names one"),
        (lambda head: [head, head], {"combine": "majority_vote", "extract_answer": str}, "the rewards of one source"),
        (lambda head: head, {"combine": "majority_vote"}, "Votes need extract_answer"),
        (lambda head: head, {"extract_answer": str}, "extract_answer is for votes"),
        (lambda head: length_of_text, {"tokenizer": None}, "pass tokenizer="),
        (lambda head: head, {"combine": "majority_vote", "extract_answer": str, "tokenizer": None}, "pass tokenizer="),
        (
            lambda head: [head, head],
            {"combine": "min_max", "prune": 0.01},
            "prune can only be used with a head that decides alone",
        ),
        (lambda head: length_of_text, {"min_confidence": 0.5}, "min_confidence can only be used with a head"),
        (lambda head: [head, head], {"combine": "min_max", "output_token_rewards": True}, "needs a single head"),
        (lambda head: [head, head], {"combine": ["min_max"]}, "expected a function or one of worse_of_ranks"),
        (lambda head: head, {"combine": "weighted_vote", "extract_answer": "last"}, "expected a function of a text"),
        (lambda head: [head, tiny_classifier()], {"combine": "min_max"}, r"pass TextRewardModel\(model, tokenizer\)"),
        (lambda head: [head, 3], {"combine": "min_max"}, "got int"),
        (lambda head: lambda p, c: [1.0], {}, r"given 18 completions and returned scores of shape \(1,\)"),
        (lambda head: lambda p, c: [float("nan")] * 18, {}, "scored completion 0 as nan"),
        (lambda head: [head, head], {"combine": lambda r: r}, r"expected \(batch, n\)"),
        (lambda head: [head, head], {"combine": lambda r: r[..., 0] / 0}, "combine returned NaN or infinity"),
    ],
)
def test_sources_and_combinations_that_cannot_work_are_refused(model, head, inputs, sources, kwargs, message):
    with pytest.raises(ValueError, match=message):
        generate(model, inputs, sources(head), **kwargs)


def test_without_best_of_n_combine_is_refused(model, inputs):
    with pytest.raises(ValueError, match="combine passed without best_of_n"):
        model.generate(**inputs, combine="min_max")


def test_embeddings_alone_give_a_text_reward_model_no_prompt(model, inputs):
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    with pytest.raises(ValueError, match="pass input_ids"):
        generate(model, {"inputs_embeds": embeddings, "attention_mask": inputs["attention_mask"]}, length_of_text)
