"""The live view of candidates shows what is sampled, and ends with the winner."""

import io

import pytest
import torch
from rich.console import Console
from tiny_tokenizer import tiny_tokenizer

from hf_elhsr import CandidateStreamer, RunningReward, StepSignal
from tiny_models import ragged_prompts


def generate(model, head, inputs, streamer, seed=0, **kwargs):
    torch.manual_seed(seed)
    settings = {"best_of_n": 4, "max_new_tokens": 10, "return_dict_in_generate": True} | kwargs
    return model.generate(**inputs, reward_head=head, streamer=streamer, **settings)


def console(terminal=True):
    return Console(file=io.StringIO(), width=120, height=40, force_terminal=terminal, color_system=None)


def last_frame(printed):
    """The lines after the last command to go up and erase."""
    return [line.split() for line in printed.split("\x1b[2K")[-1].replace("\x1b[?25h", "").splitlines()]


def winner_text(out, tokenizer, row=0):
    return tokenizer.decode(out.candidates[row, out.winners[row, 0], 9:], skip_special_tokens=True)


@pytest.mark.parametrize("kwargs", [{}, {"max_parallel": 3}, {"num_return_sequences": 2}], ids=str)
def test_the_last_frame_has_every_candidate_and_the_winner(model, head, kwargs):
    inputs, tokenizer, shown = ragged_prompts(batch=1), tiny_tokenizer(), console()
    with CandidateStreamer(tokenizer, head, shown) as streamer:
        out = generate(model, head, inputs, streamer, **kwargs)
    frame = last_frame(shown.file.getvalue())
    assert frame[0] == ["Candidate", "Tokens", "Reward", "Text"]
    for i in range(4):
        length, reward = int(out.lengths[0, i]), float(out.rewards[0, i])
        state = "winner" if i == int(out.winners[0, 0]) else "ended"
        text = tokenizer.decode(out.candidates[0, i, 9 : 9 + length], skip_special_tokens=True)
        assert frame[1 + i] == [str(i + 1), str(length), f"{reward:+.2f}", state, *text.split()]
    assert " ".join(frame[-1]) == winner_text(out, tokenizer)


def test_frames_are_shown_while_candidates_are_written(model, head, monkeypatch):
    monkeypatch.setattr("hf_elhsr.explanation.candidate_streamer._SECONDS", 0.0)
    shown = console()
    with CandidateStreamer(tiny_tokenizer(), head, shown) as streamer:
        out = generate(model, head, ragged_prompts(batch=1), streamer)
    frames = shown.file.getvalue().split("Candidate")[1:]
    assert len(frames) == int(out.lengths.max()) + 1
    # After the first step every candidate has one token, and the token's reward
    first = [line.split() for line in frames[0].splitlines()[1:5]]
    assert [line[1] for line in first] == ["1"] * 4
    torch.manual_seed(0)
    processor = RunningReward(head, keep_tokens=True)
    model.sample_candidates(**ragged_prompts(batch=1), n=4, max_new_tokens=10, signal_processor=[processor])
    assert [line[2] for line in first] == [f"{reward:+.2f}" for reward in processor.token_rewards[:, 0].tolist()]


def test_only_the_winner_is_written_to_a_pipe(model, head):
    inputs, tokenizer, shown = ragged_prompts(batch=1), tiny_tokenizer(), console(terminal=False)
    out = generate(model, head, inputs, CandidateStreamer(tokenizer, head, shown))
    assert shown.file.getvalue() == winner_text(out, tokenizer) + "\n"


def test_several_prompts(model, head, inputs):
    tokenizer, shown = tiny_tokenizer(), console()
    with CandidateStreamer(tokenizer, head, shown) as streamer:
        out = generate(model, head, inputs, streamer)
    frame = last_frame(shown.file.getvalue())
    won = [line[0] for line in frame if "winner" in line]
    assert won == [f"{row + 1}.{int(out.winners[row, 0]) + 1}" for row in range(3)]
    assert [" ".join(line) for line in frame[-3:]] == [winner_text(out, tokenizer, row) for row in range(3)]


def test_it_does_not_change_the_samples(model, head, inputs):
    with_it = generate(model, head, inputs, CandidateStreamer(tiny_tokenizer(), head, console(terminal=False)))
    without = generate(model, head, inputs, None)
    assert torch.equal(with_it.candidates, without.candidates)
    assert torch.equal(with_it.rewards, without.rewards)


def test_the_terminal_is_restored_after_an_error(model, head):
    shown = console()

    def fail(input_ids, scores):
        raise RuntimeError("in the middle")

    with (
        pytest.raises(RuntimeError, match="in the middle"),
        CandidateStreamer(tiny_tokenizer(), head, shown) as streamer,
    ):
        generate(model, head, ragged_prompts(batch=1), streamer, logits_processor=[fail])
    hidden, visible_again = "\x1b[?25l", "\x1b[?25h"
    assert shown.file.getvalue().rindex(visible_again) > shown.file.getvalue().rindex(hidden)


def test_markup_that_a_model_writes_is_plain_text(model, head):
    tokenizer = tiny_tokenizer()

    class Hostile:
        def decode(self, ids, **kwargs):
            return f"\x1b]0;title\x07[bold]\u202e {tokenizer.decode(ids, **kwargs)}"

    shown = console()
    with CandidateStreamer(Hostile(), head, shown) as streamer:
        generate(model, head, ragged_prompts(batch=1), streamer)
    assert "\x1b]" not in shown.file.getvalue()
    assert "\u202e" not in shown.file.getvalue()
    assert shown.file.getvalue().count("⟨U+001B⟩]0;title⟨U+0007⟩[bold]⟨U+202E⟩") >= 5


def test_plain_generate_is_refused(model, head):
    streamer = CandidateStreamer(tiny_tokenizer(), head, console())
    with pytest.raises(ValueError, match="pass best_of_n"):
        model.generate(**ragged_prompts(batch=1), streamer=streamer, max_new_tokens=4)


def test_a_pruned_prefix_of_the_winner_is_not_shown_as_the_winner(head):
    shown = console()
    streamer = CandidateStreamer(tiny_tokenizer(), head, shown)
    streamer.put(torch.tensor([[5, 6]]))
    streamer.begin(1, torch.device("cpu"))
    streamer.candidates_multiplied(torch.tensor([0, 0]))
    states = torch.zeros(2, head.config.hidden_size)
    for step, rows in ((torch.tensor([[5, 6, 7]] * 2), [0, 1]), (torch.tensor([[5, 6, 7, 8]]), [1])):
        candidates, active = torch.tensor(rows), torch.ones(len(rows), dtype=torch.bool)
        layers = tuple(states[: len(rows)] for _ in head.config.layers)
        streamer(step, StepSignal(candidates, active, hidden_states=layers))
        streamer.candidates_left(candidates[:1])
    for token in (7, 8):
        streamer.put(torch.tensor([token]))
    streamer.end()
    frame = last_frame(shown.file.getvalue())
    assert [line[3] for line in frame[1:3]] == ["ended", "winner"]
    assert frame[-1] == ["w7", "w8"]
