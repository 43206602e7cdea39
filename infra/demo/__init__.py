"""`everlong demo`: a simulated shop streams through the real workers while a table shows the figures."""
