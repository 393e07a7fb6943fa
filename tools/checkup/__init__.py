"""The checks of `make doctor`, with the standard library alone and the syntax of Python 3.8."""
