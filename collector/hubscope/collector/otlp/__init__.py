"""OTLP and rows: requests to Arrow tables in the lake's columns, derived rows back to OTLP, and its JSON form."""
