"""What listens: OTLP over gRPC and HTTP, and the group commit that both wait for."""
