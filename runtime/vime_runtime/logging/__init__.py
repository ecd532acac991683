"""Record a run: events and metrics, one log file per process, responses, TensorBoard."""
