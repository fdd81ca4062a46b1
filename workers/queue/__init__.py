"""The queue: RQ's data in Redis, kept true, with a claim, leases and fencing of our own.

`client` and `feed` are the half that the service uses; `ledger`, `release` and `rqworker` are the workers'. Every
change of a job's state is one Lua script (`lua/`), so no crash leaves one half made.
"""
