"""What each estimator's training adds: arrays in, sample weights and targets out."""
