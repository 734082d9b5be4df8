# ruff: noqa: INP001  # MkDocs loads this file by its path; it is a part of no package
"""Links from a page to a file outside of docs/ work on the site as they do in the repository's browser.

A page says `[bench](../bench/README.md)`, which is right in the repository. The site gets a copy of each file that is
linked so, under `source/`: Markdown as a page outside of the navigation, everything else as it is; and links are
written anew to fit. A link to a file that does not exist stays as it is, so that MkDocs finds it broken.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, InclusionLevel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

DOCS = "docs/"
SOURCE = "source/"
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")
_FENCE = re.compile(r"^\s*(```|~~~)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside of docs/ that some page links to, and what those link to."""
    root = Path(config.config_file_path).parent
    waiting = [DOCS + file.src_uri for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        for target in _linked_files(page, root):
            if target in seen or target.startswith(DOCS):
                continue
            seen.add(target)
            files.append(
                File.generated(
                    config, SOURCE + target, abs_src_path=str(root / target), inclusion=InclusionLevel.NOT_IN_NAV
                )
            )
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write the links anew that lead from docs/ out, from a copied page in, or from one copied page to another."""
    del files
    root = Path(config.config_file_path).parent
    uri = page.file.src_uri
    repository_path = uri.removeprefix(SOURCE) if uri.startswith(SOURCE) else DOCS + uri

    def fitted(link: re.Match[str]) -> str:
        target = _resolved(repository_path, link[1])
        if not (root / target).is_file():
            return link[1]
        on_site = target.removeprefix(DOCS) if target.startswith(DOCS) else SOURCE + target
        return posixpath.relpath(on_site, posixpath.dirname(uri) or ".")

    return "\n".join(_outside_of_fences(markdown, lambda line: _LINK.sub(fitted, line)))


def _linked_files(page: str, root: Path) -> Iterator[str]:
    text = (root / page).read_text(encoding="utf-8")
    links: list[str] = []

    def note(line: str) -> str:
        links.extend(_LINK.findall(line))
        return line

    for _ in _outside_of_fences(text, note):
        pass
    for link in links:
        target = _resolved(page, link)
        if not target.startswith("../") and (root / target).is_file():
            yield target


def _resolved(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _outside_of_fences(text: str, change: Callable[[str], str]) -> Iterator[str]:
    is_code = False
    for line in text.split("\n"):
        if _FENCE.match(line):
            is_code = not is_code
            yield line
        else:
            yield line if is_code else change(line)
