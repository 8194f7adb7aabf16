"""A sampling run killed at ten places loses nothing, repeats nothing, and ends with the bytes of one never killed."""

import json
import multiprocessing
import random
import signal

import pytest
from killed_sampling import PROMPTS, PROMPTS_PER_BATCH, N, sample_and_die

KILLS = 10
SHARDS = PROMPTS // PROMPTS_PER_BATCH


@pytest.fixture(scope="module")
def run():
    """Runs `sample_and_die` in a fresh process, forked from one that has imported everything and run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_sampling"])

    def run(folder, fatal_operation):
        process = context.Process(target=sample_and_die, args=(folder, fatal_operation))
        process.start()
        process.join(timeout=120)
        return process.exitcode

    return run


@pytest.fixture(scope="module")
def unkilled(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unkilled") / "rollouts"
    assert run(folder, None) == 0
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def whole_shards(folder):
    """What is there of finished shards, by name: contents, and when and as which file they were written."""
    found = {}
    for records in folder.glob("shard-*.jsonl"):
        for path in (records, records.with_suffix(".safetensors")):
            status = path.stat()
            found[path.name] = (path.read_bytes(), status.st_ino, status.st_mtime_ns)
    return found


def test_killed_anywhere_it_resumes_to_the_same_bytes(run, unkilled, tmp_path):
    operations = int(unkilled.with_suffix(".operations").read_text())
    expected = files(unkilled)
    assert len(expected) == 1 + 2 * SHARDS
    finished = set()
    for fatal in sorted(random.Random(0).sample(range(operations), KILLS)):
        folder = tmp_path / str(fatal)
        assert run(folder, fatal) == -signal.SIGKILL
        before = whole_shards(folder)
        # Nothing half-written passes for a finished shard
        assert {name: content for name, (content, *_) in before.items()} == {name: expected[name] for name in before}
        finished.add(len(before) // 2)
        assert run(folder, None) == 0
        after = whole_shards(folder)
        assert {name: after[name] for name in before} == before
        assert files(folder) == expected
        problems = [json.loads(line)["problem"] for file in sorted(folder.glob("*.jsonl")) for line in file.open()]
        assert problems == [f"p{i}" for i in range(PROMPTS) for _ in range(N)]
    # The places were spread over the run
    assert len(finished) > 3


def test_killed_again_and_again_it_still_ends(run, unkilled, tmp_path):
    """Every life dies at its seventh operation; finished shards add up."""
    folder = tmp_path / "rollouts"
    lives = 1
    while run(folder, 6) == -signal.SIGKILL:
        lives += 1
        assert lives < 40
    assert lives > 2
    assert files(folder) == files(unkilled)
