"""The ARC REST protocol without I/O: requests and responses as values.

Nothing in this package opens a socket or a file, reads a clock, or imports httpx or trio.
"""
