"""HTTP only: routes by resource, errors to statuses, events as SSE. Knows the queue's client half, never a net."""
