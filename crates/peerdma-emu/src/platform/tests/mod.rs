//! Claims about platform files as a whole; what concerns one step is beside it.

mod built_in;
mod errors;
mod hostile;
mod meaning;

/// Uses every key with a value other than the default.
const EVERY_KEY: &str = include_str!("../../../platforms/every-key.toml");

/// `text` with `old`, which it must hold exactly once, replaced by `new`.
fn edited(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old:?} must be there once");
    text.replacen(old, new, 1)
}
