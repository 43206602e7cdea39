"""How well queries find items: the search unit against lexical and other baselines."""
