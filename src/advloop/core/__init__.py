"""What every result depends on: errors, files, names, device, random streams, processes.

Every stage of dvc.yaml declares this package, so an edit here reruns the whole pipeline. Code that
changes no result belongs in ``infra``, which ``core`` never imports.
"""
