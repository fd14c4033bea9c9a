"""Tools that fetch, build and test; neither host nor device knows of them."""
