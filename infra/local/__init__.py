"""The whole system on one machine: embedded broker and store, workers as child processes, what is sent and what became of it."""
