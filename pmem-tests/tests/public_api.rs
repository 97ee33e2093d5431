//! Every public item of the library, beside the list in docs/public_api.txt: a change of the interface is
//! a change of that file.
//!
//! `DAXMAP_ACCEPT=1 cargo test -p pmem-tests --test public_api` writes the list anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where rustdoc puts what the library's source does not say: impls that every type has.
const NOT_OURS: [&str; 2] = ["id=\"synthetic-implementations\"", "id=\"blanket-implementations\""];

#[test]
fn the_public_items_are_those_of_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace member");
    let list = root.join("docs/public_api.txt");
    let found: String = items(&document(root)).into_iter().map(|line| line + "\n").collect();
    if std::env::var_os("DAXMAP_ACCEPT").is_some() {
        fs::write(&list, &found).expect("the list can be written");
    }
    let listed = fs::read_to_string(&list).expect("docs/public_api.txt");
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (found, listed) = (lines(&found), lines(&listed));
    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
        one.difference(other).cloned().collect::<Vec<_>>().join("\n  ")
    };
    assert!(
        found == listed,
        "the public interface is another than docs/public_api.txt says.\nnew:\n  {}\ngone:\n  {}\n\
         If that is meant: DAXMAP_ACCEPT=1 cargo test -p pmem-tests --test public_api",
        only(&found, &listed),
        only(&listed, &found)
    );
    assert!(found.len() > 500, "rustdoc's pages are not understood: {} items", found.len());
}

/// The documentation as users without a feature have it.
fn document(root: &Path) -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("public_api");
    // What is left of items that are gone.
    let _ = fs::remove_dir_all(target.join("doc"));
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["doc", "--quiet", "--package", "daxmap", "--lib", "--no-deps", "--target-dir"])
        .arg(&target)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "cargo doc: {status}");
    target.join("doc/daxmap")
}

fn items(pages: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![pages.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("rustdoc's pages") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "html") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut found = BTreeSet::new();
    for file in files {
        let place = file.strip_prefix(pages).expect("below it").with_extension("");
        let place = place.display().to_string();
        if !place.contains('.') {
            continue; // a module's own page, which lists what has a page
        }
        let page = fs::read_to_string(&file).expect("a page");
        let end = NOT_OURS.iter().filter_map(|mark| page.find(mark)).min().unwrap_or(page.len());
        for text in declarations(&page[..end]) {
            found.insert(format!("{place}: {text}"));
        }
    }
    found.into_iter().collect()
}

/// The item itself, its methods, and which traits it has; not the methods of those.
fn declarations(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(text) = between(page, "<pre class=\"rust item-decl\">", "</pre>") {
        found.push(words(text));
    }
    for section in page.split("<section ").skip(1) {
        let (attributes, rest) = section.split_once('>').expect("a tag ends");
        if attributes.contains("trait-impl") || !rest.contains("class=\"code-header\"") {
            continue;
        }
        let heading = |tag: &str| {
            between(rest, &format!("<{tag} class=\"code-header\">"), &format!("</{tag}>"))
        };
        found.extend(heading("h3").or_else(|| heading("h4")).map(words));
    }
    found
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let rest = &text[text.find(from)? + from.len()..];
    rest.get(..rest.find(to)?)
}

/// Without tags, in one line.
fn words(html: &str) -> String {
    let mut text = String::new();
    for (number, part) in html.split('<').enumerate() {
        let shown =
            if number == 0 { part } else { part.split_once('>').map_or("", |(_, rest)| rest) };
        text.push_str(shown);
    }
    for (entity, character) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#39;", "'"),
        ("&quot;", "\""),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ] {
        text = text.replace(entity, character);
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
