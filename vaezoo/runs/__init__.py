"""A run on disk: its folder, checkpoints, resume, signals and jobs."""
