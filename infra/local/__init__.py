"""The whole system on one machine: embedded broker and store, workers as child processes, and accounts of all records."""
