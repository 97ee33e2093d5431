//! Gathering: from an open file to everything the verdict is judged by.

use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::block::{self, Context};
use super::devdax::{self, DaxDevice};
use super::extents::{self, HUGE_BYTES};
use super::facts::{Facts, Mounted, bad_blocks_are_its_own, offers_dax};
use super::filesystem::{self, Class};
use super::mountinfo::Mounts;
use super::nvdimm;
use super::report::{HugePages, MapSync, Mount, Target};
use super::subject::Subject;
use super::{badblocks, mounted, overlay, prediction};
use crate::cpu::WriteBack;

/// What decides how `gather` looks at its subject.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) path: &'a Path,
    /// The path does not exist, and the subject is the directory it would be created in.
    pub(super) missing: bool,
    pub(super) page_size: u64,
    pub(super) write_back: WriteBack,
}

/// Looks at the subject and follows it down.
pub(super) fn gather(
    context: &Context<'_>,
    subject: &dyn Subject,
    question: Question<'_>,
) -> Facts {
    let stat = subject.stat();
    let mut facts = Facts {
        path: question.path.to_owned(),
        target: target(stat.file_type, question.missing),
        mount: None,
        mounted: Mounted::default(),
        hidden_node: false,
        masked: None,
        mounts_shown: true,
        filesystem: None,
        class: None,
        upper: None,
        in_upper: false,
        device: None,
        has_more_devices: false,
        dax_device: None,
        statx_dax: stat.dax,
        dax_flag: None,
        map_sync: MapSync::NotTried(Errno::NOTSUP.raw_os_error()),
        bar: None,
        inline_data: false,
        block_size: None,
        page_size: question.page_size,
        kernel: prediction::kernel(context),
        write_back: question.write_back,
        huge_pages: HugePages::NotApplicable,
        shift: None,
        bad_ranges: Vec::new(),
        bad_ranges_known: true,
        free_regions: Vec::new(),
    };
    match stat.file_type {
        FileType::BlockDevice => {
            facts.device = block::device(context, stat.node);
            facts.mount = context.mounts().by_device(stat.node).cloned();
            facts.statx_dax = None;
        }
        FileType::CharacterDevice => {
            if let Some(found) = devdax::find(context.sources, stat.node) {
                facts.target = Target::DaxDevice;
                device_dax(&mut facts, subject, found);
                return facts;
            }
            facts.hidden_node = context.sources.hides_nodes();
            facts.mount = mount_of(context.mounts(), subject);
        }
        _ => {
            let mounts = context.mounts();
            facts.mount =
                mount_of(mounts, subject).or_else(|| mounts.by_device(stat.device).cloned());
        }
    }
    facts.mounts_shown = facts.mount.is_some() || !context.mounts().is_empty();
    name_filesystem(&mut facts, subject);
    if facts.target != Target::BlockDevice && facts.target != Target::Other {
        devices(&mut facts, context, subject);
        facts.has_more_devices = has_more_devices(&facts, context, subject);
    }
    if let Some(mount) = &facts.mount {
        if matches!(facts.class, Some(Class::Dax | Class::Local)) {
            facts.mounted = mounted::look(context, mount, facts.device.as_ref());
        }
    }
    if facts.device.is_none() {
        facts.masked = context.sources.masked();
    }
    if facts.target == Target::Missing && is_node_of_memory(&facts) {
        facts.free_regions = nvdimm::free_regions(context.sources);
    }
    if facts.class == Some(Class::Pseudo) {
        facts.target = Target::Other;
    }
    if facts.target == Target::File {
        let page = usize::try_from(question.page_size).unwrap_or(4096);
        let tried = subject.map_sync(page);
        facts.map_sync = tried.unwrap_or_else(|| MapSync::Predicted(prediction::old_file(&facts)));
        facts.inline_data = facts.class == Some(Class::Dax) && subject.is_inline();
    }
    if facts.class == Some(Class::Dax) {
        conditions(&mut facts, context, subject);
    }
    if matches!(facts.target, Target::Directory | Target::Missing | Target::BlockDevice) {
        facts.map_sync = MapSync::Predicted(prediction::new_file(&facts));
    }
    facts.shift = facts.device.as_ref().and_then(extents::shift);
    blocks(&mut facts, subject, stat.size);
    facts
}

/// The mount of the subject. A table that was read already says what was mounted then.
fn mount_of(mounts: &Mounts, subject: &dyn Subject) -> Option<Mount> {
    let told = if mounts.is_read() { None } else { subject.mount() };
    told.or_else(|| mounts.by_id(subject.stat().mount_id?))
}

/// What ext4 and xfs ask of a file besides its device: block size, and the flag of the inode.
fn conditions(facts: &mut Facts, context: &Context<'_>, subject: &dyn Subject) {
    if facts.target == Target::BlockDevice {
        let point = facts.mount.as_ref().map(|mount| mount.point.as_path());
        facts.block_size = point.and_then(|point| context.sources.block_size(point));
        return;
    }
    facts.block_size = facts.block_size.or_else(|| Some(subject.filesystem()?.1));
    if facts.map_sync != MapSync::Accepted && facts.device.as_ref().is_some_and(offers_dax) {
        facts.dax_flag = subject.dax_flag();
        facts.bar = prediction::bar(facts, subject);
    }
}

/// A name that the kernel gives to a namespace's device, in a directory of device nodes.
fn is_node_of_memory(facts: &Facts) -> bool {
    let name = facts.path.file_name().unwrap_or_default().to_string_lossy();
    facts.filesystem.as_deref() == Some("devtmpfs")
        && ["pmem", "dax"].iter().any(|kind| name.starts_with(kind))
}

fn target(file_type: FileType, missing: bool) -> Target {
    match file_type {
        FileType::Directory if missing => Target::Missing,
        FileType::Directory => Target::Directory,
        FileType::RegularFile => Target::File,
        FileType::BlockDevice => Target::BlockDevice,
        _ => Target::Other,
    }
}

fn device_dax(facts: &mut Facts, subject: &dyn Subject, found: DaxDevice) {
    let DaxDevice { namespace, region, bad_ranges } = found;
    facts.bad_ranges_known = bad_ranges.is_some();
    facts.bad_ranges = bad_ranges.unwrap_or_default();
    // The mapping must be a whole number of the device's own pages (drivers/dax/device.c
    // check_vma).
    let len = namespace.align.unwrap_or(facts.page_size).max(facts.page_size);
    facts.map_sync = subject
        .map_sync(usize::try_from(len).unwrap_or(4096))
        .unwrap_or(MapSync::NotTried(Errno::NOTSUP.raw_os_error()));
    facts.statx_dax = subject.dax_now();
    let total = namespace.size.unwrap_or(0) / HUGE_BYTES;
    facts.huge_pages = match namespace.align {
        Some(align) if align >= HUGE_BYTES => HugePages::Possible { aligned: total, total },
        Some(_) => HugePages::Misaligned { aligned: 0, total },
        None => HugePages::Unknown,
    };
    facts.dax_device = Some((namespace, region));
}

fn name_filesystem(facts: &mut Facts, subject: &dyn Subject) {
    match &facts.mount {
        Some(mount) => facts.filesystem = Some(mount.filesystem.clone()),
        // A memfd, or a mount this process does not see.
        None if facts.target != Target::BlockDevice => {
            if let Some((magic, block_size)) = subject.filesystem() {
                facts.block_size = Some(block_size);
                facts.filesystem = filesystem::name_of_magic(magic).map(str::to_owned);
            }
        }
        None => {}
    }
    facts.class = match &facts.filesystem {
        Some(name) => Some(filesystem::class(name)),
        None if facts.target == Target::BlockDevice => None,
        None => Some(Class::Unknown),
    };
}

/// The devices under the filesystem; those of an overlay are under its upper directory.
fn devices(facts: &mut Facts, context: &Context<'_>, subject: &dyn Subject) {
    let st_dev = subject.stat().device;
    match (facts.class, &facts.mount) {
        (Some(Class::Dax | Class::Local), Some(mount)) => {
            let is_btrfs = mount.filesystem == "btrfs";
            let uuid = if is_btrfs { subject.btrfs_uuid() } else { None };
            facts.device = block::of_mount(context, mount, st_dev, uuid.as_deref());
        }
        (Some(Class::Dax | Class::Local), None) => {
            facts.device = block::device(context, st_dev);
        }
        (Some(Class::Overlay), Some(mount)) => {
            if let Some((directory, upper)) = overlay::upper(context, subject, mount) {
                if filesystem::class(&upper.filesystem) != Class::Memory {
                    facts.device = block::of_mount(context, upper, upper.device, None);
                }
                facts.in_upper = facts.target != Target::File
                    || overlay::holds_file(context.sources, subject, mount, directory);
                facts.upper = Some(upper.clone());
            }
        }
        _ => {}
    }
}

/// f2fs may lie on several devices (mkfs.f2fs(8) `-c`) and shows the first of them. Its size is that of
/// all.
fn has_more_devices(facts: &Facts, context: &Context<'_>, subject: &dyn Subject) -> bool {
    let Some(device) = &facts.device else { return false };
    let filesystem =
        facts.upper.as_ref().map(|upper| &upper.filesystem).or(facts.filesystem.as_ref());
    let total = subject.filesystem_size().map(|size| size.blocks.saturating_mul(size.block_bytes));
    filesystem.is_some_and(|name| name == "f2fs")
        && total.is_none_or(|total| Some(total) > block::size(context.sources, device.number))
}

/// Extents are worth asking for only where huge pages or bad blocks are in question.
fn blocks(facts: &mut Facts, subject: &dyn Subject, size: u64) {
    let mappable = matches!(facts.map_sync, MapSync::Accepted | MapSync::Predicted(true));
    let bad = facts.device.as_ref().map_or(&[][..], |device| device.bad_blocks.as_slice());
    facts.bad_ranges_known = facts.device.as_ref().is_none_or(bad_blocks_are_its_own);
    if facts.target == Target::BlockDevice {
        facts.bad_ranges = bad.to_vec();
    }
    if facts.target != Target::File {
        if mappable {
            facts.huge_pages = HugePages::Unknown;
        }
        return;
    }
    let wants_huge = mappable && size >= HUGE_BYTES;
    if !wants_huge && bad.is_empty() {
        return;
    }
    let extents = subject.extents();
    facts.bad_ranges_known &= bad.is_empty() || extents.is_some();
    if let Some(extents) = &extents {
        facts.bad_ranges = badblocks::of_file(bad, extents);
    }
    if wants_huge {
        facts.huge_pages = match extents {
            Some(extents) => extents::huge_pages(&extents, size, facts.shift),
            None => HugePages::Unknown,
        };
    }
}
