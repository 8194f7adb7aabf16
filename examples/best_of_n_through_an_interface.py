"""Best-of-n from a model behind an OpenAI-compatible interface, by the log-probabilities it shows, without weights.

    python examples/best_of_n_through_an_interface.py http://localhost:8000/v1 my-head "How many ...?"

The head reads the 20 highest log-probabilities; it is trained where the model's weights are available:

    hf-elhsr sample rollouts/top20 --model <model> --signal top_log_probabilities
    hf-elhsr train rollouts/top20 my-head
"""

import argparse

from huggingface_hub import InferenceClient

from hf_elhsr import best_of_n_chat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the server's URL, including /v1")
    parser.add_argument("head")
    parser.add_argument("question")
    parser.add_argument("--model", help="the model's name on the server, if it needs one")
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    out = best_of_n_chat(
        InferenceClient(base_url=args.url, api_key="none"),
        [{"role": "user", "content": args.question}],
        best_of_n=args.n,
        reward_head=args.head,
        model=args.model,
        temperature=0.8,
        top_p=0.9,
        max_tokens=64,
        seed=args.seed,
    )
    for number in sorted(range(args.n), key=lambda number: -out.rewards[number]):
        mark = "*" if number == out.winner else " "
        print(f"{mark} {out.rewards[number]:+.2f}  {' '.join(out.texts[number].split())}")


if __name__ == "__main__":
    main()
