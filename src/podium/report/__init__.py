"""What people look at: one page that answers a competitor's questions in their order."""
