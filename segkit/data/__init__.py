"""Data sets before training: from whatever labels people have to a set that trains, divided and checked."""
