"""CandidateStreamer: a live view of all candidates in a terminal while they are sampled, and then the winner."""

import os
import time
from typing import Any

import torch
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from transformers.generation import BaseStreamer

from ..head.loading import load_reward_head
from ..head.modeling_elhsr import ElhsrRewardHead
from ..head.signals import StepSignal
from ..rewards import RunningReward, SignalProcessor
from .texts import print_text, visible

_SECONDS = 0.1
# Tokens of a candidate's end, and the width of the other columns
_TAIL, _BESIDE = 64, 38


class CandidateStreamer(SignalProcessor, BaseStreamer):
    """Shows every candidate's running reward and the end of its text, updated in place, and finally the winner.

        with CandidateStreamer(tokenizer, head) as streamer:
            model.generate(**inputs, best_of_n=8, reward_head=head, streamer=streamer)

    As `streamer` it follows all candidates and receives the winner. If the console is not a terminal, only the winner's
    text is written. Leaving the context restores the terminal, also after an error.

    Args:
        tokenizer: The language model's tokenizer.
        head: The head whose reward is shown, an [`ElhsrRewardHead`], a folder or a repository.
        console: Where to show it. Default: the standard output.

    Raises:
        ValueError: `head` is neither a head nor the name of one.
    """

    def __init__(self, tokenizer: Any, head: ElhsrRewardHead | str | os.PathLike[str], console: Console | None = None):
        self._tokenizer = tokenizer
        self._console = console or Console()
        self._running = RunningReward(load_reward_head(head))
        self.needs = self._running.needs
        self._live: Live | None = None
        self._prompts = 0
        self._won: list[torch.Tensor] = []

    def __enter__(self) -> "CandidateStreamer":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._stop()
        self._prompts, self._won = num_candidates, []
        self._running.begin(num_candidates, device)
        self._start_candidates(num_candidates)
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._running.candidates_multiplied(index)
        self._start_candidates(len(index))

    def _start_candidates(self, count: int) -> None:
        self._token_ids: list[list[int]] = [[] for _ in range(count)]
        self._ended = [False] * count
        self._shown = 0.0

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        self._running(input_ids, signal)
        candidates, tokens = signal.candidates[signal.active], input_ids[signal.active, -1]
        for candidate, token in zip(candidates.tolist(), tokens.tolist(), strict=True):
            self._token_ids[candidate].append(token)
        if self._live is not None and time.monotonic() - self._shown >= _SECONDS:
            self._live.update(self._table(), refresh=True)
            self._shown = time.monotonic()

    def candidates_left(self, candidates: torch.Tensor) -> None:
        for candidate in candidates.tolist():
            self._ended[candidate] = True

    def put(self, value: torch.Tensor) -> None:
        """Receive the prompts, which are ignored, and then the winners' tokens, (batch,) at a time.

        Raises:
            ValueError: The tokens come from `generate` without best_of_n.
        """
        if value.ndim > 1:
            return
        if not self._prompts:
            raise ValueError(
                "CandidateStreamer follows the candidates of best-of-n: pass best_of_n, or a different streamer."
            )
        self._won.append(value)

    def end(self) -> None:
        """Show which candidates won, and print their texts."""
        winners = self._winners()
        if self._live is not None:
            self._live.update(Group(self._table(winners), ""))
        self._stop()
        self._prompts = 0
        for winner in winners:
            print_text(self._console, self._tokenizer.decode(self._token_ids[winner], skip_special_tokens=True))

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _winners(self) -> list[int]:
        """The candidate of each prompt that has the winner's tokens, which may be followed by padding."""
        n = len(self._token_ids) // self._prompts
        winners = []
        for prompt, won in enumerate(torch.stack(self._won, dim=-1).tolist()):
            own = range(prompt * n, (prompt + 1) * n)
            same = [i for i in own if self._token_ids[i] and self._token_ids[i] == won[: len(self._token_ids[i])]]
            # A pruned candidate's tokens may be a prefix of the winner's
            winners.append(max(same, key=lambda i: len(self._token_ids[i])))
        return winners

    def _table(self, winners: list[int] | None = None) -> RenderableType:
        rewards = self._running.rewards.tolist()
        n = len(self._token_ids) // self._prompts
        table = Table(box=None, pad_edge=False)
        for column in ("Candidate", "Tokens", "Reward"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("Text", no_wrap=True, overflow="crop")
        for i, ids in enumerate(self._token_ids):
            name = str(i % n + 1) if self._prompts == 1 else f"{i // n + 1}.{i % n + 1}"
            won = winners is not None and i in winners
            state = "winner" if won else "ended" if self._ended[i] else "" if ids else "waiting"
            reward = f"{rewards[i]:+.2f}" if ids else ""
            style = "bold green" if won else "dim" if self._ended[i] else None
            table.add_row(name, str(len(ids)), reward, state, self._tail(ids), style=style)
        return table

    def _tail(self, ids: list[int]) -> Text:
        """The end of a text, as much as fits on a line."""
        text = self._tokenizer.decode(ids[-_TAIL:], skip_special_tokens=True)
        room = max(10, self._console.width - _BESIDE)
        line = visible(" ".join(text.split()).strip("\N{REPLACEMENT CHARACTER}"))[-room:]
        while cell_len(line) > room:
            line = line[1:]
        return Text(line)
