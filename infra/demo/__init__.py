"""`everlong demo`: a simulated shop streams through the real parts while a table shows what happens."""
