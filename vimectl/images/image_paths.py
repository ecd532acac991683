"""Where an image keeps what vimectl wrote into it; the Dockerfiles name the same places."""

from pathlib import Path

IMAGE = Path("/opt/vimectl")
RECORD = "image.json"  # what was built and what is installed, and whether it is a stand-in
REPORT = "doctor.json"  # what the doctor found at the end of the build
STACK = "stack.toml"
