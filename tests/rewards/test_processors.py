"""SignalProcessors: what they are shown, when, and how they compose; a user's own works like the package's."""

import gc

import pytest
import torch

from hf_elhsr import (
    ElhsrConfig,
    ElhsrRewardHead,
    RunningLogProbability,
    RunningReward,
    SignalNeeds,
    SignalProcessor,
    SignalProcessorList,
    StepSignal,
)
from hf_elhsr.rollouts import FeatureRecorder
from oracle import assert_rewards_close, oracle_rewards, plain_features
from tiny_models import tiny_head


class Journal(SignalProcessor):
    """A user's processor that records every call."""

    needs = SignalNeeds(layers=frozenset([1]), logits=True)

    def begin(self, num_candidates, device):
        self.begun = num_candidates
        self.multiplied, self.left, self.tokens, self.norms = [], [], {}, {}

    def __call__(self, input_ids, signal):
        for row, candidate in enumerate(signal.candidates.tolist()):
            if signal.active[row]:
                self.tokens.setdefault(candidate, []).append(int(input_ids[row, -1]))
                self.norms.setdefault(candidate, []).append(signal.hidden_states[1][row].norm())
        assert signal.hidden_states[0] is None
        assert signal.logits.shape == (len(input_ids), 64)

    def candidates_multiplied(self, index):
        self.multiplied.append(index.tolist())

    def candidates_left(self, candidates):
        self.left += candidates.tolist()


def test_a_users_processor_sees_every_sampled_token_once(model, inputs):
    head = tiny_head(model, layers=[2])
    journal = Journal()
    torch.manual_seed(0)
    out = model.generate(
        **inputs,
        best_of_n=4,
        reward_head=head,
        signal_processor=[journal],
        max_new_tokens=10,
        return_dict_in_generate=True,
    )
    assert journal.begun == 3
    assert journal.multiplied == [[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]]
    assert sorted(journal.left) == list(range(12))
    for row in range(3):
        for column in range(4):
            length = int(out.lengths[row, column])
            assert journal.tokens[4 * row + column] == out.candidates[row, column, 9 : 9 + length].tolist()
    # The journal's needs, a further layer, do not change the head's rewards
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


def test_several_heads_and_recorders_at_once(model, inputs):
    heads = [tiny_head(model, seed=seed, layers=layers) for seed, layers in ((1, [0, 3]), (2, [1]), (3, None))]
    recorder, log_probability = FeatureRecorder(ElhsrConfig.for_model(model)), RunningLogProbability()
    rewards = [RunningReward(head) for head in heads]
    torch.manual_seed(0)
    candidates = model.sample_candidates(
        **inputs, n=4, signal_processor=[*rewards, recorder, log_probability], max_new_tokens=10, temperature=0.7
    )
    features = recorder.features()
    assert len(features) == int(candidates.lengths.sum())
    first = 0
    for number in range(12):
        row, column = divmod(number, 4)
        completion = candidates.completion(row, column)
        prompt = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        expected = torch.from_numpy(plain_features(model, prompt, completion, [0, 1, 2, 3]))
        actual = features[first : first + len(completion)]
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
        first += len(completion)
        for head, running in zip(heads, rewards, strict=True):
            mask = torch.ones(1, len(completion))
            width = model.config.hidden_size
            columns = torch.cat([torch.arange(layer * width, (layer + 1) * width) for layer in head.config.layers])
            assert_rewards_close(running.rewards[number], head(expected[None][..., columns], mask).rewards[0].detach())
        logits = model(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
        chosen = logits.log_softmax(-1).gather(-1, completion[:, None]).mean()
        torch.testing.assert_close(log_probability.mean[number], chosen, rtol=1e-4, atol=1e-4)


def test_without_hidden_state_needs_the_last_token_is_not_fed(model, inputs):
    # A model's cache is tried in its first call
    model.sample_candidates(**inputs, n=1, max_new_tokens=2)
    fed = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(kwargs.get("output_hidden_states")), with_kwargs=True
    )
    candidates = model.sample_candidates(**inputs, n=2, signal_processor=[RunningLogProbability()], max_new_tokens=6)
    handle.remove()
    assert len(fed) == int(candidates.lengths.max())
    assert not any(fed)


def step(candidates, active, hidden):
    return StepSignal(torch.tensor(candidates), torch.tensor(active), hidden_states=(hidden,))


@pytest.fixture
def small_head(model):
    return tiny_head(model, layers=[0])


def test_state_is_per_candidate_and_multiplies(small_head):
    running = RunningReward(small_head, keep_tokens=True)
    running.begin(2, torch.device("cpu"))
    torch.manual_seed(0)
    first, second, third = torch.randn(2, 32), torch.randn(3, 32), torch.randn(1, 32)
    running(torch.zeros(2, 1), step([0, 1], [True, True], first))
    running.candidates_multiplied(torch.tensor([1, 0, 1]))
    running(torch.zeros(3, 1), step([0, 1, 2], [True, False, True], second))
    running(torch.zeros(1, 1), step([2], [True], third))
    paths = [torch.stack([first[1], second[0]]), first[:1], torch.stack([first[1], second[2], third[0]])]
    expected = [small_head(path[None], torch.ones(1, len(path))).rewards[0].detach() for path in paths]
    assert_rewards_close(running.rewards, torch.stack(expected))
    assert (running.token_gates > 0).sum(-1).tolist() == [2, 1, 3]


def test_nothing_is_kept_per_token_unless_asked(small_head):
    running = RunningReward(small_head)
    running.begin(1, torch.device("cpu"))
    for _ in range(50):
        running(torch.zeros(1, 1), step([0], [True], torch.randn(1, 32)))
    held = [*vars(running).values(), *vars(running._head).values()]
    tensors = [value for value in held if isinstance(value, torch.Tensor)]
    assert sum(t.numel() for t in tensors) == 4 + small_head.weight.numel() + small_head.bias.numel()
    assert running._tokens["rewards"].numel() == 0
    with pytest.raises(ValueError, match="keep_tokens=True"):
        _ = running.token_rewards


@pytest.mark.parametrize(("layers", "tokens"), [(1, 256), (64, 128)])
def test_features_of_only_a_few_steps_are_buffered(layers, tokens):
    """Memory grows to 256 tokens, or 2^20 numbers, and no further, however many tokens there are."""
    head = ElhsrRewardHead(ElhsrConfig(hidden_size=128, layers=list(range(layers))))
    running = RunningReward(head)
    running.begin(1, torch.device("cpu"))
    held = []
    for number in range(1, 3 * tokens):
        states = tuple(torch.randn(1, 128) for _ in range(layers))
        signal = StepSignal(torch.tensor([0]), torch.tensor([True]), hidden_states=states)
        running(torch.zeros(1, 1, dtype=torch.long), signal)
        if number % tokens == tokens - 1:
            held.append(sum(type(found) is torch.Tensor and found.shape == (1, 128) for found in gc.get_objects()))
    assert held[0] >= (tokens - 1) * layers
    assert held == [held[0]] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_buffered_steps_are_scored_as_if_alone(dtype):
    """Steps of several sizes, scored together or one by one: R follows the equations either way."""
    torch.manual_seed(0)
    head = ElhsrRewardHead(ElhsrConfig(hidden_size=48, layers=[0, 2, 3], value=True))
    torch.nn.init.normal_(head.weight)
    torch.nn.init.normal_(head.value_weight)
    steps = [list(range(rows)) for rows in (5, 5, 4, 1)]
    states = [[torch.randn(len(rows), 48, dtype=dtype) for _ in range(4)] for rows in steps]
    together, alone = RunningReward(head, keep_tokens=True), RunningReward(head, keep_tokens=True)
    for running in (together, alone):
        running.begin(5, torch.device("cpu"))
        for rows, hidden in zip(steps, states, strict=True):
            signal = StepSignal(torch.tensor(rows), torch.ones(len(rows), dtype=torch.bool), tuple(hidden))
            running(torch.zeros(len(rows), 1, dtype=torch.long), signal)
            if running is alone:
                _ = running.rewards
    for candidate in range(5):
        h = torch.stack(
            [
                torch.cat([hidden[0], hidden[2], hidden[3]], -1)[candidate]
                for hidden in states
                if candidate < len(hidden[0])
            ]
        ).double()
        gates = torch.sigmoid(h @ head.weight[0].double() + head.bias[0].double())
        token_rewards = h @ head.weight[1].double() + head.bias[1].double()
        expected = (gates * token_rewards).sum() / gates.sum()
        for running in (together, alone):
            assert_rewards_close(running.rewards[candidate], expected.float().detach())
            assert_rewards_close(running.token_rewards[candidate][: len(h)], token_rewards.float().detach())


def test_states_that_are_changed_while_buffered_are_refused(model, inputs):
    """The reward would silently be a different one."""

    class Centring(Journal):
        def __call__(self, input_ids, signal):
            signal.hidden_states[1].sub_(1.0)

    running = RunningReward(tiny_head(model, layers=[1]))
    with torch.no_grad():
        model.sample_candidates(**inputs, n=2, signal_processor=[running, Centring()], max_new_tokens=3)
    with pytest.raises(ValueError, match="changed hidden states in place"):
        _ = running.rewards


def test_rewards_of_inference_mode_can_be_read_outside_it(model, inputs):
    running, usual = RunningReward(tiny_head(model)), RunningReward(tiny_head(model))
    for processor, mode in ((running, torch.inference_mode()), (usual, torch.no_grad())):
        torch.manual_seed(0)
        with mode:
            model.sample_candidates(**inputs, n=2, signal_processor=[processor], max_new_tokens=3)
    assert_rewards_close(running.rewards, usual.rewards)


def test_states_need_not_outlive_a_step_without_a_cache(model, inputs):
    """The buffer holds only the last position, not the whole row that was fed again."""
    held = []

    class Sizes(Journal):
        def __call__(self, input_ids, signal):
            held.append((signal.hidden_states[1].untyped_storage().nbytes(), signal.hidden_states[1].nbytes))

    model.sample_candidates(**inputs, n=2, signal_processor=[Sizes()], max_new_tokens=3, use_cache=False)
    assert len(held) == 3
    assert all(storage == own for storage, own in held)


def test_padding_with_nan_is_not_scored(small_head):
    running = RunningReward(small_head)
    running.begin(2, torch.device("cpu"))
    hidden = torch.randn(2, 32)
    hidden[1] = float("nan")
    running(torch.zeros(2, 1), step([0, 1], [True, False], hidden))
    assert torch.isfinite(running.rewards).all()


def test_begin_resets_the_state(model, head, inputs):
    running = RunningReward(head)
    for _ in range(2):
        torch.manual_seed(0)
        model.sample_candidates(**inputs, n=2, signal_processor=[running], max_new_tokens=4)
    first = running.rewards
    torch.manual_seed(0)
    model.sample_candidates(**inputs, n=2, signal_processor=[fresh := RunningReward(head)], max_new_tokens=4)
    assert torch.equal(first, fresh.rewards)


def test_list_unites_needs():
    class Needs(Journal):
        def __init__(self, **needs):
            self.needs = SignalNeeds(**needs)

    processors = SignalProcessorList(
        [Needs(layers=frozenset([1, 4])), Needs(layers=frozenset([2])), Needs(logits=True)]
    )
    assert processors.needs == SignalNeeds(frozenset([1, 2, 4]), True)
    assert SignalProcessorList().needs == SignalNeeds()


def test_signal_refuses_to_show_what_was_not_asked_for():
    signal = StepSignal(torch.tensor([0]), torch.tensor([True]), hidden_states=(torch.zeros(1, 4), None))
    for layer in (1, 2):
        with pytest.raises(ValueError, match=f"no hidden state {layer}"):
            signal.features([0, layer])
    with pytest.raises(ValueError, match="no hidden states"):
        StepSignal(torch.tensor([0]), torch.tensor([True])).features([0])
    log_probability = RunningLogProbability()
    log_probability.begin(1, torch.device("cpu"))
    with pytest.raises(ValueError, match="no logits"):
        log_probability(torch.zeros(1, 1, dtype=torch.long), signal)


def test_a_layer_that_the_model_does_not_have_is_refused(model, inputs):
    class Asks(Journal):
        needs = SignalNeeds(layers=frozenset([9]))

    with pytest.raises(ValueError, match=r"Layers \[9\] were requested, but the model returned 4"):
        model.sample_candidates(**inputs, n=2, signal_processor=[Asks()], max_new_tokens=4)


def test_kept_tokens_add_up_to_the_sums(model, inputs):
    reward, plain = RunningReward(tiny_head(model), keep_tokens=True), RunningLogProbability()
    log_probability = RunningLogProbability(keep_tokens=True)
    torch.manual_seed(0)
    candidates = model.sample_candidates(
        **inputs, n=4, signal_processor=[reward, log_probability, plain], max_new_tokens=10, temperature=0.7
    )
    lengths = candidates.lengths.flatten()
    assert lengths.unique().numel() > 1
    kept = log_probability.token_log_probabilities
    assert kept.shape == (12, int(lengths.max()))
    torch.testing.assert_close(kept.sum(-1) / lengths, log_probability.mean)
    assert not kept[torch.arange(kept.shape[1]) >= lengths[:, None]].any()
    r, g = reward.token_rewards, reward.token_gates
    expected = torch.stack([(g * r).sum(-1) / g.sum(-1), r.sum(-1) / lengths, (g.sum(-1) / lengths).log()], -1)
    torch.testing.assert_close(reward.prefix_features, expected)
    torch.testing.assert_close(reward.prefix_features[:, 0], reward.rewards)
    with pytest.raises(ValueError, match=r"RunningLogProbability\(keep_tokens=True\)"):
        _ = plain.token_log_probabilities
