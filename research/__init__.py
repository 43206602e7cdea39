"""Studies: trained baselines, ablations, relevance, and their pages. Never imported by the product."""
