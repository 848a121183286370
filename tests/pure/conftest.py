"""Settings for the pure tests: no network, no CE, no waiting."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Busy machines are slow: that is no finding.
settings.register_profile(
    "pure", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("pure")
