"""Reward functions, and the processes in which they score responses."""
