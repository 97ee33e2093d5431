//! The remedy of a reason: advice in words, or a command that a test carries out.
//!
//! A command stands alone: it needs no hand to fill anything in, names only what was seen, keeps
//! what it does not have to change, and fails without harm where its condition no longer holds.
//! `pmem-tests/tests/guest_remedies.rs` makes each situation, runs the command that the probe prints,
//! and looks again; it fails if a [`Recipe`] is not among them. Whatever cannot be tested so is advice.

use std::fmt;
use std::path::Path;

/// What to do about a [`Reason`](super::Reason): words, and a command where one was tested.
///
/// It displays as one line: `ERASES DATA: ` if it does, the words, and the command after a colon.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remedy {
    /// What to do and what it gives, in words.
    pub text: String,
    /// The same for `sh`, run as root in the mount namespace of the probe; `None` where there is no
    /// command that a test carries out. Relative paths start where the probed path does.
    pub command: Option<String>,
    /// Which command it is; `None` for advice.
    pub recipe: Option<Recipe>,
    /// True if following it loses data that is there now. Copy the data elsewhere first.
    pub erases_data: bool,
}

/// The commands there are. Each is carried out by a test where the probe prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Recipe {
    /// Sets the DAX flag of a file or directory.
    DaxFlag,
    /// Unmounts a filesystem, and mounts it with `dax=always`.
    DaxAlways,
    /// Remounts a filesystem without the option that turns flushes off.
    Barriers,
    /// Remounts a filesystem, or one mount of it, read-write.
    WritableMount,
    /// Makes a block device writable.
    WritableDevice,
    /// Makes an NVDIMM region writable whose devices are in order.
    WritableRegion,
    /// Makes a namespace one of mode fsdax. Erases it.
    FsdaxNamespace,
}

impl Recipe {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::DaxFlag,
        Self::DaxAlways,
        Self::Barriers,
        Self::WritableMount,
        Self::WritableDevice,
        Self::WritableRegion,
        Self::FsdaxNamespace,
    ];

    /// The stable name: `dax-flag`, `dax-always`, ...
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DaxFlag => "dax-flag",
            Self::DaxAlways => "dax-always",
            Self::Barriers => "barriers",
            Self::WritableMount => "writable-mount",
            Self::WritableDevice => "writable-device",
            Self::WritableRegion => "writable-region",
            Self::FsdaxNamespace => "fsdax-namespace",
        }
    }
}

impl Remedy {
    /// Advice in words.
    pub(crate) fn advice(text: impl Into<String>) -> Self {
        Self { text: text.into(), command: None, recipe: None, erases_data: false }
    }

    /// A command, with what it gives in words; those alone if the command could not be built.
    pub(crate) fn command(
        recipe: Recipe,
        text: impl Into<String>,
        command: impl Into<Option<String>>,
    ) -> Self {
        let command = command.into();
        let recipe = command.is_some().then_some(recipe);
        Self { command, recipe, ..Self::advice(text) }
    }

    /// The same, said to erase data.
    pub(crate) fn erasing(self) -> Self {
        Self { erases_data: true, ..self }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.erases_data {
            f.write_str("ERASES DATA: ")?;
        }
        f.write_str(&self.text)?;
        if let Some(command) = &self.command {
            write!(f, ": {command}")?;
        }
        Ok(())
    }
}

/// A path as one word of a shell that is no option of a program. `None` if it holds what a terminal,
/// a log or a copy by hand may change: control and invisible characters, bytes that are not text.
pub(crate) fn word(text: &Path) -> Option<String> {
    let text = text.to_str()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    let visible = |c: char| c.is_alphanumeric() || c == ' ' || c.is_ascii_graphic();
    if text.is_empty() || !text.chars().all(visible) {
        return None;
    }
    let at = if text.starts_with('-') { "./" } else { "" };
    if text.chars().all(plain) {
        Some(format!("{at}{text}"))
    } else {
        Some(format!("'{at}{}'", text.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What a shell makes of the word.
    fn shell(word: &str) -> Vec<u8> {
        let output =
            Command::new("sh").arg("-c").arg(format!("printf '%s|' {word}")).output().unwrap();
        assert!(output.status.success(), "{word}");
        output.stdout
    }

    #[test]
    fn a_word_is_the_path_and_nothing_else() {
        for path in [
            "/m",
            "/a b",
            "/it's \"here\"",
            "/$(touch x)`id`;rm -rf ~&|<>*?[a]{b,c}!#\\",
            "/übung/名前",
            "'",
            "a'; echo hurt; '",
        ] {
            let word = word(Path::new(path)).unwrap();
            assert_eq!(shell(&word), [path.as_bytes(), b"|"].concat(), "{word}");
        }
        assert_eq!(word(Path::new("-o x")).unwrap(), "'./-o x'");
        assert_eq!(word(Path::new("-rf")).unwrap(), "./-rf");
        assert_eq!(word(Path::new("~")).unwrap(), "'~'");
    }

    /// What a terminal shows or a hand copies would be another path.
    #[test]
    fn a_path_that_cannot_be_shown_is_no_word() {
        for path in [&b""[..], b"/a\nb", b"/a\tb", b"/\x1b[2J", b"/\xff", "/a\u{202e}b".as_bytes()]
        {
            assert_eq!(word(Path::new(OsStr::from_bytes(path))), None, "{path:?}");
        }
        for odd in ["/a\u{200b}", "/a\u{a0}b", "/a\u{2028}b", "/\u{2019}"] {
            assert_eq!(word(Path::new(odd)), None, "{odd:?}");
        }
    }

    #[test]
    fn what_erases_says_so_first() {
        let advice = Remedy::advice("do it by hand");
        assert_eq!(advice.to_string(), "do it by hand");
        assert_eq!(advice.erasing().to_string(), "ERASES DATA: do it by hand");
        let command =
            Remedy::command(Recipe::FsdaxNamespace, "make it new", "mkfs /dev/x".to_owned());
        assert_eq!(command.recipe, Some(Recipe::FsdaxNamespace));
        let command = command.erasing();
        assert_eq!(command.to_string(), "ERASES DATA: make it new: mkfs /dev/x");
        assert_eq!(Remedy::command(Recipe::DaxFlag, "by hand", None), Remedy::advice("by hand"));
    }

    #[test]
    fn every_recipe_is_listed_once() {
        let mut names = Recipe::ALL.map(Recipe::as_str);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_word_survives_a_shell(path in r#"[-/a-z '"$`\\;&|<>*?~!#\n(){}=]{1,24}"#) {
            match word(Path::new(&path)) {
                Some(word) => {
                    let at = if path.starts_with('-') { "./" } else { "" };
                    prop_assert_eq!(shell(&word), format!("{at}{path}|").into_bytes());
                }
                None => prop_assert!(path.contains('\n')),
            }
        }
    }
}
