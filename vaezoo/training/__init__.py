"""The training loop and what it needs. It knows Lightning, but no model and no paper."""
