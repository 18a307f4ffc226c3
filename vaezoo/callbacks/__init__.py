"""Callbacks: schedules, pictures, step-wise measurements, progress; and the loggers' set-up."""
