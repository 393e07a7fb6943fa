"""Schemas of params.yaml, one module per area, and the checks that span areas."""
