"""Which of several answers a model finds most likely: ``python examples/choices.py [SERVER]``.

One call scores all continuations of a context, which is computed once. Nothing is generated.
"""

from __future__ import annotations

import math
import sys

from ift_serve.client import Client

QUESTIONS = {
    "Question: What is 3 + 4? Answer:": [" 7", " 8", " 12"],
    "Question: Which one is an animal? Answer:": [" fox", " lamp", " table"],
}


def main(server: str) -> None:
    with Client(server) as client:
        for question, choices in QUESTIONS.items():
            scores = client.score(question, choices).scores
            # A longer answer has more to lose: compare the mean of its tokens, as for choices of different lengths.
            means = [score.log_prob / score.token_count for score in scores]
            total = sum(math.exp(mean) for mean in means)
            print(question)
            for choice, mean, score in sorted(zip(choices, means, scores, strict=True), key=lambda row: -row[1]):
                print(f"  {choice.strip():8} {math.exp(mean) / total:6.1%}   log p = {score.log_prob:.2f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051")
