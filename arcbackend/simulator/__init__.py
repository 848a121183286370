"""A simulated ARC 7 CE, to try things on and to test against (extra ``arcbackend[simulator]``).

Not imported by the rest of the package, and worth what its likeness to the real CE is worth:
docs/explanation/simulator.md says how that is tested, and what is known to differ.
"""
