"""From interests to candidates: searches of an index, merged by quotas."""
