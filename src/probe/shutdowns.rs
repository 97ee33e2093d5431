//! How often the memory under a path lost power before it had saved what it held.

use twox_hash::XxHash3_64;

use super::memory_device::MemoryDevice;
use super::report::Report;

/// How often the memory under a path lost power before it had saved what it held, and which memory
/// that is. A count that rises between two looks at the same memory says that a power loss in
/// between may have taken what had been made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Shutdowns {
    /// A hash of the identities of all devices, whatever their order, kernel names or namespaces:
    /// the same at every boot. Other memory has another.
    pub identity: [u8; 16],
    /// The sum of the counts of all devices.
    pub count: u64,
}

impl Shutdowns {
    /// For a region of one's own that says where it lies.
    #[must_use]
    pub const fn new(identity: [u8; 16], count: u64) -> Self {
        Self { identity, count }
    }
}

impl Report {
    /// Identity and unsafe shutdowns of the memory under the path.
    ///
    /// `None` unless every region has devices, all of them could be found, and each gives an identity
    /// of its own and a count: memory that is not known in whole has no count to compare.
    #[must_use]
    pub fn shutdowns(&self) -> Option<Shutdowns> {
        let mut devices: Vec<&MemoryDevice> = Vec::new();
        for region in &self.regions {
            if region.devices.is_empty() || !region.devices_unread.is_empty() {
                return None;
            }
            for device in &region.devices {
                if !devices.iter().any(|known| known.name == device.name) {
                    devices.push(device);
                }
            }
        }
        shutdowns(&devices)
    }
}

fn shutdowns(devices: &[&MemoryDevice]) -> Option<Shutdowns> {
    let mut identities = Vec::with_capacity(devices.len());
    let mut count = 0_u64;
    for device in devices {
        identities.push((device.family.as_str(), device.identity.as_deref()?));
        count = count.saturating_add(device.dirty_shutdown?);
    }
    identities.sort_unstable();
    // Two devices that cannot be told apart would swap their counts unseen.
    if identities.is_empty() || identities.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    let mut bytes = Vec::new();
    for (family, identity) in identities {
        for part in [family, identity] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    let half = |seed| XxHash3_64::oneshot_with_seed(seed, &bytes).to_le_bytes();
    let mut identity = [0; 16];
    identity[..8].copy_from_slice(&half(0));
    identity[8..].copy_from_slice(&half(1));
    Some(Shutdowns { identity, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, identity: &str, count: u64) -> MemoryDevice {
        MemoryDevice {
            name: name.to_owned(),
            family: "nfit".to_owned(),
            identity: Some(identity.to_owned()),
            dirty_shutdown: Some(count),
            ..MemoryDevice::default()
        }
    }

    #[test]
    fn the_identity_is_that_of_all_devices_in_any_order() {
        let (a, b) = (device("nmem0", "8680-1", 3), device("nmem1", "8680-2", 4));
        let both = shutdowns(&[&a, &b]).unwrap();
        assert_eq!(both.count, 7);
        // Other names and another order after a boot, and a power loss: the same memory.
        let (x, y) = (device("nmem0", "8680-2", 5), device("nmem1", "8680-1", 3));
        let later = shutdowns(&[&x, &y]).unwrap();
        assert_eq!((later.identity, later.count), (both.identity, 8));
        for other in [
            vec![&a],
            vec![&b],
            vec![&MemoryDevice { family: "cxl".to_owned(), ..a.clone() }, &b],
            vec![&MemoryDevice { identity: Some("8680-12".to_owned()), ..a.clone() }, &b],
        ] {
            assert_ne!(shutdowns(&other).unwrap().identity, both.identity, "{other:?}");
        }
    }

    #[test]
    fn the_identity_never_changes() {
        // Files hold it: the value of this version is that of every later one.
        let found = shutdowns(&[&device("nmem0", "8680-56341200", 0)]).unwrap();
        let expected = [212, 112, 192, 87, 118, 131, 183, 245, 48, 229, 245, 48, 220, 212, 54, 158];
        assert_eq!(found.identity, expected);
    }

    #[test]
    fn memory_that_is_not_known_in_whole_has_no_count() {
        let a = device("nmem0", "8680-1", 3);
        assert_eq!(shutdowns(&[]), None);
        assert_eq!(shutdowns(&[&a, &MemoryDevice { identity: None, ..a.clone() }]), None);
        let uncounted = device("nmem1", "8680-2", 0);
        let uncounted = MemoryDevice { dirty_shutdown: None, ..uncounted };
        assert_eq!(shutdowns(&[&a, &uncounted]), None);
        assert_eq!(shutdowns(&[&a, &device("nmem1", "8680-1", 3)]), None, "not told apart");
    }

    #[test]
    fn counts_are_added_without_a_wrap() {
        let (a, b) = (device("nmem0", "1", u64::MAX - 1), device("nmem1", "2", 1));
        assert_eq!(shutdowns(&[&a, &b]).unwrap().count, u64::MAX);
        let c = device("nmem2", "3", 1);
        assert_eq!(shutdowns(&[&a, &b, &c]).unwrap().count, u64::MAX);
    }
}
