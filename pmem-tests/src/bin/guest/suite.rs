//! The conformance suite, run where the library does its real work.

use std::path::Path;

use daxmap::{Backend, Durability, Granularity, Options};
use pmem_tests::conformance::{self, DeviceSubject, Facts, FileSubject, Subject, Verdict};

/// Runs every check in a directory, or on a device-DAX node, which must give what the words say:
/// backend, durability and granularity as the library spells them.
pub(crate) fn run(place: &Path, words: &[String]) -> Result<(), String> {
    let [backend, durability, granularity] = words else {
        return Err("needs BACKEND DURABILITY GRANULARITY".to_owned());
    };
    let find = |what: &str, word: &str| format!("{word:?} is no {what}");
    let backend = [Backend::FsDax, Backend::DevDax, Backend::PageCache, Backend::Volatile]
        .into_iter()
        .find(|b| b.as_str() == backend)
        .ok_or_else(|| find("backend", backend))?;
    let durability: Durability = durability.parse()?;
    let granularity = [Granularity::Byte, Granularity::CacheLine, Granularity::Page]
        .into_iter()
        .find(|g| g.as_str() == granularity)
        .ok_or_else(|| find("granularity", granularity))?;
    let device = backend == Backend::DevDax;
    let len_unit = if device { 2 << 20 } else { 1 };
    let facts = Facts {
        backend,
        durability,
        granularity,
        emulated: false,
        len_unit,
        guarded: true,
        writable_views: backend != Backend::PageCache,
    };
    let name = place.display().to_string();
    let subject: Box<dyn Subject> = if device {
        Box::new(DeviceSubject::new(&name, place, Options::new(), facts))
    } else {
        Box::new(FileSubject::new(&name, place, Options::new(), facts))
    };
    let outcomes = conformance::run(subject.as_ref());
    let mut failed = 0;
    let mut passed = 0;
    for outcome in &outcomes {
        match outcome.verdict {
            Verdict::Passed => passed += 1,
            Verdict::Failed(_) => failed += 1,
            Verdict::NotApplicable(_) => {}
        }
        println!("{outcome}");
    }
    println!("conformance of {name}: {passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { Ok(()) } else { Err(format!("{failed} checks failed")) }
}
