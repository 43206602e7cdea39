"""What a refresh worker serves with: live recommender and index, their swap, and snapshots to start from."""
