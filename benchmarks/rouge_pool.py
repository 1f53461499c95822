"""How long does it take to compare each of many instructions with all before it, and is no similar pair missed?

``python benchmarks/rouge_pool.py --json``: instructions made of words with the frequencies of English (Zipf), some of
them copies of earlier ones with a few words changed. A sample of them is compared with everything by the reference
package too.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time

_OPENINGS = (
    "write a short", "explain how to", "what is the", "give me a list of", "describe the", "translate the following",
    "find the best", "summarise the", "how do i", "create a", "compare the", "suggest three ways to", "is it true that",
)  # fmt: skip
_COMMON = ("the", "of", "a", "and", "to", "in", "for", "that", "with", "is")
_THRESHOLD = 0.7


def instructions(count: int, seed: int) -> list[str]:
    """Instructions of 5 to 30 words; one of twenty is an earlier one with a word in eight changed."""
    rng = random.Random(seed)
    names = [f"word{rank}" for rank in range(20_000)]
    weights = [1 / (rank + 10) for rank in range(len(names))]
    drawn = iter(rng.choices(names, weights, k=20 * count))
    found: list[str] = []
    for number in range(count):
        if number and rng.random() < 0.05:
            words = rng.choice(found).split()
            found.append(" ".join(next(drawn) if rng.random() < 0.125 else word for word in words))
            continue
        words = rng.choice(_OPENINGS).split()
        for _ in range(rng.randint(2, 25)):
            words.append(rng.choice(_COMMON) if rng.random() < 0.4 else next(drawn))
        found.append(" ".join(words))
    return found


def main() -> None:
    """Time it, check a sample, print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=20, help="instructions that are compared by the package too")
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    given = parser.parse_args()
    from rouge_score.rouge_scorer import RougeScorer

    from ift_training.data.generation.rouge import SimilarityIndex

    texts = instructions(given.count, 0)
    index = SimilarityIndex(_THRESHOLD)
    rejected = 0
    begun, used = time.monotonic(), time.process_time()
    for text in texts:
        rejected += index.most_similar(text) is not None
        index.add(text)
    seconds, used = time.monotonic() - begun, time.process_time() - used
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    rng, wrong = random.Random(1), 0
    compared = min(given.count, 5000)
    small = SimilarityIndex(_THRESHOLD)
    for text in texts[:compared]:
        small.add(text)
    begun = time.monotonic()
    for text in rng.sample(texts, given.sample):
        best = max(scorer.score(other, text)["rougeL"].fmeasure for other in texts[:compared])
        found = small.most_similar(text)
        wrong += abs((found.score if found else 0.0) - (best if best > _THRESHOLD else 0.0)) > 1e-9
    by_package = (time.monotonic() - begun) / (given.sample * compared)
    report = {
        "instructions": given.count,
        "rejected": rejected,
        "seconds": round(seconds, 1),
        "processor_seconds": round(used, 1),
        "processor_milliseconds_each": round(1e3 * used / given.count, 3),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "sample_that_differs_from_the_package": wrong,
        "seconds_of_all_pairs_by_the_package": round(by_package * given.count * (given.count - 1) / 2),
        "passed": wrong == 0,
    }
    print(json.dumps(report, indent=None if given.json else 2))


if __name__ == "__main__":
    main()
