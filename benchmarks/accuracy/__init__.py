"""Accuracy by wall-clock time, beside nnU-Net's classes, on the hippocampi."""
