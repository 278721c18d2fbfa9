"""Results leave the node: which destination, one C-STORE per try, what an answer means, when the next try is due."""
