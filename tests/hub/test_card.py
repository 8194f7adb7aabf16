"""The card says what was measured, and nothing else."""

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from huggingface_hub import metadata_load

from hf_elhsr import ElhsrConfig, ElhsrRewardHead
from hf_elhsr.cli.app import app
from hf_elhsr.hub import write_card
from hf_elhsr.hub.card import render_card
from hf_elhsr.hub.card_commands import making_commands
from hf_elhsr.hub.record import TrainingRecord
from hf_elhsr.training import RewardHeadTrainingArguments

SHIPPED = Path(__file__).parents[2] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"


def test_the_shipped_card_is_the_one_the_records_make():
    assert (SHIPPED / "README.md").read_text() == render_card(SHIPPED)


def test_every_accuracy_in_the_card_is_in_an_evaluation_file():
    card = render_card(SHIPPED)
    values = set()
    for file in (SHIPPED / "evaluation").glob("*.json"):
        evaluation = json.loads(file.read_text())
        intervals = [measured for group in ("accuracy", "head_minus") for measured in evaluation[group].values()]
        for measured in (*intervals, *(measured for curve in evaluation["by_k"].values() for measured in curve)):
            values |= {f"{100 * measured[key]:.1f}" for key in ("value", "low", "high")}
    tradeoff = json.loads((SHIPPED / "tradeoff" / "test.json").read_text())
    points = [
        point[group]
        for points in tradeoff["by_tolerance"].values()
        for point in points
        for group in ("accuracy", "difference")
    ]
    for measured in (tradeoff["exact"], *points):
        values |= {f"{100 * measured[key]:.1f}" for key in ("value", "low", "high")}
    cells = re.findall(r"(-?\d+\.\d) \[(-?\d+\.\d), (-?\d+\.\d)\]\*{0,2} \|", card)
    assert len(cells) >= 16
    assert {number for cell in cells for number in cell} <= values


def test_the_shipped_head_loads_and_is_the_papers_size():
    head = ElhsrRewardHead.from_pretrained(SHIPPED)
    assert head.weight.numel() + head.bias.numel() == 35_714
    assert sum(parameter.numel() for parameter in head.parameters()) == 35_714 + 17_857
    assert head.config.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert head.config.standardization == "per_feature"


@pytest.fixture(scope="module")
def evaluation():
    return json.loads((SHIPPED / "evaluation" / "test.json").read_text())


def test_the_shipped_head_is_well_ahead(evaluation):
    """400 unseen prompts or more; 20 points over one sample; ahead of both baselines."""
    assert evaluation["prompts"] >= 400
    assert evaluation["head_minus"]["single sample"]["value"] >= 0.20
    assert evaluation["head_minus"]["majority vote"]["low"] > 0
    assert evaluation["head_minus"]["mean log-probability"]["low"] > 0


def test_the_shipped_head_closes_the_required_gap(evaluation):
    assert evaluation["gap_closed"]["value"] >= 0.6


def test_shipped_training_and_evaluation_share_no_prompt():
    from hf_elhsr.tasks import ArithmeticTask

    task = ArithmeticTask()
    record = json.loads((SHIPPED / "training.json").read_text())
    sets = [record["rollouts"], *record["refit"]["rollouts"]]
    assert {rollouts["split"] for rollouts in sets} == {"train"}
    last = max(rollouts.get("skip", 0) + rollouts["prompts"] for rollouts in sets)
    train = {problem.id for problem in task.problems("train", last)}
    for split in ("test", "unseen_templates"):
        measured = json.loads((SHIPPED / "evaluation" / f"{split}.json").read_text())
        assert measured["split"] == split
        assert not train & {problem.id for problem in task.problems(split, measured["skip"] + measured["prompts"])}


def license_of(folder, **options):
    write_card(folder, **options)
    return metadata_load(folder / "README.md").get("license")


def test_a_license_is_only_set_when_chosen_and_then_kept(tmp_path):
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "head"))
    (folder / "README.md").unlink()
    assert license_of(folder) is None
    assert license_of(folder, license="mit") == license_of(folder) == "mit"
    assert license_of(folder, license="apache-2.0") == license_of(folder) == "apache-2.0"
    # Nothing is read from a card that says nothing
    for text in ("", "---\n[\n---\n", "---\n5\n---\n", "---\nlicense: [mit]\n---\n"):
        (folder / "README.md").write_text(text)
        assert license_of(folder) is None
    (folder / "LICENSE.txt").write_text("All rights reserved.\n")
    assert license_of(folder) == "other"
    assert license_of(folder, license="mit") == license_of(folder) == "mit"


@pytest.mark.parametrize("missing", ["config.json", "training.json", "evaluation"])
def test_a_card_without_measurements_is_refused(tmp_path, missing):
    folder = shutil.copytree(SHIPPED, tmp_path / "head")
    if missing == "evaluation":
        shutil.rmtree(folder / missing)
    else:
        (folder / missing).unlink()
    (folder / "README.md").unlink()
    with pytest.raises(ValueError, match=f"lacks {missing}"):
        write_card(folder)
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"head_sha256": "0" * 64}, "of another head"), ({"split": "train"}, "on training prompts")],
)
def test_a_card_with_foreign_numbers_is_refused(tmp_path, change, message):
    folder = shutil.copytree(SHIPPED, tmp_path / "head")
    file = folder / "evaluation" / "test.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        write_card(folder)


def test_a_refit_on_the_test_split_is_refused(tmp_path):
    folder = shutil.copytree(SHIPPED, tmp_path / "head")
    record = json.loads((folder / "training.json").read_text())
    record["refit"]["rollouts"][0]["split"] = "test"
    (folder / "training.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="on training prompts"):
        write_card(folder)


@pytest.fixture
def copied(tmp_path):
    """The shipped head, and a function that changes a JSON file of its folder."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "head"))

    def change(name, **changes):
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return folder, change


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"calibration": None}),
        ("tradeoff/test.json", {"decisions_sha256": "0" * 64}),
        ("tradeoff/test.json", {"decisions_sha256": None}),
    ],
)
def test_a_trade_off_of_other_decisions_is_refused(copied, name, changes):
    folder, change = copied
    write_card(folder)
    change(name, **changes)
    with pytest.raises(ValueError, match=r"measured with another calibration.*run `hf-elhsr tradeoff` again"):
        write_card(folder)


@pytest.mark.parametrize("kind", ["evaluation", "trade-off"])
def test_numbers_on_calibration_prompts_are_refused(copied, kind):
    folder, change = copied
    own = json.loads((SHIPPED / "training.json").read_text())["calibrate"]
    other = folder / "evaluation" / "test.json" if kind == "trade-off" else folder / "tradeoff" / "test.json"
    other.unlink()
    for skip, prompts in ((9215, 1), (9216 + 2000, 5)):
        change("training.json", calibrate=own | {"split": "test", "skip": skip, "prompts": prompts})
        write_card(folder)
    for skip, prompts in ((9215, 2), (9216 + 1999, 1), (0, 20_000)):
        change("training.json", calibrate=own | {"split": "test", "skip": skip, "prompts": prompts})
        with pytest.raises(ValueError, match=f"{kind} on 'test' is on prompts that the head was calibrated on"):
            write_card(folder)
    # One of the prompts before could not be verified
    change("training.json", calibrate=own | {"split": "test", "skip": 9216 + 2000, "prompts": 5})
    change("tradeoff/test.json" if kind == "trade-off" else "evaluation/test.json", unverified=1)
    with pytest.raises(ValueError, match="calibrated on"):
        write_card(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("evaluation/test.json", "{}", "not an evaluation: expected what `hf-elhsr evaluate --numbers` wrote"),
        ("evaluation/test.json", "{", "not an evaluation: expected"),
        ("evaluation/test.json", "[]", "not an evaluation: expected"),
        ("evaluation/test.json", (SHIPPED / "tradeoff" / "test.json").read_text(), "not an evaluation: expected"),
        ("tradeoff/test.json", "{}", "not a trade-off: expected what `hf-elhsr tradeoff --numbers` wrote"),
        ("tradeoff/test.json", (SHIPPED / "evaluation" / "test.json").read_text(), "not a trade-off: expected"),
        ("training.json", "{}", "not the record of a training: expected what `hf-elhsr train` wrote"),
        ("training.json", "[]", "not the record of a training: expected"),
        ("training.json", "{", "not the record of a training: expected"),
        ("training.json", '{"rollouts": []}', "not the record of a training: expected"),
        (
            "training.json",
            '{"rollouts": {"task": "made", "split": "train", "prompts": "4"}}',
            "rollouts without task, split and number of prompts",
        ),
        (
            "training.json",
            '{"rollouts": {"task": "made", "split": "train", "prompts": 4}}',
            "not the record of a training",
        ),
    ],
)
def test_damaged_and_misplaced_records_are_named(copied, name, content, message):
    folder, _ = copied
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        write_card(folder)
    assert str(folder / name) in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"prompts": "2000"}, {"split": 3}, {"gap_closed": {"value": "x"}}, {"accuracy": {"reward head": 0.4}}, {"x": 1}],
    ids=lambda changes: next(iter(changes)),
)
def test_numbers_of_an_incorrect_type_are_refused(copied, changes):
    folder, change = copied
    change("evaluation/test.json", **changes)
    with pytest.raises(ValueError, match=r"test\.json' cannot be summarised. This is not an evaluation"):
        write_card(folder)


def test_prompts_that_could_not_be_verified_are_reported(tmp_path):
    folder = shutil.copytree(SHIPPED, tmp_path / "head")
    file = folder / "evaluation" / "test.json"
    assert "are left out: the verifier failed" not in render_card(folder)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unverified": 3}))
    assert "3 more are left out: the verifier failed." in render_card(folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"signal": "logits"}, "next-token distributions of the language model while it writes"),
        ({"signal": "logits"}, "It is one linear gated layer over the 49,152 raw logits at every sampled token"),
        ({"signal": "logits", "gate": False}, "49,153 parameters"),
        (
            {"signal": "logits", "gate": False},
            "It is one linear layer over the 49,152 raw logits at every sampled token",
        ),
        (
            {"signal": "top_log_probabilities", "num_log_probabilities": 20},
            "layer over the 20 highest log-probabilities and the token's own at every sampled token",
        ),
    ],
)
def test_the_card_of_a_head_that_reads_distributions(tmp_path, fields, words):
    shutil.copytree(SHIPPED, tmp_path / "head")
    config = json.loads((SHIPPED / "config.json").read_text()) | {"layers": []} | fields
    head = ElhsrRewardHead(ElhsrConfig.from_dict(config))
    head.save_pretrained(tmp_path / "head")
    # As if these had been measured with it
    for file in tmp_path.glob("head/*/*.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"head_sha256": head.digest()}))
    assert words in " ".join(render_card(tmp_path / "head").split())


def commands_of(text):
    return [shlex.split(line) for line in text.replace("\\\n", " ").splitlines()]


def parsed(words):
    """What `hf-elhsr` makes of a command's words."""
    assert words[0] == "hf-elhsr"
    command = typer.main.get_command(app).commands[words[1]]
    return words[1], command.make_context(words[1], words[2:]).params


def test_the_commands_of_a_card_reproduce_its_head():
    training = TrainingRecord.read(SHIPPED)
    config = ElhsrConfig.from_pretrained(SHIPPED)
    text = making_commands("my head", config, training)
    assert max(map(len, text.splitlines())) <= 120
    commands = [parsed(words) for words in commands_of(text)]
    assert [name for name, _ in commands] == ["sample", "train", "sample", "sample", "refit", "evaluate", "calibrate"]
    sampled = [params for name, params in commands if name in ("sample", "evaluate")]
    records = [*training.trained_on, *training.calibrated_on]
    for params, record in zip(sampled, records, strict=True):
        assert params["model"] == config.base_model
        assert {key: params[key] for key in ("task", "split", "prompts", "dtype")} == {
            key: record[key] for key in ("task", "split", "prompts", "dtype")
        }
        assert params["skip"] == record.get("skip", 0)
        for key in ("n", "temperature", "top_p", "max_new_tokens", "seed"):
            assert params[key] == record["sampling"][key]
    assert dict(commands)["train"]["max_epochs"] == 13
    assert dict(commands)["refit"]["pooled"] == [Path("rollouts/more-1"), Path("rollouts/more-2")]
    assert dict(commands)["calibrate"]["head"] == Path("my head")


@pytest.mark.parametrize(
    ("preset_name", "signal", "changes", "options"),
    [
        ("default", "hidden_states", {}, []),
        ("default", "top_log_probabilities", {}, []),
        ("default", "logits", {}, []),
        ("default", "logits", {"gate": None}, ["--gate"]),
        ("default", "logits", {"gate": True}, ["--gate"]),
        ("paper", "hidden_states", {}, ["--preset", "paper"]),
        ("paper", "hidden_states", {"loss": "hinge"}, ["--preset", "paper", "--loss", "hinge"]),
        ("default", "hidden_states", {"gate": False, "layers": (3, 4)}, ["--no-gate", "--layer", "3", "--layer", "4"]),
        ("default", "hidden_states", {"standardization": None, "seed": 2}, ["--seed", "2", "--no-standardize"]),
    ],
)
def test_options_of_training_are_the_changed_ones(preset_name, signal, changes, options):
    settings = dataclasses.asdict(
        dataclasses.replace(RewardHeadTrainingArguments.preset(preset_name, signal), **changes)
    )
    sampling = {"n": 2, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8, "seed": 1}
    rollouts = {"task": "mine.jsonl", "split": "train", "prompts": 4, "dtype": "float32", "sampling": sampling}
    layers = [3, 4] if signal == "hidden_states" else []
    config = ElhsrConfig(hidden_size=4, layers=layers, signal=signal, num_log_probabilities=2, base_model="org/base")
    record = TrainingRecord({"rollouts": rollouts, "settings": settings})
    sample, train = commands_of(making_commands("head", config, record))
    assert train == ["hf-elhsr", "train", "rollouts/train", "head", *options]
    parsed(train)
    assert sample[-2:] == ["--signal", signal]
    assert parsed(sample)[1]["verifier"] == "FILE.py:FUNCTION"
    assert parsed(sample)[1]["seed"] == 1
    rollouts["labelled_by"] = {"verifier": "mine.py:check", "verifier_sha256": "0", "extract": "mine.py:last"}
    sample, _ = commands_of(making_commands("head", config, record))
    assert parsed(sample)[1]["verifier"] == "mine.py:check"
    assert parsed(sample)[1]["extract"] == "mine.py:last"
    rollouts |= {"skipped_overlong": 2, "system_prompt": "Be brief.", "template_options": {"enable_thinking": False}}
    rollouts["task"] = "prompts.csv"
    asked = parsed(commands_of(making_commands("head", config, record))[0])[1]
    assert (asked["verifier"], asked["skip_overlong"]) == ("mine.py:check", True)
    assert (asked["system_prompt"], asked["template_option"]) == ("Be brief.", ["enable_thinking=false"])
