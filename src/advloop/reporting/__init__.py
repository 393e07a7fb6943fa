"""The page and the pictures that say what a run has come to."""
