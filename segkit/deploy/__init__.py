"""Runs exported models; needs numpy, OpenCV, pyyaml and an inference engine, not the training code."""
