"""Small trainings killed at random moments, resumed, and compared with one that was never stopped."""
