"""What stands in deploy/ and beside it agrees with the code: settings exist, rules do what they say, the dashboard is
what its code makes. No container is started here."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from prometheus_client.registry import Collector

import service.metrics
import workers.metrics
from workers.contracts import settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on PATH")


def promtool(*arguments: str) -> None:
    outcome = subprocess.run(["promtool", *arguments], cwd=DEPLOY, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def image_environment() -> dict[str, str]:
    return dict(re.findall(r"(GRIDIT_\w+)=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8")))


def compose_environment(service: str) -> dict[str, str]:
    given: Mapping[str, object] = COMPOSE["services"][service]["environment"]
    return {**image_environment(), **{name: str(value) for name, value in given.items()}}


@pytest.mark.parametrize("service", ["api", "worker", "worker-gpu"])
def test_services_start_with_settings_that_exist(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in compose_environment(service).items():
        monkeypatch.setenv(name, value)
    read = settings.load()
    assert read.redis_url == "redis://redis:6379/0"
    assert read.data_dir == Path("/data")
    assert read.host == "0.0.0.0"


def test_prometheus_scrapes_the_ports_that_are_served() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    scraped = {
        (name, found["port"])
        for job in config["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    served = {("api", int(compose_environment("api")["GRIDIT_PORT"]))} | {
        (name, int(compose_environment(name)["GRIDIT_METRICS_PORT"])) for name in ("worker", "worker-gpu")
    }
    assert scraped == served


def test_worker_has_time_to_drain() -> None:
    grace = int(COMPOSE["services"]["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.Settings().drain_seconds


@needs_promtool
def test_prometheus_configuration_is_valid() -> None:
    promtool("check", "config", "--lint-fatal", "prometheus/prometheus.yml")


@needs_promtool
def test_alerts_fire_on_their_fault_only() -> None:
    promtool("test", "rules", "prometheus/tests/gridit.yml")


def test_every_alert_is_tested() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules" / "gridit.yml").read_text(encoding="utf-8"))
    tests = yaml.safe_load((DEPLOY / "prometheus" / "tests" / "gridit.yml").read_text(encoding="utf-8"))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    fired = {
        case["alertname"]
        for test in tests["tests"]
        for case in test.get("alert_rule_test", ())
        if case.get("exp_alerts")
    }
    assert alerts == fired


def test_dashboard_is_what_its_code_makes() -> None:
    generated = runpy.run_path(str(DEPLOY / "grafana" / "generate.py"))["render"]()
    kept = (DEPLOY / "grafana" / "dashboards" / "gridit.json").read_text(encoding="utf-8")
    assert kept == generated, "run `make dashboard`"


def declared(collector: Collector) -> set[str]:
    """The names that queries may use for a collector's metrics."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    return {family.name + suffix for family in collector.collect() for suffix in suffixes.get(family.type, ("",))}


@pytest.mark.parametrize("path", ["grafana/dashboards/gridit.json", "prometheus/rules/gridit.yml"])
def test_queries_name_metrics_that_exist(path: str) -> None:
    known = (
        declared(service.metrics.REGISTRY)
        | declared(service.metrics.QueueDepth({"default": 0}))
        | declared(workers.metrics.REGISTRY)
    )
    named = set(re.findall(r"(?<![:\w])gridit_\w+", (DEPLOY / path).read_text(encoding="utf-8")))
    assert named
    assert named <= known
