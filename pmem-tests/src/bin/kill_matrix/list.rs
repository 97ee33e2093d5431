//! The library's durability primitives: what each protects, and which tests should notice.

#[allow(clippy::enum_glob_use)] // a table of them follows
use super::suite::Suite::{self, *};

/// A primitive that can be left out.
pub struct Primitive {
    /// Its name in the source.
    pub name: &'static str,
    /// What it keeps true.
    pub protects: &'static str,
    /// The suites to ask, the likeliest first.
    pub suites: &'static [Suite],
}

const fn primitive(
    name: &'static str,
    protects: &'static str,
    suites: &'static [Suite],
) -> Primitive {
    Primitive { name, protects, suites }
}

/// All of them: `every_primitive_is_listed` compares with the source.
pub const PRIMITIVES: &[Primitive] = &[
    primitive("bounds.range", "no access outside the region", &[Unit, BadInput]),
    primitive("bounds.word", "word accesses are aligned, so never torn", &[Unit, BadInput]),
    primitive("cpu.fence", "what was written back is waited for", &[Instructions]),
    primitive(
        "cpu.store_persist.fence",
        "write_persist is durable on return",
        &[Unit, Instructions],
    ),
    primitive("cpu.flush.write_back", "flushed lines are written back", &[Unit, Instructions]),
    primitive(
        "cpu.flush.last_line",
        "every line of an unaligned range is written back",
        &[Unit, Instructions],
    ),
    primitive(
        "cpu.store_cached_flush.write_back",
        "a small write_flush writes its lines back",
        &[Instructions, Unit],
    ),
    primitive(
        "cpu.store_flush.order",
        "other threads see a write_flush before what is stored after it",
        &[Unit, Instructions],
    ),
    primitive("cpu.store_flush_cached_domain.order", "the same on eADR", &[Unit, Instructions]),
    primitive("cpu.fill_flush.order", "the same of fill_flush", &[Unit, Instructions]),
    primitive(
        "mapping.write_flush.write_back",
        "write_flush without the fault guard writes its lines back",
        &[ConformanceUnguarded],
    ),
    primitive(
        "mapping.write_persist.fence",
        "write_persist without the fault guard waits",
        &[ConformanceUnguarded],
    ),
    primitive(
        "mapping.fill_flush.write_back",
        "fill_flush without the fault guard writes its lines back",
        &[ConformanceUnguarded],
    ),
    primitive(
        "mapped.flush.write_back",
        "flush of a mapped region writes lines back",
        &[Conformance, Instructions],
    ),
    primitive("mapped.drain.fence", "drain of a mapped region waits", &[Conformance, Instructions]),
    primitive("mapped.drain.latch", "drain of a poisoned or closed region fails", &[Conformance]),
    primitive("mapped.close.fence", "close drains", &[Conformance, Instructions]),
    primitive(
        "mapped.deep_flush.write_back",
        "deep_flush writes lines back before the kernel is asked",
        &[Conformance, Instructions],
    ),
    primitive("mapped.deep_flush.drain", "deep_flush waits", &[Conformance, Instructions]),
    primitive("mapped.deep_flush.msync", "deep_flush reaches the medium", &[Guest]),
    primitive("mapped.poison", "an error about durability is final", &[Conformance]),
    primitive(
        "mapped.poison_is_sticky",
        "a poisoned or closed region refuses stores and flushes",
        &[Conformance],
    ),
    primitive(
        "mapped.grow.populate",
        "the first store after a growth meets no fault",
        &[Conformance],
    ),
    primitive(
        "format.header_check",
        "no damaged or half-written header is believed",
        &[State, Unit],
    ),
    primitive(
        "format.header_in_order",
        "a creation that a crash cut short is blank, not damaged",
        &[State],
    ),
    primitive("format.header_drain", "a new structure has both copies of its header", &[State]),
    primitive("format.heal.keep", "a header is durable before it is relied on", &[State]),
    primitive("format.heal.keep_drain", "before the other copy is written", &[State]),
    primitive("format.heal.drain", "a healed header is durable", &[State]),
    primitive("format.erase_in_order", "a crash in a format leaves the old or blank", &[State]),
    primitive("format.erase_drain", "no old header describes a new structure", &[State]),
    primitive("cell.drain", "a stored value is durable", &[State]),
    primitive("cell.slots_in_turn", "a torn store does not touch the value before", &[State]),
    primitive("cell.length_bound", "a damaged length is not believed", &[Unit, State]),
    primitive("cell.check", "no torn or damaged value is believed", &[State, Unit]),
    primitive("cell.settle.keep", "a value is durable before it is relied on", &[State]),
    primitive("cell.settle.keep_drain", "before the value before it is overwritten", &[State]),
    primitive("cell.settle.drain", "a closed or opened value is there twice", &[State]),
    primitive("state.value_before_header", "a state with a header has a value", &[State]),
    primitive("state.read_only", "reading changes nothing", &[Unit]),
    primitive("state.heal", "an opened value is there twice", &[State, Unit]),
    primitive("fsdax.map_sync", "metadata is durable before a page can be stored into", &[Guest]),
    primitive("fsdax.populate", "the first store meets no fault", &[Conformance, Guest]),
    primitive(
        "page_cache.sync.fdatasync",
        "drained writes are on the device",
        &[SystemCalls, PublishCut],
    ),
    primitive("page_cache.sync.send", "what is gathered is sent before the sync", &[Conformance]),
    primitive(
        "page_cache.sync.covers_before",
        "a sync vouches for no write that came after it began",
        &[GroupCommit],
    ),
    primitive("page_cache.sync.length", "a drain notices that the file was cut", &[Conformance]),
    primitive(
        "page_cache.send.length",
        "a gathered write does not fill the hole of a cut",
        &[Conformance],
    ),
    primitive(
        "page_cache.write.length",
        "a long write does not fill the hole of a cut",
        &[BadEnvironment],
    ),
    primitive(
        "page_cache.send.fork",
        "a forked child does not write what its parent gathered",
        &[BadEnvironment],
    ),
    primitive(
        "page_cache.drain.fork",
        "a forked child takes no error in its parent's place",
        &[BadEnvironment],
    ),
    primitive(
        "page_cache.write.at_once",
        "no write is sent after a later store through a pointer",
        &[WritableMapping],
    ),
    primitive(
        "page_cache.drain.latch",
        "drain of a poisoned or closed region fails",
        &[Conformance],
    ),
    primitive("page_cache.poison", "a failed sync is final", &[Conformance, SyncErrors]),
    primitive(
        "page_cache.poison.forget_gathered",
        "what was never drained does not turn up after a failure",
        &[BadEnvironment],
    ),
    primitive(
        "page_cache.poison_is_sticky",
        "a poisoned or closed region refuses writes",
        &[Conformance],
    ),
    primitive(
        "page_cache.flush.stores",
        "stores through a mapping are synced by the next drain",
        &[WritableMapping],
    ),
    primitive("page_cache.view.send", "a view shows what is gathered", &[Conformance]),
    primitive(
        "page_cache.grow.send",
        "a growth takes what is gathered along",
        &[Conformance, ModelledFilesystem],
    ),
    primitive(
        "page_cache.grow.storable",
        "space after growth is allocated for stores",
        &[WritableMapping],
    ),
    primitive(
        "page_cache.grow.single_pages",
        "after growth a store dirties one page",
        &[WritableMapping],
    ),
    primitive(
        "page_cache.open.storable",
        "space is allocated before stores through a mapping",
        &[WritableMapping],
    ),
    primitive(
        "open.in_place",
        "no writable mapping where a store takes new space",
        &[WritableMapping],
    ),
    primitive(
        "page_cache.open.single_pages",
        "a store through a mapping dirties one page",
        &[WritableMapping],
    ),
    primitive(
        "page_cache.write.single_pages",
        "a long write keeps pages single",
        &[WritableMapping],
    ),
    primitive("page_cache.close.drain", "close drains", &[Conformance]),
    primitive("page_cache.drop.drain", "drop does its best", &[Conformance, SyncErrors]),
    primitive("group.own_sync", "nobody returns before a sync that began after its write", &[Loom]),
    primitive("group.alone", "no sync runs beside a growth's", &[Loom]),
    primitive("group.one_leader", "one sync at a time", &[Loom]),
    primitive("group.leader_looks_again", "no sync after a failed one is believed", &[Loom]),
    primitive("group.refused_watch", "who waits for others hears of a failure elsewhere", &[Loom]),
    primitive("latch.poison", "an error about durability is final", &[Unit]),
    primitive(
        "siblings.poison_all",
        "an error is final for every region of the file",
        &[BadEnvironment],
    ),
    primitive(
        "siblings.failed_growth_is_final",
        "a failed sync of a growth is final",
        &[Conformance, SyncErrors],
    ),
    primitive(
        "storage.extend.allocate",
        "a full disk is an error of create or grow",
        &[SystemCalls, BadEnvironment],
    ),
    primitive(
        "storage.extend.zeros",
        "new bytes are written, not unwritten extents",
        &[SystemCalls, ModelledFilesystem],
    ),
    primitive(
        "storage.extend.fsync",
        "a new length is durable",
        &[SystemCalls, ModelledFilesystem],
    ),
    primitive(
        "storage.extend.shrink_back",
        "a failed growth leaves the file as it was",
        &[Conformance, BadEnvironment, ModelledFilesystem],
    ),
    primitive("storage.extend.cut", "a growth does not fill the hole of a cut", &[BadEnvironment]),
    primitive(
        "storage.storable.cut",
        "a cut file is noticed, not made longer again",
        &[WritableMapping],
    ),
    primitive("storage.storable.space", "a failed open does not fill the disk", &[WritableMapping]),
    primitive(
        "storage.storable.allocate",
        "no store through a mapping finds the disk full",
        &[WritableMapping],
    ),
    primitive(
        "storage.storable.unshare",
        "shared extents are made the file's own",
        &[WritableMapping],
    ),
    primitive("storage.storable.forget_cached", "large folios leave the cache", &[WritableMapping]),
    primitive(
        "open.fsync",
        "size and data of an opened file are durable",
        &[ModelledFilesystem, SystemCalls],
    ),
    primitive(
        "open.forget_cached",
        "an opened region shows the medium, not the cache",
        &[SyncErrors, ModelledFilesystem],
    ),
    primitive(
        "open.fsync_directory",
        "the name of an opened file is durable",
        &[ModelledFilesystem, SystemCalls],
    ),
    primitive(
        "open.still_named",
        "the locked file is the one that the path names",
        &[BadEnvironment],
    ),
    primitive("create.extend", "a created file is complete", &[Conformance, ModelledFilesystem]),
    primitive(
        "create.named_when_synced",
        "a file is not synced without a name where that loses it",
        &[ModelledFilesystem, PublishCut],
    ),
    primitive(
        "create.sync",
        "the name of a created file is durable",
        &[ModelledFilesystem, PublishCut],
    ),
    primitive(
        "create.take_back",
        "a creation that failed leaves no name",
        &[ModelledFilesystem, BadEnvironment],
    ),
    primitive(
        "name.fsync",
        "a name is durable where the filesystem logs files",
        &[ModelledFilesystem, PublishCut],
    ),
    primitive("name.fsync_directory", "a name is durable", &[ModelledFilesystem, PublishCut]),
    primitive("name.no_replace", "create-only replaces nothing", &[Publish, ModelledFilesystem]),
    primitive("name.no_leftovers", "no temporary name stays", &[Publish, ModelledFilesystem]),
    primitive(
        "name.replaced_keeps_a_name",
        "without a journal, no name leads to a deleted file",
        &[ModelledFilesystem, PublishCut],
    ),
    primitive(
        "name.replaced_until_synced",
        "nor while the directory is not synced",
        &[ModelledFilesystem],
    ),
    primitive("name.settle", "nor after a failed exchange", &[ModelledFilesystem]),
    primitive(
        "publish.older_until_synced",
        "nor the name that the version in place is kept under",
        &[ModelledFilesystem],
    ),
    primitive(
        "publish.exchange_alone",
        "exchanges under one kept name bring no old version back",
        &[Publish],
    ),
    primitive(
        "leftovers.sync_first",
        "cleaning up takes no last name before the new one is durable",
        &[ModelledFilesystem],
    ),
    primitive(
        "publish.complete_before_name",
        "a name never shows half a file",
        &[PublishCut, ModelledFilesystem],
    ),
    primitive("publish.persist", "published data is durable", &[PublishCut, ModelledFilesystem]),
    primitive(
        "publish.write_unwritten",
        "every block of a published file is written",
        &[Publish, ModelledFilesystem],
    ),
    primitive(
        "publish.drain_rewritten",
        "blocks written at commit are durable",
        &[ModelledFilesystem, PublishCut],
    ),
    primitive("publish.attributes", "owner, mode and attributes are handed on", &[Publish]),
    primitive(
        "publish.attributes.fsync",
        "attributes handed on are durable",
        &[PublishCut, ModelledFilesystem],
    ),
    primitive(
        "publish.named_when_synced",
        "a draft is not synced without a name where that loses it",
        &[PublishCut, ModelledFilesystem],
    ),
    primitive(
        "publish.sync",
        "the name of a published file is durable",
        &[PublishCut, ModelledFilesystem],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// The names in the source of the library.
    fn marked(directory: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(directory).expect("the source can be read") {
            let path = entry.expect("the source can be read").path();
            if path.is_dir() {
                marked(&path, into);
            } else if path.file_name().is_some_and(|name| name != "primitives.rs") {
                let text = fs::read_to_string(&path).expect("the source can be read");
                let calls = text.split("primitive!(").skip(1);
                into.extend(calls.map(|call| {
                    let name = call.trim_start().trim_start_matches('"');
                    name.split('"').next().unwrap_or_default().to_owned()
                }));
            }
        }
    }

    #[test]
    fn every_primitive_is_listed() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
        let mut found = Vec::new();
        marked(&source, &mut found);
        let unique: BTreeSet<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(unique.len(), found.len(), "a name is used twice");
        let listed: BTreeSet<&str> = PRIMITIVES.iter().map(|primitive| primitive.name).collect();
        assert_eq!(listed.len(), PRIMITIVES.len(), "a name is listed twice");
        assert_eq!(unique, listed);
    }
}
