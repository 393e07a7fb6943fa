"""The training loops: diffusion model, discriminator, autoencoder."""
