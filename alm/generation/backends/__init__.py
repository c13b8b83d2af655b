"""What a model remembers of the texts it writes: one interface, and a way for each kind of device."""
