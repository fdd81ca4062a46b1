"""Every query of the Grafana dashboard, asked of a real Prometheus that scrapes a real service under load.

The load goes on until each query has answered with numbers, so a metric that is declared but never observed, a wrong
label and a misspelt name all show as a panel that stays empty.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from typing import Any

import httpx
import pytest

from service.client import Client
from service.demo.local import service
from tests.tiny import tiny_bundle
from workers.contracts.errors import InvalidRequest

pytestmark = [
    pytest.mark.ops,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on PATH"),
]

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards" / "gridit.json"
WINDOW = "30s"
"""Stands for Grafana's $__rate_interval, which is four scrape intervals or more."""
PATIENCE = 240.0
VIEWERS = 3
GOODBYE = 20.0


@dataclass(frozen=True)
class Query:
    panel: str
    legend: str
    expr: str


def dashboard_queries() -> list[Query]:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [
        Query(panel["title"], target["legendFormat"], target["expr"].replace("$__rate_interval", WINDOW))
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


@contextlib.contextmanager
def prometheus(target: str, *, directory: Path) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes `target` (host:port) each second; a client of its API."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    config = directory / "prometheus.yml"
    scrapes = [{"job_name": "gridit", "static_configs": [{"targets": [target]}]}]
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": scrapes}), encoding="utf-8")
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=10.0) as client:
            yield client
    finally:
        process.terminate()
        process.wait(timeout=20)


def answer(client: httpx.Client, query: Query) -> list[float]:
    """The value of each line of a query now; nothing while Prometheus starts."""
    try:
        response = client.get("/api/v1/query", params={"query": query.expr})
    except httpx.TransportError:
        return []
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return []
    body: dict[str, Any] = response.json()
    assert body["status"] == "success", f"{query.panel}: {body.get('error')}"
    return [float(line["value"][1]) for line in body["data"]["result"]]


def watch_videos(url: str, *, enough: Flag) -> int:
    """What a viewer does, over and over: ask for a video, follow it to its end, ask for something that is not there."""
    watched = 0
    with Client(url) as client:
        prompt = next(iter(client.models()[0]["classes"]), None)
        while not enough.is_set():
            video = client.submit(prompt=prompt, seed=watched)
            for _ in client.events(video.id, patience=5.0):
                pass
            with contextlib.suppress(InvalidRequest):
                client.submit(prompt="no such class")
            watched += 1
    return watched


@pytest.mark.timeout(PATIENCE + 240)
def test_every_panel_shows_data_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_bundle(tmp_path / "tiny")
    monkeypatch.setenv("GRIDIT_BUNDLES", str(tmp_path / "tiny"))
    waiting = dict.fromkeys(dashboard_queries(), "never asked")
    enough = Flag()
    with (
        ThreadPoolExecutor(VIEWERS) as pool,  # outermost: the service's end is the end of a viewer that still waits
        service() as url,
        prometheus(url.removeprefix("http://"), directory=tmp_path) as client,
    ):
        viewers = [pool.submit(watch_videos, url, enough=enough) for _ in range(VIEWERS)]
        deadline = time.monotonic() + PATIENCE
        try:
            while waiting and time.monotonic() < deadline and not any(viewer.done() for viewer in viewers):
                time.sleep(1.0)
                for query in list(waiting):
                    values = answer(client, query)
                    waiting[query] = f"{query.expr} -> {values or 'nothing'}"
                    if values and not any(math.isnan(value) for value in values):
                        del waiting[query]
            enough.set()
            wait(viewers, timeout=GOODBYE)
        finally:
            enough.set()
    assert not waiting, "\n" + "\n".join(f"{query.panel}: {why}" for query, why in waiting.items())
    assert sum(viewer.result() for viewer in viewers) > 0
