"""A signal processor of your own next to the head's: how far the last layer moves from token to token."""

from pathlib import Path

import torch

from hf_elhsr import SignalNeeds, SignalProcessor, StepSignal, encode_prompts, load_language_model

HEAD = Path(__file__).parents[1] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"


class Restlessness(SignalProcessor):
    """Mean distance between the last layer's hidden states of neighbouring tokens, per candidate."""

    needs = SignalNeeds(layers=frozenset([30]))

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self.total = torch.zeros(num_candidates, device=device)
        self.count = torch.zeros(num_candidates, device=device)
        self.previous: torch.Tensor | None = None

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self.total, self.count = self.total[index], self.count[index]

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        state = signal.features([30]).float()
        if self.previous is None:
            self.previous = torch.zeros(len(self.total), state.shape[-1], device=state.device)
        else:
            distance = (state - self.previous[signal.candidates]).norm(dim=-1)
            self.total.index_add_(0, signal.candidates, distance.masked_fill(~signal.active, 0.0))
            self.count.index_add_(0, signal.candidates, signal.active.to(self.count))
        self.previous[signal.candidates] = state


model, tokenizer = load_language_model("smollm2-demo")
inputs = encode_prompts(tokenizer, ["Paul had 14 pencils but lost 6 of them. How many pencils are left?"]).to(
    model.device
)
restlessness = Restlessness()
torch.manual_seed(0)
out = model.generate(
    **inputs,
    best_of_n=4,
    reward_head=HEAD,
    signal_processor=[restlessness],
    max_new_tokens=40,
    return_dict_in_generate=True,
)
for reward, moved in zip(out.rewards[0].tolist(), (restlessness.total / restlessness.count).tolist(), strict=True):
    print(f"reward {reward:+.2f}, restlessness {moved:.2f}")
