import json
import sys

import pytest
from tiny_tokenizer import tiny_tokenizer

from hf_elhsr.cli.app import main
from tiny_models import tiny_head, tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with a tiny model, a head for it, and prompts with a verifier."""
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_model()
    for part in (model, tiny_tokenizer()):
        part.save_pretrained(folder / "model")
    tiny_head(model).save_pretrained(folder / "head")
    questions = [f"w{3 + i} w{5 + i % 9} w7" for i in range(60)]
    (folder / "mine.jsonl").write_text("".join(json.dumps({"question": question}) + "\n" for question in questions))
    (folder / "mine.py").write_text("def check(completion, answer):\n    return len(completion) % 2 == 0\n")
    return folder


@pytest.fixture(scope="session")
def tiny_options(tiny):
    """For commands that read the model."""
    return [*("--model", tiny / "model"), *("--dtype", "float32"), *("--n", 4), *("--max-new-tokens", 8)]


@pytest.fixture(scope="session")
def tiny_task(tiny, tiny_options):
    """For commands that sample rollouts."""
    return [*tiny_options, *("--task", tiny / "mine.jsonl"), *("--verifier", f"{tiny / 'mine.py'}:check")]


@pytest.fixture
def run_program(monkeypatch, capsys):
    """The whole program in this process: from arguments to exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hf-elhsr", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run
