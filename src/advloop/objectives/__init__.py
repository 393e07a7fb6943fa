"""What train_diffusion minimises: one module an objective, each a pure function of a batch."""
