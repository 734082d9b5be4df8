"""The HTTP server of a supervisor: what it answers to whom, and that it stays small."""

from __future__ import annotations

import json
import socket

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from tocsin_workers.supervising import endpoints
from tocsin_workers.supervising.endpoints import Endpoints
from tocsin_workers.supervising.family import ChildState, FamilyState

AT_WORK = ChildState(is_running=True, came_up=True, takes_work=True, silent_since=1e9)
STARTING = ChildState(is_running=True, came_up=False, takes_work=False, silent_since=1e9)


def family(child: ChildState) -> FamilyState:
    return FamilyState(1e9, is_stopping=False, restarts=0, children=(child,))


# The endpoints


@pytest.fixture
def served() -> tuple[str, list[FamilyState]]:
    """Endpoints on a port of their own, and the family that they tell of."""
    registry = CollectorRegistry()
    Counter("tocsin_example_total", "An example.", registry=registry).inc()
    families = [family(AT_WORK)]
    port = Endpoints(registry, family=lambda: families[-1], ask_servers=lambda: {"database": "ok"}).serve(
        "127.0.0.1", 0
    )
    return f"http://127.0.0.1:{port}", families


def test_each_endpoint_answers_and_nothing_else_does(served: tuple[str, list[FamilyState]]):
    url, families = served
    with httpx.Client(base_url=url, trust_env=False) as client:
        assert "tocsin_example_total 1.0" in client.get("/metrics").text
        for path in ("/livez", "/readyz", "/startupz"):
            told = client.get(path)
            assert (told.status_code, told.json()["status"]) == (200, "ok")
        assert client.get("/").status_code == 404
        assert client.get("/metrics/").status_code == 404
        assert client.post("/livez").status_code == 405
        assert client.request("OPTIONS", "/metrics").status_code == 405
        head = client.head("/readyz")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) == len(json.dumps(client.get("/readyz").json())) + 1
        assert client.head("/metrics").content == b""
        families.append(family(STARTING))
        told = client.get("/startupz")
        assert (told.status_code, told.json()["status"]) == (503, "unavailable")


def test_whoever_holds_connections_open_keeps_nobody_out(
    served: tuple[str, list[FamilyState]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(endpoints._Handler, "timeout", 60.0)
    url, _ = served
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    held = [socket.create_connection(address) for _ in range(2 * endpoints.MOST_CONNECTIONS)]
    try:
        assert httpx.get(f"{url}/livez", trust_env=False).status_code == 200
        held[0].settimeout(30)
        assert held[0].recv(1) == b""  # the oldest was sent away
    finally:
        for connection in held:
            connection.close()
