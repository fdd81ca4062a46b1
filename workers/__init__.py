"""The job side of the product: contracts, queue, scheduler, runner, storage, supervisor.

`workers.contracts` is the language shared with the service; the rest runs in worker processes. Nothing here
knows HTTP.
"""
