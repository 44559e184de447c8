use super::*;
use crate::tree::Node;

/// A function: address, IDs, class, driver, and further files.
type Function<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, &'a [&'a str]);

/// A sysfs of functions.
fn machine(functions: &[Function<'_>]) -> Tree {
    let mut nodes = Vec::new();
    for (device, ids, class, driver, files) in functions {
        let folder = format!("sys/bus/pci/devices/{device}");
        let (vendor, id) = ids.split_once(':').unwrap();
        for (name, text) in
            [("vendor", format!("0x{vendor}")), ("device", format!("0x{id}")), ("class", format!("0x{class}"))]
        {
            nodes.push((format!("{folder}/{name}"), Node::File(text.into_bytes())));
        }
        nodes.push((format!("{folder}/iommu_group"), Node::Link("../../kernel/iommu_groups/7".into())));
        if let Some(driver) = driver {
            nodes.push((format!("{folder}/driver"), Node::Link(format!("../../bus/pci/drivers/{driver}"))));
        }
        nodes.extend(files.iter().map(|file| (format!("{folder}/{file}"), Node::File(b"live".to_vec()))));
    }
    Tree::from_nodes(nodes.into_iter().collect())
}

fn lacks(kind: Kind, tree: &Tree) -> Vec<String> {
    let (from, to) = ("0000:05:00.0".parse().unwrap(), "0000:06:00.0".parse().unwrap());
    kind.lacks(tree, from, to).iter().map(ToString::to_string).collect()
}

const EDU: (&str, &str) = ("1234:11e8", "00ff00");
const DRIVE: (&str, &str) = ("1b36:0010", "010802");
const CARD: (&str, &str) = ("15b3:1021", "020000");

#[test]
fn what_has_all_it_takes_lacks_nothing() {
    let memory = ("0000:06:00.0", "1af4:1110", "050000", Some("vfio-pci"), &[][..]);
    let edu = machine(&[("0000:05:00.0", EDU.0, EDU.1, Some("vfio-pci"), &[]), memory]);
    assert_eq!(lacks(Kind::Edu, &edu), [""; 0]);
    let card =
        machine(&[("0000:05:00.0", CARD.0, CARD.1, Some("mlx5_core"), &["infiniband/mlx5_0/node_type"]), memory]);
    assert_eq!(lacks(Kind::Adapter, &card), [""; 0]);
    let disk: &[&str] = &["nvme/nvme0/state", "nvme/nvme0/nvme0n1/size"];
    let drives = machine(&[
        ("0000:05:00.0", DRIVE.0, DRIVE.1, Some("nvme"), disk),
        ("0000:06:00.0", DRIVE.0, DRIVE.1, Some("nvme"), &["p2pmem/allocate"]),
    ]);
    assert_eq!(lacks(Kind::Drive, &drives), [""; 0]);
}

#[test]
fn another_device_is_named_and_nothing_else_said_of_it() {
    let tree = machine(&[("0000:05:00.0", DRIVE.0, DRIVE.1, None, &[]), ("0000:06:00.0", EDU.0, EDU.1, None, &[])]);
    assert_eq!(lacks(Kind::Edu, &tree), ["0000:05:00.0 is 1b36:0010, not QEMU's edu device (1234:11e8)"]);
    assert_eq!(lacks(Kind::Adapter, &tree), ["0000:05:00.0 is 1b36:0010, not a network adapter (class 02 or 0c06)"]);
}

#[test]
fn drivers_that_are_in_the_way_are_named_with_what_to_do() {
    let tree =
        machine(&[("0000:05:00.0", EDU.0, EDU.1, None, &[]), ("0000:06:00.0", DRIVE.0, DRIVE.1, Some("nvme"), &[])]);
    let said = lacks(Kind::Edu, &tree);
    assert!(said[0].starts_with("0000:05:00.0 is bound to no driver, not to vfio-pci"), "{said:?}");
    assert!(said[1].contains("bound to nvme") && said[1].contains("peerdma vfio bind 0000:06:00.0"), "{said:?}");
    let tree = machine(&[
        ("0000:05:00.0", DRIVE.0, DRIVE.1, Some("vfio-pci"), &[]),
        ("0000:06:00.0", DRIVE.0, DRIVE.1, Some("nvme"), &["p2pmem/size"]),
    ]);
    let said = lacks(Kind::Drive, &tree);
    assert!(said[0].contains("not to nvme, so it has no disk") && said[1].contains("no p2pmem/allocate"), "{said:?}");
    let tree = machine(&[
        ("0000:05:00.0", CARD.0, CARD.1, Some("mlx5_core"), &[]),
        ("0000:06:00.0", EDU.0, EDU.1, Some("vfio-pci"), &[]),
    ]);
    let said = lacks(Kind::Adapter, &tree);
    assert!(said.len() == 1 && said[0].contains("no infiniband") && said[0].contains("mlx5_ib"), "{said:?}");
}

/// Also an address that sysfs does not know at all is answered with words.
#[test]
fn what_sysfs_does_not_tell_is_not_taken_for_another_device() {
    let nothing = Tree::from_nodes(Default::default());
    let said = lacks(Kind::Edu, &nothing);
    assert!(said.len() == 2 && said[0].contains("no PCI function 0000:05:00.0"), "{said:?}");
    assert!(Kind::Drive.check("0000:05:00.0".parse().unwrap(), Some(Edu::ID), None).is_ok());
}
