//! What the type of the filesystem keeps. The classes and their sources are in `probe::filesystem`.

use super::{Ground, Way, words};
use crate::durability::Durability;
use crate::probe::filesystem::{self, Class};
use crate::probe::reasons;
use crate::probe::report::Layer;
use crate::probe::verdict::Judge;

pub(super) fn cap(judge: &mut Judge<'_>, ground: Ground<'_>) {
    let name = ground.name;
    let at = ground.mount.map_or_else(
        || format!(" under {}", judge.facts.path.display()),
        |mount| format!(" on {}", mount.point.display()),
    );
    let layer = Layer::Filesystem;
    match ground.class {
        Class::Pseudo => {
            judge.grant(layer, Durability::ProcessOnly, format!("{name}{at} is not storage"));
        }
        Class::Memory => {
            let reason = reasons::memory_backed(&format!("{name}{at}"));
            judge.limit(layer, Durability::ProcessOnly, reason);
        }
        Class::Layered => {
            let reason = words::server(name, &at);
            judge.limit(layer, Durability::Unverified, reason);
        }
        Class::Unknown => {
            let reason = words::unknown_filesystem(name, &at);
            judge.limit(layer, Durability::Unverified, reason);
        }
        Class::Dax | Class::Local if !filesystem::flushes(name) => {
            let reason = words::unflushed(name, &at);
            judge.limit(layer, Durability::Unverified, reason);
        }
        Class::Dax | Class::Local => {
            let does = match ground.way {
                Way::Mapped => "commits its log before a MAP_SYNC fault returns",
                Way::Flushed => "writes its log and flushes the device at fdatasync",
            };
            judge.grant(layer, Durability::PowerFail, format!("{name}{at} {does}"));
        }
        // Has a layer of its own.
        Class::Overlay => {}
    }
}
