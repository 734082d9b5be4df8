"""The Helm chart as helm renders it, for the tests that look at it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from tests.deploy_files import CHART
from tests.servers.availability import or_skip
from tests.servers.kubernetes_tools import Helm, obtain_helm
from tocsin_schema.message_broker.topology import Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
MINIMAL, FULL, AZURE, BARE = (CHART / "ci" / f"{name}-values.yaml" for name in ("minimal", "full", "azure", "bare"))
ROLES = {role.value for role in Role if role is not Role.ALL}

CUSTOM_GROUPS = {"monitoring.coreos.com", "keda.sh"}
"""API groups of operators, which Kubernetes itself knows nothing of."""

Objects = list[dict[str, Any]]


@cache
def helm() -> Helm:
    """Give helm, or skip the test that asks."""
    return or_skip(obtain_helm())


@cache
def rendered() -> dict[Path, Objects]:
    """What each of the values files that the chart is tested with makes."""
    return {values: helm().template(CHART, values=[values]) for values in VALUES}


def of_kind(objects: Objects, kind: str) -> Objects:
    """Give the objects of a kind."""
    return [one for one in objects if one["kind"] == kind]


def by_role(objects: Objects, kind: str) -> dict[str, dict[str, Any]]:
    """Give the objects of a kind that stay, by the role that they are for."""
    found = [one for one in of_kind(objects, kind) if "helm.sh/hook" not in one["metadata"].get("annotations", {})]
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in found}


def pods() -> Iterator[dict[str, Any]]:
    """Give what each pod is made of: of Deployments and Jobs, of all values files."""
    for objects in rendered().values():
        for one in (*of_kind(objects, "Deployment"), *of_kind(objects, "Job")):
            yield one["spec"]["template"]["spec"]


def containers() -> Iterator[dict[str, Any]]:
    """Give each container of these."""
    for pod in pods():
        yield from pod["containers"]
