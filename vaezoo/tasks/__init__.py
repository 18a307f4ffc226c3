"""Tasks: what ``task=`` names. Each takes the resolved config as a plain dict."""
