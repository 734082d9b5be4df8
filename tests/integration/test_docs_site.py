"""The documentation as a site: it builds, and a build with something broken fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs_blocks import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    built = build(ROOT, site)
    assert built.returncode == 0, built.stderr
    return site


def test_every_runbook_that_an_alert_names_is_there(site: Path) -> None:
    rules = (ROOT / "deploy" / "prometheus" / "alerts.rules.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"/runbooks/#(\w+)", rules))
    anchors = set(re.findall(r'<h2 id="([^"]+)"', (site / "runbooks" / "index.html").read_text(encoding="utf-8")))
    assert named
    assert named <= anchors


def test_a_link_out_of_the_docs_leads_to_a_copy_on_the_site(site: Path) -> None:
    page = (site / "performance" / "index.html").read_text(encoding="utf-8")
    assert 'href="../source/bench/"' in page
    copied = (site / "source" / "bench" / "index.html").read_text(encoding="utf-8")
    assert 'href="../../performance/"' in copied
    assert (site / "source" / "deploy" / "prometheus" / "alerts.rules.yml").is_file()


def test_a_readers_browser_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|img|iframe)[^>]* src="(https?:[^"]+)"', page.read_text(encoding="utf-8"))
        fetched += re.findall(r'<link rel="stylesheet" href="(https?:[^"]+)"', page.read_text(encoding="utf-8"))
        assert fetched == [], page.relative_to(site)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A small tree with the same configuration, in which a test may break something."""
    root = tmp_path / "root"
    shutil.copytree(ROOT / "docs" / "hooks", root / "docs" / "hooks", ignore=shutil.ignore_patterns("__pycache__"))
    configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[0]
    (root / "mkdocs.yml").write_text(f"{configuration}\nnav:\n  - index.md\n", encoding="utf-8")
    (root / "docs" / "index.md").write_text("# Sound\n\n## Part\n\n[here](#part), [code](../code.py)\n")
    (root / "code.py").write_text("")
    return root


def test_a_sound_tree_builds(copy: Path, tmp_path: Path) -> None:
    built = build(copy, tmp_path / "site")
    assert built.returncode == 0, built.stderr


@pytest.mark.parametrize(
    ("page", "text", "said"),
    [
        ("index.md", "# A\n\n[gone](gone.md)\n", "gone.md"),
        ("index.md", "# A\n\n[gone](../gone.py)\n", "gone.py"),
        ("index.md", "# A\n\n[gone](#gone)\n", "#gone"),
        ("forgotten.md", "# A\n", "forgotten.md"),
    ],
    ids=["a page", "a file outside", "an anchor", "a page outside of the navigation"],
)
def test_what_is_broken_fails_the_build(copy: Path, tmp_path: Path, page: str, text: str, said: str) -> None:
    (copy / "docs" / page).write_text(text)
    built = build(copy, tmp_path / "site")
    assert built.returncode == 1
    assert said in built.stderr
