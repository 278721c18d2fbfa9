"""Results leave the node: which destination, one C-STORE per try on an association for all that is due, what an answer means, when the next try is due."""
