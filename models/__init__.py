"""The science of the product: nets, grids, plans, samplers, engines, training and evaluation.

Nothing here knows of jobs, queues or HTTP. A request becomes a `plan` of units; a unit is a generator of
network evaluations; an engine answers them. Whoever drives the units (the command line, a worker) decides
about batching, progress and cancelling.
"""
