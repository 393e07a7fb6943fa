"""A reproducible adversarial loop for latent diffusion models."""
