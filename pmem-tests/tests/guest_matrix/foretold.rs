//! What the report of a directory foretells is what `create` then reports, field by field.
//!
//! It keeps away: `PowerFail` foretold where the file is then refused (`data=journal` with the DAX
//! flag, an encrypted directory, the real-time device of an xfs), a mount option that counts for the
//! page cache and not for a mapping.

use pmem_tests::guest::Persistence;

use crate::records::{REFUSED, Records, run};

/// What must be the same before and after. `huge_pages` is not among them: where the file will lie
/// is not known before.
const SAME: [&str; 10] = [
    "filesystem",
    "mount_point",
    "device",
    "providers",
    "persistence_domain",
    "backend",
    "durability",
    "granularity",
    "write_back",
    "read_only",
];

/// The report of `path`, a directory or a name in it, foretold what the region `file` then got.
pub(crate) fn expect_foretold(records: &Records, path: &str, file: &str) {
    for key in SAME {
        let (before, after) = (records.get(path, key), records.get(file, key));
        assert_eq!(before, after, "{key} of {path} and {file} in:\n{}", records.0);
    }
    for key in ["backend", "durability", "granularity"] {
        let region = records.get(file, &format!("region_{key}"));
        assert_eq!(records.get(path, key), region, "{key} of the region {file}");
    }
    let tried = match records.get(path, "map_sync") {
        "predicted true" => "accepted",
        "predicted false" => REFUSED,
        other => panic!("map_sync={other} of {path} is no prediction"),
    };
    assert_eq!(records.get(file, "map_sync"), tried, "{file} in:\n{}", records.0);
    // The reasons too, but for that which comes of where the file lies.
    let of_file = records.get(file, "reasons").split(' ');
    let of_file: Vec<_> = of_file.filter(|code| *code != "huge-pages-misaligned").collect();
    assert_eq!(records.get(path, "reasons"), of_file.join(" "), "{path} in:\n{}", records.0);
}

/// A filesystem of the guest, and what a file in its directory `d` gets.
struct Place {
    name: &'static str,
    /// Shell lines that mount it at `/mnt/NAME`.
    setup: &'static str,
    /// Shell lines after `d` was made.
    prepare: &'static str,
    statx_dax: &'static str,
    /// Backend, durability, granularity.
    gets: [&'static str; 3],
    reason: &'static str,
    /// Whether the suite runs there: not where another place has run the same.
    suite: bool,
}

const CACHED: Place = Place {
    name: "",
    setup: "",
    prepare: "",
    statx_dax: "false",
    gets: ["page_cache", "Fsync", "page"],
    reason: "",
    suite: true,
};

/// In their order: the namespace is raw at first, and in sector mode at last.
const PLACES: [Place; 9] = [
    Place {
        name: "raw",
        setup: "mkfs-dax ext4 /dev/pmem0 /mnt/raw defaults",
        reason: "raw-namespace",
        ..CACHED
    },
    Place {
        name: "xfs-1k",
        setup: "mkpmem fsdax namespace0.0
                mkfs-dax xfs-1k /dev/pmem0 /mnt/xfs-1k",
        reason: "block-size-not-page-size",
        ..CACHED
    },
    // The attribute shines through the overlay; MAP_SYNC does not.
    Place {
        name: "overlay",
        setup: "mkfs-dax xfs /dev/pmem0 /mnt/xfs
                mount-overlay /mnt/xfs /mnt/overlay",
        statx_dax: "true",
        reason: "overlay-on-dax",
        ..CACHED
    },
    Place {
        name: "journal",
        setup: "umount /mnt/xfs
                mkfs-dax ext4 /dev/pmem0 /mnt/journal dax=inode,data=journal",
        prepare: "xfs_io -c 'chattr +x' /mnt/journal/d",
        reason: "never-dax",
        ..CACHED
    },
    // The flag of the directory puts the data of new files on another device.
    Place {
        name: "realtime",
        setup: "mkfs.xfs -q -f -r rtdev=/dev/vda /dev/pmem0
                mkdir /mnt/realtime
                mount -t xfs -o dax=always,rtdev=/dev/vda /dev/pmem0 /mnt/realtime",
        prepare: "xfs_io -c 'chattr +t' /mnt/realtime/d",
        reason: "never-dax",
        suite: false,
        ..CACHED
    },
    Place {
        name: "encrypted",
        setup: "mke2fs -q -F -t ext4 -b 4096 -O encrypt /dev/pmem0
                mkdir /mnt/encrypted
                mount -t ext4 -o dax=always /dev/pmem0 /mnt/encrypted",
        prepare: "modprobe xts; modprobe cts
                  head -c 64 /dev/urandom >/key
                  key=$(xfs_io -c add_enckey /mnt/encrypted </key | sed 's/.*identifier //')
                  xfs_io -c \"set_encpolicy -v 2 $key\" /mnt/encrypted/d",
        reason: "never-dax",
        ..CACHED
    },
    Place {
        name: "nobarrier",
        setup: "mkfs-dax ext4 /dev/pmem0 /mnt/nobarrier dax=always,nobarrier",
        statx_dax: "true",
        gets: ["fsdax", "Unverified", "cache_line"],
        reason: "no-barrier",
        ..CACHED
    },
    Place {
        name: "nobarrier-cached",
        setup: "mkfs-dax ext4 /dev/pmem0 /mnt/nobarrier-cached dax=never,nobarrier",
        gets: ["page_cache", "Unverified", "page"],
        reason: "no-barrier",
        suite: false,
        ..CACHED
    },
    Place {
        name: "sector",
        setup: "mkpmem sector namespace0.0
                mkfs-dax ext4 /dev/pmem0s /mnt/sector defaults",
        reason: "sector-namespace",
        ..CACHED
    },
];

impl Place {
    fn directory(&self) -> String {
        format!("/mnt/{}/d", self.name)
    }

    fn script(&self) -> String {
        let Self { name, setup, prepare, .. } = self;
        let suite = match self.gets {
            gets if self.suite => format!("./guest conformance /mnt/{name}/d {}", gets.join(" ")),
            _ => String::new(),
        };
        format!(
            "{setup}\n\
             mkdir /mnt/{name}/d\n\
             {prepare}\n\
             ./guest report /mnt/{name}/d /mnt/{name}/d/missing\n\
             ./guest create /mnt/{name}/d/file 8388608\n\
             ./guest require /mnt/{name}/d/required\n\
             {suite}\n\
             umount /mnt/{name}\n"
        )
    }

    fn verify(&self, records: &Records) {
        let directory = self.directory();
        let file = format!("{directory}/file");
        let [backend, level, granularity] = self.gets;
        let map_sync = if backend == "fsdax" { "accepted" } else { REFUSED };
        records.expect(
            &file,
            &[
                ("statx_dax", self.statx_dax),
                ("map_sync", map_sync),
                ("region_backend", backend),
                ("region_durability", level),
                ("region_granularity", granularity),
            ],
        );
        let reasons = records.get(&file, "reasons");
        assert!(reasons.split(' ').any(|code| code == self.reason), "{file}: {reasons}");
        for path in [directory.clone(), format!("{directory}/missing")] {
            expect_foretold(records, &path, &file);
        }
        let refused = records.get(&format!("{directory}/required"), "refused");
        let levels = format!("PowerFail was required, {level} is available");
        assert!(refused.contains(&levels), "{refused}");
        if self.suite {
            records.expect_conformance(&directory);
        }
    }
}

#[test]
fn filesystems_that_keep_less_foretell_it_and_say_why() {
    let mut script = "./guest report /dev/pmem0\n".to_owned();
    script.extend(PLACES.iter().map(Place::script));
    let guest = crate::nvdimm(Persistence::MemoryController).disk("512M");
    let records = run(guest, &script);
    assert!(records.get("/dev/pmem0", "reasons").contains("raw-namespace"));
    for place in &PLACES {
        place.verify(&records);
    }
}
