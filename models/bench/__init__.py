"""Measurements of this machine: engines beside each other, and the whole pipeline beside the released way."""
