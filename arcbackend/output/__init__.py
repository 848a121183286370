"""The verb fetch_output: everything a job left, streamed to disk, and nothing outside.

`retrieve` is the door; `containment` and `budget` are pure; `writer` alone touches the disk.
"""
