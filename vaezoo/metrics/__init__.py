"""Metrics of trained models: pure functions, and torchmetrics classes around them that collect batches."""
