"""Programs that run in an environment with the packages of all trackers."""
