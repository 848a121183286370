"""The example of README.md, as its readers would copy it."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def example() -> str:
    """The one Python block."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert isinstance(block, str)
    return block
