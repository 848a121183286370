"""The policies that ship, as they are."""

from __future__ import annotations

from importlib import resources

from arcbackend.lifecycle.policy import Policy


def shipped() -> str:
    """Their files."""
    folder = resources.files("arcbackend.machines") / "policies"
    return "\n\n".join(
        f"### {name}\n\n```toml\n{(folder / f'{name}.toml').read_text(encoding='utf-8')}```"
        f"\n\n[Its diagram](machine-{name}.svg)"
        for name in Policy.shipped()
    )
