"""The code that a head carries works in plain transformers like the installed package, and is built from it."""

import ast
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM
from transformers.dynamic_module_utils import get_relative_imports
from typer.testing import CliRunner

import hf_elhsr
from hf_elhsr import ElhsrRewardHead, enable_best_of_n
from hf_elhsr.cli.app import app
from hf_elhsr.generation.shared_prompt import SharedPromptCache
from hf_elhsr.hub import write_custom_generate
from hf_elhsr.hub.custom_generate import _merged, custom_generate_files
from tiny_models import ragged_prompts, tiny_head, tiny_model

SHIPPED = Path(__file__).parents[2] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
ARCHITECTURES = ("llama", "gpt2", "lfm2")
KWARGS = {"best_of_n": 4, "max_new_tokens": 8, "temperature": 0.9, "return_dict_in_generate": True}
# All heads have this name, so only the place that they are loaded from is different
HEAD = "tiny-head.v1"
# With a dash and a dot, which transformers replaces in the names of its copies
REPOSITORY = f"org-1/{HEAD}"
# Commits by the names that a user passes
REVISIONS = {"main": "a1" * 20, "older": "b2" * 20}


def job(name, model, head, trust=True, streams=False, call="generate", batch=2, **kwargs):
    return {
        "name": name,
        "model": str(model),
        "head": str(head),
        "seed": 1,
        "trust": trust,
        "streams": streams,
        "call": call,
        "inputs": {key: value.tolist() for key, value in ragged_prompts(batch).items()},
        "kwargs": KWARGS | kwargs,
    }


def run_in_plain_transformers(folder, jobs, **environment):
    """The folder, with a safetensors file for every job that succeeded, and the reports of all jobs."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = {"HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_CACHE": str(folder / "hub")} | environment
    script = Path(__file__).parents[1] / "support" / "plain_transformers.py"
    command = [sys.executable, "-I", str(script), str(folder / "jobs.json")]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "reports.json").read_text())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    for architecture in ARCHITECTURES:
        model = tiny_model(architecture)
        model.save_pretrained(root / architecture)
        tiny_head(model).save_pretrained(root / architecture / HEAD)
        write_custom_generate(root / architecture / HEAD)
    other = root / "other" / HEAD
    head = tiny_head(tiny_model(), seed=5)
    fitted, line = {"n": 4, "prompts": 9}, {"slope": 1.0, "offset": 0.0}
    head.config.calibration = line | fitted | {"winner": {"slope": 2.0, "offset": 0.5}}
    head.config.pruning = fitted | {
        "interval": 2,
        "prefix": [[0.0, 1.0, 0.0, 0.0]],
        "final": [0.0, 1.0],
        "value": [[0.0, 3.0, -3.0, 0.0, 0.0]],
        "prices": {"0.01": 0.2},
    }
    head.save_pretrained(other)
    write_custom_generate(other)
    return root


ALIKE = {
    "llama": {},
    "gpt2": {},
    "lfm2": {},
    "k_best": {"num_return_sequences": 2, "output_token_rewards": True, "max_parallel": 5},
    "decided": {"prune": 0.01, "min_confidence": 0.5},
    "streamed": {"streams": True, "batch": 1},
}


def cache_repository(cache, heads):
    """Put a repository of heads by revision into a cache of the Hub, as if it had been downloaded."""
    repository = cache / f"models--{REPOSITORY.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    for revision, head in heads.items():
        (repository / "refs" / revision).write_text(REVISIONS[revision])
        snapshot = repository / "snapshots" / REVISIONS[revision]
        shutil.copytree(head, snapshot)
        write_custom_generate(snapshot, REPOSITORY)


def head_of(folders, name):
    """Where a job's model and head are."""
    if name in ARCHITECTURES:
        return folders / name, folders / name / HEAD
    return folders / "llama", folders / ("other" if name == "decided" else "llama") / HEAD


@pytest.fixture(scope="module")
def plain(folders, tmp_path_factory):
    results = tmp_path_factory.mktemp("plain")
    llama, head = head_of(folders, "llama")
    cache_repository(results / "hub", {"main": head, "older": folders / "other" / HEAD})
    jobs = [
        # First, before any code is trusted
        job("untrusted", llama, head, trust=False),
        job("unasked", llama, head, trust=None),
        *(job(name, *head_of(folders, name), **kwargs) for name, kwargs in ALIKE.items()),
        job("beams", llama, head, num_beams=2),
        job("no_n", llama, head, best_of_n=None),
        job("another_model", folders / "gpt2", head),
        job("another_head", llama, head, reward_head=str(folders / "other" / HEAD)),
        job("cached", llama, REPOSITORY),
        job("older", llama, REPOSITORY, revision="older"),
        job("loaded", llama, REPOSITORY, call="load_custom_generate"),
        job("unknown", llama, head, call="load_custom_generate"),
        job("passed", llama, head, call="load_custom_generate", reward_head=str(head)),
    ]
    return run_in_plain_transformers(results, jobs)


@functools.cache
def with_the_package(model, head, settings=()):
    kwargs = KWARGS | dict(settings)
    kwargs.pop("streams", None)
    inputs = ragged_prompts(kwargs.pop("batch", 2))
    model = enable_best_of_n(AutoModelForCausalLM.from_pretrained(model))
    torch.manual_seed(1)
    return model.generate(**inputs, reward_head=str(head), **kwargs)


@pytest.mark.parametrize("name", ALIKE)
def test_same_winner_and_rewards_as_the_package(plain, folders, name):
    results, reports = plain
    assert "error" not in reports[name]
    given = load_file(results / f"{name}.safetensors")
    expected = with_the_package(*head_of(folders, name), tuple(ALIKE[name].items()))
    assert given.keys() - {"streamed"} == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(given[key], value)
    assert torch.equal(given["sequences"], expected.sequences)
    assert len(given["rewards"].unique()) > 4 or name == "streamed"
    if name == "streamed":
        assert torch.equal(given["streamed"], expected.sequences[0])
        assert reports[name]["stream_ended"]
    if name == "decided":
        assert given["pruned"].any()


def test_the_package_is_not_imported_and_the_model_is_unchanged(plain):
    _, reports = plain
    assert "a test forbids it" in reports.pop("import")
    assert all(answer["class_is_its_own"] for answer in reports.values())


@pytest.mark.parametrize("name", ["untrusted", "unasked"])
def test_code_that_is_not_trusted_does_not_run(plain, name):
    _, reports = plain
    assert "trust_remote_code=True" in reports[name]["error"]
    assert reports[name]["code"] == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("beams", "cannot be combined with beam s"),
        ("no_n", "pass best_of_n"),
        ("another_model", "does not fit"),
        ("unknown", "pass reward_head"),
    ],
)
def test_refused_with_the_reason(plain, name, reason):
    _, reports = plain
    assert reports[name]["error"].startswith("ValueError: ")
    assert reason in reports[name]["error"]


@pytest.mark.parametrize(
    ("name", "head"),
    [("another_head", "other"), ("cached", "llama"), ("older", "other"), ("loaded", "llama"), ("passed", "llama")],
)
def test_the_head_is_the_one_passed_or_published_with_the_code(plain, folders, name, head):
    """By reward_head=, from the repository's main branch, from another revision, without a call of generate."""
    results, reports = plain
    assert "error" not in reports[name]
    by_head = {each: with_the_package(folders / "llama", folders / each / HEAD).rewards for each in ("llama", "other")}
    assert not torch.allclose(by_head["llama"], by_head["other"], atol=1e-2)
    torch.testing.assert_close(load_file(results / f"{name}.safetensors")["rewards"], by_head[head])


def test_together_with_the_package_in_one_process(folders, tmp_path, monkeypatch):
    """Both have the head's classes and the shared prompts' attention, and neither uses the other's."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    model, head = head_of(folders, "llama")
    expected = with_the_package(model, head)
    torch.manual_seed(1)
    given = AutoModelForCausalLM.from_pretrained(model).generate(
        **ragged_prompts(2), custom_generate=str(head), trust_remote_code=True, **KWARGS
    )
    assert type(given).__module__.startswith("transformers_modules.")
    torch.testing.assert_close(given.rewards, expected.rewards)
    assert type(AutoModel.from_pretrained(head)) is ElhsrRewardHead
    with_the_package.cache_clear()
    attended, attend = [], SharedPromptCache.attend
    monkeypatch.setattr(SharedPromptCache, "attend", lambda *args: attended.append(args) or attend(*args))
    torch.testing.assert_close(with_the_package(model, head).rewards, expected.rewards)
    assert attended


# --------------------------------------------------------------------------- what is written


def test_the_code_is_built_and_not_committed(tmp_path):
    ignored = (SHIPPED.parents[1] / ".gitignore").read_text().splitlines()
    assert "/model_cards/*/custom_generate/" in ignored
    records = shutil.ignore_patterns("custom_generate")
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "head", ignore=records))
    result = CliRunner().invoke(app, ["card", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    written = {file.name: file.read_text() for file in (folder / "custom_generate").iterdir()}
    assert written == custom_generate_files()


def test_the_files_are_few_and_named_after_the_packages_folders():
    """transformers downloads them one by one and prints a warning for each."""
    files = {name for name in custom_generate_files() if name.endswith(".py")}
    assert len(files) <= 10
    assert {"generate.py", "head.py", "generation.py", "decisions.py", "rewards.py"} <= files


def test_every_file_says_which_modules_it_is_made_of():
    headers = [text.partition('"""')[0] for name, text in custom_generate_files().items() if name.endswith(".py")]
    package = Path(hf_elhsr.__file__).parent
    named = [path for header in headers for path in re.findall(r"hf_elhsr/([\w/]+\.py)", header)]
    assert len(named) == len(set(named)) > len(headers)
    assert all((package / path).is_file() for path in named)
    assert all("where changes belong" in header for header in headers)


def test_modules_of_one_file_that_define_a_name_differently_are_refused():
    texts = {"head.a": "def length(text):\n    return len(text)\n", "head.b": "length = 3\n"}
    with pytest.raises(ValueError, match=r"hf_elhsr\.head\.b defines length, and so does another module"):
        _merged(texts)
    same = "import os\nlogger = logging.get_logger(__name__)\n"
    assert _merged({"head.a": same, "head.b": same}).count(same) == 2


def imports_of(text):
    """The packages a file imports, and its siblings as (name, imported names)."""
    packages, siblings = set(), {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            packages.add(node.module.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1
            siblings.setdefault(node.module, []).extend(alias.name for alias in node.names)
    return packages, siblings


def test_the_code_is_what_transformers_can_carry(tmp_path):
    files = custom_generate_files()
    requirements = files.pop("requirements.txt")
    third_party = set()
    for name, text in files.items():
        packages, siblings = imports_of(text)
        third_party |= packages - sys.stdlib_module_names
        for sibling, names in siblings.items():
            # transformers takes no sub-packages, and follows what its regular expression finds
            defined = {getattr(node, "name", None) for node in ast.parse(files[f"{sibling}.py"]).body}
            defined |= set(re.findall(r"^(\w+)(?:: .+)? = ", files[f"{sibling}.py"], re.MULTILINE))
            assert set(names) <= defined, f"{name} imports {names} from {sibling}"
        own = {(node.name, ast.unparse(node)) for node in ast.parse(text).body if hasattr(node, "name")}
        own |= set(re.findall(r"^(\w+)(?:: .+)? = (.+)", text, re.MULTILINE))
        assert len(own) == len({defined for defined, _ in own}), f"{name} defines a name twice, differently"
        (tmp_path / name).write_text(text)
        assert set(get_relative_imports(tmp_path / name)) == siblings.keys()
    assert third_party == {"torch", "transformers", "huggingface_hub", "safetensors"}
    conditions = [line for line in requirements.splitlines() if not line.startswith("#")]
    assert [re.match(r"[a-z]+[<>]=?[\d.]+$", line) is not None for line in conditions] == [True] * 3


def test_every_file_names_the_version_it_came_from(folders):
    written = list((folders / "llama" / HEAD / "custom_generate").iterdir())
    for file in written:
        assert file.read_text().startswith(f"# Made by hf_elhsr {hf_elhsr.__version__}")


def test_the_repository_is_filled_in():
    assert "PUBLISHED_AS: str | None = 'org/name'\n" in custom_generate_files("org/name")["generate.py"]


def test_only_its_own_files_are_replaced(folders, tmp_path):
    with pytest.raises(ValueError, match="holds no reward head"):
        write_custom_generate(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    code = write_custom_generate(tmp_path)
    stale = code / "generation_loop.py"
    stale.write_text((code / "generate.py").read_text())
    (code / "generate.py").write_text("# Made by hf_elhsr 0.0.1\n")
    write_custom_generate(tmp_path)
    assert {file.name: file.read_text() for file in code.iterdir()} == custom_generate_files()
    (code / "generate.py").write_text("def generate(model): ...")
    with pytest.raises(ValueError, match=r"not made by hf_elhsr \(generate\.py\)"):
        write_custom_generate(tmp_path)
    assert (code / "generate.py").read_text() == "def generate(model): ..."
