"""Plain transformers in a separate process that cannot import hf_elhsr: it runs a list of jobs.

A job is {"name", "model", "head", "seed", "inputs", "kwargs", "trust", "streams", "call"}; for each the outputs or
the error are written.
"""

import json
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.generation import BaseStreamer, GenerationMixin
from transformers.utils import HF_MODULES_CACHE


class NotInstalled(MetaPathFinder):
    """Makes hf_elhsr impossible to import, even if it is installed."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == "hf_elhsr":
            raise ImportError(f"No module named {fullname!r}: a test forbids it")


class Recorder(BaseStreamer):
    def __init__(self):
        self.values, self.ended = [], False

    def put(self, value):
        self.values.append(value.flatten())

    def end(self):
        self.ended = True


def forbidden_import_error():
    try:
        import hf_elhsr
    except ImportError as error:
        return str(error)
    return f"imported from {hf_elhsr.__file__}"


def copied_code():
    return sorted(str(file) for file in Path(HF_MODULES_CACHE).rglob("*.py") if file.name != "__init__.py")


def run(job, models, results):
    if job["model"] not in models:
        models[job["model"]] = AutoModelForCausalLM.from_pretrained(job["model"])
    model = models[job["model"]]
    inputs = {name: torch.tensor(value) for name, value in job["inputs"].items()}
    streamer = {"streamer": Recorder()} if job["streams"] else {}
    given = inputs | job["kwargs"] | streamer
    reports = {}
    torch.manual_seed(job["seed"])
    try:
        if job["call"] == "load_custom_generate":
            out = model.load_custom_generate(job["head"], trust_remote_code=job["trust"])(model, **given)
        else:
            out = model.generate(**given, custom_generate=job["head"], trust_remote_code=job["trust"])
        tensors = {name: value for name, value in out.items() if isinstance(value, torch.Tensor)}
        if streamer:
            reports["stream_ended"] = streamer["streamer"].ended
            tensors["streamed"] = torch.cat(streamer["streamer"].values)
        save_file({name: value.contiguous() for name, value in tensors.items()}, results / f"{job['name']}.safetensors")
    except (OSError, ValueError) as error:
        reports["error"] = f"{type(error).__name__}: {error}"
    reports["code"] = copied_code()
    reports["class_is_its_own"] = type(model).generate is GenerationMixin.generate
    return reports


def main(file):
    torch.set_num_threads(1)
    jobs, models = json.loads(Path(file).read_text()), {}
    results = Path(file).parent
    reports = {job["name"]: run(job, models, results) for job in jobs}
    reports["import"] = forbidden_import_error()
    (results / "reports.json").write_text(json.dumps(reports))


sys.meta_path.insert(0, NotInstalled())
main(sys.argv[1])
