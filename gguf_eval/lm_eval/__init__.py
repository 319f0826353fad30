"""The model that lm-evaluation-harness can run its tasks on, and its results in a study file.

This package and the harness's own are both called lm_eval: here the harness's is always imported by its full name.
"""
