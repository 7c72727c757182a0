"""The cells of the shipped notebook: one question each, answered by a shipped query, a table and a plot.

`{lake!r}` in the first code cell becomes the path of the lake that the notebook is bound to.
"""

from __future__ import annotations

from typing import Final

CELLS: Final[tuple[tuple[str, str], ...]] = (
    (
        "markdown",
        """# What is slow, and why

One question a cell. Each answer comes from a query that ships with hubscope as an SQL file: `hubscope sql --list`.
Change a cell, or write SQL of your own with `lake.sql("…")`. Nothing leaves this machine.""",
    ),
    (
        "code",
        """from hubscope.analytics.notebook import Lake, bars, by_run

lake = Lake({lake!r})
print("services:", ", ".join(lake.services) or "none yet", "· asking about:", lake.service or "nothing yet")""",
    ),
    (
        "markdown",
        "## Which runs are there?\n\nThe run is the unit of every statistic: what is compared is groups of runs.",
    ),
    (
        "code",
        """runs = lake.ask("runs")
display(runs.only("run", "version", "spans"))
by_run(runs, "spans", series="version", unit="1", title="Spans of each run, oldest first")""",
    ),
    (
        "markdown",
        "## How long does the start take?\n\n"
        "From the creation of the process to the moment it answers its user, start by start.",
    ),
    (
        "code",
        """starts = lake.ask("startup").joined(runs, "run", "version")
display(starts.only("run", "version", "type", "duration_s", "ended_by"))
by_run(starts, "duration_s", series="version", title="Each start")""",
    ),
    ("markdown", "## Which phase of the start takes the time?"),
    (
        "code",
        """phases = lake.ask("startup_phases").by("phase", "sum_s", how="mean")
display(phases)
bars(phases, "phase", "sum_s", title="Start-up phases, mean over runs")""",
    ),
    (
        "markdown",
        "## Which imports take the time?\n\n"
        "With everything they import in turn. What is not used until it is interactive can wait.",
    ),
    (
        "code",
        """imports = lake.ask("startup_imports").by("module", "duration_s", how="mean")
display(imports)
bars(imports, "module", "duration_s", title="Imports, mean over runs")""",
    ),
    (
        "markdown",
        "## What does a user wait for?\n\n"
        "The operations that no other caused: requests and tasks. All else is judged by its share of them.",
    ),
    (
        "code",
        """operations = lake.ask("root_operations")
display(operations.only("run", "operation", "n", "median_s", "p95_s", "errors").sorted("p95_s"))
worst = operations.by("operation", "p95_s", how="max")
bars(worst, "operation", "p95_s", title="Root operations: the worst run's p95")""",
    ),
    (
        "markdown",
        "## Which queries take the time?\n\n"
        "By shape: the statement with its literals replaced. Many quick queries may cost more than one slow one.",
    ),
    (
        "code",
        """queries = lake.ask("query_shapes")
display(queries.only("operation", "shape", "n", "sum_s", "median_s", "p95_s").sorted("sum_s"))
bars(queries.by("shape", "sum_s"), "shape", "sum_s", title="Time in each query shape, all runs")""",
    ),
    (
        "markdown",
        "## Is a query run once for each item of a list?\n\n"
        "Five or more of one shape in a row, together 50 ms or more: one query that fetches all of them would do.",
    ),
    (
        "code",
        """repeated = lake.ask("n_plus_one", min_count=5, min_ns=50_000_000)
display(repeated.only("operation", "shape", "source_shape", "times", "queries_each", "sum_s"))
bars(repeated.by("shape", "sum_s"), "shape", "sum_s", title="Time in repeated queries, all runs")""",
    ),
    ("markdown", "## How long do vector searches take?"),
    (
        "code",
        """searches = lake.ask("vector_searches")
display(searches.only("run", "index_name", "index_type", "size", "dimensions", "n", "median_s", "p95_s"))
by_run(searches.joined(runs, "run", "version"), "p95_s", series="version", title="Vector search, p95 of each run")""",
    ),
    ("markdown", "## What do plugins cost?\n\nBy plugin and hook, with the CPU time where it was measured."),
    (
        "code",
        """plugins = lake.ask("plugin_calls")
display(plugins.only("plugin", "hook", "n", "sum_s", "median_s", "p95_s", "cpu_s").sorted("sum_s"))
bars(plugins.by("plugin", "sum_s"), "plugin", "sum_s", title="Time in each plugin, all runs")""",
    ),
    (
        "markdown",
        "## What happened in the slowest operation?\n\n"
        "A line under a bar is the critical path: only what is on it can make the whole faster.",
    ),
    (
        "code",
        'lake.trace(operations.sorted("p95_s")[0]["worst_trace"]) if operations else \'nothing was recorded yet\'',
    ),
    ("markdown", "## What should be changed first?\n\nThe whole report, as `hubscope report --open` shows it."),
    ("code", "lake.report()"),
)
