"""What a user does with a running service: make a sequence, watch it grow, keep the result.

`gridit demo`, `gridit generate` and `gridit watch`, on top of `service.client` alone; the service itself is only ever
started as a process.
"""
