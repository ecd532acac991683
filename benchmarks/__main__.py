"""``python -m benchmarks``: every measurement, as ratios of two things done side by side."""

from benchmarks import weight_transport

weight_transport.main()
