"""What a run records: events and metrics, one log file per process, responses, TensorBoard."""
