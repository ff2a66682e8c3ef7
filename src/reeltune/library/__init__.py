"""What is on disk: weight files and components, what is known of them, and what uses them."""
