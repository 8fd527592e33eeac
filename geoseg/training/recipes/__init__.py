"""Trainings of the models that ship."""
