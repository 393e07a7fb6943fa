"""Training the discriminator."""
