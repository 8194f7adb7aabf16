"""Rewards from transformers' own sampling loop, with `score_generation`."""

from pathlib import Path

from hf_elhsr import encode_prompts, load_language_model, load_reward_head, score_generation

HEAD = Path(__file__).parents[1] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"

model, tokenizer = load_language_model("smollm2-demo")
head = load_reward_head(HEAD)
inputs = encode_prompts(tokenizer, ["One box holds 9 stones. How many stones are in 4 boxes?"]).to(model.device)
with score_generation(model, head) as scored:
    sequences = model.generate(**inputs, do_sample=True, num_return_sequences=4, max_new_tokens=40)
for sequence, reward in zip(sequences, scored.rewards.tolist(), strict=True):
    print(f"{reward:+.2f}", tokenizer.decode(sequence[inputs["input_ids"].shape[1] :], skip_special_tokens=True))
