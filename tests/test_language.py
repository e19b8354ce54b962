"""The phrases that docs/style-guide.md rules out stay out of the code, the documentation and the tests."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

BANNED = (
    r"how sure(ly)?\b",
    r"\banew\b",
    r"\blikewise\b",
    r"\bto be had\b",
    r"\b(is|are|was|were|be|been) told\b",
    r"\btold (plainly|so|apart by)\b",
    r"\bmade to harm\b",
    r"\b(is|are) no (length|number|name|file|way|probability|date|address|size)s?\b",
    r"\b(is|are) no (place|word|dataset|raster|model|picture)s?\b",
    r"\bif need be\b",
    r"\bwho(ever)? (answers|looks on|asks)\b",
    r"\bnobody\b",
    r"\bin vain\b",
    r"\bstands? beside\b",
    r"\bthat which\b(?! is are)",  # a list of function words
    r"\broom(s)? (of|is|uses|that)\b",
    r"\bcannot be meant\b",
    r"\bpoisoned\b",
    r"\bseen but not kept\b",
    r"\bslightly other numbers\b",
    r"\bwhat a network (saw|knows)\b",
    r"\bwhat (became|becomes) of\b",
    r"\bfrom what to what\b",
    r"\bfor the eye\b",
    r"\bby itself alone\b",
    r"\bso to speak\b",
    r"\bnot otherwise\b",
    r"\bas (it|they) stands?\b",
    r"\bspoil(t|ed)\b",
    r"\bmend(s|ed|ing)?\b",
    r"\bsooner\b",
    r"\bheed(s|ed)?\b",
    r"\blest\b",
    r"\bwhereof\b",
    r"\bsave for\b",
    r"\bit is (told|asked)\b",
)
"""Regular expressions, matched without regard to case."""

ALLOWED_FILES = {"docs/style-guide.md", "tests/test_language.py"}
SUFFIXES = {".py", ".md", ".j2", ".js", ".toml", ".yaml", ".yml"}
PATTERN = re.compile("|".join(BANNED), re.IGNORECASE)


def checked_files(*places):
    listed = subprocess.run(["git", "ls-files", *places], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix in SUFFIXES and name not in ALLOWED_FILES and path.is_file():
            yield name, path


def findings(*places):
    """``file:line: text`` for each line with a banned phrase."""
    for name, path in checked_files(*places):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if PATTERN.search(line):
                yield f"{name}:{number}: {line.strip()[:120]}"


PLACES = ("src", "tests", "docs", "benchmarks", "mini", "*.md", "*.toml", "*.yml", ".github")


@pytest.mark.parametrize("place", PLACES)
def test_no_ruled_out_phrase_is_used(place):
    assert list(findings(place)) == []


def test_a_ruled_out_phrase_is_found():
    assert PATTERN.search("It says how surely a pixel changed.")
    assert not PATTERN.search("The change probability of a pixel.")


if __name__ == "__main__":
    found = list(findings(*sys.argv[1:]))
    print("\n".join(found))
    print(f"{len(found)} lines")
