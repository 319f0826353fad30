"""Converts a checkpoint to a model file: plan first, then write tensor by tensor."""
