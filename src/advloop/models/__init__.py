"""Networks, and the folders and checkpoints that hold them."""
