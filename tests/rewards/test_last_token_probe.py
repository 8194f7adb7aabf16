"""The probe of the last token while decoding, compared with a plain forward pass."""

import pytest
import torch

from hf_elhsr.rewards.baselines import LastTokenProbe, RunningLastTokenProbe
from oracle import plain_features


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_it_reads_the_last_sampled_token_and_no_other(model, inputs, layer):
    probe = LastTokenProbe(layer, torch.randn(32, generator=torch.Generator().manual_seed(layer)), 0.25)
    running = RunningLastTokenProbe(probe)
    torch.manual_seed(0)
    candidates = model.sample_candidates(**inputs, n=4, signal_processor=[running], max_new_tokens=10)
    expected = []
    for number in range(12):
        row, column = divmod(number, 4)
        prompt = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        features = plain_features(model, prompt, candidates.completion(row, column), [layer])
        expected.append(float(features[-1].astype("float64") @ probe.weight.double().numpy() + 0.25))
    assert running.rewards.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    # Candidates end at different tokens, so those that had left must have kept their rewards
    assert len({int(length) for length in candidates.lengths.flatten()}) > 1


def test_its_digest_depends_on_layer_weight_and_bias():
    probe = LastTokenProbe(3, torch.ones(4), 0.5)
    others = [
        LastTokenProbe(2, torch.ones(4), 0.5),
        LastTokenProbe(3, torch.tensor([1.0, 1.0, 1.0, 2.0]), 0.5),
        LastTokenProbe(3, torch.ones(4), 0.25),
    ]
    assert len({probe.sha256, *(other.sha256 for other in others)}) == 4
    assert LastTokenProbe(3, torch.ones(4), 0.5).sha256 == probe.sha256


@pytest.mark.parametrize(("layer", "width"), [(-1, 32), (4, 32), (3, 31)])
def test_a_probe_that_does_not_fit_is_refused(model, layer, width):
    LastTokenProbe(3, torch.ones(32), 0.0).check_fits(model)
    with pytest.raises(ValueError, match=r"and the model has layers 0 to 3 of width 32"):
        LastTokenProbe(layer, torch.ones(width), 0.0).check_fits(model)
