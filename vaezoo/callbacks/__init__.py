"""Lightning callbacks: schedules, checkpoints, weight averaging, early stopping, images, metrics of steps, progress."""
