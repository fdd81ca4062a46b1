"""Builds of whole bundles: which compiler, what it came to on this machine, beside a worker, and the stock of plans.

It stands above the engines, which know only what `models.compiling` has.
"""
