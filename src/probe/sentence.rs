//! The verdict in one sentence.

use super::report::{MapSync, Reason, ReasonCode, Report, Target};
use crate::durability::{Backend, Granularity};

impl Report {
    /// The verdict in one sentence for people: what a region here is, what it survives, and the
    /// unit a flush works in.
    #[must_use]
    pub fn verdict_sentence(&self) -> String {
        let path = self.path.display();
        // Whoever names a device wants it, and not a file in its place.
        let free = |reason: &&Reason| reason.code == ReasonCode::RegionWithoutNamespace;
        if let Some(reason) = self.reasons.iter().find(free) {
            return format!("{path} is not there: {}.", reason.text);
        }
        let subject = match self.target {
            Target::Other => return format!("{path} cannot hold a region."),
            Target::File => format!("A region in {path}"),
            Target::Directory => format!("A file created in {path}"),
            Target::Missing => format!("A file created as {path}"),
            Target::BlockDevice if self.mount.is_some() => format!("A file on {path}"),
            Target::BlockDevice => format!("A file on a filesystem made on {path}"),
            Target::DaxDevice => format!("The device {path}"),
        };
        let means = match self.backend {
            Backend::FsDax => "is mapped with MAP_SYNC (fsdax)",
            Backend::DevDax => "is mapped directly (devdax)",
            Backend::PageCache if matches!(self.map_sync, MapSync::NotTried(_)) => {
                "cannot be mapped by this user; it would go through the page cache"
            }
            Backend::PageCache => "goes through the page cache (pwrite and fdatasync)",
            Backend::Volatile => "is memory",
        };
        let unit = match (self.backend, self.granularity) {
            (Backend::Volatile, _) => String::new(),
            (_, Granularity::Byte) => {
                "; the caches persist too, so a flush is only a fence".to_owned()
            }
            (_, Granularity::CacheLine) => {
                format!("; a flush writes back cache lines ({})", self.write_back)
            }
            (_, Granularity::Page) => "; a flush writes pages to the device".to_owned(),
        };
        let read_only = if self.read_only { " Nothing can be written there now." } else { "" };
        format!(
            "{subject} {means}: durability {}, {}{unit}.{read_only}",
            self.durability,
            self.durability.after_power_cut()
        )
    }
}
