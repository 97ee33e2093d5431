//! Made-up trees, laid out as the captures show real ones.

use super::TempDir;

/// A tree that grows by devices and mounts.
pub(super) struct Tree {
    pub(super) root: TempDir,
    mounts: Vec<String>,
}

/// The region of a made-up pmem device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub(super) bus: &'static str,
    pub(super) provider: &'static str,
    pub(super) devtype: &'static str,
    pub(super) domain: Option<&'static str>,
}

pub(super) const ADR: Region = Region {
    bus: "LNXSYSTM:00/ACPI0012:00",
    provider: "ACPI.NFIT",
    devtype: "nd_pmem",
    domain: Some("memory_controller"),
};
pub(super) const CXL: Region = Region {
    bus: "platform/ACPI0017:00/root0/nvdimm-bridge0",
    provider: "CXL",
    devtype: "nd_pmem",
    domain: Some("memory_controller"),
};
pub(super) const EADR: Region = Region { domain: Some("cpu_cache"), ..ADR };

impl Tree {
    pub(super) fn new() -> Self {
        let root = TempDir::new();
        root.write("/proc/sys/kernel/osrelease", "6.12.0-made-up\n");
        Self { root, mounts: Vec::new() }
    }

    /// Adds a line to mountinfo; `what` is `number root point options - type source options`.
    pub(super) fn mount(&mut self, what: &str) -> u64 {
        let id = self.mounts.len() as u64 + 1;
        self.show_log(what);
        self.mounts.push(format!("{id} 0 {what}\n"));
        self.root.write("/proc/self/mountinfo", &self.mounts.concat());
        id
    }

    /// As the kernel shows a mounted filesystem: the journal of an ext4 inside of it, and the devices of
    /// a btrfs.
    fn show_log(&self, what: &str) {
        let number = what.split(' ').next().unwrap();
        let name = |path: &str| path.trim_start_matches("/dev/").to_owned();
        let link = std::fs::read_link(self.root.at(&format!("/sys/dev/block/{number}")));
        if what.contains(" - ext4 ")
            && let Ok(link) = &link
        {
            let disk = link.file_name().unwrap().to_str().unwrap();
            self.root.write(&format!("/proc/fs/jbd2/{disk}-8/info"), "");
            self.root.write(&format!("/proc/fs/ext4/{disk}/options"), "rw\nbarrier\n");
        }
        if let Some((_, source)) = what.split_once(" - btrfs ") {
            let disk = name(source.split(' ').next().unwrap());
            let path = format!("/sys/fs/btrfs/of-{disk}/devices/{disk}/dev");
            if let Ok(node) = std::fs::read_to_string(self.root.at(&format!("/dev/{disk}")))
                && !self.root.at("/sys/fs/btrfs").exists()
            {
                self.root.write(&path, &node);
            }
        }
    }

    /// A block device in this directory below `/sys/devices`.
    pub(super) fn block(&self, number: &str, directory: &str, attributes: &[(&str, &str)]) {
        let directory = format!("/sys/devices/{directory}");
        self.root.write(&format!("{directory}/dev"), number);
        if !attributes.iter().any(|(name, _)| *name == "partition") {
            self.root.write(&format!("{directory}/queue/write_cache"), "write back\n");
            self.root.write(&format!("{directory}/size"), "67108864\n");
        }
        for (name, text) in attributes {
            self.root.write(&format!("{directory}/{name}"), text);
        }
        let up = "../../devices/";
        let target = directory.strip_prefix("/sys/devices/").unwrap();
        self.root.link(&format!("/sys/dev/block/{number}"), &format!("{up}{target}"));
    }

    /// A disk without a region.
    pub(super) fn disk(&self, number: &str, name: &str) {
        let directory = format!("pci0000:00/virtio1/block/{name}");
        self.root.link(&format!("/sys/devices/{directory}/device"), "../../../virtio1");
        self.block(
            number,
            &directory,
            &[("queue/dax", "0\n"), ("queue/logical_block_size", "512\n"), ("size", "67108864\n")],
        );
        self.root.write(&format!("/dev/{name}"), number);
    }

    /// `regionN` on a bus, with one namespace of this mode and its block device `pmemN`.
    pub(super) fn pmem(&self, n: u32, number: &str, region: Region, mode: &str) -> String {
        let region_directory = self.region(n, region);
        let (device, devtype, dax) = match mode {
            "fsdax" => (format!("pfn{n}.0"), "nd_pfn", "1\n"),
            "sector" => (format!("btt{n}.0"), "nd_btt", "0\n"),
            // The platform brings e820, virtio and raw namespaces up without a claim.
            "legacy" => (format!("namespace{n}.0"), "nd_namespace_io", "1\n"),
            _ => (format!("namespace{n}.0"), "nd_namespace_io", "0\n"),
        };
        let at = format!("{region_directory}/{device}");
        self.root.write(&format!("/sys/devices/{at}/uevent"), &format!("DEVTYPE={devtype}\n"));
        self.root.write(&format!("/sys/devices/{at}/namespace"), &format!("namespace{n}.0\n"));
        self.root.write(&format!("/sys/devices/{at}/size"), "1054867456\n");
        if mode == "fsdax" {
            self.root.write(&format!("/sys/devices/{at}/align"), "2097152\n");
        }
        let block = format!("{at}/block/pmem{n}");
        self.root.link(&format!("/sys/devices/{block}/device"), &format!("../../../{device}"));
        self.block(number, &block, &[("queue/dax", dax), ("ro", "0\n"), ("badblocks", "")]);
        self.root.write(&format!("/dev/pmem{n}"), number);
        block
    }

    /// The region alone; gives its directory below `/sys/devices`.
    pub(super) fn region(&self, n: u32, region: Region) -> String {
        let bus = format!("{}/ndbus{n}", region.bus);
        let at = format!("{bus}/region{n}");
        self.root.write(&format!("/sys/devices/{bus}/provider"), region.provider);
        self.root
            .write(&format!("/sys/devices/{at}/uevent"), &format!("DEVTYPE={}\n", region.devtype));
        self.root.write(&format!("/sys/devices/{at}/read_only"), "0\n");
        self.root.write(&format!("/sys/devices/{at}/badblocks"), "");
        self.root
            .link(&format!("/sys/bus/nd/devices/region{n}"), &format!("../../../devices/{at}"));
        self.root.write(&format!("/sys/devices/{at}/numa_node"), "-1\n");
        if let Some(domain) = region.domain {
            self.root
                .write(&format!("/sys/devices/{at}/persistence_domain"), &format!("{domain}\n"));
        }
        self.mappings(&at, &[]);
        match region.provider {
            "e820" | "virtio-pmem" => {}
            "CXL" => self.cxl_device(&bus, &at, n),
            _ => self.nfit_device(&bus, &at, n),
        }
        at
    }

    /// The devices of a region, by the line of each mapping.
    pub(super) fn mappings(&self, region: &str, mappings: &[String]) {
        let at = format!("/sys/devices/{region}");
        self.root.write(&format!("{at}/mappings"), &format!("{}\n", mappings.len()));
        for (n, mapping) in mappings.iter().enumerate() {
            self.root.write(&format!("{at}/mapping{n}"), &format!("{mapping}\n"));
        }
    }

    /// A device that is in order, as drivers/acpi/nfit/core.c shows one.
    fn nfit_device(&self, bus: &str, region: &str, n: u32) {
        self.mappings(region, &[format!("nmem{n},0,1073741824,0")]);
        let at = format!("/sys/devices/{bus}/nmem{n}");
        for (name, text) in [
            ("uevent", "DEVTYPE=nvdimm\n".to_owned()),
            ("nfit/id", format!("8089-a2-1842-0000{n:04}\n")),
            ("nfit/flags", "\n".to_owned()),
            ("nfit/dirty_shutdown", "7\n".to_owned()),
        ] {
            self.root.write(&format!("{at}/{name}"), &text);
        }
    }

    /// A device that is in order, as drivers/cxl/pmem.c of Linux 6.16 shows one.
    fn cxl_device(&self, bus: &str, region: &str, n: u32) {
        self.mappings(region, &[format!("nmem{n},0,1073741824,0")]);
        let at = format!("/sys/devices/{bus}/nmem{n}");
        for (name, text) in [
            ("uevent", "DEVTYPE=nvdimm\n".to_owned()),
            ("cxl/id", format!("{}\n", 3_735_928_559 + u64::from(n))),
            ("cxl/provider", format!("pmem{n}\n")),
            ("cxl/dirty_shutdown", "2\n".to_owned()),
            ("security", "disabled\n".to_owned()),
        ] {
            self.root.write(&format!("{at}/{name}"), &text);
        }
        let memory = format!("pci0000:0c/0000:0c:00.0/0000:0d:00.0/mem{n}");
        self.root.write(&format!("/sys/devices/{memory}/security/state"), "disabled\n");
        self.root.link(
            &format!("/sys/bus/cxl/devices/pmem{n}"),
            &format!("../../../devices/{memory}/pmem{n}"),
        );
    }

    /// A device-mapper device over others, given by number and directory. Its targets are linear, as
    /// the kernel tells root.
    pub(super) fn device_mapper(&self, number: &str, name: &str, dax: bool, below: &[&str]) {
        let directory = format!("virtual/block/{name}");
        let dax = if dax { "1" } else { "0" };
        self.block(number, &directory, &[("dm/name", "made-up\n"), ("queue/dax", dax)]);
        self.root.write(&format!("/dev/{name}.targets"), "linear");
        for (i, target) in below.iter().enumerate() {
            self.root.link(
                &format!("/sys/devices/{directory}/slaves/below{i}"),
                &format!("../../../../{target}"),
            );
        }
    }

    /// A loop device over a file, all of whose blocks are allocated; `image` writes that file.
    pub(super) fn loop_device(&self, number: &str, name: &str, file: &str) {
        self.root.write(&format!("/dev/{name}.loop"), "8:0 17");
        let attributes = [("loop/backing_file", format!("{file}\n")), ("queue/dax", "0\n".into())];
        let attributes = attributes.each_ref().map(|(name, text)| (*name, text.as_str()));
        self.block(number, &format!("virtual/block/{name}"), &attributes);
    }

    /// The device-DAX instance of region 0 of a bus, `/dev/dax0.0` (252:0), with this driver.
    pub(super) fn devdax(&self, region: Region, driver: &str) -> String {
        let at = format!("{}/dax0.1", self.region(0, region));
        self.root.write(&format!("/sys/devices/{at}/uevent"), "DEVTYPE=nd_dax\n");
        self.root.write(&format!("/sys/devices/{at}/namespace"), "namespace0.0\n");
        let node = format!("{at}/dax0.0");
        self.dax_node("252:0", &node, "2097152\n");
        let up = "../".repeat(node.split('/').count() + 1);
        let drivers = format!("{up}bus/dax/drivers/{driver}");
        self.root.link(&format!("/sys/devices/{node}/driver"), &drivers);
        node
    }

    /// The file behind a loop device: as it was set up, and with which blocks.
    pub(super) fn image(&self, file: &str, blocks: &str) {
        self.root.write(file, &format!("8:0 17 {blocks}"));
    }

    /// A device-DAX node in this directory below `/sys/devices`.
    pub(super) fn dax_node(&self, number: &str, directory: &str, align: &str) {
        let at = format!("/sys/devices/{directory}");
        self.root.write(&format!("{at}/align"), align);
        self.root.write(&format!("{at}/size"), "1073741824\n");
        let up = "../".repeat(directory.split('/').count() + 1);
        self.root.link(&format!("{at}/subsystem"), &format!("{up}bus/dax"));
        self.root.link(&format!("/sys/dev/char/{number}"), &format!("../../devices/{directory}"));
    }
}
