"""Asks the stock Collector the same rules, and writes what it does beside them for docs/otlp-conformance.md.

    python -m tests.collector.duties.stock OTELCOL

OTELCOL is the program that tests/deploy/otelcol builds. Rules about our own settings are not asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "stock.json"
GRPC, HTTP, SINK = 24317, 24318, 24319
CONFIG = f"""
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{GRPC}", max_recv_msg_size_mib: 1}}
      http: {{endpoint: "127.0.0.1:{HTTP}", max_request_body_size: 1048576}}
exporters:
  otlp: {{endpoint: "127.0.0.1:{SINK}", tls: {{insecure: true}}, sending_queue: {{enabled: false}}}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp]}}
    metrics: {{receivers: [otlp], exporters: [otlp]}}
    logs: {{receivers: [otlp], exporters: [otlp]}}
"""


def main(program: str) -> None:
    """Run the rules against a Collector; a rule holds there if all its cases do."""
    with tempfile.TemporaryDirectory() as folder:
        config, report = Path(folder) / "config.yaml", Path(folder) / "report.xml"
        config.write_text(CONFIG)
        collector = subprocess.Popen([program, "--config", str(config)], stderr=subprocess.DEVNULL)
        try:
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                str(FOLDER),
                f"--junitxml={report}",
                "-p",
                "no:cacheprovider",
            ]
            environ = {**os.environ, "HUBSCOPE_DUTIES_AGAINST": f"{GRPC},{HTTP},{SINK}"}
            subprocess.run(command, env=environ)
        finally:
            collector.terminate()
            collector.wait(20)
        answers: dict[str, str] = {}
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            rule = f"{case.get('classname', '').rsplit('.', 1)[-1]}.{case.get('name', '').partition('[')[0]}"
            skipped = case.find("skipped")
            if skipped is not None and skipped.get("type") != "pytest.xfail":
                continue
            failed = case.find("failure") is not None or case.find("error") is not None
            if answers.get(rule) != "differs":
                answers[rule] = (
                    "differs" if failed and "XPASS" not in str(case.find("failure").get("message")) else "holds"
                )  # type: ignore[union-attr]
    RESULTS.write_text(json.dumps(answers, indent=0, sort_keys=True) + "\n")
    differing = sum(answer == "differs" for answer in answers.values())
    print(f"{len(answers)} rules asked, {differing} answered otherwise")


if __name__ == "__main__":
    main(sys.argv[1])
