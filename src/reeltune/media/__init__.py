"""Reading and writing images and videos, and the settings embedded in them."""
