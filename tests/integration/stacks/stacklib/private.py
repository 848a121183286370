"""Files that only their owner can read."""

import os
from pathlib import Path


def write(text: str, path: Path) -> None:
    """Write a file that only its owner can read, never half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)
