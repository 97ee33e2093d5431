//! What the file itself keeps: how it is written, which the trial mapping decides.

use super::words;
use crate::durability::{Backend, Durability};
use crate::probe::filesystem::Class;
use crate::probe::report::{Layer, MapSync, Target};
use crate::probe::verdict::Judge;

pub(super) fn cap(judge: &mut Judge<'_>, backend: Backend) {
    let facts = judge.facts;
    if facts.inline_data {
        let reason = words::inline_data(&facts.path);
        judge.limit(Layer::File, Durability::Unverified, reason);
    }
    let path = facts.path.display();
    let mut grant = |level, evidence| judge.grant(Layer::File, level, evidence);
    match backend {
        _ if facts.target == Target::Other => {
            grant(Durability::ProcessOnly, format!("{path} cannot hold a region"));
        }
        Backend::FsDax | Backend::DevDax => {
            let evidence = match facts.map_sync {
                MapSync::Predicted(_) if facts.target == Target::File => {
                    format!("{path} is DAX, and was not opened, so that nobody notices the probe")
                }
                MapSync::Predicted(_) => format!("MAP_SYNC is foretold for a file at {path}"),
                MapSync::NotTried(_) => format!("{path} is device DAX, and was not opened"),
                _ => format!("the kernel accepted MAP_SYNC for {path}"),
            };
            grant(Durability::PowerFail, evidence);
        }
        Backend::PageCache => {
            grant(Durability::Fsync, format!("{path} is written through the page cache"));
        }
        // The filesystem says it.
        Backend::Volatile if facts.class == Some(Class::Memory) => {}
        Backend::Volatile => {
            grant(Durability::ProcessOnly, format!("{path} has no durable mapping"));
        }
    }
}
