//! What comes of offers and declarations.

mod lifetimes;
