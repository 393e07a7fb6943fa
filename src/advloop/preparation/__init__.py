"""A user's images, checked, split by group and stored as arrays."""
