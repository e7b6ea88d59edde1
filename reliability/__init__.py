"""What lonc promises, put to the test for as long as one likes: ``make soak``."""
