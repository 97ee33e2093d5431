//! A copy of the workspace with the mutants in it, and what is built from it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::list::{Genre, Mutant};
use crate::rewrite::{self, MODULE};

/// Files that get the module which says what is on.
const ROOTS: [&str; 3] = ["src/lib.rs", "cli/src/main.rs", "sim/src/lib.rs"];

/// The packages that are changed, as cargo is told of them, and the folders of their sources.
pub const PACKAGES: [&str; 6] = ["-p", "daxmap", "-p", "daxmap-cli", "-p", "daxmap-sim"];
const SOURCES: [&str; 3] = ["src", "cli/src", "sim/src"];

/// The package that does without libc.
const WITHOUT_LIBC: &str = "sim/Cargo.toml";

/// Rounds of leaving out what does not compile.
const ROUNDS: usize = 400;

/// A program with tests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    pub name: String,
    pub executable: PathBuf,
    /// Where cargo would run it.
    pub directory: PathBuf,
}

/// What does not compile.
#[derive(Serialize, Deserialize)]
struct Refusal {
    names: Vec<String>,
    refused: HashSet<u32>,
    constant: HashSet<String>,
}

/// A workspace, and how it is built.
pub struct Build {
    root: PathBuf,
    target: PathBuf,
}

impl Build {
    /// Built below `target`.
    pub fn new(root: &Path, target: &Path) -> Self {
        Self { root: root.to_owned(), target: target.to_owned() }
    }

    /// Without debug assertions: the standard library asks the kernel for more with them, and there
    /// are tests that count calls.
    fn cargo(&self) -> Command {
        let mut command = Command::new("cargo");
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("RUSTFLAGS", "--cap-lints=allow")
            .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
            .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "2")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .stdin(Stdio::null());
        command
    }

    /// Builds tests; `None` if they do not compile.
    pub fn tests(&self, arguments: &[String]) -> io::Result<Option<Vec<Program>>> {
        let output = self
            .cargo()
            .args(["test", "--no-run", "--message-format=json"])
            .args(arguments)
            .stderr(Stdio::null())
            .output()?;
        if !output.status.success() {
            return Ok(None);
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        let programs = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["profile"]["test"] == true)
            .filter_map(|message| {
                let manifest = PathBuf::from(message["manifest_path"].as_str()?);
                Some(Program {
                    name: message["target"]["name"].as_str()?.to_owned(),
                    executable: PathBuf::from(message["executable"].as_str()?),
                    directory: manifest.parent()?.to_owned(),
                })
            });
        Ok(Some(programs.collect()))
    }

    /// Builds the command line as its tests do when they begin, which then takes them no time.
    pub fn command_line(&self) -> io::Result<()> {
        let arguments = ["build", "--release", "--quiet", "-p", "daxmap-cli"];
        if !self.cargo().args(arguments).status()?.success() {
            return Err(io::Error::other(format!("cargo {}", arguments.join(" "))));
        }
        Ok(())
    }

    /// What tests are given: cargo's variables, for those that call it themselves, and how long those
    /// are to take that are as long as one likes.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.cargo()
            .env("DAXMAP_PROPERTY_CASES", "300")
            .get_envs()
            .filter_map(|(name, value)| {
                Some((name.to_str()?.to_owned(), value?.to_str()?.to_owned()))
            })
            .collect()
    }
}

/// The copy.
pub struct Tree {
    root: PathBuf,
    pub build: Build,
    /// Functions that constants call.
    constant: HashSet<String>,
    /// Mutants that are in it, from 1.
    pub contained: HashSet<u32>,
    /// Mutants that the compiler refuses.
    pub refused: HashSet<u32>,
}

impl Tree {
    /// Copies the files of `workspace` to below `directory`, with all `mutants` that compile.
    pub fn build(workspace: &Path, directory: &Path, mutants: &[Mutant]) -> io::Result<Self> {
        let root = directory.join("tree");
        copy(workspace, &root)?;
        let mut tree = Self {
            build: Build::new(&root, &directory.join("target")),
            root,
            constant: HashSet::new(),
            contained: HashSet::new(),
            refused: HashSet::new(),
        };
        // What the compiler said of the same mutants the last time, so that nothing is built again.
        let kept = directory.join("refused.json");
        let names: Vec<&str> = mutants.iter().map(|mutant| mutant.name.as_str()).collect();
        if let Ok(text) = fs::read(&kept)
            && let Ok(refusal) = serde_json::from_slice::<Refusal>(&text)
            && refusal.names == names
        {
            (tree.refused, tree.constant) = (refusal.refused, refusal.constant);
        }
        for round in 1..=ROUNDS {
            tree.write(workspace, mutants)?;
            let refused = tree.refused.len();
            let constant = tree.constant.len();
            if tree.check(mutants)? {
                let names = names.into_iter().map(str::to_owned).collect();
                let (refused, constant) = (tree.refused.clone(), tree.constant.clone());
                let refusal = Refusal { names, refused, constant };
                fs::write(&kept, serde_json::to_vec(&refusal)?)?;
                return Ok(tree);
            }
            if (tree.refused.len(), tree.constant.len()) == (refused, constant) {
                break;
            }
            eprintln!("round {round}: {} mutants do not compile", tree.refused.len());
        }
        Err(io::Error::other(format!("{} does not compile", tree.root.display())))
    }

    /// Writes the sources, without what was refused.
    fn write(&mut self, workspace: &Path, mutants: &[Mutant]) -> io::Result<()> {
        let mut files: BTreeMap<&Path, Vec<(u32, &Mutant)>> = BTreeMap::new();
        let mut found = Vec::new();
        for folder in SOURCES {
            found.extend(sources(workspace, Path::new(folder))?);
        }
        for file in &found {
            files.insert(file, Vec::new());
        }
        for (id, mutant) in (1..).zip(mutants) {
            let here = files.entry(&mutant.file).or_default();
            if !self.refused.contains(&id) {
                here.push((id, mutant));
            }
        }
        self.contained.clear();
        for (file, mutants_here) in files {
            let source = fs::read_to_string(workspace.join(file))?;
            if let Some(parent) = self.root.join(file).parent() {
                fs::create_dir_all(parent)?;
            }
            let mut rewritten = rewrite::rewrite(&source, &mutants_here, &self.constant)
                .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
            if ROOTS.iter().any(|root| Path::new(root) == file) {
                let count = u32::try_from(mutants.len()).map_err(io::Error::other)?;
                rewritten.text.push_str(&rewrite::switch(count));
            }
            self.contained.extend(rewritten.contained);
            self.refused.extend(rewritten.refused);
            let path = self.root.join(file);
            // What is as it was is not built again.
            if fs::read_to_string(&path).ok().as_ref() != Some(&rewritten.text) {
                fs::write(path, rewritten.text)?;
            }
        }
        Ok(())
    }

    fn cargo(&self) -> Command {
        self.build.cargo()
    }

    /// Whether it compiles; if not, leaves mutants out.
    fn check(&mut self, mutants: &[Mutant]) -> io::Result<bool> {
        let output = self
            .cargo()
            .args(["check", "--release", "--all-features", "--lib", "--bins", "--tests"])
            .args(PACKAGES)
            .arg("--message-format=json")
            .stderr(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(true);
        }
        let mut texts = HashMap::new();
        let mut unexplained = Vec::new();
        for message in String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["message"]["level"] == "error")
        {
            let error = &message["message"];
            if !self.blame(error, mutants, &mut texts) {
                unexplained.push(error["rendered"].as_str().unwrap_or_default().to_owned());
            }
        }
        if !unexplained.is_empty() {
            eprintln!("{}", unexplained[..unexplained.len().min(3)].join("\n"));
        }
        Ok(false)
    }

    /// Leaves out the mutant that an error is about.
    fn blame(
        &mut self,
        error: &Value,
        mutants: &[Mutant],
        texts: &mut HashMap<String, Vec<String>>,
    ) -> bool {
        let words = error["message"].as_str().unwrap_or_default();
        if words.contains("non-const") && words.contains('`') {
            let path = words.split('`').nth(1).unwrap_or_default();
            let path = path.split("::<").next().unwrap_or_default();
            let name = path.rsplit("::").next().unwrap_or_default();
            return self.constant.insert(name.to_owned());
        }
        let mut found = false;
        // What a mutant takes away is missed behind it: the error names both places.
        let moved = error["code"]["code"] == "E0382";
        for span in error["spans"].as_array().into_iter().flatten() {
            let is_it = if moved { "label" } else { "is_primary" };
            if span[is_it] != true && span[is_it] != "value moved here" {
                continue;
            }
            let file = span["file_name"].as_str().unwrap_or_default().to_owned();
            let from = usize::try_from(span["line_start"].as_u64().unwrap_or(1)).unwrap_or(1);
            let lines = texts.entry(file.clone()).or_insert_with(|| {
                let text = fs::read_to_string(self.root.join(&file)).unwrap_or_default();
                text.lines().map(str::to_owned).collect()
            });
            let not_exhaustive = error["code"]["code"] == "E0004";
            let blamed = if not_exhaustive {
                lines.iter().skip(from - 1).flat_map(|line| switches(line)).find(|id| {
                    mutants.get(*id as usize - 1).is_some_and(|m| m.genre == Genre::MatchArm)
                })
            } else {
                lines
                    .iter()
                    .take(from)
                    .rev()
                    .take(60)
                    .find_map(|line| switches(line).last().copied())
            };
            if let Some(id) = blamed {
                self.refused.insert(id);
                found = true;
            }
        }
        found
    }

    /// Builds the tests: the library's own, and those programs of the test package that `wanted`
    /// names.
    pub fn tests(&self, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Program>> {
        let mut programs = self.test_programs(&own_tests())?;
        let mut arguments = vec!["-p".to_owned(), "pmem-tests".to_owned()];
        for entry in fs::read_dir(self.root.join("pmem-tests/tests"))? {
            let path = entry?.path();
            let is_program = path.is_file() || path.join("main.rs").is_file();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if is_program && wanted(&name) {
                arguments.extend(["--test".to_owned(), name]);
            }
        }
        programs.extend(self.test_programs(&arguments)?);
        Ok(programs)
    }

    fn test_programs(&self, arguments: &[String]) -> io::Result<Vec<Program>> {
        let release = ["--release".to_owned()].iter().chain(arguments).cloned().collect::<Vec<_>>();
        self.build
            .tests(&release)?
            .ok_or_else(|| io::Error::other(format!("cargo test --no-run {}", arguments.join(" "))))
    }
}

/// What builds the packages' own tests.
pub fn own_tests() -> Vec<String> {
    PACKAGES
        .iter()
        .chain(&["--all-features", "--lib", "--bins"])
        .map(|word| (*word).to_owned())
        .collect()
}

/// The Rust files in a folder.
fn sources(workspace: &Path, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(workspace.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.extend(sources(workspace, &path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The mutants that a line asks for.
fn switches(line: &str) -> Vec<u32> {
    let call = format!("{MODULE}::on(");
    line.split(&call)
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .collect()
}

/// Copies the files that git knows or would add, and removes others; leaves alone what is there as it
/// is, and the sources, which are written anyway.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let names = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").current_dir(from).args(names).output()?;
    if !output.status.success() {
        return Err(io::Error::other("git ls-files"));
    }
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let files: HashSet<PathBuf> = listed
        .split('\0')
        .filter(|name| !name.is_empty() && from.join(name).is_file())
        .map(PathBuf::from)
        .collect();
    fs::create_dir_all(to)?;
    remove_others(to, Path::new(""), &files)?;
    let manifest = Path::new(WITHOUT_LIBC);
    for file in files {
        let (old, new) = (from.join(&file), to.join(&file));
        if file == manifest {
            // The module that says which mutants are on calls it.
            let text = fs::read_to_string(&old)?;
            let with_it = text.replacen("[dependencies]\n", "[dependencies]\nlibc = \"0.2\"\n", 1);
            if fs::read_to_string(&new).ok().as_ref() != Some(&with_it) {
                if let Some(parent) = new.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::write(new, with_it)?;
            }
            continue;
        }
        let is_source = SOURCES.iter().any(|folder| file.starts_with(folder));
        let written = is_source && file.extension().is_some_and(|end| end == "rs");
        if new.is_file() && (written || fs::read(&old)? == fs::read(&new)?) {
            continue;
        }
        if let Some(parent) = new.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(old, new)?;
    }
    Ok(())
}

fn remove_others(root: &Path, folder: &Path, files: &HashSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(root, &path, files)?;
        } else if !files.contains(&path) {
            fs::remove_file(root.join(path))?;
        }
    }
    Ok(())
}
