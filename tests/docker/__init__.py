"""The image in containers."""
