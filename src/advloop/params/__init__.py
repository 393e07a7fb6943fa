"""Typed views of params.yaml, one module an area, so that a stage depends on few of them."""
