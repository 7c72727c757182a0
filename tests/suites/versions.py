"""The library's own tests of ours, against the oldest and the newest version that each instrumentation claims.

    python tests/suites/versions.py [DISTRIBUTION …]

Makes one environment a version in a temporary folder, and prints a table. Exit code 1 where a test failed or none ran.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from hubscope.instrumentation.libraries.versions import CLAIMS, Claim

ROOT = Path(__file__).parents[2]
UV = (sys.executable, "-m", "uv")
BESIDE = ("pytest>=8", "pytest-timeout", "hypothesis", "opentelemetry-distro", "numpy")


def result(claim: Claim, version: str, folder: Path) -> str:
    """What pytest said in one line, or why it could not be asked."""
    python = folder / "bin" / "python"
    held = claim.beside if version == claim.oldest else tuple(name for name in claim.beside if "<" not in name)
    wanted = (*BESIDE, *held, f"{claim.distribution}=={version}", "--editable", str(ROOT))
    for command in (
        (*UV, "venv", "--quiet", "--python", sys.executable, str(folder)),
        (*UV, "pip", "install", "--quiet", "--python", str(python), *wanted),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return "cannot be installed: " + (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    chosen = ("-k", claim.tests) if claim.tests else ()
    test = ROOT / "tests" / "instrumentation" / claim.file
    done = subprocess.run(
        (str(python), "-m", "pytest", str(test), *chosen, "-q", "-p", "no:cacheprovider", "--timeout=120"),
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if re.search(r"\d+ (passed|failed|skipped|error)", line)]
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return " ".join([*(lines[-1:] or ["no answer"]), *failed])


def main(asked: list[str]) -> int:
    """Prints a row a version; the exit code."""
    unknown = set(asked) - {claim.distribution for claim in CLAIMS}
    if unknown:
        print(f"not claimed: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    failed = False
    print("| library | version | result |\n| --- | --- | --- |")
    for claim in CLAIMS:
        if asked and claim.distribution not in asked:
            continue
        for version in dict.fromkeys((claim.oldest, claim.newest)):
            with tempfile.TemporaryDirectory() as folder:
                told = result(claim, version, Path(folder) / "env")
            failed |= " passed" not in f" {told}" or "failed" in told or "error" in told
            print(f"| {claim.distribution} | {version} | {told} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
