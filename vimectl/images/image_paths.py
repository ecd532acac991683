"""The files that vimectl writes into an image; the Dockerfiles use the same paths."""

from pathlib import Path

IMAGE = Path("/opt/vimectl")
RECORD = "image.json"  # what was built, what is installed, and if the image is a stand-in
REPORT = "doctor.json"  # the doctor's report from the end of the build
STACK = "stack.toml"
