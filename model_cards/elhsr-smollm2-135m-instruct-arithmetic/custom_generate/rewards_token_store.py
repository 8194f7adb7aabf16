# Made by hf_elhsr 0.1.0 from its hf_elhsr/rewards/token_store.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""TokenStore: numbers kept for every sampled token, by candidate and place in its completion."""

import torch

_CHUNK = 64


class TokenStore:
    """Grows with the longest completion; candidates need not start together.

    Args:
        names: What is kept, one float32 number each per token.
    """

    def __init__(self, *names: str):
        self._names = names

    def begin(self, num_candidates: int, device: torch.device) -> None:
        """Start afresh."""
        self._values = torch.zeros(len(self._names), num_candidates, 0, device=device, dtype=torch.float32)
        self._lengths = torch.zeros(num_candidates, device=device, dtype=torch.long)

    def add(self, candidates: torch.Tensor, active: torch.Tensor, *values: torch.Tensor) -> None:
        """One token of each active row.

        Args:
            candidates: (rows,) long, all different.
            active: (rows,) bool.
            *values: (rows,) for each name.
        """
        candidates = candidates[active]
        places = self._lengths[candidates]
        if len(places) and int(places.max()) >= self._values.shape[2]:
            self._values = torch.nn.functional.pad(self._values, (0, _CHUNK))
        self._values[:, candidates, places] = torch.stack(values)[:, active]
        self._lengths[candidates] += 1

    def multiply(self, index: torch.Tensor) -> None:
        """Candidate i goes on as a copy of former candidate index[i]."""
        self._values, self._lengths = self._values[:, index], self._lengths[index]

    def __getitem__(self, name: str) -> torch.Tensor:
        """(candidates, tokens) float32, zero past a candidate's end."""
        longest = int(self._lengths.max()) if len(self._lengths) else 0
        return self._values[self._names.index(name), :, :longest]
