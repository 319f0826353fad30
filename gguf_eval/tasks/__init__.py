"""Knows items and scoring, never a model."""
