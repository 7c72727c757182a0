"""The files in deploy/ are valid to the programs that read them, and start the collector as it can be started."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

# A cold build of the stock Collector took 33 s.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
DEPLOY = REPOSITORY / "deploy"


def _run(
    *command: str | Path, cwd: Path = DEPLOY, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )


def _check_collect(arguments: list[str], lake: Path) -> None:
    """`hubscope collect` takes these arguments: everything is read and checked, nothing is started."""
    done = _run(
        sys.executable, "-m", "hubscope.console", *arguments, "--check", environment={"HUBSCOPE_LAKE": str(lake)}
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def compose(go_build: Callable[..., Path]) -> Path:
    """The loader and schema that `docker compose` uses, as a program: it needs no Docker daemon."""
    return go_build(HERE / "compose", "github.com/compose-spec/compose-go/v2/cmd", "compose-spec")


@pytest.fixture(scope="session")
def otelcol(go_build: Callable[..., Path]) -> Path:
    """A stock OpenTelemetry Collector."""
    return go_build(HERE / "otelcol", ".", "otelcol")


@pytest.fixture(scope="session")
def dockerfile_check(go_build: Callable[..., Path]) -> Path:
    """BuildKit's own Dockerfile parser and linter, as `docker build --check` runs them."""
    return go_build(HERE / "dockerfile", ".", "dockerfile-check")


@pytest.fixture
def composed(compose: Path) -> dict[str, Any]:
    """compose.yaml as Docker Compose understands it."""
    done = _run(compose, "--format", "json", "compose.yaml")
    assert done.returncode == 0, done.stderr
    project: dict[str, Any] = json.loads(done.stdout)
    return project


def test_compose_refuses_what_is_wrong(compose: Path, tmp_path: Path) -> None:
    """The validator does its work: an unknown key is an error that names it."""
    text = (DEPLOY / "compose.yaml").read_text()
    assert "restart: unless-stopped" in text
    (tmp_path / "compose.yaml").write_text(text.replace("restart: unless-stopped", "restrat: unless-stopped"))
    done = _run(compose, "compose.yaml", cwd=tmp_path)
    assert done.returncode != 0
    assert "restrat" in done.stderr


def test_compose_publishes_on_loopback_only(composed: dict[str, Any]) -> None:
    """No service of the compose file can be reached from another machine, and every image has an explicit tag."""
    services = composed["services"]
    assert services.keys() == {"hubscope", "jaeger", "prometheus"}
    for name, service in services.items():
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}, name
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"]), name
    for file in (
        composed["configs"]["prometheus"]["file"],
        f"{REPOSITORY}/{services['hubscope']['build']['dockerfile']}",
    ):
        assert Path(file).is_file()


def test_compose_starts_the_collector_as_it_can_be(composed: dict[str, Any], tmp_path: Path) -> None:
    """`hubscope collect` accepts the command of the compose file."""
    _check_collect(composed["services"]["hubscope"]["command"], tmp_path / "lake")


def test_the_dockerfile_passes_buildkits_checks(dockerfile_check: Path, tmp_path: Path) -> None:
    """BuildKit parses the Dockerfile without a warning, and every path that it copies is in the repository."""
    done = _run(dockerfile_check, "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr
    sources = json.loads(done.stdout)["copied"]
    assert "requirements.lock" in sources
    for source in sources:
        assert (REPOSITORY / source).exists(), source
    version = re.search(r"uv==(\S+)", (DEPLOY / "Dockerfile").read_text())
    assert version is not None
    assert f"\nuv=={version.group(1)} " in (REPOSITORY / "requirements.lock").read_text(), "the lock has another uv"

    (tmp_path / "Dockerfile").write_text((DEPLOY / "Dockerfile").read_text().replace("COPY console", "COPPY console"))
    refused = _run(dockerfile_check, str(tmp_path / "Dockerfile"))
    assert refused.returncode != 0
    assert "COPPY" in refused.stderr


def test_prometheus_accepts_its_configuration(tool: Callable[[str], str]) -> None:
    """promtool finds prometheus.yml valid, and the collector is among its targets under its name in compose."""
    done = _run(tool("promtool"), "check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape[0]["static_configs"] == [{"targets": ["hubscope:8888"]}]


def test_systemd_accepts_the_unit(tool: Callable[[str], str], tmp_path: Path) -> None:
    """systemd-analyze verifies the user unit, without a word, where the command is installed as the unit says."""
    analyze = tool("systemd-analyze")
    command = tmp_path / ".local" / "bin" / "hubscope"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hubscope.console "$@"\n')
    command.chmod(0o755)
    home = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    done = _run(analyze, "--user", "verify", "hubscope.service", environment=home)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")

    wrong = tmp_path / "hubscope.service"
    wrong.write_text((DEPLOY / "hubscope.service").read_text().replace("MemoryMax=", "MemoryMost="))
    refused = _run(analyze, "--user", "verify", str(wrong), environment=home)
    assert "MemoryMost" in refused.stderr


def test_the_unit_tells_and_reloads_as_the_collector_does() -> None:
    """What the collector sends is what the unit waits for: it is no Type=exec, and SIGHUP is its reload."""
    unit = (DEPLOY / "hubscope.service").read_text()
    assert re.search(r"^Type=notify$", unit, re.MULTILINE)
    assert re.search(r"^ExecReload=/bin/kill -HUP \$MAINPID$", unit, re.MULTILINE)
    assert re.search(r"^WatchdogSec=\d+$", unit, re.MULTILINE)


def test_the_unit_starts_the_collector_as_it_can_be(tmp_path: Path) -> None:
    """`hubscope collect` accepts the command line of the unit."""
    unit = (DEPLOY / "hubscope.service").read_text()
    commands = re.findall(r"^ExecStart(?:Pre)?=(.+)$", unit, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "%h/.local/bin/hubscope"
        _check_collect([a for a in arguments if a != "--check"], tmp_path / "lake")


def test_a_stock_collector_accepts_its_configuration(otelcol: Path, tmp_path: Path) -> None:
    """`otelcol validate` finds otel-collector.yaml valid, and a misspelled key in it is not."""
    done = _run(otelcol, "validate", "--config", "otel-collector.yaml")
    assert done.returncode == 0, done.stdout + done.stderr

    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((DEPLOY / "otel-collector.yaml").read_text().replace("send_batch_max_size", "send_batch_most"))
    refused = _run(otelcol, "validate", "--config", wrong)
    assert refused.returncode != 0
    assert "send_batch_most" in refused.stderr
