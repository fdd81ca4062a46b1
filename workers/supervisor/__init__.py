"""`gridit up`: one machine's embedded server, API and workers, started, watched and stopped together.

Processes are spawned, never forked off this one, and none outlives it. Nothing here knows what a job is; a dead
worker's jobs are handed back through `workers.queue.release`.
"""
