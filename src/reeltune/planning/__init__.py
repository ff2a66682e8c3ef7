"""What a definition needs under the user's preferences: chosen versions, files, bytes, memory, and why."""
