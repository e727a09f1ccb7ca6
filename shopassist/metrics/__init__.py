"""In-process metrics registry, aggregation over worker processes, Prometheus exposition."""
