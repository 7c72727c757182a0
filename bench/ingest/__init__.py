"""What the collector takes, beside its peers. `python -m bench.ingest --help` says what is measured and how."""
