"""The adversarial loop for latent diffusion models, without DVC or a command line."""
