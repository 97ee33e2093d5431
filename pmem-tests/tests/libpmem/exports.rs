//! What the library shows to the loader, and what it asks of it.

use std::process::Command;

use crate::library::{DEBIAN, ours};

fn objdump(option: &str, library: &str) -> String {
    let output = Command::new("objdump").args([option, library]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Functions with their versions. The node itself is listed too, as an absolute symbol.
fn functions(library: &str) -> Vec<String> {
    let table = objdump("-T", library);
    let mut found: Vec<String> = table
        .lines()
        .filter(|line| line.contains(" DF ") && !line.contains("*UND*"))
        .map(|line| {
            let mut words = line.split_whitespace().rev();
            let name = words.next().unwrap();
            format!("{name} {}", words.next().unwrap())
        })
        .collect();
    found.sort();
    let other = table.lines().filter(|line| {
        line.contains(" g ") && !line.contains(" DF ") && !line.contains("LIBPMEM_1.0 LIBPMEM_1.0")
    });
    assert_eq!(other.count(), 0, "{table}");
    found
}

#[test]
fn exactly_the_functions_of_debians_library_are_exported() {
    let library = ours().join("libpmem.so.1");
    let found = functions(library.to_str().unwrap());
    assert_eq!(found.len(), 23);
    assert!(found.iter().all(|name| name.starts_with("pmem_") && name.ends_with(" LIBPMEM_1.0")));
    assert_eq!(found, functions(DEBIAN));
}

#[test]
fn only_libc_libgcc_and_the_loader_are_needed() {
    let library = ours().join("libpmem.so.1");
    let headers = objdump("-p", library.to_str().unwrap());
    let values = |name: &str| -> Vec<&str> {
        headers
            .lines()
            .filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix(' '))
            .map(str::trim)
            .collect()
    };
    assert_eq!(values("SONAME"), ["libpmem.so.1"]);
    for needed in values("NEEDED") {
        let known = ["libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"].contains(&needed);
        assert!(known, "{needed} is needed");
    }
    assert!(!values("NEEDED").is_empty());
}

/// No handler of a signal and no thread can come from what does not ask for them.
#[test]
fn nothing_that_starts_threads_or_stays_in_the_way_is_called() {
    let library = ours().join("libpmem.so.1");
    let table = objdump("-T", library.to_str().unwrap());
    assert!(table.contains("mmap"), "{table}");
    for wanted in ["sigaction", "signal", "pthread_create", "clone", "exit", "fork"] {
        let used = table
            .lines()
            .any(|line| line.contains("*UND*") && line.split_whitespace().last() == Some(wanted));
        assert!(!used, "{wanted} is imported");
    }
}
