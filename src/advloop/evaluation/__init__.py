"""How good a model is, measured on images that nothing trained on."""
