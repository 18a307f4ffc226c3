"""The groups of metrics that ``task=evaluate`` computes, one file for each."""
