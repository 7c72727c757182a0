"""Renderers of the report: `text`, `html` and `markdown`, each with `render(report, …) -> str`."""
