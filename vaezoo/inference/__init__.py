"""Inference with a trained model: estimates of log p(x) that are tighter than the ELBO, and densities of its codes."""
