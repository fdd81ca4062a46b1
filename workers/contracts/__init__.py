"""The language that service, workers and client share: frozen values, key names, errors.

Standard library and pydantic only; importing this never pulls in torch, Redis or FastAPI.
"""
