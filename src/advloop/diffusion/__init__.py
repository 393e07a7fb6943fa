"""The diffusion process: noising, prediction types, sampling, and the loss of a batch."""
