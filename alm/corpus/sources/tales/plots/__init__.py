"""What happens in the tales: each plot is a function that tells one kind of trouble to a `Story`."""
