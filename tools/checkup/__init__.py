"""The checks of `make doctor`: standard library alone, in the syntax of Python 3.8."""
