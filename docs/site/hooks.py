"""Hooks of MkDocs: pages from outside docs/, and links to them.

The README, CHANGELOG, CONTRIBUTING, SECURITY and mini/README of the repository become pages of the site. Links to other
files outside docs/ (scripts, the licence) become plain text, since the site does not contain them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "mini/README.md": "mini.md",
}
"""Path in the repository to path in the site."""

LOADED_FROM_ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe)[^>]+src=["']?https?:|<link[^>]+stylesheet[^>]+href=["']?https?:"""
)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add every decision to the navigation."""
    names = sorted(path.name for path in (ROOT / "docs/decisions").glob("*.md"))
    (development,) = [each["Development"] for each in config.nav or [] if "Development" in each]
    development.append(
        {"Decisions": [f"decisions/{name}" for name in sorted(names, key=lambda name: name != "README.md")]}
    )
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links that lead out of docs/."""
    here = page.file.src_uri
    in_repository = {target: source for source, target in PAGES.items()}.get(here, f"docs/{here}")

    def rewritten(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if "://" in target or not path:
            return match[0]
        absolute = os.path.normpath(PurePosixPath(in_repository).parent / path).replace(os.sep, "/")
        if absolute in PAGES:
            absolute = PAGES[absolute]
        elif absolute.startswith("docs/"):
            absolute = absolute.removeprefix("docs/")
        else:
            return text
        relative = os.path.relpath(absolute, PurePosixPath(here).parent).replace(os.sep, "/")
        return f"{mark}[{text}]({relative}{'#' + anchor if anchor else ''})"

    return LINK.sub(rewritten, markdown)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Reject a page that loads anything from another host.

    Raises:
        PluginError: the page has a script, a style sheet, a picture or a frame with an address.
    """
    found = LOADED_FROM_ELSEWHERE.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} loads something from elsewhere: {found[0]}")
    return output
