"""Item codes: codebooks, their refresh as vectors drift, and what they are for, the search of a whole life of events."""
