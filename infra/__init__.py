"""Runs Everlong: settings, wiring, metrics, health, the command `everlong`, the HTTP API, and the embedded broker and store."""
