//! What the filesystem's own log keeps, where it lies on another device than the files.
//!
//! A lost log loses what it was to replay: names, sizes and blocks of files whose bytes are safe. So
//! the device of the log counts as much as that of the files, with `MAP_SYNC` too.

use super::{Ground, Way, block_stack, words};
use crate::durability::Durability;
use crate::probe::report::{FilesystemLog, Layer};
use crate::probe::verdict::Judge;

pub(super) fn cap(judge: &mut Judge<'_>, ground: Ground<'_>) {
    // Without a device, that it is not visible is said already.
    let Some(device) = ground.device else { return };
    let name = ground.name;
    match &device.log {
        None | Some(FilesystemLog::Internal) => {
            let evidence = format!("the log of {name} is on {} itself", device.name);
            judge.grant(Layer::Log, Durability::PowerFail, evidence);
        }
        Some(FilesystemLog::Absent) => {
            let evidence = format!("{name} on {} has no journal", device.name);
            judge.grant(Layer::Log, Durability::PowerFail, evidence);
        }
        Some(FilesystemLog::External(log)) => {
            let evidence = format!("the log of {name} is on {}", log.name);
            judge.grant(Layer::Log, Durability::PowerFail, evidence);
            // What a log on a disk bears, it bears by flushes.
            block_stack::cap(judge, log, Way::Flushed);
        }
        Some(FilesystemLog::Unknown(why)) => {
            let reason = words::log_unknown(name, &device.name, why);
            judge.limit(Layer::Log, Durability::Unverified, reason);
        }
    }
}
