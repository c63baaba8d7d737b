"""`make new`: guess a competition's settings and write them."""
