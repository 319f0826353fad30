"""What a run does for each point: one module a stage, each asking only for what the study lacks."""
