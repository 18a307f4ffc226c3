"""The groups of metrics that ``task=evaluate`` measures, one file each."""
