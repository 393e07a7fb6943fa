"""The selected model as the folder of a diffusers pipeline, with its card."""
