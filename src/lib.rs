//! A durable region of a file behind one trait.
