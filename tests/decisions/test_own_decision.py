"""A decision rule from outside the package: a frozen artefact, its fitter, and its argument of `generate`."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from hf_elhsr import ElhsrRewardHead, enable_best_of_n
from hf_elhsr.decisions.decision import Decision, check, check_settings, is_number, setting_for
from hf_elhsr.decisions.fit import FITTERS, fit_decisions
from hf_elhsr.generation.stopping import STOPPING_RULES, Stopping
from hf_elhsr.head.configuration_elhsr import DECISIONS
from made_rollouts import made_rollouts
from tiny_models import ragged_prompts, tiny_head, tiny_model


@dataclass(frozen=True)
class Cutoff(Decision):
    """Stops a candidate whose running reward is below a floor after its first `after` tokens."""

    name = "cutoff"
    missing = "This head has no cutoff: fit one."

    after: int
    floors: dict[str, float]

    def __post_init__(self):
        check("after", self.after, "a count of at least 1", is_number(self.after) and self.after >= 1)
        check_settings("floors", {key: (value + 100) / 200 for key, value in self.floors.items()}, "floors")


def fit_cutoff(scored, fitted):
    """A floor that few correct rollouts are below."""
    running = scored.prefix_features(4)[..., 0].numpy()
    floor = float(np.quantile(running[scored.labels], 0.05))
    return Cutoff(4, {"0.05": floor})


def cutoff(running_reward, n, tolerance):
    fitted = running_reward.head.config.fitted("cutoff")
    floor = setting_for(fitted.floors, tolerance, "cutoff")

    def pruner(candidates, unfinished, lengths, pruned):
        running = running_reward.rewards[candidates]
        leads = running == running.max()
        return unfinished & (lengths[candidates] == fitted.after) & (running < floor) & ~leads

    return Stopping((pruner,))


@pytest.fixture(autouse=True)
def own_decision(monkeypatch):
    monkeypatch.setitem(DECISIONS, "cutoff", Cutoff)
    monkeypatch.setitem(FITTERS, "cutoff", fit_cutoff)
    monkeypatch.setitem(STOPPING_RULES, "cutoff", cutoff)


def test_it_is_fitted_saved_and_loaded_with_the_others(tmp_path):
    fitted = fit_decisions(made_rollouts())
    assert isinstance(fitted["cutoff"], Cutoff)
    head = tiny_head(tiny_model())
    for name, decision in fitted.items():
        setattr(head.config, name, decision)
    head.save_pretrained(tmp_path)
    loaded = ElhsrRewardHead.from_pretrained(tmp_path)
    assert loaded.config.cutoff == fitted["cutoff"]
    assert loaded.config.pruning == fitted["pruning"]


def test_generate_takes_it_as_an_argument():
    model = enable_best_of_n(tiny_model())
    head = tiny_head(model)
    inputs = ragged_prompts()
    settings = {"best_of_n": 6, "reward_head": head, "max_new_tokens": 12, "return_dict_in_generate": True}
    torch.manual_seed(0)
    exact = model.generate(**inputs, **settings)
    with pytest.raises(ValueError, match=r"This head has no cutoff: fit one\."):
        model.generate(**inputs, cutoff=0.05, **settings)
    head.config.cutoff = Cutoff(4, {"0.05": 50.0})
    torch.manual_seed(0)
    out = model.generate(**inputs, cutoff=0.05, **settings)
    # So high a floor stops all but the leader, after four tokens
    assert out.pruned.any()
    assert (out.lengths[out.pruned] == 4).all()
    assert (exact.lengths[out.pruned] > 4).all()
    head.config.cutoff = Cutoff(4, {"0.05": -50.0})
    torch.manual_seed(0)
    unchanged = model.generate(**inputs, cutoff=0.05, **settings)
    assert torch.equal(unchanged.candidates, exact.candidates)
    with pytest.raises(ValueError, match="prune and cutoff each decide"):
        model.generate(**inputs, cutoff=0.05, prune=0.05, **settings)


def test_a_damaged_one_is_refused():
    head = tiny_head(tiny_model())
    with pytest.raises(ValueError, match="damaged cutoff: after must be a count of at least 1, got 0"):
        head.config.cutoff = {"after": 0, "floors": {"0.05": 1.0}}
    with pytest.raises(ValueError, match="damaged cutoff: expected exactly after, floors"):
        head.config.cutoff = {"after": 3}
