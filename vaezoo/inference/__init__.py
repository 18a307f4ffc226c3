"""Estimates of log p(x) beyond the ELBO, and densities fitted to the codes of a trained model."""
