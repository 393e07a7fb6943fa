"""What no result depends on: progress bars, locks, snapshots, timings, trackers, prefetching.

No stage of dvc.yaml declares this package, so an edit here reruns nothing. That is right only as
long as every module keeps its promise: its docstring says why no output's bytes depend on it.
``infra`` imports ``core`` alone; every other package may import ``infra``.
"""
