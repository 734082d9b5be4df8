"""What lies under deploy/ and docker-compose.yml, as the tests that hold it against the code read it."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tocsin_schema.settings import ENVIRONMENT_PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
COMPOSE_FILE = ROOT / "docker-compose.yml"
COMPOSE_SETTINGS = DEPLOY / "compose" / "tocsin.env"
"""Where an operator puts settings."""
CHART = DEPLOY / "helm" / "tocsin"

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

SETTINGS = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields}
"""Every variable that the code reads."""


@dataclass(frozen=True)
class Instruction:
    """An instruction of the Dockerfile: its stage counts from 0, lines that go on are one."""

    stage: int
    keyword: str
    text: str

    @property
    def words(self) -> list[str]:
        """The list that an instruction in its JSON form holds, as HEALTHCHECK's CMD does."""
        words: list[str] = json.loads(self.text[self.text.index("[") :])
        return words


@cache
def dockerfile() -> list[Instruction]:
    """Read the Dockerfile."""
    told = "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#"))
    found: list[Instruction] = []
    stage = -1
    for line in re.sub(r"\\\n", " ", told).splitlines():
        keyword, _, text = line.strip().partition(" ")
        stage += keyword == "FROM"
        if keyword:
            found.append(Instruction(stage, keyword, " ".join(text.split())))
    return found


def last_stage(keyword: str) -> list[Instruction]:
    """Give the instructions of a kind that the image itself is made by."""
    stage = max(instruction.stage for instruction in dockerfile())
    return [one for one in dockerfile() if (one.stage, one.keyword) == (stage, keyword)]


def image_environment() -> dict[str, str]:
    """Give the variables that the image sets."""
    return dict(pair.split("=", 1) for one in last_stage("ENV") for pair in one.text.split())


@cache
def compose() -> dict[str, Any]:
    """Read docker-compose.yml."""
    return yaml.safe_load(COMPOSE_FILE.read_text())


def tocsin_services() -> dict[str, dict[str, Any]]:
    """Give the services that run our image."""
    return {name: service for name, service in compose()["services"].items() if "build" in service}


@cache
def chart_values() -> dict[str, Any]:
    """Read the chart's values.yaml."""
    return yaml.safe_load((CHART / "values.yaml").read_text())


def texts() -> Iterator[tuple[str, str]]:
    """Give every text file that deploys something, by its path; what the chart links to is there once.

    Without what an operator has put there.
    """
    files = [COMPOSE_FILE, *sorted(DEPLOY.rglob("*"))]
    left_out = {DEPLOY / "compose" / "secrets", COMPOSE_SETTINGS}
    for path in files:
        is_ours = not left_out & {path, *path.parents} and "__pycache__" not in path.parts
        if is_ours and path.is_file() and not path.is_symlink():
            yield path.relative_to(ROOT).as_posix(), path.read_text()
