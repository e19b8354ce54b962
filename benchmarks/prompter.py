"""Compare the cost of 100 class words with that of 6, after a context of 256 tokens. Target: a factor of 2 at most.

    python benchmarks/prompter.py [RUNS] [--naive WORDS]

The text encoder of a ViT-L/14 with random weights, two dates of one pair, float32. ``shared`` encodes the context once
per date and appends each word; ``naive`` encodes context and word together for every word and date, one word at a time
to limit memory. It is timed with WORDS words (6) and is linear in their number. All variants run interleaved, on one
thread, measured in CPU time, which other processes affect least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from wasnow.nn.clip_config import PRESETS
from wasnow.nn.clip_text import TextTower
from wasnow.nn.clip_words import tokenize, word_tokens

CONTEXT, DATES = 256, 2
FEW = ["water", "bare ground", "low vegetation", "tree", "building", "playground"]
MORE = """
river, lake, pond, canal, reservoir, sea, beach, mudflat, wetland, marsh, peat bog, glacier, snow, rock, cliff,
sand dune, desert, gravel, quarry, mine, landfill, burnt area, forest, broadleaf forest, conifer forest,
mangrove, orchard, vineyard, olive grove, oil palm, hedge, shrubland, grassland, meadow, pasture, lawn, park,
garden, cemetery, golf course, farmland, rice paddy, wheat, maize, cotton, greenhouse, fish pond, fallow field,
ploughed field, road, motorway, dirt road, footpath, roundabout, bridge, tunnel, railway, train station, tram
line, parking lot, car, truck, bus, ship, boat, aeroplane, airport, runway, harbour, dock, crane, container,
warehouse, factory, power station, solar farm, wind turbine, pylon, storage tank, chimney, dam, house, apartment
block, shed, tent, school, hospital, church, stadium, swimming pool, tennis court, rubble, construction site,
bare rock
"""
MANY = FEW + [word.strip() for word in MORE.split(",")]


class Prompt:
    """Words after the contexts of a pair, encoded either way."""

    def __init__(self, text: TextTower, words: list[str]) -> None:
        self.text = text
        longest = max(len(word_tokens(word)) for word in words)
        ids = tokenize(words, longest + 2)
        self.last = torch.tensor([len(word_tokens(word)) for word in words])
        positions = text.positions(1 + CONTEXT + longest + 1)
        embedded = text.embed(ids)
        draw = torch.Generator().manual_seed(0)
        context = 0.02 * torch.randn(DATES, CONTEXT, embedded.shape[-1], generator=draw)
        self.prefix = torch.cat([embedded[:1, :1].expand(DATES, -1, -1), context], 1) + positions[: 1 + CONTEXT]
        self.tails = embedded[:, 1:] + positions[1 + CONTEXT :]

    def shared(self) -> Tensor:
        """Embeddings ``(DATES, K, E)``, with the context encoded once per date."""
        return self.text.suffix(self.text.prefix(self.prefix), self.tails, self.last)

    def naive(self) -> Tensor:
        """The same embeddings, with the context encoded again for every word."""
        rows = []
        for tail, end in zip(self.tails, self.last.tolist(), strict=True):
            tokens = torch.cat([self.prefix, tail[None, : end + 1].expand(DATES, -1, -1)], 1)
            for block in self.text.blocks:
                tokens = block(tokens, causal=True)
            rows.append(self.text.project(tokens[:, -1]))
        return torch.stack(rows, 1)


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=int, default=3)
    parser.add_argument("--naive", type=int, default=6, metavar="WORDS")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    text = TextTower(PRESETS["vit-l-14"]).eval()
    assert len(set(MANY)) == 100
    few, many, whole = Prompt(text, FEW), Prompt(text, MANY), Prompt(text, FEW[: options.naive])
    expected = whole.naive()
    difference = float((whole.shared() - expected).abs().max() / expected.abs().max())
    print(
        f"{torch.get_num_threads()} threads, {options.runs} runs; "
        f"shared differs from naive by {difference:.1e} of the largest value"
    )
    work = {"6 words": few.shared, "100 words": many.shared, "context": lambda: text.prefix(few.prefix)}
    took: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(options.runs):
        for name, call in work.items():
            took[name].append(seconds(call))
    median = {name: statistics.median(each) for name, each in took.items()}
    each_word = seconds(whole.naive) / len(whole.last)
    parts = "   ".join(f"{name} {1000 * value:.0f} ms ({1000 * min(took[name]):.0f})" for name, value in median.items())
    tokens = [len(prompt.last) + int(prompt.last.sum()) for prompt in (few, many)]
    print(f"tokens per date: context {1 + CONTEXT}, 6 words {tokens[0]}, 100 words {tokens[1]}")
    print(f"shared, median (best): {parts}")
    print(
        f"naive: {1000 * each_word:.0f} ms per word; 6 words {6 * each_word:.2f} s, 100 words {100 * each_word:.1f} s"
    )
    ratios = [hundred / six for hundred, six in zip(took["100 words"], took["6 words"], strict=True)]
    print(
        f"100 words cost {statistics.median(ratios):.2f} times 6 words ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"naive costs {100 * each_word / median['100 words']:.0f} times shared at 100 words, "
        f"{6 * each_word / median['6 words']:.1f} times at 6"
    )


if __name__ == "__main__":
    main()
