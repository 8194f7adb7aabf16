"""Readers of a head's folder see the old head or the new one, whatever operation its writer is killed in."""

import multiprocessing
import shutil
import signal

import pytest
from killed_writers import NEW_CODE, run_and_die, tiny_saved_head, train
from planted_rollouts import planted_rollouts
from transformers import AutoModel

from hf_elhsr import ElhsrRewardHead
from hf_elhsr.hub.publish import head_files
from hf_elhsr.hub.record import TrainingRecord

OLD_RECORD = {"rollouts": {"task": "old", "split": "train", "prompts": 3}, "settings": {}, "report": {}}


def run(writer, folder, fatal_operation):
    """`run_and_die` in a fork of this process, which has imported what training needs."""
    process = multiprocessing.get_context("fork").Process(target=run_and_die, args=(writer, folder, fatal_operation))
    process.start()
    process.join(timeout=60)
    return process.exitcode


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A folder of rollouts beside a folder with a head, its record and a card."""
    place = tmp_path_factory.mktemp("before")
    planted_rollouts(place / "rollouts", prompts=20)
    train(place / "head")
    tiny_saved_head(1).save_pretrained(place / "head")
    TrainingRecord(OLD_RECORD).write(place / "head")
    (place / "head" / "README.md").write_text("the card")
    return place


def seen(folder):
    """The head in a folder by every way of reading it, and its record."""
    heads = [load(folder) for load in (ElhsrRewardHead.from_pretrained, AutoModel.from_pretrained)]
    published = {path: file.read_bytes() for path, file in head_files(folder).items()}
    return [(head.config.to_json_string(), head.digest()) for head in heads], published, TrainingRecord.read(folder)


def own_names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("writer", ["save", "train", "calibrate"])
def test_killed_anywhere_the_folder_holds_the_old_head_or_the_new_one(before, tmp_path, writer):
    shutil.copytree(before, tmp_path / "whole")
    assert run(writer, tmp_path / "whole" / "head", None) == 0
    operations = int((tmp_path / "whole" / "head.operations").read_text())
    place = tmp_path / "killed"

    def at_one_place(folder):
        # Configurations name the folder that they were read from
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place)
        return seen(place / "head")

    old, new = at_one_place(before), at_one_place(tmp_path / "whole")
    assert old != new
    found = []
    for fatal in range(operations):
        at_one_place(before)
        assert run(writer, place / "head", fatal) == -signal.SIGKILL
        now = seen(place / "head")
        assert now in (old, new), fatal
        found.append(now == new)
        # The next one finishes or clears away what was left, and ends as if nothing had happened
        if fatal % 2:
            assert run(writer, place / "head", None) == 0
            assert seen(place / "head")[1] == new[1]
            assert own_names(place / "head") == own_names(tmp_path / "whole" / "head")
    # At some operation on, and not at the very end
    assert found == sorted(found)
    assert set(found) == {False, True}


def test_killed_anywhere_the_code_is_of_one_version(before, tmp_path):
    """Or missing, between two renames, until the next command puts it in its place."""
    old = {"generate.py": "# Made by hf_elhsr 0.0.1\n", "head.py": "# Made by hf_elhsr 0.0.1, too\n"}
    shutil.copytree(before, tmp_path / "old")
    (tmp_path / "old" / "head" / "custom_generate").mkdir()
    for name, text in old.items():
        (tmp_path / "old" / "head" / "custom_generate" / name).write_text(text)
    shutil.copytree(tmp_path / "old", tmp_path / "whole")
    assert run("write_code", tmp_path / "whole" / "head", None) == 0
    operations = int((tmp_path / "whole" / "head.operations").read_text())
    for fatal in range(operations):
        folder = tmp_path / str(fatal) / "head"
        shutil.copytree(tmp_path / "old", folder.parent)
        assert run("write_code", folder, fatal) == -signal.SIGKILL
        code = {file.name: file.read_text() for file in folder.glob("custom_generate/*")}
        assert code in ({}, old, NEW_CODE)
        tiny_saved_head(3).save_pretrained(folder)
        code = {file.name: file.read_text() for file in folder.glob("custom_generate/*")}
        assert code in (old, NEW_CODE)
        assert not [name for name in own_names(folder) if name.startswith(".")]
