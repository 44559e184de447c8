//! `peerdma doctor`: six gates, the kernel log, notes and exit codes as users see them.

use crate::machine::{As, Folder, json_of, peerdma, stdout_of, write_tree};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

const FUNCTIONS: [(&str, &str, &str); 3] = [
    ("0000:03:00.0", "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0/0000:03:00.0", "nvme"),
    ("0000:04:00.0", "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:01.0/0000:04:00.0", "vfio-pci"),
    ("0000:05:00.0", "pci0000:00/0000:00:02.0/0000:05:00.0", "nvidia"),
];

/// The copied machine with drivers, an IOMMU group of `kind` for each function, and a
/// kernel configuration that has everything.
fn machine(kind: &str) -> Folder {
    let folder = Folder::new();
    let root = folder.path();
    write_tree(root, As::Root);
    for (number, (_, path, driver)) in FUNCTIONS.iter().enumerate() {
        let device = root.join("sys/devices").join(path);
        symlink(format!("../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
        symlink(format!("../../kernel/iommu_groups/{number}"), device.join("iommu_group")).unwrap();
        fs::write(device.join("dma_mask_bits"), "64\n").unwrap();
        let group = root.join(format!("sys/kernel/iommu_groups/{number}"));
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("type"), format!("{kind}\n")).unwrap();
        fs::write(group.join("reserved_regions"), "0x00000000fee00000 0x00000000feefffff msi\n").unwrap();
    }
    write(root, "proc/config", "CONFIG_PCI_P2PDMA=y\nCONFIG_IOMMUFD=m\n# end of Kernel hacking\n");
    write(root, "proc/cmdline", "quiet iommu=pt\n");
    folder
}

fn write(root: &Path, name: &str, text: &str) {
    fs::write(root.join(name), text).unwrap();
}

/// The worst status of each gate, in the gates' order.
fn gates(document: &Value) -> Vec<(String, String)> {
    let mut worst: Vec<(String, String)> = Vec::new();
    for check in document["gates"].as_array().unwrap() {
        let [gate, status] = ["gate", "status"].map(|key| check[key].as_str().unwrap().to_string());
        let rank = |status: &str| ["OK", "UNKNOWN", "FAIL"].iter().position(|word| *word == status);
        match worst.last_mut().filter(|(last, _)| *last == gate) {
            Some((_, known)) if rank(known) < rank(&status) => *known = status,
            Some(_) => {}
            None => worst.push((gate, status)),
        }
    }
    worst
}

fn doctor(folder: &Folder, arguments: &[&str], code: i32) -> Value {
    let from = folder.join("");
    let all: Vec<&str> = ["doctor", "--json", "--from", &from].iter().chain(arguments).copied().collect();
    json_of(&all, code)
}

#[test]
fn six_gates_are_asked_in_order_and_every_line_starts_with_its_status() {
    let folder = machine("identity");
    let document = doctor(&folder, &["mlx5_0", "nvme0"], 3);
    let expected =
        [("kernel", "OK"), ("bars", "OK"), ("route", "OK"), ("iommu", "OK"), ("direction", "OK"), ("grant", "UNKNOWN")]
            .map(|(gate, status)| (gate.to_string(), status.to_string()));
    assert_eq!(gates(&document), expected, "{document:#}");
    let text = stdout_of(&["doctor", "--from", &folder.join(""), "mlx5_0", "nvme0"], 3);
    for line in text.lines() {
        let start = line.split('\t').next().unwrap();
        assert!(["OK", "FAIL", "UNKNOWN", "NOTE", "LOG"].contains(&start), "{line}");
    }
    assert!(text.contains("OK\tkernel\tCONFIG_PCI_P2PDMA\ty"), "{text}");
}

#[test]
fn a_machine_as_a_whole_is_asked_without_names() {
    let folder = machine("identity");
    let document = doctor(&folder, &[], 0);
    assert!(gates(&document).iter().all(|(_, status)| status == "OK"), "{document:#}");
    let route = document["gates"].as_array().unwrap().iter().find(|check| check["gate"] == "route").unwrap();
    // 8086:09a2 is listed, so the GPU is reached through the host bridge; so is everything from
    // mlx5_0, which VFIO owns.
    assert_eq!(route["evidence"], "1 direct, 5 host_bridge, 0 refused, 0 unknown");
    assert_eq!(route["object"], "6 pairs");
}

#[test]
fn a_refused_pair_fails_at_the_route_with_the_reason_and_the_fix() {
    let document = json_of(&["doctor", "--json", "--platform", "client", "gpu0", "nvme0"], 1);
    let route = document["gates"].as_array().unwrap().iter().find(|check| check["gate"] == "route").unwrap();
    assert_eq!(route["status"], "FAIL");
    assert!(route["evidence"].as_str().unwrap().contains("8086:4c43"), "{route}");
    // What people saw on that very root complex stands beside it.
    let direction = document["gates"].as_array().unwrap().iter().find(|check| check["gate"] == "direction").unwrap();
    assert_eq!(direction["status"], "FAIL");
    assert!(direction["evidence"].as_str().unwrap().contains("compute-runtime#935"), "{direction}");
}

#[test]
fn options_and_lists_of_the_kernel_that_fail_are_named() {
    let folder = machine("identity");
    write(folder.path(), "proc/config", "# CONFIG_PCI_P2PDMA is not set\nCONFIG_IOMMUFD=y\n# end of Kernel hacking\n");
    let document = doctor(&folder, &["nvme0", "card1"], 1);
    assert_eq!(document["gates"][0]["status"], "FAIL");
    let folder = machine("identity");
    write(folder.path(), "proc/cmdline", "pci=disable_acs_redir=0000:02:00.0,0000:02:01.0\n");
    let document = doctor(&folder, &["nvme0", "card1"], 1);
    let line = document["gates"].as_array().unwrap().iter().find(|check| check["object"] == "command line").unwrap();
    assert_eq!(line["status"], "FAIL");
    assert!(line["next"].as_str().unwrap().contains("0000:02:00.0;0000:02:01.0"), "{line}");
}

#[test]
fn what_a_user_cannot_read_is_unknown_and_no_failure() {
    let folder = Folder::new();
    write_tree(folder.path(), As::User);
    let document = doctor(&folder, &["nvme0", "mlx5_0"], 3);
    assert!(gates(&document).iter().all(|(_, status)| status != "FAIL"), "{document:#}");
    assert_eq!(document["gates"][0]["status"], "UNKNOWN", "no configuration lies beside that copy");
}

/// NVIDIA/open-gpu-kernel-modules#1324: raw BAR addresses under a translating IOMMU.
#[test]
fn a_fault_at_a_peer_s_bar_is_the_wrong_kind_of_address() {
    let folder = machine("DMA");
    write(
        folder.path(),
        "dmesg",
        "[    1.0] DMAR: DRHD: handling fault status reg 2
[    1.0] DMAR: [DMA Write NO_PASID] Request device [0000:03:00.0] fault addr 0x5000001000 [fault reason 0x05] PTE Write access is not set
[    1.1] DMAR: [DMA Write NO_PASID] Request device [0000:03:00.0] fault addr 0x5000002000 [fault reason 0x05] PTE Write access is not set
[    1.2] DMAR: [DMA Read NO_PASID] Request device [0000:00:1f.0] fault addr 0x1000 [fault reason 0x06] PTE Read access is not set
",
    );
    let log = folder.join("dmesg");
    let document = doctor(&folder, &["nvme0", "card1", "--log", &log], 1);
    let event = &document["events"][0];
    assert_eq!(event["kind"], "iommu_fault");
    assert_eq!((&event["device"], &event["owner"]), (&json!("0000:03:00.0"), &json!("0000:05:00.0")));
    assert_eq!((&event["address_kind"], &event["count"]), (&json!("bus_and_cpu_physical"), &json!(2)));
    assert!(event["meaning"].as_str().unwrap().contains("0000:05:00.0 bar2"), "{event}");
    let told: Vec<&Value> = document["gates"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["gate"] == "iommu" && check["evidence"].as_str().unwrap().starts_with("the kernel log"))
        .collect();
    assert_eq!(told.len(), 1, "the other fault is of no device of this pair: {told:?}");
    assert_eq!(told[0]["status"], "FAIL");
    let text = stdout_of(&["doctor", "--from", &folder.join(""), "--log", &log], 1);
    assert!(
        text.lines().any(|line| line.starts_with("LOG\tiommu_fault\t0000:03:00.0\t") && line.contains("(2 times)")),
        "{text}"
    );
    // Whoever owns a device through VFIO chooses its IOVAs, a peer's numbers among them.
    write(
        folder.path(),
        "dmesg",
        "DMAR: [DMA Write NO_PASID] Request device [0000:04:00.0] fault addr 0x5000001000 [fault reason 0x05] PTE Write access is not set\n",
    );
    let document = doctor(&folder, &["mlx5_0", "card1", "--log", &log], 3);
    assert!(gates(&document).contains(&("iommu".to_string(), "UNKNOWN".to_string())), "{document:#}");
    assert!(document["events"][0]["meaning"].as_str().unwrap().contains("its owner chose"));
}

/// What the log tells of other requests and other routes is shown, and shuts no gate.
#[test]
fn a_root_complex_that_is_not_listed_and_an_error_of_no_peer_are_no_failure_below_a_switch() {
    let folder = machine("identity");
    write(
        folder.path(),
        "dmesg",
        "pci 0000:00:00.0: Host bridge not in P2PDMA whitelist: 8086:4c43
nvme 0000:03:00.0: PCIe Bus Error: severity=Uncorrectable (Non-Fatal), type=Transaction Layer, (Requester ID)
nvme 0000:03:00.0:    [20] UnsupReq               (First)
",
    );
    let log = folder.join("dmesg");
    let of = |arguments: &[&str], code| gates(&doctor(&folder, arguments, code));
    let has =
        |gates: &[(String, String)], gate: &str, status: &str| gates.contains(&(gate.to_string(), status.to_string()));
    let direct = of(&["nvme0", "mlx5_0", "--log", &log], 3);
    assert!(has(&direct, "route", "OK") && has(&direct, "direction", "UNKNOWN"), "{direct:?}");
    let through_the_root = of(&["nvme0", "card1", "--log", &log], 1);
    assert!(has(&through_the_root, "route", "FAIL"), "{through_the_root:?}");
}

#[test]
fn refusals_errors_and_parameters_of_the_log_are_laid_to_their_gates() {
    let folder = machine("identity");
    write(
        folder.path(),
        "dmesg",
        "[ 0.1] PCI: Unknown option `noacs'
[ 9.0] nvme 0000:03:00.0: ACS redirect is set between the client and provider (0000:04:00.0)
[ 9.0] nvme 0000:03:00.0: cannot be used for peer-to-peer DMA as the client and provider (0000:04:00.0) do not share an upstream bridge or whitelisted host bridge
[ 9.1] pcieport 0000:02:00.0: PCIe Bus Error: severity=Uncorrectable (Non-Fatal), type=Transaction Layer, (Requester ID)
[ 9.1] pcieport 0000:02:00.0:    [21] ACSViol                (First)
[ 9.1] pcieport 0000:02:00.0:   TLP Header: 60000001 0300000f 00000041 00001000
",
    );
    let document = doctor(&folder, &["nvme0", "mlx5_0", "--log", &folder.join("dmesg")], 1);
    let expected = [("kernel", "FAIL"), ("route", "FAIL"), ("direction", "FAIL")];
    for (gate, status) in expected {
        assert!(gates(&document).contains(&(gate.to_string(), status.to_string())), "{gate}: {document:#}");
    }
    let aer = document["events"].as_array().unwrap().iter().find(|event| event["kind"] == "aer").unwrap();
    assert_eq!((&aer["address"], &aer["owner"]), (&json!("0x4100001000"), &json!("0000:04:00.0")));
    assert!(aer["meaning"].as_str().unwrap().contains("sent by 0000:03:00.0"), "{aer}");
    // Of another pair only what concerns the whole machine remains.
    let other = doctor(&folder, &["card1", "mlx5_0", "--log", &folder.join("dmesg")], 1);
    assert!(!gates(&other).contains(&("direction".to_string(), "FAIL".to_string())), "{other:#}");
}

#[test]
fn a_confidential_guest_is_said_and_its_host_bridge_mappings_fail() {
    let folder = machine("identity");
    write(
        folder.path(),
        "proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nflags\t\t: fpu hypervisor tdx_guest\n",
    );
    let document = doctor(&folder, &["nvme0", "card1"], 1);
    let notes = document["notes"].as_array().unwrap();
    assert!(notes[0].as_str().unwrap().contains("confidential"), "{notes:?}");
    assert!(gates(&document).contains(&("iommu".to_string(), "FAIL".to_string())));
    // The kernel log tells it too, where cpuinfo was not copied.
    let folder = machine("identity");
    write(folder.path(), "dmesg", "Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP\n");
    let document = doctor(&folder, &["nvme0", "card1", "--log", &folder.join("dmesg")], 1);
    assert!(document["notes"][0].as_str().unwrap().contains("confidential"));
}

#[test]
fn a_virtual_machine_s_topology_is_no_evidence() {
    let folder = machine("identity");
    write(
        folder.path(),
        "proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nflags\t\t: fpu hypervisor\n",
    );
    let document = doctor(&folder, &["nvme0", "mlx5_0"], 3);
    assert!(document["notes"][0].as_str().unwrap().contains("on the host"));
    assert!(gates(&document).contains(&("route".to_string(), "UNKNOWN".to_string())));
    // A capture carries what was read.
    let capture = folder.join("capture");
    stdout_of(&["capture", "-o", &capture, "--sysfs-root", &folder.join("")], 0);
    let again = json_of(&["doctor", "--json", "--from", &capture, "nvme0", "mlx5_0"], 3);
    assert_eq!((&again["gates"], &again["notes"]), (&document["gates"], &document["notes"]));
}

#[test]
fn windows_of_the_log_tell_bus_and_cpu_addresses_apart() {
    let folder = machine("DMA");
    write(
        folder.path(),
        "dmesg",
        "pci_bus 0000:00: root bus resource [mem 0x4000000000-0x5fffffffff window] (bus address [0x1000000000-0x2fffffffff])
DMAR: [DMA Write NO_PASID] Request device [0000:03:00.0] fault addr 0x5000001000 [fault reason 0x05] PTE Write access is not set
",
    );
    let document = doctor(&folder, &["--log", &folder.join("dmesg")], 1);
    assert_eq!(document["events"][0]["owner"], "0000:05:00.0");
    assert_eq!(document["events"].as_array().unwrap().len(), 1, "windows are facts and no events");
}

#[test]
fn usage_and_unreadable_logs_are_told_apart() {
    let folder = machine("identity");
    let from = folder.join("");
    assert_eq!(peerdma(&["doctor", "nvme0", "--from", &from]).status.code(), Some(2));
    assert_eq!(peerdma(&["doctor", "nvme0", "nothing", "--from", &from]).status.code(), Some(2));
    let missing = peerdma(&["doctor", "--from", &from, "--log", &folder.join("missing")]);
    assert_eq!(missing.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("missing"));
    // Noise is a log that tells nothing.
    fs::write(folder.path().join("noise"), b"\xff\xfe\x00[[[<<<\n\x1b[31m").unwrap();
    assert_eq!(doctor(&folder, &["--log", &folder.join("noise")], 0)["events"], json!([]));
    let live = peerdma(&["doctor"]);
    assert!(matches!(live.status.code(), Some(0 | 1 | 3)), "{live:?}");
    assert_eq!(json_of(&["doctor", "--schema"], 0)["title"], "DoctorDocument");
}
