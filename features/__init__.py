"""Events, rows and their merge, the one table of features, and the online store. Imports no other package of Everlong."""
