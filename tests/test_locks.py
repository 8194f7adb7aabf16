"""A folder that a process writes into is refused to every other, and free again however the process ends."""

import json
import multiprocessing
import os
import signal
import threading

import pytest
from killed_writers import tiny_saved_head

from hf_elhsr import _locks
from hf_elhsr._files import is_leftover, write_text
from hf_elhsr._locks import owning, refuse_owned

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(_locks, "PATIENCE", 0.0)


def hold(folder, pipe, file=None):
    with owning(folder, file):
        pipe.send("held")
        pipe.recv()


@pytest.fixture
def owner(tmp_path):
    """A process that owns the folder, and its end of a pipe that ends it."""
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold, args=(tmp_path / "folder", there))
    process.start()
    assert here.recv() == "held"
    yield process, here
    process.kill()
    process.join()


def test_a_second_process_is_refused_by_the_owners_name(owner, tmp_path):
    process, pipe = owner
    refused = rf"folder' is in use by process {process.pid} on .+ \(`.+`, since .+\): wait until it has ended, or use"
    with pytest.raises(ValueError, match=refused), owning(tmp_path / "folder"):
        pass
    with pytest.raises(ValueError, match=refused):
        refuse_owned(tmp_path / "folder")
    with pytest.raises(ValueError, match=refused):
        tiny_saved_head(1).save_pretrained(tmp_path / "folder")
    pipe.send("end")
    process.join()
    tiny_saved_head(1).save_pretrained(tmp_path / "folder")
    # Nothing of the locks is left to be published
    assert sorted(os.listdir(tmp_path / "folder")) == ["config.json", "model.safetensors"]


def test_a_lock_dies_with_its_owner(owner, tmp_path):
    process, _ = owner
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert json.loads((tmp_path / "folder" / ".lock").read_text())["pid"] == process.pid
    refuse_owned(tmp_path / "folder")
    with owning(tmp_path / "folder"):
        assert json.loads((tmp_path / "folder" / ".lock").read_text())["pid"] == os.getpid()


def test_a_forked_child_neither_has_nor_keeps_the_lock(tmp_path):
    here, there = FORK.Pipe()
    with owning(tmp_path):
        # It outlives this process's lock
        child = FORK.Process(target=there.recv)
        child.start()
    with owning(tmp_path):
        pass
    here.send("end")
    child.join()


def test_other_work_of_the_same_process_is_refused(tmp_path):
    with owning(tmp_path), pytest.raises(ValueError, match=f"in use by process {os.getpid()} "), owning(tmp_path / "."):
        pass
    caught = []

    def other_thread():
        try:
            with owning(tmp_path):
                pass
        except ValueError as error:
            caught.append(error)

    with owning(tmp_path):
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
    assert len(caught) == 1


def test_files_of_a_folder_have_locks_of_their_own(tmp_path):
    refused = pytest.raises(ValueError, match="one' is in use")
    with owning(tmp_path), owning(tmp_path, "one"), owning(tmp_path, "two"), refused, owning(tmp_path, "one"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_momentary_owner_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(_locks, "PATIENCE", 60.0)
    started = threading.Event()

    def hold_for_a_moment():
        with owning(tmp_path):
            started.set()
            waiting.wait()

    waiting = threading.Event()
    monkeypatch.setattr(_locks.time, "sleep", lambda seconds: waiting.set())
    thread = threading.Thread(target=hold_for_a_moment)
    thread.start()
    started.wait()
    with owning(tmp_path):
        assert waiting.is_set()
    thread.join()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/below"):
        with pytest.raises(OSError, match=rf"{folder}' cannot be written \(.+\)\. Check"), owning(tmp_path / folder):
            pass


def test_writers_of_one_file_never_meet(tmp_path, monkeypatch):
    """Each has a name of its own to write to, and what a killed one left is known as such."""
    names = []
    replace = os.replace

    def listen(source, target):
        names.append(source.name)
        if len(names) == 1:
            write_text(tmp_path / "numbers.json", "the other's")
        replace(source, target)

    monkeypatch.setattr(os, "replace", listen)
    write_text(tmp_path / "numbers.json", "one's")
    assert (tmp_path / "numbers.json").read_text() == "one's"
    assert len(set(names)) == 2
    assert all(map(is_leftover, names))
    assert os.listdir(tmp_path) == ["numbers.json"]
    assert is_leftover("shard-00001.safetensors.partial")
    assert not any(map(is_leftover, ("shard-00001.safetensors", "my film.partial", "x.json.partial.json")))
