"""What was acknowledged, on disk: the write-ahead log, each exporter's place in it, dead letters."""
