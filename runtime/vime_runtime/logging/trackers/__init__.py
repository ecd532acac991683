"""Trackers of metrics, one module each: TensorBoard, Weights & Biases, MLflow, SwanLab, Trackio."""
