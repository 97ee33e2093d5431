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
    primitive("format.erase_in_order", "a crash in a format leaves the old or blank", &[State]),
    primitive("format.erase_drain", "no old header describes a new structure", &[State]),
    primitive("cell.persist", "a short stored value is durable", &[State]),
    primitive("cell.drain", "a long stored value is durable", &[State]),
    primitive("cell.slots_in_turn", "a torn store does not touch the value before", &[State]),
    primitive("cell.length_bound", "a damaged length is not believed", &[Unit, State]),
    primitive("cell.check", "no torn or damaged value is believed", &[State, Unit]),
    primitive("cell.settle.keep", "a value is durable before it is relied on", &[State]),
    primitive("cell.settle.keep_drain", "before the value before it is overwritten", &[State]),
    primitive("cell.settle.drain", "a closed or opened value is there twice", &[State]),
    primitive("state.value_before_header", "a state with a header has a value", &[State]),
    primitive("state.lost", "a half-changed value is not stored", &[State]),
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
    primitive("storage.allocate.room", "what cannot fit fills no disk", &[Publish]),
    primitive(
        "storage.allocate.once_more",
        "space that a sync frees is found",
        &[ModelledFilesystem],
    ),
    primitive(
        "storage.allocate.give_back",
        "what a failed allocation took is free at once",
        &[Publish, ModelledFilesystem],
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
    primitive("storage.storable.room", "a failed open does not fill the disk", &[WritableMapping]),
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
    primitive("log.layout", "a header that names no possible segment size is damage", &[Unit]),
    primitive("log.root.settled", "one damaged slot of the root costs nothing", &[LogDamage]),
    primitive(
        "log.segment.salt",
        "no payload of an earlier life looks like a block of this one",
        &[LogDamage],
    ),
    primitive("log.segment.check", "a torn header of a segment is none", &[Unit, LogExplorer]),
    primitive(
        "log.segment.copies_in_order",
        "one copy of a segment's header is valid at every moment",
        &[LogExplorer],
    ),
    primitive("log.begin.drain", "the old copy stays until the new one is durable", &[LogExplorer]),
    primitive("log.begin.second_copy", "one damaged header copy costs nothing", &[LogDamage]),
    primitive(
        "log.retire.drain",
        "what a segment's header says is there is durable",
        &[LogExplorer],
    ),
    primitive("log.retire.end", "damage at the end of a full segment is no torn end", &[LogDamage]),
    primitive("log.block.header_check", "a torn header of a block is none", &[Unit, LogExplorer]),
    primitive("log.block.body_check", "a torn commit is none", &[LogExplorer]),
    primitive("log.commit.persist", "a short commit is durable when it returns", &[LogExplorer]),
    primitive(
        "log.commit.drain_streamed",
        "a long commit is durable when it returns",
        &[LogExplorer],
    ),
    primitive(
        "log.commit.drain_shared",
        "a commit is durable when it returns, on the page cache",
        &[LogExplorer],
    ),
    primitive(
        "log.commit.flush_others",
        "no hole before an acknowledged commit of another thread",
        &[LogExplorer],
    ),
    primitive(
        "log.leave.drain",
        "what is in a full segment must be there from the leaving of its writer on",
        &[LogDamage],
    ),
    primitive("log.length", "a log that was cut is not taken for a whole one", &[LogDamage]),
    primitive(
        "log.writer.latch",
        "a writer that failed halfway leaves no gap of Lsns behind it",
        &[LogDamage],
    ),
    primitive("log.shared.latch", "nor do the others that share its segment", &[LogDamage]),
    primitive("log.watermark.bound", "a reader sees no Lsn before those below it", &[Loom]),
    primitive("log.scan.damage", "damage in the middle is no torn end", &[LogDamage]),
    primitive("log.scan.limit", "truncated records do not come back", &[LogExplorer]),
    primitive(
        "log.recover.cut",
        "a truncation that has begun is finished by recovery",
        &[LogExplorer],
    ),
    primitive(
        "log.recover.root",
        "a root that was found is durable before the other slot is written",
        &[LogExplorer],
    ),
    primitive(
        "log.recover.seen_headers",
        "a header that was found is durable before its other copy is written",
        &[LogExplorer],
    ),
    primitive(
        "log.recover.other_headers",
        "both copies of a header are durable before one of them is written",
        &[LogProperty],
    ),
    primitive("log.recover.tail", "what recovery accepts becomes durable", &[LogExplorer, Unit]),
    primitive(
        "log.recover.stale",
        "a commit that a crash has cut does not follow the next one",
        &[LogExplorer],
    ),
    primitive(
        "log.recover.drain",
        "what a header says is there was durable before",
        &[LogExplorer],
    ),
    primitive(
        "log.recover.last",
        "what was truncated by recovery stays so when something else is truncated",
        &[LogProperty],
    ),
    primitive(
        "log.follow.whole",
        "a follower takes no commit for one that is not all there",
        &[LogProperty],
    ),
    primitive("log.recover.headers", "a damaged header copy is made whole", &[LogDamage]),
    primitive(
        "log.release.root",
        "no segment is used again before that is durable",
        &[LogExplorer],
    ),
    primitive("log.cut.begin", "a truncation is whole or did not happen", &[LogExplorer]),
    primitive("log.cut.limits", "truncated records do not come back", &[LogExplorer]),
    primitive("log.close.ends", "the end of a closed log is known", &[LogDamage]),
    primitive(
        "checkpoint.pages_before_root",
        "a root never names pages that are not durable",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.copy_on_write",
        "a checkpoint overwrites nothing that the one before needs",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.kept_pages",
        "the pages of kept checkpoints are not used again",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.page_check",
        "a damaged page is not taken for data or for a table",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.full_before_write",
        "a checkpoint that does not fit changes nothing",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.latch",
        "nothing is written after an error that left the file unknown",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.fork",
        "a forked child does not write to its parent's file",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive("checkpoint.mark_write", "what is written is saved", &[CheckpointFiles, Checkpoint]),
    primitive(
        "checkpoint.mark_slice",
        "what is changed in place is saved",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.kernel_marks",
        "what is stored through a pointer is saved",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.comparison",
        "the same where the kernel cannot tell",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.table.file_bound",
        "an entry that names no page of tables or data is damage",
        &[Unit],
    ),
    primitive("checkpoint.table.set_bound", "nor is one past the set an entry", &[Unit]),
    primitive("checkpoint.settings", "a header whose numbers make no sense is damage", &[Unit]),
    primitive(
        "checkpoint.length",
        "a file that was cut is told so",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.reader_looks_again",
        "a reader beside a writer finds a whole checkpoint",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.heal_header",
        "a damaged copy of the header is made whole",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.settle_at_open",
        "a damaged copy of the root is made whole",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.settle_at_close",
        "a closed file has two copies of its root",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.from.keep_later",
        "the checkpoints after the one that was opened are there until another is durable",
        &[CheckpointFiles],
    ),
    primitive(
        "checkpoint.redo.format_drain",
        "a file is not complete before its places and its record are durable",
        &[Checkpoint],
    ),
    primitive("checkpoint.redo.list_bound", "a list longer than the file is no record", &[Unit]),
    primitive("checkpoint.redo.part_bound", "nor is a part longer than the file", &[Unit]),
    primitive(
        "checkpoint.redo.place_bound",
        "nor one that goes over the header or the record",
        &[Unit],
    ),
    primitive(
        "checkpoint.redo.list_check",
        "a record that was not written to its end is not laid over the set",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.part_check",
        "nor one whose parts were not",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.replay",
        "a checkpoint that has happened is completed",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.keep_record",
        "a record that was found is durable before it is relied on",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.keep_record_drain",
        "and before a place is written by it",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.replay_places",
        "places that look as the record says are durable before the record goes",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.keep_places",
        "places without a record are durable before another is begun",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.second_note",
        "an opened file has two copies of its note",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.second_note_drain",
        "and keeps them",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.note_check",
        "a note that a crash has torn names no checkpoint",
        &[CheckpointFiles],
    ),
    primitive(
        "checkpoint.redo.mixed",
        "places that are not of one checkpoint are known to be so",
        &[CheckpointFiles],
    ),
    primitive(
        "checkpoint.redo.mixture",
        "and are not opened without their record",
        &[CheckpointFiles],
    ),
    primitive(
        "checkpoint.redo.whole_drain",
        "a record is not overwritten before the places are known to be whole",
        &[CheckpointFiles],
    ),
    primitive(
        "checkpoint.redo.page_check",
        "a damaged page of the set is not taken for data",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.record_first",
        "the set is not changed in place without a record",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.record_drain",
        "nor before the record is durable",
        &[CheckpointFiles, Checkpoint],
    ),
    primitive(
        "checkpoint.redo.places_drain",
        "places are not said to be whole before they are durable",
        &[CheckpointFiles],
    ),
    primitive(
        "checkpoint.redo.reader_is_alone",
        "a reader beside a writer mixes no two checkpoints",
        &[CheckpointFiles],
    ),
    primitive(
        "checkpoint.contents.looks_again",
        "a list that is read beside a writer is no damage",
        &[CheckpointFiles],
    ),
    primitive(
        "checkpoint.contents.replaced",
        "a checkpoint that a writer replaced while it was read is no damage",
        &[CheckpointFiles],
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
