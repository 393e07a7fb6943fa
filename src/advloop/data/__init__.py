"""From a folder of images to a data set that is split by group, and to latents in files."""
