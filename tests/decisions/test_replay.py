"""Replays on whole rollouts equal a plain loop over tokens, and exact best-of-n if nothing is dropped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_elhsr import ElhsrConfig, ElhsrRewardHead
from hf_elhsr.decisions.adaptive import AdaptiveRule
from hf_elhsr.decisions.calibration import Line
from hf_elhsr.decisions.fit import cross_fitted_replays, fit_pruning_rule, lost_without
from hf_elhsr.decisions.replay import adaptive_candidates, pruned_waves, replay_adaptive, replay_exact, replay_pruning
from hf_elhsr.decisions.scored_rollouts import ScoredRollouts
from hf_elhsr.rollouts import Rollout, RolloutSet
from hf_elhsr.rollouts.scoring import score_rollouts
from made_rollouts import made_rollouts
from oracle import oracle_reward


def test_rewards_and_prefixes_follow_the_equations():
    scored = made_rollouts(prompts=5)
    for prompt, candidate in ((0, 0), (3, 2), (4, 5)):
        length = scored.lengths[prompt, candidate]
        for steps in (1, 7, length, 99):
            r = scored.token_rewards[prompt, candidate, : min(steps, length)].astype(float)
            g = scored.token_gates[prompt, candidate, : min(steps, length)].astype(float)
            expected = [(g * r).sum() / g.sum(), r.mean(), np.log(g.mean())]
            np.testing.assert_allclose(
                scored.prefix_features(int(steps))[prompt, candidate].numpy(), expected, rtol=1e-5
            )
        assert scored.rewards[prompt, candidate] == pytest.approx((g * r).sum() / g.sum(), rel=1e-6)


def test_exact_best_of_n():
    scored = made_rollouts()
    exact = replay_exact(scored)
    assert np.array_equal(exact.tokens, scored.lengths.sum(1))
    expected = [labels[np.argmax(rewards)] for labels, rewards in zip(scored.labels, scored.rewards, strict=True)]
    assert np.array_equal(exact.correct, expected)


def token_by_token(scored, schedule, prompt):
    """One prompt, all candidates advancing one token at a time, from running sums."""
    n = scored.lengths.shape[1]
    sums, count = np.zeros((3, n)), np.zeros(n, dtype=int)
    pruned = np.zeros(n, dtype=bool)
    while True:
        running = ~pruned & (count < scored.lengths[prompt])
        if not running.any():
            break
        for j in np.flatnonzero(running):
            r, g = (float(a[prompt, j, count[j]]) for a in (scored.token_rewards, scored.token_gates))
            sums[:, j] += [g * r, g, r]
            count[j] += 1
        features = np.stack([sums[0] / sums[1], sums[2] / count, np.log(sums[1] / count)], -1)
        still = ~pruned & (count < scored.lengths[prompt])
        tensors = [torch.from_numpy(a)[None] for a in (features, still, pruned, count)]
        pruned |= schedule.hopeless(*tensors)[0].numpy()
    rewards = np.where(pruned, -np.inf, sums[0] / sums[1])
    return count.sum(), scored.labels[prompt, rewards.argmax()]


@pytest.mark.parametrize("price", [0.01, 0.05, 0.3])
def test_a_pruning_replay_equals_a_loop_over_tokens(price):
    scored = made_rollouts(prompts=60)
    schedule = replace(fit_pruning_rule(made_rollouts(seed=1)), price=price)
    replay = replay_pruning(scored, schedule)
    expected = [token_by_token(scored, schedule, prompt) for prompt in range(60)]
    assert np.array_equal(np.stack([replay.tokens, replay.correct], -1), expected)
    assert replay.tokens.sum() < scored.lengths.sum()


def test_at_price_zero_nothing_is_pruned():
    scored = made_rollouts()
    replay, exact = replay_pruning(scored, fit_pruning_rule(scored)), replay_exact(scored)
    assert np.array_equal(replay.tokens, exact.tokens)
    assert np.array_equal(replay.correct, exact.correct)


def test_the_loss_without_a_rollout():
    """Only the winner's lead in P(correct) over the second is lost, and a larger lead in R is a larger loss."""
    rewards = [[2.0, -1.0, -3.0], [2.0, 1.9, -3.0], [-3.0, 0.5, -2.0], [-1.0, -2.0, 0.5]]
    lengths = np.full((4, 3), 2)
    scored = constant_rewards(rewards, lengths)
    # The second prompt's winner is incorrect, so that no threshold separates the labels
    scored = replace(scored, labels=scored.labels ^ (np.arange(12).reshape(4, 3) == 3))
    lost = lost_without(scored)
    assert (lost > 0).tolist() == [
        [True, False, False],
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    order = np.sort(np.array(rewards), axis=1)
    leads = lost.max(axis=1)
    assert leads[1] < 0.1 * leads[0]
    assert leads.argmax() == 0
    assert np.array_equal(leads.argsort()[1:], (order[:, 2] - order[:, 1]).argsort()[1:])


def shares(scored, prices):
    exact = replay_exact(scored)
    replays = cross_fitted_replays(scored, prices=prices)
    return [(r.tokens.sum() / exact.tokens.sum(), (exact.correct - r.correct).mean()) for r in replays]


def test_pruning_by_a_signal_beats_cutting_blindly():
    """With a planted signal, saving a third of the tokens costs little; keeping only the current best costs more."""
    (tokens, lost), (_, most) = shares(made_rollouts(prompts=600, signal=2.5), (0.02, 1.0))
    assert tokens < 0.7
    assert lost < 0.03
    assert most > lost


def test_pruning_by_noise_saves_nothing():
    """The negative control: by log-probabilities without information, no candidate is cheap enough to drop."""
    scored = made_rollouts(prompts=600, signal=2.5)
    replay = cross_fitted_replays(scored, ScoredRollouts.mean_log_probability, prices=(0.02,))[0]
    assert replay.tokens.sum() > 0.95 * scored.lengths.sum()


def test_cross_fitting_never_fits_on_the_prompt_it_replays():
    """Inverting one prompt's labels may change the replays of others, but not its own."""
    scored = made_rollouts(prompts=100)
    before = cross_fitted_replays(scored, prices=[0.1])[0]
    labels = scored.labels.copy()
    labels[7] = ~labels[7]
    after = cross_fitted_replays(replace(scored, labels=labels), prices=[0.1])[0]
    assert after.tokens[7] == before.tokens[7]
    assert after.winner_rewards[7] == before.winner_rewards[7]


def constant_rewards(rewards, lengths):
    """Rollouts whose token rewards are all R, with gates of one."""
    rewards, lengths = np.array(rewards), np.array(lengths)
    token_rewards = np.repeat(rewards[..., None], lengths.max(), axis=2).astype(np.float32)
    return ScoredRollouts(token_rewards, np.ones_like(token_rewards), lengths, rewards > 0)


def test_adaptive_candidates_by_hand():
    sampling = AdaptiveRule(2, 0.5, Line(1.0, 0.0))
    rewards = [[1.0, -1, -1, -1, -1], [-1.0, -1, -1, 1, -1], [-1.0, -1, -1, -1, -1]]
    lengths = [[4, 9, 5, 5, 5], [3, 3, 7, 6, 6], [2, 2, 2, 2, 2]]
    # The other candidate of a trusted one's wave is cut where the trusted one ends
    expected = [[4, 4, 0, 0, 0], [3, 3, 6, 6, 0], [2, 2, 2, 2, 2]]
    tokens, finished = adaptive_candidates(sampling, constant_rewards(rewards, lengths))
    assert tokens.tolist() == expected
    assert finished.astype(int).tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 1, 0], [1, 1, 1, 1, 1]]


def waves_token_by_token(scored, sampling, schedule, prompt):
    """One prompt, wave after wave, all candidates of a wave advancing one token at a time."""
    n = scored.lengths.shape[1]
    lengths, rewards = scored.lengths[prompt], scored.rewards[prompt]
    count, pruned, done = np.zeros(n, dtype=int), np.zeros(n, dtype=bool), False
    for start in range(0, n, sampling.wave):
        while not done:
            running = (np.arange(n) >= start) & (np.arange(n) < start + sampling.wave) & ~pruned & (count < lengths)
            if not running.any():
                break
            count[running] += 1
            still = running & (count < lengths)
            features = np.zeros((n, 3))
            for j in np.flatnonzero(count):
                r, g = (a[prompt, j, : count[j]].astype(float) for a in (scored.token_rewards, scored.token_gates))
                features[j] = [(g * r).sum() / g.sum(), r.mean(), np.log(g.mean())]
            out = pruned | (count == 0)
            tensors = [torch.from_numpy(a)[None] for a in (features, still, out, count)]
            pruned |= schedule.hopeless(*tensors)[0].numpy()
            finished = ~pruned & (count == lengths)
            if finished.any():
                done = 1 / (1 + np.exp(-rewards[finished].max())) >= sampling.threshold
    eligible = np.where(~pruned & (count == lengths), rewards, -np.inf)
    return count.sum(), scored.labels[prompt, eligible.argmax()]


@pytest.mark.parametrize(("price", "threshold"), [(0.01, 0.6), (0.05, 0.9), (0.2, 0.7), (0.6, 0.2)])
def test_a_replay_of_pruning_inside_waves_equals_a_loop_over_tokens(price, threshold):
    scored = made_rollouts(prompts=40, n=6)
    schedule = replace(fit_pruning_rule(made_rollouts(seed=1)), price=price)
    sampling = AdaptiveRule(2, threshold, Line(1.0, 0.0))
    tokens, finished = adaptive_candidates(sampling, scored, pruned_waves(scored, schedule, sampling.wave_ends(6)))
    winners = np.where(finished, scored.rewards, -np.inf).argmax(1)
    correct = np.take_along_axis(scored.labels, winners[:, None], 1)[:, 0]
    expected = [waves_token_by_token(scored, sampling, schedule, prompt) for prompt in range(40)]
    assert np.array_equal(np.stack([tokens.sum(1), correct], -1), expected)
    # Some were pruned, and some never started
    assert tokens.sum() < adaptive_candidates(sampling, scored)[0].sum()
    assert (tokens == 0).any()


def test_pruning_inside_waves_that_drops_no_candidate_changes_nothing():
    scored, sampling = made_rollouts(), AdaptiveRule(2, 0.7, Line(1.0, 0.0))
    (plain,), (with_price_zero,) = (
        replay_adaptive(scored, [sampling], schedule) for schedule in (None, fit_pruning_rule(scored))
    )
    assert np.array_equal(plain.tokens, with_price_zero.tokens)
    assert np.array_equal(plain.correct, with_price_zero.correct)


def test_adaptive_n_spends_less_on_prompts_that_are_trusted():
    scored = made_rollouts(n=8)
    exact = replay_exact(scored)
    samplings = [AdaptiveRule(2, threshold, Line(1.0, 0.0)) for threshold in (1.0, 0.7)]
    never, replay = replay_adaptive(scored, samplings, orders=3)
    assert np.array_equal(never.tokens, exact.tokens)
    assert np.array_equal(never.correct, exact.correct)
    assert replay.tokens.sum() < exact.tokens.sum()
    saved = replay.tokens / exact.tokens
    trusted = exact.winner_rewards > np.median(exact.winner_rewards)
    assert saved[trusted].mean() < saved[~trusted].mean()


def stored(folder, head, with_features, digest=None):
    rng = np.random.default_rng(0)
    settings = {"task": "made", "split": "test", "prompts": 4, "sampling": {}}
    if not with_features:
        settings["head_sha256"] = digest or head.digest()
    rollouts = RolloutSet.create(folder, settings, head.config)
    features = []
    for shard in range(2):
        rows, parts = [], []
        for number in range(6):
            length = int(rng.integers(1, 9))
            first_row = sum(map(len, parts))
            rows.append(
                Rollout(f"p{shard}{number // 3}", "t", [1] * length, "", None, bool(number % 2), -1.0, first_row)
            )
            parts.append(rng.normal(size=(length, 6)))
        stacked = torch.from_numpy(np.concatenate(parts)).float()
        features += parts
        outputs = stacked @ head.weight.detach().T + head.bias.detach()
        arrays = {
            "token_rewards": outputs[:, 1],
            "token_gates": outputs[:, 0].sigmoid(),
            "token_log_probabilities": -outputs[:, 0].abs(),
        }
        if with_features:
            rollouts.write_shard(shard, rows, stacked)
        else:
            rollouts.write_shard(shard, rows, token_arrays=arrays)
    return rollouts, features


@pytest.fixture
def small_head():
    head = ElhsrRewardHead(ElhsrConfig(hidden_size=3, layers=[0, 1]))
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    return head


@pytest.mark.parametrize("with_features", [True, False])
def test_scored_rollouts_of_a_set_have_the_rewards_of_the_oracle(tmp_path, small_head, with_features):
    rollouts, features = stored(tmp_path, small_head, with_features)
    scored = score_rollouts(rollouts, small_head)
    weight, bias = small_head.weight.detach().numpy(), small_head.bias.detach().numpy()
    expected = np.array([oracle_reward(own, weight, bias) for own in features]).reshape(4, 3)
    np.testing.assert_allclose(scored.rewards, expected, rtol=1e-4)
    assert scored.labels.sum() == 6
    assert (scored.token_log_probabilities is None) == with_features
    some = score_rollouts(rollouts, small_head, ["p01", "p10"])
    np.testing.assert_allclose(some.rewards, expected[1:3], rtol=1e-4)
    with pytest.raises(ValueError, match="1 of the 2 prompts"):
        score_rollouts(rollouts, small_head, ["p01", "p77"])


def test_sets_of_another_head_or_without_arrays_are_refused(tmp_path, small_head):
    other, _ = stored(tmp_path / "other", small_head, False, digest="0")
    with pytest.raises(ValueError, match="another head"):
        score_rollouts(other, small_head)
    gone, _ = stored(tmp_path / "gone", small_head, False)
    for file in gone.folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(
        ValueError, match=r"does not exist.*delete the .jsonl of the same name.*samples only this shard"
    ):
        score_rollouts(gone, small_head)


@pytest.mark.parametrize("cut", [0, 1])
def test_token_arrays_of_different_rollouts_are_refused(tmp_path, small_head, cut):
    """Shards were swapped: with as many tokens, or with fewer."""
    rollouts, features = stored(tmp_path, small_head, False)
    weight, bias = small_head.weight.detach().numpy(), small_head.bias.detach().numpy()
    rewards = iter([oracle_reward(own, weight, bias) for own in features])
    for number, (shard, _) in enumerate(list(rollouts.shards())):
        rollouts.write_labels(tmp_path / f"shard-{number:05d}", [replace(r, reward=next(rewards)) for r in shard])
    score_rollouts(rollouts, small_head)
    file = tmp_path / "shard-00001.safetensors"
    moved = {name: array.roll(1)[cut:].contiguous() for name, array in load_file(file).items()}
    save_file(moved, file)
    with pytest.raises(ValueError, match=r"token arrays in .*shard-00001.safetensors' do not belong to .* Delete both"):
        score_rollouts(rollouts, small_head)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((4, 3), dtype=bool)}, "Expected token arrays of one shape"),
        ({"lengths": np.zeros((4, 2), dtype=int)}, "between 1 and 5"),
        ({"token_gates": np.full((4, 2, 5), np.nan, dtype=np.float32)}, "NaN"),
    ],
)
def test_scored_rollouts_that_do_not_match_are_refused(change, message):
    ones = np.ones((4, 2, 5), dtype=np.float32)
    fields = {"lengths": np.full((4, 2), 5), "labels": np.zeros((4, 2), dtype=bool)}
    with pytest.raises(ValueError, match=message):
        ScoredRollouts(**({"token_rewards": ones, "token_gates": ones} | fields | change))
