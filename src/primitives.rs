//! The primitives that keep the library's promises, by name.
//!
//! Each is marked where it stands: `primitive!("name", what is done, what is done without it)`.
//! As users build the library, that is the first of the two and nothing else. In a build for the
//! kill matrix (`--cfg mutants`), the variable `DAXMAP_REMOVED` in the environment, of the process
//! or of its build, names one that is left out, and some test has to notice: `ci/mutants` asks for
//! each.

/// What keeps a promise, and what happens in its place in a build for the kill matrix.
#[cfg(not(mutants))]
macro_rules! primitive {
    ($name:literal, $kept:expr, $without:expr) => {
        $kept
    };
}

#[cfg(mutants)]
macro_rules! primitive {
    ($name:literal, $kept:expr, $without:expr) => {
        if $crate::primitives::removed($name) { $without } else { $kept }
    };
}

pub(crate) use primitive;

/// Whether this run does without the primitive.
#[cfg(mutants)]
pub(crate) fn removed(name: &str) -> bool {
    static REMOVED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let removed = || {
        let here = std::env::var("DAXMAP_REMOVED").ok();
        here.or(option_env!("DAXMAP_REMOVED").map(str::to_owned))
    };
    REMOVED.get_or_init(removed).as_deref() == Some(name)
}
