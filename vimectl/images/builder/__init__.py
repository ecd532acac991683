"""The programs that build images: Docker with BuildKit, Podman and Buildah."""
