//! What an NVMe controller says of its own cache.
//!
//! The kernel sets `queue/write_cache` by the byte VWC of Identify Controller (drivers/nvme/host/core.c),
//! and anybody with the right may set it otherwise. The controller itself still tells: bit 0 of VWC
//! is whether a volatile write cache is present (NVM Express Base Specification, Figure "Identify
//! Controller Data Structure"). Only root may ask, and the node of the device is opened for it, so
//! it is asked only where the kernel leaves flushes out.

use std::os::fd::AsFd;

use super::ioctl;
use super::report::WriteCache;
use super::sources::{Number, Sources};

/// Where VWC is in the 4096 bytes of Identify Controller.
const VWC: usize = 525;

/// The controller's own word for the block device `name`; `None` if it is not NVMe, its node cannot
/// be opened or is another device's, or this process may not ask.
pub(super) fn own_cache(sources: &Sources, name: &str, number: Number) -> Option<WriteCache> {
    let digits = name.strip_prefix("nvme")?;
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let page = match sources.made_up() {
        Some(root) => std::fs::read(root.join(format!("dev/{name}.identify"))).ok()?,
        None => ioctl::nvme_identify(sources.open_block_node(name, number)?.as_fd())?.to_vec(),
    };
    let present = page.get(VWC)? & 1 != 0;
    Some(if present { WriteCache::Back } else { WriteCache::Through })
}
