"""Settings and kept scores that are damaged, and two runs into one folder, end in one line that names the place."""

import json
import os

import pytest
from killed_sampling import TinyTask
from planted_rollouts import planted_rollouts
from tiny_tokenizer import tiny_tokenizer

from hf_elhsr import ElhsrConfig
from hf_elhsr.rollouts import Recording, RolloutSet, SamplingArguments, sample_rollouts, score_rollout_texts


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": []},
        {"prompts": True},
        {"skip": "1"},
        {"sampling": []},
        {"sampling": {"prompts_per_batch": 0, "n": 2}},
        {"sampling": {"prompts_per_batch": 2}},
        {"task": 3},
        {"labelled_by": "me"},
        {"head_config": {"layers": 5}},
    ],
)
def test_damaged_settings(tmp_path, change):
    planted_rollouts(tmp_path, prompts=4)
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=r"settings.json' does not hold the settings of rollouts"):
        RolloutSet(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"scores": {"prompt-0": [1]}}', "\xff", "[" * 100_000])
def test_damaged_text_scores(tmp_path, content):
    rollouts = planted_rollouts(tmp_path, prompts=4)
    prompts = {f"prompt-{number}": "x" for number in range(4)}
    expected = score_rollout_texts(rollouts, prompts, lambda prompts, texts: [0.5] * len(texts), "judge")
    assert score_rollout_texts(rollouts, prompts, None, "judge") == expected
    for file in tmp_path.glob("text-scores-*"):
        file.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"text-scores-[0-9a-f]+.json' does not hold the scores"):
        score_rollout_texts(rollouts, prompts, None, "judge")


def test_a_run_into_the_folder_of_another_is_refused(model, tmp_path):
    """The other is started while the first one labels, and would put its settings beside the first one's shards."""

    def sample(task, temperature):
        arguments = SamplingArguments(n=2, max_new_tokens=3, prompts_per_batch=2, temperature=temperature)
        recording = Recording(config=ElhsrConfig.for_model(model))
        return sample_rollouts(
            model, tiny_tokenizer(), task, tmp_path, prompts=2, arguments=arguments, recording=recording
        )

    class Meanwhile(TinyTask):
        refused = None

        def verify(self, problem, completion):
            if self.refused is None:
                with pytest.raises(ValueError, match=f"is in use by process {os.getpid()} on") as caught:
                    sample(TinyTask(), 2.0)
                self.refused = caught
            return super().verify(problem, completion)

    assert sample(Meanwhile(), 0.5).settings["sampling"]["temperature"] == 0.5
    assert not list(tmp_path.glob(".*"))
