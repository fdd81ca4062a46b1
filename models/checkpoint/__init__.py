"""Published weights, in whichever form they come, made into bundles."""
