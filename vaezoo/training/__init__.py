"""The training loop and what it needs. It knows Lightning and objectives, but no model."""
