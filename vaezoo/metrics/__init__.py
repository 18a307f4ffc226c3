"""Metrics, each a pure function and a thin stateful class around it."""
