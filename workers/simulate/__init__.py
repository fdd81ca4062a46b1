"""What the queue and the scheduler do to a day of jobs: discrete events, no sleeping, no torch, no Redis.

`simulate` drives the very policy of the workers (`workers.scheduler`) and the queue's order (`line`, the twin of the
claim script) with step costs that were recorded on a machine, and two plain queues on the same arrivals to compare
with. It is not a model of disk, network, encoding or failures.
"""
