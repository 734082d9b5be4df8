"""What is installed elsewhere: everything that the code reads at run time is in the wheel."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from email.message import Message

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "schema": "tocsin_schema",
    "producers": "tocsin_producers",
    "workers": "tocsin_workers",
    "console": "tocsin_console",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel, made from the sdist, and the sdist; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("dist")
    ended = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    [path] = built.glob("*.whl")
    return zipfile.ZipFile(path)


def text_of(wheel: zipfile.ZipFile, file: str) -> str:
    [name] = [name for name in wheel.namelist() if name.endswith(f".dist-info/{file}")]
    return wheel.read(name).decode()


def metadata_of(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(text_of(wheel, "METADATA"))


def files_of(folder: str, package: str) -> AbstractSet[str]:
    """The package's files as a wheel names them."""
    base = ROOT / folder
    return {
        path.relative_to(base).as_posix()
        for path in (base / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize(("folder", "package"), PACKAGES.items())
def test_the_wheel_has_every_file_of_its_packages(wheel: zipfile.ZipFile, folder: str, package: str) -> None:
    assert files_of(folder, package) <= set(wheel.namelist())
    assert f"{package}/py.typed" in wheel.namelist()


def test_the_wheel_has_the_sql_and_the_demos_recipients(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {
        "tocsin_schema/ledger/schema.sql",
        "tocsin_schema/ledger/migrations/0001_installation.sql",
        "tocsin_schema/ledger/queries/sending.sql",
        "tocsin_schema/message_broker/queue.sql",
        "tocsin_console/demo/recipients.csv",
    } <= names


def test_the_wheel_brings_our_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES.values())


def test_the_wheel_brings_the_command(wheel: zipfile.ZipFile) -> None:
    assert "[console_scripts]\ntocsin = tocsin_console.main:run\n" in text_of(wheel, "entry_points.txt")


def test_the_light_install_needs_neither_dramatiq_nor_a_driver(wheel: zipfile.ZipFile) -> None:
    metadata = metadata_of(wheel)
    assert {"workers", "embedded"} <= set(metadata.get_all("Provides-Extra", []))
    needed = [requirement for requirement in metadata.get_all("Requires-Dist", []) if "extra ==" not in requirement]
    assert any(requirement.startswith("pika") for requirement in needed)
    assert not [requirement for requirement in needed if requirement.startswith(("dramatiq", "psycopg", "aiosmtplib"))]


def test_the_sdist_has_what_tests_and_documents_it(built: Path) -> None:
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "docs/contract.md", "tests/conftest.py"} <= names
    assert {"schema/tocsin_schema/ledger/schema.sql", "requirements.lock"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/"))]
