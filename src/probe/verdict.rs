//! From facts to the verdict, without asking the system anything. What a region here survives is
//! judged in `layers`, what keeps it from being DAX in `obstacles`.

use super::facts::{self, Facts, walk};
use super::filesystem::Class;
use super::read_only::read_only;
use super::report::{BlockDevice, Cap, MapSync, MemoryRegion, Reason, ReasonCode, Report, Target};
use super::{prediction, reasons};
use crate::cpu::WriteBack;
use crate::durability::{Backend, Granularity, PersistenceDomain};

/// Judges the facts and makes the report.
pub(super) fn judge(facts: Facts) -> Report {
    let regions: Vec<MemoryRegion> = facts::all_regions(&facts).into_iter().cloned().collect();
    let persistence_domain = facts::weakest(&regions.iter().collect::<Vec<_>>());
    let mut judge = Judge { facts: &facts, reasons: Vec::new(), caps: Vec::new() };
    let backend = judge.backend();
    let durability = judge.durability(backend);
    let granularity = granularity(backend, persistence_domain);
    judge.obstacles(backend);
    judge.state();
    let read_only = read_only(&facts);
    let is_read_only = !read_only.is_empty();
    for (text, remedy) in read_only {
        judge.push(reasons::read_only(text, remedy));
    }
    let Judge { mut reasons, caps, .. } = judge;
    if !prediction::by_inode(&facts) {
        reasons::name_the_old_option(&mut reasons);
    }
    reasons.sort_by_key(|reason| weight(reason.code));

    let namespace = match &facts.dax_device {
        Some((namespace, _)) => Some(namespace.clone()),
        None => facts.device.as_ref().and_then(first_namespace),
    };
    Report {
        numa_node: regions.iter().find_map(|region| region.numa_node),
        path: facts.path,
        target: facts.target,
        mount: facts.mount,
        filesystem: facts.filesystem,
        upper: facts.upper,
        device: facts.device,
        namespace,
        regions,
        statx_dax: facts.statx_dax,
        dax_flag: facts.dax_flag,
        map_sync: facts.map_sync,
        persistence_domain,
        backend,
        durability,
        granularity,
        huge_pages: facts.huge_pages,
        write_back: facts.write_back,
        block_size: facts.block_size,
        read_only: is_read_only,
        bad_ranges: facts.bad_ranges,
        bad_ranges_known: facts.bad_ranges_known,
        reasons,
        caps,
    }
}

fn first_namespace(device: &BlockDevice) -> Option<super::report::Namespace> {
    let mut found = None;
    walk(device, &mut |device| {
        if found.is_none() {
            found.clone_from(&device.namespace);
        }
    });
    found
}

/// Byte only where every region behind the mapping has its CPU caches in the persistence domain,
/// or where there is nothing to write back to.
fn granularity(backend: Backend, domain: PersistenceDomain) -> Granularity {
    match backend {
        Backend::Volatile => Granularity::Byte,
        Backend::FsDax | Backend::DevDax if domain == PersistenceDomain::CpuCache => {
            Granularity::Byte
        }
        Backend::FsDax | Backend::DevDax => Granularity::CacheLine,
        Backend::PageCache => Granularity::Page,
    }
}

/// Reasons are told in this order: what rules the path out, what weakens the promise, what keeps
/// it from being DAX, what makes it slower.
fn weight(code: ReasonCode) -> usize {
    const ORDER: &[ReasonCode] = &[
        ReasonCode::NotARegularFile,
        ReasonCode::RegionWithoutNamespace,
        ReasonCode::SystemRam,
        ReasonCode::DeviceDaxDisabled,
        ReasonCode::PermissionDenied,
        ReasonCode::LeaseHeld,
        ReasonCode::MemoryLimit,
        ReasonCode::MapSyncNotTried,
        ReasonCode::ReadOnly,
        ReasonCode::BadBlocks,
        ReasonCode::E820Region,
        ReasonCode::VolatileRegion,
        ReasonCode::MemoryBacked,
        ReasonCode::MemoryDeviceErasing,
        ReasonCode::MemoryDeviceLocked,
        ReasonCode::MemoryDeviceNotArmed,
        ReasonCode::MemoryDeviceFailed,
        ReasonCode::PersistenceDomainUnknown,
        ReasonCode::MemoryDeviceUnknown,
        ReasonCode::CxlFlushUnknown,
        ReasonCode::NoBarrier,
        ReasonCode::OverlayOnDax,
        ReasonCode::LayerUnverified,
        ReasonCode::KernelTooOld,
        ReasonCode::VirtioPmemAsynchronous,
        ReasonCode::RawNamespace,
        ReasonCode::SectorNamespace,
        ReasonCode::FilesystemWithoutDax,
        ReasonCode::NoDaxDevice,
        ReasonCode::BlockSizeNotPageSize,
        ReasonCode::XfsFellBackToDaxNever,
        ReasonCode::MountedDaxNever,
        ReasonCode::NeverDax,
        ReasonCode::DaxFlagSetFileOpen,
        ReasonCode::DaxInodeWithoutFlag,
        ReasonCode::NoWriteBackInstruction,
        ReasonCode::MapSyncRefused,
        ReasonCode::HugePagesMisaligned,
    ];
    ORDER.iter().position(|known| *known == code).unwrap_or(ORDER.len())
}

/// The facts, and the caps and reasons found so far.
pub(super) struct Judge<'a> {
    pub(super) facts: &'a Facts,
    reasons: Vec<Reason>,
    pub(super) caps: Vec<Cap>,
}

impl Judge<'_> {
    pub(super) fn push(&mut self, reason: Reason) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// How many reasons there are so far.
    pub(super) fn found(&self) -> usize {
        self.reasons.len()
    }

    fn backend(&self) -> Backend {
        let facts = self.facts;
        let mappable = matches!(facts.map_sync, MapSync::Accepted | MapSync::Predicted(true));
        let can_write_back = facts.write_back != WriteBack::None;
        match facts.target {
            // A device-DAX node has no write(2): without a durable mapping nothing is left but
            // memory. If it may not be opened, what it is still decides; what nobody can open is
            // nothing.
            Target::DaxDevice => match facts.map_sync {
                MapSync::NotTried(_) if facts.is_unusable() => Backend::Volatile,
                MapSync::Accepted | MapSync::NotTried(_) if can_write_back => Backend::DevDax,
                _ => Backend::Volatile,
            },
            Target::Other => Backend::PageCache,
            _ if mappable && can_write_back => Backend::FsDax,
            _ if facts.class == Some(Class::Memory) => Backend::Volatile,
            _ => Backend::PageCache,
        }
    }
}
