"""Files into the lake: OTLP in its file forms, and Jaeger's JSON."""
