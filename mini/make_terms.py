"""Make the table of terms: the lists in mini/terms through the sentence encoder, into src/wasnow/nn/terms.safetensors.

    mini/terms/*.txt ─ a term a line ─ all-MiniLM-L6-v2 ─ 16 bits ─> names, embeddings

    python mini/make_terms.py            writes the table                 needs wasnow[text]; two minutes
    python mini/make_terms.py --check    says what in it is out of date   exit 1 where anything is

Each phrase goes through the encoder alone and on one thread, so that its embedding depends on nothing but itself:
adding terms leaves those that models were trained on as they are, bit for bit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from wasnow.nn import sentence
from wasnow.nn.term_index import stemmed
from wasnow.nn.term_phrasings import HELD_OUT_PHRASINGS, PHRASINGS
from wasnow.nn.terms import PACKAGED, pack_names, unpack_names

LISTS = Path(__file__).with_name("terms")

APART = frozenset({"wood", "woods", "greenfield", "green field", "brownfield", "brown field"})
"""Terms that another is spelt like, and that mean something else."""


def read_lists(folder: Path = LISTS) -> tuple[str, ...]:
    """All terms, in the order of the files and of their lines; lines with ``#`` are comments.

    Raises:
        SystemExit: a term is there twice, in whatever spelling, or one that the model is trained with is missing.
    """
    terms: dict[str, str] = {}
    faults = []
    for path in sorted(folder.glob("*.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            term = line.strip()
            if not term or term.startswith("#"):
                continue
            key = term if term in APART else stemmed(term).replace(" ", "")
            if key in terms:
                faults.append(f"{path.name}:{number}: {term!r} is there already, as {terms[key]!r}")
            if term != " ".join(line.split()) or not term.isprintable():
                faults.append(f"{path.name}:{number}: {term!r} has white space to spare")
            terms.setdefault(key, term)
    known = set(terms.values())
    for phrasings in (PHRASINGS, HELD_OUT_PHRASINGS):
        for word, phrases in phrasings.items():
            faults += [
                f"{phrase!r}, a phrasing of {word!r}, is in no list" for phrase in phrases if phrase not in known
            ]
    if faults:
        sys.exit("\n".join(faults))
    return tuple(terms.values())


def embed_each(terms: tuple[str, ...]) -> Tensor:
    """``(N, 384)`` float16 of unit length, each term embedded alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return torch.cat([sentence.embed([term]) for term in terms]).half()
    finally:
        torch.set_num_threads(threads)


def differences(terms: tuple[str, ...], packaged: Path = PACKAGED) -> list[str]:
    """What in the packaged table is not as the lists and, where it is installed, the encoder have it."""
    table = load_file(packaged)
    names = unpack_names(table["names"])
    found = [f"{term!r} is missing" for term in terms if term not in set(names)]
    found += [f"{name!r} is in no list" for name in names if name not in set(terms)]
    if not found and names != terms:
        found.append("the terms stand in another order")
    if sentence.available() and not found:
        cosines = torch.nn.functional.cosine_similarity(table["embeddings"].float(), embed_each(terms).float(), dim=1)
        found += [
            f"{term!r} has an embedding that the encoder does not give (cosine {cosine:.4f})"
            for term, cosine in zip(terms, cosines.tolist(), strict=True)
            if cosine < 0.9999
        ]
    return found


def main() -> int:
    """Write the table, or check it; the exit status."""
    parser = argparse.ArgumentParser(description="Make the table of terms that wasnow ships.")
    parser.add_argument("--check", action="store_true", help="write nothing; say what is out of date")
    terms = read_lists()
    if parser.parse_args().check:
        found = differences(terms)
        print("\n".join(found) or f"{PACKAGED.name} is up to date: {len(terms):,} terms")
        return 1 if found else 0
    data = save({"names": pack_names(terms), "embeddings": embed_each(terms)})
    partial = PACKAGED.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(PACKAGED)
    print(f"{PACKAGED.name}: {len(terms):,} terms, {len(data):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
