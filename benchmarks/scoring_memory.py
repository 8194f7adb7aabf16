"""Does the working memory of scoring grow with the completion's length? Writes scoring_memory.json.

Counts the bytes of tensors, and of Python objects, that a RunningReward holds beyond its copy of the head while
candidates of SmolLM2's width and depth get longer, and what keeping their hidden states would take.
"""

import json
import platform
import tracemalloc
from pathlib import Path

import torch

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, RunningReward, StepSignal

CANDIDATES, LAYERS, WIDTH = 8, 31, 576


def held_bytes(processor: RunningReward) -> int:
    """Count the bytes of tensors that the processor holds beyond its copy of the head."""
    own = {id(processor._weight), id(processor._bias)}
    waiting = [part for parts, *_ in processor._waiting for part in parts]
    held = [*vars(processor).values(), *vars(processor._tokens).values(), *waiting]
    tensors = [v for v in held if isinstance(v, torch.Tensor) and id(v) not in own]
    return sum(t.numel() * t.element_size() for t in tensors)


def main() -> None:
    torch.manual_seed(0)
    head = ElhsrRewardHead(ElhsrConfig(hidden_size=WIDTH, layers=list(range(LAYERS)), value=True))
    running = RunningReward(head)
    running.begin(CANDIDATES, torch.device("cpu"))
    candidates, active = torch.arange(CANDIDATES), torch.ones(CANDIDATES, dtype=torch.bool)
    input_ids = torch.zeros(CANDIDATES, 1, dtype=torch.long)
    rows, most = [], 0
    tracemalloc.start()
    for token in range(1, 4097):
        # Not twice the same, as they come from a model: they are held while they wait
        states = tuple(torch.randn(CANDIDATES, WIDTH) for _ in range(LAYERS))
        running(input_ids, StepSignal(candidates, active, states))
        # Features of a few steps wait to be scored together: the most counts
        most = max(most, held_bytes(running))
        if token & (token - 1) == 0 and token >= 16:
            rows.append(
                {
                    "tokens": token,
                    "scoring_state_bytes": most,
                    "python_bytes": tracemalloc.get_traced_memory()[0],
                    "hidden_states_would_be_bytes": token * CANDIDATES * LAYERS * WIDTH * 4,
                }
            )
            most = 0
    result = {
        "question": "Does the working memory of scoring grow with the completion's length?",
        "candidates": CANDIDATES,
        "machine": f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        "rows": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
