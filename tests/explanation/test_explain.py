"""Explanations: shares add up to R, candidates come best first, and unknown values are left out."""

import json

import numpy as np
import pytest
import torch
from tiny_tokenizer import tiny_tokenizer
from transformers import AutoTokenizer

from hf_elhsr import enable_best_of_n, explain
from hf_elhsr.explanation.texts import token_texts
from oracle import assert_rewards_close, oracle_reward, plain_features
from tiny_models import ragged_prompts, tiny_head, tiny_model


def generate(model, head, inputs, seed=0, **kwargs):
    torch.manual_seed(seed)
    settings = {"best_of_n": 6, "max_new_tokens": 14, "return_dict_in_generate": True, "output_token_rewards": True}
    return model.generate(**inputs, reward_head=head, **(settings | kwargs))


def oracle_shares(model, head, prompt, completion):
    """Shares in float64 NumPy: R with the reward's weights of only one layer, without bias."""
    features = plain_features(model, prompt, completion, head.config.layers)
    weight, bias = head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
    width = head.config.hidden_size
    shares = []
    for i in range(len(head.config.layers)):
        only = weight.copy()
        only[-1] = 0
        only[-1, i * width : (i + 1) * width] = weight[-1, i * width : (i + 1) * width]
        # The gate keeps its bias, the reward does not
        shares.append(oracle_reward(features, only, np.append(bias[:-1], 0.0)))
    return shares


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2", "mamba"])
@pytest.mark.parametrize("config", [{}, {"gate": False, "layers": [0, 2]}], ids=str)
def test_the_layers_shares_and_the_bias_add_up_to_the_reward(architecture, config):
    model = enable_best_of_n(tiny_model(architecture))
    head, inputs = tiny_head(model, **config), ragged_prompts()
    out = generate(model, head, inputs)
    explanation = explain(out, tiny_tokenizer(), head, model, inputs["attention_mask"])
    for row, prompt in enumerate(explanation.prompts):
        tokens = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        for candidate in prompt.candidates:
            own = candidate.layer_shares
            assert own.layers == tuple(head.config.layers)
            assert sum(own.shares) + own.bias + own.rounding == pytest.approx(candidate.reward, abs=1e-9)
            assert abs(own.rounding) <= 1e-4 * max(1, abs(candidate.reward))
            assert own.bias == pytest.approx(head.bias[-1].item(), abs=1e-6)
            length = int(out.lengths[row, candidate.index])
            completion = out.candidates[row, candidate.index, 9 : 9 + length]
            assert_rewards_close(own.shares, oracle_shares(model, head, tokens, completion))


def test_candidates_come_best_first_with_their_numbers(model, head, inputs):
    out = generate(model, head, inputs)
    prompts = explain(out, tiny_tokenizer()).prompts
    assert len(prompts) == 3
    for row, prompt in enumerate(prompts):
        order = [candidate.index for candidate in prompt.candidates]
        assert order == out.rewards[row].argsort(descending=True, stable=True).tolist()
        assert [candidate.winner for candidate in prompt.candidates] == [True] + 5 * [False]
        assert order[0] == int(out.winners[row, 0])
        for candidate in prompt.candidates:
            length = int(out.lengths[row, candidate.index])
            assert candidate.reward == float(out.rewards[row, candidate.index])
            assert candidate.probability == pytest.approx(1 / (1 + np.exp(-candidate.reward)), abs=1e-6)
            own = out.token_rewards[row, candidate.index, :length], out.token_gates[row, candidate.index, :length]
            assert [token.reward for token in candidate.tokens] == own[0].tolist()
            assert [token.gate for token in candidate.tokens] == own[1].tolist()
            assert [t.token_id for t in candidate.tokens] == out.candidates[row, candidate.index, 9:][:length].tolist()
            assert candidate.tokens[-1].running_reward == pytest.approx(candidate.reward, abs=1e-4)
            first = candidate.tokens[0]
            assert first.running_reward == pytest.approx(first.reward, abs=1e-9)
            assert candidate.layer_shares is None


def test_a_calibrated_head_and_pruned_candidates(model, head, inputs):
    line = {"slope": 0.5, "offset": -1.0}
    head.config.calibration = {**line, "winner": {"slope": 2.0, "offset": 0.5}, "n": 6, "prompts": 100}
    prefix = {"prefix": [[0.0, 1.0, 0.0, 0.0]], "final": [0.0, 1.0], "value": [[0.0, 3.0, -3.0, 0.0, 0.0]]}
    head.config.pruning = {"interval": 2, **prefix, "prices": {"0.01": 0.3}, "n": 6, "prompts": 100}
    tables = {"thresholds": {"0.01": 0.5}, "prices": {"0.01": 0.3}}
    head.config.adaptive = {"wave": 2, **tables, "n": 6, "prompts": 100}
    out = generate(model, head, inputs, adaptive=0.01, min_confidence=0.9)
    explanation = explain(out, tiny_tokenizer(), head, model, inputs["attention_mask"])
    assert explanation.calibrated
    pruned = never = 0
    for row, prompt in enumerate(explanation.prompts):
        assert prompt.confidence == pytest.approx(1 / (1 + np.exp(-(2 * prompt.candidates[0].reward + 0.5))), abs=1e-5)
        assert prompt.abstained == (prompt.confidence < 0.9)
        kinds = []
        for candidate in prompt.candidates:
            assert candidate.pruned == bool(out.pruned[row, candidate.index])
            kinds.append(1 if candidate.pruned else 0 if candidate.tokens else 2)
            if kinds[-1] == 0:
                assert candidate.probability == pytest.approx(1 / (1 + np.exp(1 - 0.5 * candidate.reward)), abs=1e-5)
            else:
                assert candidate.probability is None
            assert (candidate.layer_shares is None) == (kinds[-1] == 2)
            assert (candidate.reward is None) == (kinds[-1] == 2)
        # Candidates that could win, then pruned ones, then those never sampled
        assert kinds == sorted(kinds)
        pruned, never = pruned + kinds.count(1), never + kinds.count(2)
    assert pruned
    assert never
    page = explanation.to_html()
    assert page.count('<span class="mark">pruned</span>') == pruned
    assert page.count('<span class="mark">never sampled</span>') == never


def test_votes_decide_and_the_reward_is_still_that_of_the_head(model, head, inputs):
    tokenizer = tiny_tokenizer()
    vote = {"combine": "majority_vote", "extract_answer": lambda text: text.split()[0], "tokenizer": tokenizer}
    out = generate(model, head, inputs, temperature=0.4, **vote)
    for row, prompt in enumerate(explain(out, tokenizer, head).prompts):
        assert prompt.candidates[0].index == int(out.winners[row, 0])
        decided = [candidate.decided for candidate in prompt.candidates]
        assert decided == sorted(out.rewards[row].tolist(), reverse=True)
        assert max(decided) >= 1
        assert prompt.candidates[0].reward == float(out.source_rewards[row, prompt.candidates[0].index, 0])


def test_a_head_of_a_different_signal_has_no_layers(model, inputs):
    head = tiny_head_of_logits(model)
    out = generate(model, head, inputs)
    assert explain(out, tiny_tokenizer(), head, model).prompts[0].candidates[0].layer_shares is None


def tiny_head_of_logits(model):
    from hf_elhsr import ElhsrConfig, ElhsrRewardHead

    head = ElhsrRewardHead(ElhsrConfig.for_model(model, signal="logits"))
    torch.nn.init.normal_(head.weight, std=0.1)
    return head


def test_what_cannot_be_explained_is_refused(model, head, inputs):
    tokenizer = tiny_tokenizer()
    with pytest.raises(ValueError, match="output_token_rewards=True"):
        explain(generate(model, head, inputs, output_token_rewards=False), tokenizer)
    out = generate(model, head, inputs)
    with pytest.raises(ValueError, match="need the head"):
        explain(out, tokenizer, model=model)
    with pytest.raises(ValueError, match="begins with the padding token"):
        explain(out, tokenizer, head, model)
    with pytest.raises(ValueError, match=r"\(3, 9\), got one of shape \(3, 8\)"):
        explain(out, tokenizer, head, model, inputs["attention_mask"][:, 1:])
    with pytest.raises(ValueError, match="read again"):
        explain(out, tokenizer, head, model, torch.ones_like(inputs["attention_mask"]))
    with pytest.raises(ValueError, match="does not fit"):
        explain(out, tokenizer, head, tiny_model("qwen2"), inputs["attention_mask"])
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    given = generate(model, head, {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"]})
    with pytest.raises(ValueError, match="given as embeddings"):
        explain(given, tokenizer, head, model)
    assert explain(given, tokenizer, head).prompts[0].text == ""


def test_token_texts_join_to_the_text(smollm2_folder):
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)
    text = "Naïve 🙂🙂 日本語 \n\n x  y\t٣ 👩‍👩‍👧 end"
    ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == text + tokenizer.eos_token
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(texts)
    assert "" in texts
    # Half a character at the end, and bytes that never form a character
    half = tokenizer("🙂")["input_ids"][:1]
    assert "".join(token_texts(tokenizer, half)) == tokenizer.decode(half)
    many = half * 12
    assert "".join(token_texts(tokenizer, many)) == tokenizer.decode(many)
    assert token_texts(tokenizer, many)[3] != ""


def test_json_and_a_saved_page(model, head, inputs, tmp_path):
    explanation = explain(generate(model, head, inputs), tiny_tokenizer(), head)
    numbers = json.loads(explanation.to_json())
    best = numbers["prompts"][1]["candidates"][0]
    assert best["tokens"][0]["reward"] == explanation.prompts[1].candidates[0].tokens[0].reward
    explanation.save(tmp_path / "folder" / "why.html")
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["why.html"]
    assert (tmp_path / "folder" / "why.html").read_text(encoding="utf-8") == explanation.to_html()


def test_a_tokens_text_depends_on_the_one_before():
    """As in word-level and SentencePiece tokenizers, a space is decoded only between two words."""
    assert token_texts(tiny_tokenizer(), [5, 6, 7]) == ["w5", " w6", " w7"]
