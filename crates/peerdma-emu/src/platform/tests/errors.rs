//! Every way to be wrong is told with file, line and what to do.

use super::{EVERY_KEY, edited};
use crate::platform::Platform;

/// Two switches' worth of every kind of parent, one key per line.
const BASE: &str = r#"schema = 1
[cpu]
vendor = "intel"
family = 6
[kernel]
version = "7.2"
[iommu]
kind = "vtd"
mode = "translated"
[[ram]]
base = 0x0
size = "2GiB"
[[ram]]
base = 0x1_0000_0000
size = "2GiB"
[[host_bridge]]
name = "hb0"
buses = [0x00, 0x0f]
first_device = "8086:09a2"
windows = [
    { cpu = 0x9000_0000, bus = 0x9000_0000, size = "256MiB" },
    { cpu = 0x40_0000_0000, bus = 0x40_0000_0000, size = "1TiB", prefetch = true },
]
[[host_bridge]]
name = "hb1"
buses = [0x10, 0x1f]
node = 1
windows = [
    { cpu = 0xa000_0000, bus = 0x9000_0000, size = "256MiB" },
]
[[port]]
name = "rp0"
parent = "hb0"
kind = "root"
bdf = "00:01.0"
id = "8086:352a"
mps = 256
acs = { cap = 0x5f, ctl = 0x1d }
[[port]]
name = "up0"
parent = "rp0"
kind = "upstream"
bdf = "01:00.0"
[[port]]
name = "dn0"
parent = "up0"
kind = "downstream"
bdf = "02:00.0"
[[port]]
name = "dn1"
parent = "up0"
kind = "downstream"
bdf = "02:01.0"
[[port]]
name = "br0"
parent = "dn1"
kind = "pcie-pci"
bdf = "04:00.0"
[[function]]
name = "gpu0"
parent = "dn0"
bdf = "03:00.0"
model = "gpu"
bars = [
    { n = 0, size = "16MiB" },
    { n = 2, size = "64GiB", prefetch = true, resizable = ["256MiB", "64GiB"] },
]
memory = "64GiB"
mrrs = 512
[[function]]
name = "nic0"
parent = "dn0"
bdf = "03:00.1"
[[function]]
name = "old0"
parent = "br0"
bdf = "05:03.0"
mask_bits = 32
iommu_mode = "identity"
"#;

/// The message for `BASE` with `old` replaced by `new`.
fn wrong(old: &str, new: &str) -> String {
    let text = edited(BASE, old, new);
    match Platform::parse(&text, "f.toml") {
        Ok(_) => panic!("{new:?} for {old:?} was accepted"),
        Err(error) => {
            let written = error.to_string();
            assert!(written.starts_with(&format!("{}:{}: {}", error.file(), error.line(), error.problem())));
            assert!(!written.ends_with('.') && !written.contains('\n'), "{written}");
            written
        }
    }
}

/// Asserts on messages: what is replaced, by what, where that is and what is said.
macro_rules! refused {
    ($($old:literal => $new:literal: $line:literal $message:literal)+) => {
        $(assert_eq!(wrong($old, $new), concat!("f.toml:", $line, ": ", $message));)+
    };
}

#[test]
fn the_base_of_these_tests_is_right() {
    Platform::parse(BASE, "f.toml").unwrap();
}

#[test]
fn keys_and_types() {
    refused! {
        "schema = 1\n" => "schema = 2\n": 1 "schema 2 is not known here; this version reads `schema = 1`"
        "schema = 1\n" => "\n": 1 "missing field `schema`"
        "schema = 1\n" => "schema = 1\nspeed = 3\n":
            2 "unknown field `speed`, expected one of `schema`, `platform`, `cpu`, `kernel`, `iommu`, `ram`, `host_bridge`, `port`, `function`"
        "family = 6" => "families = 6": 4 "unknown field `families`, expected one of `vendor`, `family`, `model`"
        "buses = [0x00, 0x0f]" => "bus = 0": 18 "unknown field `bus`, expected one of `name`, `segment`, `buses`, `node`, `first_device`, `windows`, `peer`, `replaces_requester`, `between_ports`"
        "ctl = 0x1d }" => "ctl = 0x1d, control = 1 }": 38 "unknown field `control`, expected one of `cap`, `ctl`, `egress`"
        "{ n = 0, size" => "{ bar = 0, size": 65 "unknown field `bar`, expected one of `n`, `size`, `prefetch`, `resizable`"
        "[kernel]" => "[[kernel]]": 5 "invalid type: sequence, expected a table"
        "[[ram]]\nbase = 0x0" => "[ram]\nbase = 0x0": 13 "duplicate key"
        "kind = \"vtd\"\nmode" => "kind = \"vt-d\"\nmode": 8 "\"vt-d\" is not one of the words known here: vtd, amd, smmu, window, none"
        "kind = \"pcie-pci\"" => "kind = \"bridge\"": 57 "\"bridge\" is not one of the words known here: root, upstream, downstream, pcie-pci"
        "model = \"gpu\"" => "model = \"GPU\"": 63 "\"GPU\" is not one of the words known here: gpu, nvme, nic, dma, plain, accel"
        "mps = 256" => "mps = \"256\"": 37 "invalid type: string \"256\", expected an integer"
        "node = 1" => "node = 1.0": 27 "invalid type: floating point `1.0`, expected an integer"
        "memory = \"64GiB\"" => "memory = \"64GB\"":
            68 "\"64GB\" is not a size below 2^64 bytes; write a whole number with B, KiB, MiB, GiB or TiB"
        "memory = \"64GiB\"" => "memory = -1": 68 "a size cannot be -1"
        "id = \"8086:352a\"" => "id = 0x8086352a": 36 "invalid type: integer `2156279082`, expected a string"
        "id = \"8086:352a\"" => "id = \"ffff:0000\"":
            36 "\"ffff:0000\" is not an ID; write vendor and device in hexadecimal, such as \"8086:09a2\""
        "acs = { cap = 0x5f, ctl = 0x1d }" => "acs = \"on\"":
            38 "\"on\" is not what ACS can be; write { cap = …, ctl = … }, \"none\" or \"unknown\""
        "kind = \"upstream\"\n" => "": 39 "missing field `kind`"
    }
}

#[test]
fn the_surroundings() {
    refused! {
        "vendor = \"intel\"" => "vendor = \"inetl\"":
            3 "\"inetl\" is not a CPU vendor; write cpuinfo's word, such as \"AuthenticAMD\", or intel, amd, hygon, arm"
        "family = 6\n" => "": 3 "cpu.family is missing; Linux's verdict depends on it for every vendor but Arm"
        "family = 6" => "family = -6": 4 "family = -6 is out of range; it takes 0 to 0xffffffff"
        "family = 6" => "family = 6\nmodel = -1": 5 "model = -1 is out of range; it takes 0 to 0xffffffff"
        "[cpu]" => "[platform]\nname = \" \"\n[cpu]": 3 "\" \" is not a name for a machine; write visible characters in one line"
        "[cpu]" => "[platform]\nname = \"\\u001b[2J\"\n[cpu]":
            3 "\"\\u{1b}[2J\" is not a name for a machine; write visible characters in one line"
        "version = \"7.2\"" => "version = \"7\"": 6 "\"7\" is not a kernel version; write x.y or x.y.z, such as \"7.2\""
        "mode = \"translated\"\n" => "": 8 "iommu.mode is missing; write translated, identity or none"
        "kind = \"vtd\"" => "kind = \"none\"": 9 "iommu.mode = translated needs an IOMMU, but the kind is none"
        "base = 0x1_0000_0000" => "base = 0x7fff_ffff": 14 "this RAM overlaps the RAM on line 11"
        "base = 0x0" => "base = 0xffff_ffff_ffff_ffff": 11 "base plus the size runs past 2^64; move or shrink the range"
        "buses = [0x10, 0x1f]" => "buses = [0x1f, 0x10]": 26 "buses run backwards from 0x1f to 0x10; write the first one first"
        "buses = [0x10, 0x1f]" => "buses = [0x10, 0x100]": 26 "buses = 256 is out of range; it takes 0 to 0xff"
        "buses = [0x10, 0x1f]" => "buses = [0x10]":
            26 "buses is a list of 1 numbers; write the first bus and the last, such as [0x00, 0x7f]"
        "buses = [0x10, 0x1f]" => "buses = [0x0f, 0x1f]": 26 "buses 0f-1f of segment 0x0 overlap those of host bridge hb0 (line 17)"
        "cpu = 0xa000_0000" => "cpu = 0x9fff_ffff": 29 "the window's cpu addresses overlap those of the window on line 21"
        "bus = 0x40_0000_0000" => "bus = 0x9800_0000": 22 "the window's bus addresses overlap those of the window on line 21"
        "size = \"1TiB\"" => "size = 0": 22 "size is zero; give it at least one byte or leave it out"
        "node = 1" => "node = 0x8000_0000": 27 "node = 2147483648 is out of range; it takes 0 to 0x7fffffff"
        "node = 1" => "segment = 0x1_0000_0000": 27 "segment = 4294967296 is out of range; it takes 0 to 0xffffffff"
    }
}

#[test]
fn names_and_parents() {
    refused! {
        "name = \"nic0\"" => "name = \"0000:03\"":
            71 "\"0000:03\" is not a name; use a letter and then up to 63 letters, digits, `_`, `-` or `.`"
        "name = \"nic0\"" => "name = \"dn0\"":
            71 "dn0 is the name of something on line 45 already; host bridges, ports and functions share one set of names"
        "parent = \"br0\"" => "parent = \"br1\"": 76 "nothing is called \"br1\"; name a [[host_bridge]] or a [[port]]"
        "parent = \"br0\"" => "parent = \"nic0\"": 76 "nothing is called \"nic0\"; name a [[host_bridge]] or a [[port]]"
        "parent = \"br0\"" => "parent = \"up0\"":
            76 "a function hangs below a host bridge, a root port, a downstream port or a PCIe-to-PCI bridge, but up0 is an upstream port"
        "parent = \"rp0\"" => "parent = \"hb0\"":
            41 "an upstream port hangs below a root port or a downstream port, but hb0 is a host bridge"
        "parent = \"dn1\"" => "parent = \"up0\"":
            56 "a PCIe-to-PCI bridge hangs below a root port or a downstream port, but up0 is an upstream port"
        "name = \"dn1\"\nparent = \"up0\"" => "name = \"dn1\"\nparent = \"dn0\"":
            51 "a downstream port hangs below an upstream port, but dn0 is a downstream port"
        "parent = \"hb0\"" => "parent = \"dn0\"": 33 "a root port hangs below a host bridge, but dn0 is a downstream port"
    }
}

#[test]
fn addresses_and_buses() {
    refused! {
        "bdf = \"00:01.0\"" => "bdf = \"00:20.0\"":
            35 "\"00:20.0\" is not a PCI address; write bus:device.function in hexadecimal, such as \"03:00.0\""
        "bdf = \"00:01.0\"" => "bdf = \"01:01.0\"":
            35 "bus 01 is not the root bus of host bridge hb0, which is the first of its buses, 00"
        "bdf = \"00:01.0\"" => "bdf = \"00:00.0\"":
            35 "0000:00:00.0 is where host bridge hb0 has its first_device (line 19); remove one of the two"
        "bdf = \"00:01.0\"" => "bdf = \"0001:00:01.0\"":
            35 "0001:00:01.0 is not in segment 0x0 of host bridge hb0; leave the domain out or write that one"
        "bdf = \"05:03.0\"" => "bdf = \"10:03.0\"": 77 "0000:10:03.0 is outside buses 00-0f of host bridge hb0"
        "bdf = \"05:03.0\"" => "bdf = \"04:03.0\"":
            77 "bus 04 cannot be below br0, which sits on bus 04 itself; numbers grow downwards"
        "bdf = \"03:00.1\"" => "bdf = \"06:00.1\"": 73 "bus 06 is not the one below dn0: gpu0 (line 62) puts it at 03"
        "bdf = \"03:00.1\"" => "bdf = \"03:00.0\"": 73 "0000:03:00.0 is the address of gpu0 (line 62) already"
        "bdf = \"02:01.0\"" => "bdf = \"02:00.0\"": 53 "0000:02:00.0 is the address of dn0 (line 48) already"
        "bdf = \"04:00.0\"" => "bdf = \"03:01.0\"":
            50 "dn1 leads to buses 03-05, dn0 (line 45) to 03-03; a bus is below one of them only"
    }
}

#[test]
fn a_bus_below_two_ports_is_seen_however_deep_it_is() {
    let text = BASE.replace("03:00.0", "06:00.0").replace("03:00.1", "06:00.1").replace("05:03.0", "06:03.0");
    let error = Platform::parse(&text, "f.toml").unwrap_err().to_string();
    assert_eq!(error, "f.toml:50: dn1 leads to buses 04-06, dn0 (line 45) to 06-06; a bus is below one of them only");
}

#[test]
fn acs() {
    refused! {
        "ctl = 0x1d }" => "ctl = 0x3d }":
            38 "acs.ctl sets bits 0x0020 that cap 0x005f does not have; a register reads them as 0"
        "ctl = 0x1d }" => "ctl = 0x8000 }":
            38 "acs.ctl sets bits 0x8000 that cap 0x005f does not have; a register reads them as 0"
        "ctl = 0x1d }" => "ctl = 0x1d, egress = 1 }": 38 "acs.egress is set, but cap 0x005f lacks egress control (0x20)"
        "cap = 0x5f, ctl = 0x1d }" => "cap = 0x87f, ctl = 0x1d, egress = 0x100 }":
            38 "acs.egress 0x100 sets bits past the vector's 8 bits (cap bits 15:8)"
        "cap = 0x5f" => "cap = 0x1005f": 38 "acs.cap = 65631 is out of range; it takes 0 to 0xffff"
    }
}

#[test]
fn bars() {
    refused! {
        "{ n = 0, size" => "{ n = 6, size": 65 "n = 6 is out of range; it takes 0 to 0x5"
        "{ n = 0, size" => "{ n = 3, size":
            66 "BAR 2 takes a register of BAR 3 (line 65); prefetchable BARs are 64 bits wide and take two"
        "{ n = 2, size" => "{ n = 5, size": 66 "BAR 5 is the last register, and a prefetchable BAR takes two; use BAR 4 or less"
        "size = \"16MiB\"" => "size = \"24MiB\"": 65 "a BAR of 24 MiB cannot be; sizes are powers of two from 16 bytes on"
        "size = \"16MiB\"" => "size = 8": 65 "a BAR of 8 bytes cannot be; sizes are powers of two from 16 bytes on"
        "size = \"16MiB\"" => "size = 0": 65 "size is zero; give it at least one byte or leave it out"
        "size = \"16MiB\"" => "size = \"4GiB\"":
            65 "a BAR of 4 GiB does not fit one 32-bit register; set `prefetch = true`, which makes it 64 bits wide"
        "\"256MiB\", \"64GiB\"" => "\"512KiB\", \"64GiB\"":
            66 "512 KiB is not a size of a resizable BAR; they are powers of two from 1 MiB on, below 4 GiB where not prefetchable"
        "[\"256MiB\", \"64GiB\"]" => "[\"256MiB\"]": 66 "the BAR's size of 64 GiB is not among its resizable sizes; add it"
        "size = \"16MiB\"" => "size = \"512MiB\"":
            65 "no room for BAR 0 of gpu0 (512 MiB) in hb0's windows below bus address 4 GiB; enlarge one or add one"
        "size = \"1TiB\"" => "size = \"32GiB\"":
            66 "no room for BAR 2 of gpu0 (64 GiB) in hb0's windows with prefetch = true; enlarge one or add one"
    }
}

#[test]
fn room_is_asked_for_everything_below_a_root_port_at_once() {
    let more = "bdf = \"03:00.1\"\nbars = [{ n = 0, size = \"128MiB\" }]";
    let text = edited(BASE, "bdf = \"03:00.1\"", more).replace("size = \"16MiB\"", "size = \"256MiB\"");
    let error = Platform::parse(&text, "f.toml").unwrap_err().to_string();
    let room = "no room for BAR 0 of gpu0 (256 MiB) in hb0's windows below bus address 4 GiB";
    assert_eq!(
        error,
        format!(
            "f.toml:65: {room}; everything below its root port takes 384 MiB in one piece, so enlarge one or add one"
        )
    );
}

#[test]
fn widths_and_payloads() {
    refused! {
        "mps = 256" => "mps = 300": 37 "mps = 300 is not a payload size; it is 128, 256, 512, 1024, 2048 or 4096 bytes"
        "mrrs = 512" => "mrrs = 8192": 69 "mrrs = 8192 is not a payload size; it is 128, 256, 512, 1024, 2048 or 4096 bytes"
        "mask_bits = 32" => "mask_bits = 0": 78 "mask_bits = 0 is out of range; it takes 1 to 0x40"
        "mask_bits = 32" => "mask_bits = 65": 78 "mask_bits = 65 is out of range; it takes 1 to 0x40"
        "mrrs = 512" => "pasid_bits = 21": 69 "pasid_bits = 21 is out of range; it takes 0 to 0x14"
        "mrrs = 512" => "class = 0x1000000": 69 "class = 16777216 is out of range; it takes 0 to 0xffffff"
        "memory = \"64GiB\"" => "memory = 0": 68 "memory is zero; give it at least one byte or leave it out"
    }
}

#[test]
fn drivers_and_modes() {
    refused! {
        "mrrs = 512" => "driver = \"vfio pci\"":
            69 "\"vfio pci\" is not the name of a driver; write it as the link in sysfs reads, such as \"vfio-pci\""
        "mrrs = 512" => "iommu_mode = \"off\"": 69 "\"off\" is not one of the words known here: translated, identity, none"
        "[iommu]\nkind = \"vtd\"\nmode = \"translated\"" => "":
            77 "iommu_mode is stated for a function, but [iommu] is missing; its mode counts for functions that state none"
        "mode = \"translated\"" => "mode = \"none\"":
            79 "iommu_mode = identity needs an IOMMU that is on, but [iommu] has none or one with mode = none"
    }
}

#[test]
fn links_and_port_numbers() {
    refused! {
        "mrrs = 512" => "link = { speed = \"16GT\", width = 4 }":
            69 "\"16GT\" is not the speed of a link; it is 2.5GT/s, 5GT/s, 8GT/s, 16GT/s, 32GT/s or 64GT/s"
        "mrrs = 512" => "link = { speed = \"16GT/s\", width = 3 }":
            69 "link.width = 3 is not the width of a link; it is 1, 2, 4, 8, 12, 16 or 32 lanes"
        "parent = \"dn0\"\nbdf = \"03:00.1\"" => "parent = \"hb0\"\nbdf = \"00:1f.0\"\nlink = { speed = \"5GT/s\", width = 1 }":
            74 "nic0 sits on the root bus of hb0 and has no link; remove the key"
        "bdf = \"02:01.0\"" => "bdf = \"02:01.0\"\nnumber = 0":
            54 "port number 0 is that of dn0 (line 45) too; ports of one parent have numbers of their own"
        "bdf = \"02:00.0\"" => "bdf = \"02:00.0\"\nnumber = 1":
            49 "port number 1 is that of dn1 (line 51) too; ports of one parent have numbers of their own"
        "bdf = \"02:00.0\"" => "bdf = \"02:00.0\"\nnumber = 256": 49 "number = 256 is out of range; it takes 0 to 0xff"
    }
    let below = BASE.replace("mrrs = 512", "link = { speed = \"8GT/s\", width = 16 }");
    let ends = below.replace("bdf = \"02:00.0\"", "bdf = \"02:00.0\"\nlink = { speed = \"16GT/s\", width = 16 }");
    let error = Platform::parse(&ends, "f").unwrap_err().to_string();
    assert_eq!(error, "f:70: this link is 8 GT/s x16, but its other end, dn0 (line 49), says 16 GT/s x16");
    let agreed = ends.replace("16GT/s", "8GT/s");
    Platform::parse(&agreed, "f").unwrap();
}

#[test]
fn conventional_pci_has_no_pci_express_keys() {
    for (key, value) in [
        ("mps", "128"),
        ("mrrs", "128"),
        ("ats", "true"),
        ("pasid_bits", "20"),
        ("tdi", "\"run\""),
        ("relaxed_ordering", "true"),
        ("no_snoop", "false"),
        ("atomics", "{ requester = true }"),
        ("link", "{ speed = \"5GT/s\", width = 1 }"),
        ("acs", "{ cap = 0x5f, ctl = 0 }"),
    ] {
        let error = wrong("mask_bits = 32", &format!("{key} = {value}"));
        let expected = format!("{key} belongs to PCI Express, but below br0 is conventional PCI; remove the key");
        assert_eq!(error, format!("f.toml:78: {expected}"));
    }
    for fine in ["ats = false", "acs = \"none\"", "pasid_bits = 0"] {
        Platform::parse(&edited(BASE, "mask_bits = 32", fine), "f.toml").unwrap();
    }
}

#[test]
fn text_that_is_not_toml() {
    let error = |text: &str| Platform::parse(text, "dir/f.toml").unwrap_err().to_string();
    assert_eq!(error("schema = 1\n[[function]\n"), "dir/f.toml:2: unclosed array table, expected `]`");
    assert_eq!(
        error("schema = 1\r\n\r\nname = x\r\n"),
        "dir/f.toml:3: string values must be quoted, expected literal string"
    );
    assert_eq!(error(""), "dir/f.toml:1: missing field `schema`");
    assert_eq!(error("schema = 1\nschema = 1\n"), "dir/f.toml:2: duplicate key");
}

/// Arrays must not pass for tables, key by key, as serde would have it.
#[test]
fn a_table_cannot_be_written_as_an_array() {
    for array in ["cpu = [\"intel\", 6]", "ram = [[0, 4096]]", "kernel = [\"7.2\", \"quiet\"]"] {
        let error = Platform::parse(&format!("schema = 1\n{array}\n"), "f").unwrap_err().to_string();
        assert_eq!(error, "f:2: invalid type: sequence, expected a table");
    }
    let error = Platform::parse(&edited(EVERY_KEY, "{ n = 5, size = 256 }", "[5, 256]"), "f").unwrap_err().to_string();
    assert!(error.ends_with("invalid type: sequence, expected a table"), "{error}");
}
