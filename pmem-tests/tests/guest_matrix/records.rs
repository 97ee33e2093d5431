//! What a guest printed, one fact a line, and what a test expects of it.

use pmem_tests::guest::{Guest, program};

/// EOPNOTSUPP, as a refused trial mapping is printed.
pub(crate) const REFUSED: &str = "refused 95";

/// What a guest printed, cut into records that begin with `path=`.
pub(crate) struct Records(pub(crate) String);

impl Records {
    /// The value of `key` in the first record of `path`.
    pub(crate) fn get(&self, path: &str, key: &str) -> &str {
        self.0
            .lines()
            .skip_while(|line| line.strip_prefix("path=") != Some(path))
            .skip(1)
            .take_while(|line| !line.starts_with("path="))
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_else(|| panic!("no {key} of {path} in:\n{}", self.0))
    }

    pub(crate) fn expect(&self, path: &str, expected: &[(&str, &str)]) {
        for (key, value) in expected {
            assert_eq!(self.get(path, key), *value, "{key} of {path} in:\n{}", self.0);
        }
    }

    /// The suite ran there, passed checks, and failed none.
    pub(crate) fn expect_conformance(&self, place: &str) {
        let line = format!("conformance of {place}: ");
        let result = self.0.lines().find_map(|l| l.strip_prefix(line.as_str()));
        let result = result.unwrap_or_else(|| panic!("no suite ran in {place}:\n{}", self.0));
        assert!(result.ends_with(" passed, 0 failed"), "{place}: {result}\n{}", self.0);
        assert!(!result.starts_with("0 passed"), "{place}: {result}");
    }
}

/// Runs a script in the guest, which must end well.
pub(crate) fn run(guest: Guest, script: &str) -> Records {
    let output = guest.file(program().unwrap()).run_script(script).unwrap();
    assert_eq!(output.status, 0, "{}", output.stdout);
    Records(output.stdout)
}
