"""What goes into a command and comes out of it: standard input, terminals of few characters, models of any config."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tiny_tokenizer import tiny_tokenizer

import hf_elhsr
from hf_elhsr.cli.prompt_text import read_prompt

TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}{{ 'w9' if loud else 'w10' }}"


@pytest.fixture
def generate(tiny, tiny_options, run_program):
    def run(*arguments):
        code, out, err = run_program("generate", *arguments, *tiny_options, "--head", tiny / "head", "--json")
        assert (code, err) == (0, ""), err
        return json.loads(out)

    return run


@pytest.mark.parametrize("given", ["w7 w8", "w7 w8\n"])
def test_standard_input_is_the_question_without_the_newline_at_its_end(generate, monkeypatch, given):
    expected = generate("w7 w8")
    monkeypatch.setattr(sys, "stdin", io.StringIO(given))
    assert generate("-") == expected


def test_other_newlines_belong_to_the_prompt(monkeypatch):
    for given, expected in (("\na\n\n", "\na\n"), ("", ""), ("\n", "")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        assert read_prompt("-") == expected
    assert read_prompt("a\n") == "a\n"


def test_bytes_that_are_no_text(tiny, tiny_options, run_program, monkeypatch):
    options = [*tiny_options, "--head", tiny / "head"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8"))
    assert run_program("generate", "-", *options) == (
        2,
        "",
        "Error: The prompt in standard input is not UTF-8: convert it, e.g. with iconv.\n",
    )
    code, _, err = run_program("generate", "caf\udce9", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert "The prompt in the argument is not UTF-8" in err


@pytest.mark.parametrize(("encoding", "expected"), [("ascii", "?"), ("cp1252", "?"), ("utf-8", "\u03c0")])
def test_characters_that_the_output_cannot_take_are_replaced(tmp_path, encoding, expected):
    code = (
        "from hf_elhsr.cli.app import app, main\n"
        "from hf_elhsr.cli.result import console\n"
        "from hf_elhsr.explanation.texts import print_text\n"
        "@app.command()\n"
        "def pi() -> None:\n"
        "    print_text(console, '[\\u03c0]')\n"
        "    console.print('\\u03c0')\n"
        "main()\n"
    )
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code, "pi"], capture_output=True, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding).split() == [f"[{expected}]", expected]


@pytest.mark.parametrize(
    "saved",
    [
        {"do_sample": False},
        {"num_beams": 4, "early_stopping": True},
        {"do_sample": True, "top_k": 1, "temperature": 0.01},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"prompt_lookup_num_tokens": 3},
        {"do_sample": True, "num_return_sequences": 6},
    ],
    ids=lambda saved: next(iter(saved)),
)
def test_commands_sample_whatever_the_models_config_says(tiny, tiny_task, tiny_options, tmp_path, run_program, saved):
    model = shutil.copytree(tiny / "model", tmp_path / "model")
    file = model / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | saved))
    more = ["--model", model, "--temperature", 1, "--json"]
    code, out, err = run_program("generate", "w7 w8", *tiny_options, "--head", tiny / "head", *more)
    assert code == 0, err
    assert len({candidate["text"] for candidate in json.loads(out)["candidates"]}) > 1
    code, out, err = run_program("inspect", "w7 w8", *tiny_options, "--head", tiny / "head", *more)
    assert code == 0, err
    code, out, err = run_program("sample", tmp_path / "out", *tiny_task, *more, "--prompts", 2, "--base-model", "o/n")
    assert code == 0, err
    assert json.loads(out)["rollouts"] == 8


def test_what_the_chat_template_is_told(tiny, tiny_options, tmp_path, run_program):
    model = shutil.copytree(tiny / "model", tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(model)
    head = ["--head", tiny / "head"]

    def prompt(*told):
        code, out, err = run_program("inspect", "w7", *tiny_options, "--model", model, *head, *told, "--json")
        assert (code, err) == (0, ""), err
        return json.loads(out)["prompts"][0]["text"].split()

    assert prompt() == ["w7", "w10"]
    assert prompt("--system-prompt", "w20 w21", "--template-option", "loud=true") == ["w20", "w21", "w7", "w9"]
    assert prompt("--template-option", "loud=false") == ["w7", "w10"]
    refused = run_program("inspect", "w7", *tiny_options, "--model", model, *head, "--template-option", "lout=true")
    assert refused[0] == 2
    assert "has no variable 'lout'" in refused[2]
    # Without a template there is nobody to tell
    refused = run_program("inspect", "w7", *tiny_options, *head, "--system-prompt", "w20")
    assert refused[0] == 2
    assert "system_prompt are for a chat template, and the tokenizer has none" in refused[2]


def test_skipped_prompts_are_counted(tiny, tiny_task, tmp_path, run_program):
    rows = [{"question": "w7 " * (125 if i % 3 == 0 else 2) + f"w{i + 3}"} for i in range(60)]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["sample", tmp_path / "out", *tiny_task, "--task", tmp_path / "long.jsonl", "--prompts", 12]
    command += ["--base-model", "org/name"]
    code, out, err = run_program(*command)
    assert (code, out) == (2, "")
    assert "do not fit the model's context of 128 tokens with max_new_tokens=8: row " in err
    code, out, _ = run_program(*command, "--skip-overlong", "--json")
    counted = json.loads(out)
    assert code == 0
    assert counted["prompts"] + counted["skipped_overlong"] == 12
    code, out, _ = run_program(*command, "--skip-overlong")
    assert f", {counted['skipped_overlong']} overlong prompts skipped." in out


def test_ctrl_c_while_importing_is_quiet():
    """From the first line of the package on; here at the import of torch, which waits for it."""
    code = (
        "import runpy, sys, time\n"
        "class Waiting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            print('waiting', flush=True)\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Waiting())\n"
        "sys.orig_argv[1:] = ['-m', 'hf_elhsr.cli', '--help']\n"
        "runpy.run_module('hf_elhsr.cli', run_name='__main__')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "Stopped.\n")


def test_importing_the_package_leaves_ctrl_c_alone():
    code = (
        "import signal\nbefore = signal.getsignal(signal.SIGINT)\nimport hf_elhsr\n"
        "assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert hf_elhsr.__version__
