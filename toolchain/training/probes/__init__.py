"""What the features of a frozen network are worth: linear, nearest-neighbour and dense probes."""
