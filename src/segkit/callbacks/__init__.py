"""What happens around the steps: checkpoints, journals, early stopping, averaged weights, progress."""
