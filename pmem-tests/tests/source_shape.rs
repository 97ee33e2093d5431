//! The shape of `src`: files import downwards only, none is too long, and how long all of them are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of `src` without its tests, comments included. Whoever raises it says why in the commit.
const LINES_MAX: usize = 36_500;

/// The most lines of a file.
const FILE_MAX: usize = 500;

/// Files that are longer, to be split.
const TOO_LONG: [&str; 3] = ["log/writer", "region/mapped", "region/page_cache"];

/// Files that import each other, to be taken apart.
const CIRCLES: [&[&str]; 4] = [
    &["log/core", "log/place", "log/spare", "log/writer"],
    &["log/layout", "log/root"],
    &["log/recovery", "log/survey"],
    &[
        "region/calls",
        "region/existing",
        "region/ground",
        "region/kernel_copy",
        "region/mapping",
        "region/reopen",
        "region/reserve",
        "region/resolve",
    ],
];

/// A file of the library: the path of its module, and its source without comments and tests.
struct Source {
    text: String,
    lines: usize,
}

type Sources = BTreeMap<String, Source>;

fn sources() -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace member");
    let root = root.join("src");
    let mut found = Sources::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of src") {
            let path = entry.expect("an entry").path();
            let is_test = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "golden");
            if path.is_dir() && !is_test {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !is_test {
                found.insert(module(&root, &path), source(&path));
            }
        }
    }
    found.remove("sim").expect("the simulator, for tests");
    found
}

/// `region/mapped` for `region/mapped.rs` and for `region/mapped/mod.rs`.
fn module(root: &Path, path: &Path) -> String {
    let mut place: PathBuf = path.strip_prefix(root).expect("below it").with_extension("");
    if place.file_name().is_some_and(|name| name == "mod") {
        place.pop();
    }
    place.display().to_string()
}

fn source(path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a source");
    let own = text.lines().collect::<Vec<_>>();
    // Tests within a file are its last item.
    let is_tests = |at: &usize| {
        own[*at].starts_with("#[cfg(")
            && own[*at].contains("test")
            && own.get(at + 1).is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
    };
    let lines = (0..own.len()).find(is_tests).unwrap_or(own.len());
    let code = own[..lines].iter().map(|line| line.split("//").next().unwrap_or_default());
    Source { text: code.collect::<Vec<_>>().join("\n"), lines }
}

/// The modules of `sources` that a file names in its paths, by `crate::`, `super::` and `self::`.
fn imports(sources: &Sources, module: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (root, rest) in paths(&sources[module].text) {
        let mut base: Vec<&str> = module.split('/').filter(|name| !name.is_empty()).collect();
        match root {
            "crate" => base.clear(),
            ups => base.truncate(base.len().saturating_sub(ups.matches("super").count())),
        }
        for names in spread(rest) {
            let mut full: Vec<&str> = base.clone();
            full.extend(&names);
            // The longest beginning that is a module; what follows is an item of it.
            while !full.is_empty() {
                let name = full.join("/");
                if sources.contains_key(&name) {
                    if name != module && full.len() > base.len().min(1) {
                        found.insert(name);
                    }
                    break;
                }
                full.pop();
            }
        }
    }
    found
}

/// Paths that begin with `crate`, `self` or `super`s: those, and what follows up to the end of the path,
/// braces included.
fn paths(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut from = 0;
    while let Some(at) = ["crate::", "super::", "self::"]
        .iter()
        .filter_map(|root| text[from..].find(root).map(|at| from + at))
        .min()
    {
        let mut end = at;
        for root in ["crate::", "self::"] {
            if text[end..].starts_with(root) {
                end += root.len();
                break;
            }
        }
        while text[end..].starts_with("super::") {
            end += "super::".len();
        }
        let rest = &text[end..];
        let mut depth = 0_usize;
        let stop = rest.find(|c: char| {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                _ if depth > 0 || is_word(c) || c == ':' => {}
                _ => return true,
            }
            false
        });
        let rest = &rest[..stop.unwrap_or(rest.len())];
        let begins = !text[..at].ends_with(is_word);
        if begins {
            found.push((text[at..end].trim_end_matches("::"), rest));
        }
        from = end.max(at + 1);
    }
    found
}

/// `a::{b, c::D}` as `[a, b]` and `[a, c, D]`.
fn spread(path: &str) -> Vec<Vec<&str>> {
    let (head, inner) = path.split_once('{').map_or((path, None), |(a, b)| (a, Some(b)));
    let names = |text| -> Vec<&str> {
        str::split(text, "::").map(str::trim).filter(|name| !name.is_empty()).collect()
    };
    let head = names(head);
    let Some(inner) = inner else { return vec![head] };
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let (mut parts, mut depth, mut from) = (Vec::new(), 0_usize, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&inner[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[from..]);
    parts
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .flat_map(spread)
        .map(|tail| head.iter().copied().chain(tail).collect())
        .collect()
}

/// Modules that reach each other: groups of more than one, sorted.
fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            for to in edges.get(&module).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> =
        edges.keys().map(|module| (module, reach(module))).collect();
    let mut found = BTreeSet::new();
    for (module, to) in &reached {
        let group: BTreeSet<String> =
            to.iter().filter(|other| reached[other].contains(*module)).cloned().collect();
        if group.len() > 1 {
            found.insert(group.into_iter().collect::<Vec<_>>());
        }
    }
    found.into_iter().collect()
}

/// A folder's own file names its children to declare them; that is no import.
fn is_parent(of: &str, module: &str) -> bool {
    module.is_empty() || of.strip_prefix(module).is_some_and(|rest| rest.starts_with('/'))
}

#[test]
fn files_import_downwards_only() {
    let sources = sources();
    let edges: BTreeMap<String, BTreeSet<String>> = sources
        .keys()
        .map(|module| {
            let mut to = imports(&sources, module);
            to.retain(|other| !is_parent(other, module) && !is_parent(module, other));
            (module.clone(), to)
        })
        .collect();
    let count: usize = edges.values().map(BTreeSet::len).sum();
    assert!(count > 400, "paths are not understood: {count} imports");
    let known =
        CIRCLES.map(|group| group.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(circles(&edges), known, "files that import each other");
}

#[test]
fn folders_import_downwards_only() {
    let sources = sources();
    let top = |module: &str| module.split('/').next().unwrap_or_default().to_owned();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for module in sources.keys().filter(|module| *module != "lib") {
        let to = imports(&sources, module).into_iter().map(|other| top(&other));
        let from = top(module);
        edges.entry(from.clone()).or_default().extend(to.filter(|other| *other != from));
    }
    assert_eq!(circles(&edges), Vec::<Vec<String>>::new(), "folders that import each other");
    for (below, above) in
        [("cpu", "region"), ("probe", "region"), ("region", "log"), ("log", "region")]
    {
        let imports_it = edges[below].contains(above);
        assert_eq!(imports_it, (below, above) == ("log", "region"), "{below} imports {above}");
    }
}

#[test]
fn no_file_is_too_long() {
    let sources = sources();
    let long = sources.iter().filter(|(_, source)| source.lines > FILE_MAX);
    let long: Vec<&str> = long.map(|(module, _)| module.as_str()).collect();
    let known: Vec<&str> =
        TOO_LONG.into_iter().filter(|name| sources[*name].lines > FILE_MAX).collect();
    assert_eq!(long, known, "files of more than {FILE_MAX} lines");
    let all: usize = sources.values().map(|source| source.lines).sum();
    println!("{all} lines in {} files", sources.len());
    assert!(all > 10_000 && all <= LINES_MAX, "{all} lines without tests, at most {LINES_MAX}");
}

#[test]
fn a_circle_would_be_found() {
    let source = |text: &str| Source { text: text.to_owned(), lines: 1 };
    let sources = Sources::from([
        ("a".to_owned(), source("use crate::b::{c::D, e};")),
        ("b/c".to_owned(), source("use super::e; fn f() { super::super::a::g() }")),
        ("b/e".to_owned(), source("use self::other; use crate::x::Y;")),
        ("b".to_owned(), source("mod c;")),
    ]);
    let edges: BTreeMap<_, _> =
        sources.keys().map(|module| (module.clone(), imports(&sources, module))).collect();
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(edges["a"], names(&["b/c", "b/e"]));
    assert_eq!(edges["b/c"], names(&["a", "b/e"]));
    assert_eq!(circles(&edges), [["a".to_owned(), "b/c".to_owned()]]);
}
