"""The verb fetch_output: everything a job left, streamed to disk, and nothing outside.

`retrieve` is the door: whose turn it is. `transfer` brings one file, `collection` keeps the account
of one job, `streams` tells which files are stdout and stderr; `containment` and `budget` are pure,
and `writer` alone touches the disk.
"""
